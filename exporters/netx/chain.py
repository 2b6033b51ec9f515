"""Read a Program as a chain for Loihi: synapses with neurons, and a readout on the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from stl_deploy._util.reachable import reachable
from stl_deploy._util.remedies import remedy
from stl_deploy.errors import UnsupportedError
from stl_deploy.graph import program as ir
from stl_deploy.graph.program import is_spike_max_pool
from stl_deploy.integers import by_fold
from stl_deploy.integers.fan_in import ELSEWHERE, reads_input, sent_elsewhere, weightless
from stl_deploy.integers.fields import SEVERAL_ENDS, refusal, refuse
from stl_deploy.integers.lava_layers import READ, check_fields, check_kind, neuron_refusals
from stl_deploy.passes import merge_pools

_FOLDED = ("no-neuron", "no-synapse", "scale", "host-readout")
"""Refusals of which fold may take some away."""
_PLAIN = "netx, the format for Loihi, holds plain chains and no residual networks: train one without skips" + ELSEWHERE


def _merge_pools() -> str:
    return remedy(cli="stl-deploy fold NET.nir --merge-pools -o MERGED.nir", python="net.fold(merge_pools=True)")


@dataclass(frozen=True, eq=False)
class SynapseStage:
    """A dense or conv layer with its neurons."""

    synapse: ir.Linear | ir.Conv
    neuron: ir.Neuron


@dataclass(frozen=True, eq=False)
class PoolStage:
    """Max pooling of spikes: a sum pool and a memoryless threshold."""

    pool: ir.Pool
    neuron: ir.Neuron


@dataclass(frozen=True, eq=False)
class FlattenStage:
    """(C, H, W) to one axis."""

    reshape: ir.Reshape


Stage = SynapseStage | PoolStage | FlattenStage


@dataclass(frozen=True, eq=False)
class Chain:
    """layers: on Loihi; readout: the memoryless nodes after the last spikes (voting), run in float32 on the host."""

    input: ir.Input
    layers: tuple[Stage, ...]
    readout: tuple[ir.Node, ...]


def read_chain(program: ir.Program) -> Chain:
    """Read a Program as a chain; raise UnsupportedError, the first of `refusals`, if netx cannot hold it."""
    for error in refusals(program):
        raise error
    entry = program.inputs[0]
    nodes: list[ir.Node] = [entry]
    while following := program.readers[nodes[-1].name]:
        nodes.append(following[0])
    # The chain goes on behind the last spikes: what follows them is the host's readout.
    last = max(i for i, node in enumerate(nodes) if isinstance(node, ir.Neuron))
    layers: list[Stage] = []
    for before, node in pairwise(nodes[: last + 1]):
        if isinstance(node, ir.Neuron):
            layers.append(_stage(before, node))
        elif isinstance(node, ir.Reshape) and node.shape != node.input_shape:
            layers.append(FlattenStage(node))
    return Chain(entry, tuple(layers), tuple(nodes[last + 1 : -1]))


def _stage(before: ir.Node, neuron: ir.Neuron) -> Stage:
    if isinstance(before, ir.Pool):
        return PoolStage(before, neuron)
    assert isinstance(before, ir.Linear | ir.Conv)
    return SynapseStage(before, neuron)


def _without_neuron(program: ir.Program, before: ir.Node, node: ir.Node) -> UnsupportedError:
    merge = "merge the two into one layer, W₂·W₁"
    if isinstance(before, ir.Conv) and isinstance(node, ir.Pool):
        merge = f"compose the two into one strided convolution{_merging(program)}"
    if isinstance(before, ir.Pool):
        merge = f"put it into the weights behind it{_merging(program)}"
    if reads_input(program, before):
        merge = f"apply it to x before capture, {merge}"
    reason = f"its output goes to '{node.name}' without a neuron between"
    return refusal(before, "no-neuron", reason, f"{merge}, or put a spiking neuron between them")


def _merging(program: ir.Program) -> str:
    """Return the call that merges pools, if it merges all of them; else nothing."""
    try:
        merge_pools.PASS.run(program)
    except UnsupportedError:
        return ""
    return f" ({_merge_pools()})"


def _host_refusal(program: ir.Program, node: ir.Node) -> UnsupportedError:
    """Refuse what the host does not compute behind the last spikes."""
    behind = program.readers[node.name]
    while len(behind) == 1 and isinstance(behind[0], ir.Reshape):
        behind = program.readers[behind[0].name]
    mergeable = isinstance(node, ir.Pool) and all(isinstance(reader, ir.Linear) for reader in behind)
    instead = f"put it into the weights behind it ({_merge_pools()})" if mergeable else "end in one Linear readout"
    return refusal(node, "host-readout", f"a {type(node).__name__} follows the last spikes", instead)


def refusals(program: ir.Program) -> list[UnsupportedError]:
    """Return everything that keeps a Program off netx, node by node; empty if `read_chain` reads it."""
    on_chip = _before_neurons(program)
    links = [error for node in program.nodes for error in _link_refusals(program, node)]
    errors = [*links]
    for node in program.nodes:
        if node.name in on_chip:
            errors += _own_refusals(program, node)
            errors += _place_refusals(program, node)
        elif not isinstance(node, ir.Input | ir.Linear | ir.Reshape | ir.Output):
            errors.append(_host_refusal(program, node))
    # A graph that branches has several ends for that alone; a sum of inputs is no skip.
    if len(program.inputs) > 1 or (len(program.outputs) > 1 and not links):
        errors.insert(0, refusal((*program.inputs, *program.outputs)[-1], *SEVERAL_ENDS))
    elif not on_chip and not links:
        reason = "there is no spiking neuron behind it"
        errors.insert(0, refusal(program.inputs[0], "no-neurons", reason, "Loihi runs spiking networks only"))
    return errors


def with_fold(program: ir.Program, errors: list[UnsupportedError]) -> list[UnsupportedError]:
    """Return the refusals with fold as the remedy of those that it takes away, and of no other.

    A network that no integers hold is sent to ONNX alone.
    """
    return sent_elsewhere(program, by_fold.with_fold(program, errors, refusals, _FOLDED))


def _own_refusals(program: ir.Program, node: ir.Node) -> Iterator[UnsupportedError]:
    """Yield refusals of a node that do not depend on the chain."""
    if isinstance(node, ir.Input):
        return
    behind = program.by_name[node.operands[0].node]
    if isinstance(node, ir.Neuron) and not isinstance(behind, ir.Pool):
        yield from neuron_refusals(node)
        if (error := weightless(program, node)) is not None:
            yield error
        return
    try:
        if isinstance(node, ir.Neuron):
            assert isinstance(behind, ir.Pool)
            _check_pool(program, behind, node)
        else:
            check_kind(node)
    except UnsupportedError as error:
        yield error


def _before_neurons(program: ir.Program) -> set[str]:
    """The nodes that a neuron lies behind, and the neurons: what must run on Loihi."""
    neurons = (node.name for node in program.of(ir.Neuron))
    return {*reachable(neurons, lambda name: (source.node for source in program.by_name[name].operands))}


def _place_refusals(program: ir.Program, node: ir.Node) -> Iterator[UnsupportedError]:
    """Yield refusals of a node for its neighbours."""
    for source in node.operands:
        before = program.by_name[source.node]
        is_first = program.readers[before.name][0] is node
        if isinstance(node, ir.Neuron | ir.MaxPool):
            # Several inputs of a neuron are refused as a skip, and one of the step before as a loop.
            alone = isinstance(node, ir.Neuron) and len(node.operands) == 1 and not source.delay
            if alone and not isinstance(before, ir.Linear | ir.Conv | ir.Pool | ir.MaxPool):
                reason = "one of its inputs comes without a Linear or Conv before it"
                yield refusal(node, "no-synapse", reason, "put a synapse with identity weights on that path")
        elif is_first and isinstance(before, ir.Linear | ir.Conv | ir.Pool):
            yield _without_neuron(program, before, node)
    if isinstance(node, ir.Reshape) and node.shape != node.input_shape and len(node.shape) != 1:
        shapes = f"{list(node.input_shape)} to {list(node.shape)}"
        yield refusal(node, "reshape", shapes, "netx only flattens to one axis")


def _link_refusals(program: ir.Program, node: ir.Node) -> Iterator[UnsupportedError]:
    """A chain has one source and one reader for each node."""
    if any(source.delay for source in node.operands):
        remedy = "netx 0.6 runs feed-forward networks; remove the recurrence"
        yield refusal(node, "recurrent", "it closes a loop", remedy)
    elif len(node.operands) > 1:
        yield refusal(node, "skip-connection", f"it adds up {len(node.operands)} sources", _PLAIN)
    if len(program.readers[node.name]) > 1:
        readers = ", ".join(f"'{reader.name}'" for reader in program.readers[node.name])
        yield refusal(node, "skip-connection", f"it is read by {readers}", _PLAIN)


def _check_pool(program: ir.Program, before: ir.Pool, neuron: ir.Neuron) -> None:
    if not is_spike_max_pool(program, neuron):
        refuse(
            before,
            "graded-pool",
            "its sums are not binary spikes",
            "use max pooling of spikes (sum pool and a threshold below 1) or a strided convolution, or merge average "
            "pools into the weights behind them: " + _merge_pools(),
        )
    check_fields(neuron, (*READ, "reset", "v_reset", "v_start"))
    if any(low != high for low, high in before.padding):
        refuse(before, "asymmetric-padding", f"padding {before.padding}", "netx pads both sides alike")
