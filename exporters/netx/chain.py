"""Read a Program as a chain for Loihi: synapses with neurons, and a readout on the host."""

from __future__ import annotations

from dataclasses import dataclass

from stl_deploy.errors import UnsupportedError
from stl_deploy.graph.program import (
    Conv,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Pool,
    Program,
    Reshape,
    is_max_pool,
)
from stl_deploy.integers.lava_layers import READ, check_fields, check_kind, check_neuron
from stl_deploy.integers.scales import refuse

_MERGE_POOLS = "stl-deploy fold NET.nir --merge-pools -o MERGED.nir; in Python net.fold(merge_pools=True)"


@dataclass(frozen=True, eq=False)
class SynapseStage:
    """A dense or conv layer with its neurons."""

    synapse: Linear | Conv
    neuron: Neuron


@dataclass(frozen=True, eq=False)
class PoolStage:
    """Max pooling of spikes: a sum pool and a memoryless threshold."""

    pool: Pool
    neuron: Neuron


@dataclass(frozen=True, eq=False)
class FlattenStage:
    """(C, H, W) to one axis."""

    reshape: Reshape


Stage = SynapseStage | PoolStage | FlattenStage


@dataclass(frozen=True, eq=False)
class Chain:
    """layers: on Loihi; readout: the memoryless nodes after the last spikes (voting), run in float32 on the host."""

    input: Input
    layers: tuple[Stage, ...]
    readout: tuple[Node, ...]


def read_chain(program: Program) -> Chain:
    """Read a Program as a chain; raise UnsupportedError (node, slug, reason, remedy) for unsupported parts."""
    nodes = _chain(program)
    last = max((i for i, node in enumerate(nodes) if isinstance(node, Neuron)), default=0)
    if last == 0:
        refuse(nodes[0], "no-neurons", "there is no spiking neuron behind it", "Loihi runs spiking networks only")
    layers: list[Stage] = []
    waiting: Node | None = None
    for node in nodes[1 : last + 1]:
        if isinstance(node, Neuron):
            layers.append(_with_neuron(program, waiting, node))
            waiting = None
            continue
        check_kind(node)
        if waiting is not None:
            merge = "merge the two into one layer, W₂·W₁"
            if isinstance(waiting, Conv) and isinstance(node, Pool):
                merge = f"compose the two into one strided convolution ({_MERGE_POOLS})"
            if isinstance(waiting, Pool):
                merge = f"put it into the weights behind it ({_MERGE_POOLS})"
            refuse(
                waiting,
                "no-neuron",
                f"its output goes to '{node.name}' without a neuron between",
                f"{merge}, or put a spiking neuron between them",
            )
        if isinstance(node, Reshape):
            layers.extend(_flatten(node))
        else:
            waiting = node
    readout = tuple(nodes[last + 1 : -1])
    for node in readout:
        if not isinstance(node, Linear | Reshape):
            refuse(
                node, "host-readout", f"a {type(node).__name__} follows the last spikes", "end in one Linear readout"
            )
    entry = nodes[0]
    assert isinstance(entry, Input)
    return Chain(entry, tuple(layers), readout)


def refusals(program: Program) -> list[UnsupportedError]:
    """Return everything that keeps a Program off netx, node by node; empty if `read_chain` reads it."""
    found: list[UnsupportedError] = []
    for node in program.nodes:
        for check in (_check_links, _check_alone):
            try:
                check(program, node)
            except UnsupportedError as error:
                found.append(error)
    try:
        read_chain(program)
    except UnsupportedError as error:
        if (error.node, error.slug) not in {(known.node, known.slug) for known in found}:
            found.append(error)
    return found


def _check_alone(program: Program, node: Node) -> None:
    """Check a node without the whole chain."""
    if isinstance(node, Input | Output):
        return
    if isinstance(node, Neuron):
        behind = program.by_name[node.sources[0].node]
        if isinstance(behind, Pool):
            _check_pool(program, behind, node)
        else:
            check_neuron(node)
    else:
        check_kind(node)


def _chain(program: Program) -> list[Node]:
    """Return the nodes from the only input to the only output, each with one source and one reader."""
    for node in program.nodes:
        _check_links(program, node)
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        extra = (*program.inputs, *program.outputs)[-1]
        refuse(extra, "several-ends", "the graph has several inputs or outputs", "export one input and one output")
    nodes: list[Node] = [program.inputs[0]]
    while following := program.readers[nodes[-1].name]:
        nodes.append(following[0])
    return nodes


def _check_links(program: Program, node: Node) -> None:
    if any(source.delay for source in node.sources):
        refuse(node, "recurrent", "it closes a loop", "netx 0.6 runs feed-forward networks; remove the recurrence")
    if len(node.sources) > 1:
        refuse(
            node,
            "skip-connection",
            f"it adds up {len(node.sources)} sources",
            "netx has no skip connections (its concat is not implemented); use a plain chain",
        )
    if len(program.readers[node.name]) > 1:
        readers = ", ".join(f"'{reader.name}'" for reader in program.readers[node.name])
        refuse(node, "skip-connection", f"it is read by {readers}", "netx holds plain chains; give it one reader")


def _flatten(node: Reshape) -> list[Stage]:
    if node.shape == node.input_shape:
        return []
    if len(node.shape) != 1:
        refuse(node, "reshape", f"{list(node.input_shape)} to {list(node.shape)}", "netx only flattens to one axis")
    return [FlattenStage(node)]


def _with_neuron(program: Program, before: Node | None, neuron: Neuron) -> Stage:
    if isinstance(before, Pool):
        _check_pool(program, before, neuron)
        return PoolStage(before, neuron)
    if not isinstance(before, Linear | Conv):
        refuse(neuron, "no-synapse", "no Linear or Conv feeds it", "put a synapse with identity weights before it")
    check_neuron(neuron)
    return SynapseStage(before, neuron)


def _check_pool(program: Program, before: Pool, neuron: Neuron) -> None:
    if not is_max_pool(program, neuron):
        refuse(
            before,
            "graded-pool",
            "its sums are not binary spikes",
            "use max pooling of spikes (sum pool and a threshold below 1) or a strided convolution, or merge average "
            "pools into the weights behind them: " + _MERGE_POOLS,
        )
    check_fields(neuron, (*READ, "reset", "v_reset", "v_start"))
    if any(low != high for low, high in before.padding):
        refuse(before, "asymmetric-padding", f"padding {before.padding}", "netx pads both sides alike")
