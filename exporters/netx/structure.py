"""Which Programs Loihi's integers can hold: a chain of synapses with neurons, and what the host computes after it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from stl_deploy.errors import UnsupportedError
from stl_deploy.graph.program import (
    Conv,
    Delay,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Pool,
    Program,
    Reshape,
    Scale,
    is_max_pool,
)
from stl_deploy.integers.fields import said, unread
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
class Structure:
    """stages: what runs on Loihi; host: the memoryless nodes after the last spikes (voting), run in float32."""

    input: Input
    stages: tuple[Stage, ...]
    host: tuple[Node, ...]


def structure(program: Program) -> Structure:
    """Read a Program as a chain; raises UnsupportedError (node, slug, reason, remedy) for what netx cannot hold."""
    nodes = _chain(program)
    last = max((i for i, node in enumerate(nodes) if isinstance(node, Neuron)), default=0)
    if last == 0:
        refuse(nodes[0], "no-neurons", "there is no spiking neuron behind it", "Loihi runs spiking networks only")
    stages: list[Stage] = []
    waiting: Node | None = None
    for node in nodes[1 : last + 1]:
        if isinstance(node, Neuron):
            stages.append(_with_neuron(program, waiting, node))
            waiting = None
            continue
        check_kind(node)
        if waiting is not None:
            merge = "merge the two"
            if isinstance(waiting, Pool):
                merge = f"put it into the weights behind it ({_MERGE_POOLS})"
            refuse(
                waiting,
                "no-neuron",
                f"its output goes to '{node.name}' without a neuron between",
                f"{merge}, or put a spiking neuron between them",
            )
        if isinstance(node, Reshape):
            stages.extend(_flatten(node))
        else:
            waiting = node
    host = tuple(nodes[last + 1 : -1])
    for node in host:
        if not isinstance(node, Linear | Reshape):
            refuse(
                node, "host-readout", f"a {type(node).__name__} follows the last spikes", "end in one Linear readout"
            )
    entry = nodes[0]
    assert isinstance(entry, Input)
    return Structure(entry, tuple(stages), host)


def refusals(program: Program) -> list[UnsupportedError]:
    """Everything that keeps a Program off netx, node by node; empty if `structure` reads it."""
    found: list[UnsupportedError] = []
    for node in program.nodes:
        for check in (_check_links, _check_alone):
            try:
                check(program, node)
            except UnsupportedError as error:
                found.append(error)
    try:
        structure(program)
    except UnsupportedError as error:
        if (error.node, error.slug) not in {(known.node, known.slug) for known in found}:
            found.append(error)
    return found


def _check_alone(program: Program, node: Node) -> None:
    """What can be said of a node without the whole chain."""
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
    """The nodes from the only input to the only output, each with one source and one reader."""
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


def check_kind(node: Node) -> None:
    """Raise UnsupportedError for a node that no layer of netx is."""
    if isinstance(node, Scale):
        refuse(node, "scale", "Loihi's layers have no scale of their own", "fold it into the weights before it")
    if isinstance(node, Delay):
        refuse(
            node, "delay", "a delay node has no layer in netx", "remove it, or fold it into the dense layer after it"
        )
    if isinstance(node, Conv):
        if len(node.input_shape) != 3:
            refuse(node, "conv1d", "netx's convolution is over two axes", "give the input a height of 1")
        if any(before != after for before, after in node.padding):
            refuse(node, "asymmetric-padding", f"padding {node.padding}", "netx pads both sides alike; pad the input")
    elif isinstance(node, Linear) and len(node.input_shape) != 1:
        refuse(node, "linear-over-axes", f"its input is {list(node.input_shape)}", "flatten before a Linear")


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
    _check_fields(neuron, (*_READ, "reset", "v_reset", "v_start"))
    if any(low != high for low, high in before.padding):
        refuse(before, "asymmetric-padding", f"padding {before.padding}", "netx pads both sides alike")


def check_neuron(neuron: Neuron) -> None:
    """Raise UnsupportedError for neurons that netx's are not."""
    theta = neuron.threshold
    if theta is None:
        refuse(neuron, "no-threshold", "it puts out its potential", "Loihi passes spikes on; give it a threshold")
    if (theta <= 0).any():
        refuse(neuron, "threshold-not-positive", "its threshold is not above 0", "train with positive thresholds")
    _check_fields(neuron, _READ)
    decay = neuron.decay
    if decay is not None and ((decay != decay.flat[0]).any() or not 0 <= float(decay.flat[0]) <= 1):
        refuse(neuron, "decay", "its decay differs between neurons or is outside 0 to 1", "use one decay per layer")


_READ = ("decay", "threshold", "gain", "offset", "compare")
_REMEDIES = {
    "many": "use one spike per step",
    "v_reset": "Loihi starts and resets at 0",
    "v_start": "Loihi starts and resets at 0",
    "v_min": "train without v_min",
    "synapse": "use a LIF without synaptic current",
}


def _check_fields(neuron: Neuron, read: Collection[str]) -> None:
    """Refuse a neuron that has anything that netx's neurons have not."""
    for name in unread(neuron, read):
        if name == "reset" and neuron.reset == "value_delayed":
            refuse(neuron, "delayed-reset", "it resets one step late", "Loihi resets at once; train with such a reset")
        if name == "reset":
            refuse(neuron, "soft-reset", f"its reset is '{neuron.reset}'", "Loihi resets to 0; train with hard reset")
        refuse(neuron, *said(name), _REMEDIES.get(name, "use a neuron without it"))
