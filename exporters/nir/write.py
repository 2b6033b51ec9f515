"""Write a Program as a NIR graph with its dialect, so that it reads back as the same nodes.

Time constants are written in float64, in which every float32 decay and gain has ones that give it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, Literal, NamedTuple

import nir
import numpy as np

from stl_deploy import __version__
from stl_deploy.errors import CaptureError, GraphError
from stl_deploy.exporters.nir.dialect import Dialect, Loop, SpikesPerStep
from stl_deploy.exporters.nir.lower import METADATA_KEY, lower
from stl_deploy.graph import program as ir
from stl_deploy.graph.check import NIR_NODES, require_taken
from stl_deploy.graph.program import DT, Doubles, Floats
from stl_deploy.graph.segments import ordered
from stl_deploy.passes.base import full, leak_end
from stl_deploy.passes.permutations import flattens
from stl_deploy.passes.representable_decays import exponential_tau, time_constants


class Written(NamedTuple):
    """A NIR graph, its dialect, and the Program that they read back as.

    how: ``new``: the Program was read from no graph; ``as read``: the graph that it was read from; ``patched``: that
    graph with other values in its nodes, or without some nodes; ``restated``: written anew, because that graph's nodes
    cannot hold the changes.
    """

    graph: nir.NIRGraph
    dialect: Dialect
    program: ir.Program
    how: Literal["new", "as read", "patched", "restated"] = "new"


def write_anew(program: ir.Program) -> Written:
    """Return the canonical NIR graph of a Program, and its reading: the same nodes, in the file's order.

    Raises UnsupportedError for a node that NIR has none for, CaptureError for a number or an edge that it cannot hold.
    """
    require_taken(program, NIR_NODES, "nir")
    meant = program.nodes
    dialect = _dialect(meant)
    attempts: list[tuple[tuple[ir.Node, ...], Loop]] = [(meant, "closing_edge")]
    if any(source.delay for node in meant for source in node.operands):
        attempts += [(ordered(late_behind(meant)), "closing_edge"), (meant, "neuron_output")]
    for form, loop in attempts:
        written = _read_back(form, replace(dialect, loop=loop), program.metadata)
        if all(_same(node, node.operands, written.program.by_name[node.name].operands) for node in form):
            break
    require_same(form, written.program)  # of the last attempt, also if its edges are late elsewhere
    return written


def to_own_graph(program: ir.Program) -> Written:
    """Return the NIR graph of a network of ours, under one dialect for all neurons, with float32 time constants.

    Nodes stand as in the Program; an edge is listed as soon as both its ends are. Raises as `write_anew`.
    """
    require_taken(program, NIR_NODES, "nir")
    soft = any(node.reset == "subtract" and node.decay is not None for node in program.spiking)
    # What a soft reset subtracts is what a node stores, so that must be θ itself and the comparison >=.
    dialect = Dialect(dt=DT, compare="ge", reset="subtract") if soft else Dialect(dt=DT)
    if any(_adds_first(node) for node in program.of(ir.Neuron)):
        dialect = replace(dialect, synapse="exp_add")
    several = {node.name: _spikes_per_step(node) for node in program.spiking if node.decay is not None}
    usual: SpikesPerStep = next(iter(several.values()), "one")
    memoryless: dict[str, SpikesPerStep] = {node.name: "one" for node in program.of(ir.Neuron) if node.decay is None}
    by_name = several | memoryless
    apart = {name: {"spikes_per_step": spikes} for name, spikes in by_name.items() if spikes != usual}
    dialect = replace(dialect, spikes_per_step=usual, nodes=apart)
    edges: list[tuple[str, str]] = []
    listed: dict[str, ir.Node] = {}
    for node in program.nodes:
        listed[node.name] = node
        edges += [(source.node, node.name) for source in node.operands if source.node in listed]
        others = (other for other in listed.values() if other is not node)
        edges += [(node.name, other.name) for other in others for source in other.operands if source.node == node.name]
    own = {"version": __version__, "dialect": None, **program.metadata} | {"dialect": dialect.written()}
    nodes = {node.name: node_of(_in_dialect(node, dialect), narrow=True) for node in program.nodes}
    graph = nir.NIRGraph(nodes, edges, metadata={METADATA_KEY: own}, type_check=False)
    read = lower(graph, dialect)
    require_same(tuple(_in_dialect(node, dialect) for node in program.nodes), read)
    return Written(graph, dialect, read)


def _in_dialect(node: ir.Node, dialect: Dialect) -> ir.Node:
    """Choose the comparison of a memoryless threshold whose inputs never equal it."""
    if isinstance(node, ir.Neuron) and node.spiking and node.decay is None:
        return replace(node, compare=dialect.compare)
    return node


def _read_back(nodes: tuple[ir.Node, ...], dialect: Dialect, metadata: Mapping[str, Any]) -> Written:
    graph = to_nir(nodes, dialect, metadata)
    try:
        return Written(graph, dialect, lower(graph, dialect))
    except GraphError as error:
        if error.slug != "loop-without-neuron":
            raise
        # a Program may hold a loop of weights alone, NIR not
        raise CaptureError(error.reason, layer=error.node) from None


def late_behind(nodes: Iterable[ir.Node]) -> dict[str, ir.Node]:
    """Move late edges as far on as possible: behind layers that map zeros to zeros.

    Every loop must go through another kind of layer, or an edge would go round it for ever.
    A layer that reads all its sources a step late does what one does that reads them at once and is read a step late,
    but for the first step, where the one makes something of zeros and the other is not there yet.
    """
    moved_nodes = {node.name: node for node in nodes}
    while True:
        moved = next((n for n in moved_nodes.values() if _of_zeros(n) and min(s.delay for s in n.operands)), None)
        if moved is None:
            return moved_nodes
        late = min(source.delay for source in moved.operands)
        for name, node in moved_nodes.items():
            sources = (
                replace(s, delay=s.delay + (late if s.node == moved.name else 0) - (late if node is moved else 0))
                for s in node.operands
            )
            moved_nodes[name] = replace(node, operands=tuple(sources))


def _of_zeros(node: ir.Node) -> bool:
    """Return whether a memoryless layer maps zeros to zeros."""
    if isinstance(node, ir.Linear | ir.Conv):
        return node.bias is None or not node.bias.any()
    return isinstance(node, ir.Scale | ir.Pool | ir.Reshape)


def _dialect(nodes: tuple[ir.Node, ...]) -> Dialect:
    """Choose one dialect for the graph: that of most neurons; others get options of their own."""
    wanted = {node.name: _options(node) for node in nodes if isinstance(node, ir.Neuron)}
    base = Dialect(dt=DT)
    if not wanted:
        return base
    kinds = [tuple(sorted(options.items())) for options in wanted.values()]
    common = dict(Counter(kinds).most_common(1)[0][0])
    base = replace(base, **common)
    apart = {
        name: {key: value for key, value in options.items() if value != common[key]} for name, options in wanted.items()
    }
    bounds = {node.name: _bound(node) for node in nodes if isinstance(node, ir.Neuron) and node.v_min is not None}
    return replace(base, nodes={name: options for name, options in apart.items() if options}, v_min=bounds or None)


def _refusal(node: ir.Node, reason: str) -> CaptureError:
    """Return the error of a layer that NIR cannot hold."""
    return CaptureError(f"layer '{node.name}' {reason}", layer=node.name)


def _bound(node: ir.Neuron) -> float:
    """Return the lower bound of a neuron's potential, one number in a dialect."""
    assert node.v_min is not None
    if not node.spiking or node.decay is None:
        raise _refusal(node, "bounds currents below, as a ReLU does, for which NIR has no node")
    if node.v_min.min() != node.v_min.max():
        raise _refusal(
            node,
            f"bounds its potentials below by {_range(node.v_min)}; a graph holds one bound for all "
            "neurons of a layer: use one number",
        )
    return float(node.v_min.flat[0])


def _options(node: ir.Neuron) -> dict[str, Any]:
    start = "zero"
    if node.v_start is not None and node.decay is not None:  # else there is no state to start
        reset = np.zeros((), np.float32) if node.v_reset is None else node.v_reset
        if np.array_equal(full(node, node.v_start), full(node, reset)):
            start = "v_reset"
        elif node.offset is not None and np.allclose(full(node, node.v_start), leak_end(node), rtol=1e-5):
            start = "v_leak"
        elif node.spiking and node.v_reset is None and node.reset not in ("value", "value_delayed"):
            start = "v_reset"
        else:
            raise _refusal(
                node,
                f"starts from {_range(node.v_start)}, which is neither 0 nor its reset value; "
                "start it from one of these",
            )
    reset_name = node.reset if node.spiking and node.decay is not None else "value"
    spikes = _spikes_per_step(node)
    synapse = "exp_add" if _adds_first(node) else "euler"
    return {
        "compare": node.compare,
        "reset": reset_name,
        "start": start,
        "spikes_per_step": spikes,
        "synapse": synapse,
    }


def _spikes_per_step(node: ir.Neuron) -> SpikesPerStep:
    if not node.multi_spike:
        return "one"
    return "many" if node.cap is None else node.cap


def _adds_first(node: ir.Neuron) -> bool:
    """Return whether its synaptic current takes its input in before it decays."""
    return node.synapse is not None and node.synapse.rule == "exp_add"


def _range(values: Floats) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:g}" if low == high else f"values from {low:g} to {high:g}"


def to_nir(nodes: tuple[ir.Node, ...], dialect: Dialect, metadata: Mapping[str, Any]) -> nir.NIRGraph:
    """Return the graph of nodes, under ``dialect``."""
    edges = [(source.node, node.name) for node in nodes for source in node.operands]
    for source, name in edges if len(set(edges)) < len(edges) else ():
        if edges.count((source, name)) > 1:
            raise CaptureError(
                f"layer '{name}' reads '{source}' twice (of two steps?), and NIR lists an edge once",
                layer=name,
            )
    own = {"version": __version__, "dialect": None, **metadata} | {"dialect": dialect.written()}
    return nir.NIRGraph(
        {node.name: node_of(node) for node in nodes}, edges, metadata={METADATA_KEY: own}, type_check=False
    )


def node_of(node: ir.Node, *, narrow: bool = False) -> nir.NIRNode:
    """Return a node of NIR; narrow: with float32 time constants, if they give the decay back."""
    match node:
        case ir.Input():
            return nir.Input({"input": np.array(node.shape)})
        case ir.Output():
            return nir.Output({"output": np.array(node.shape)})
        case ir.Linear():
            return nir.Linear(node.weight) if node.bias is None else nir.Affine(node.weight, node.bias)
        case ir.Conv():
            return _conv(node)
        case ir.Pool():
            kind = nir.SumPool2d if node.divisor == 1 else nir.AvgPool2d
            if any(before != after for before, after in node.padding):
                raise _refusal(node, "pads its sides unequally, for which NIR has no pool")
            pads = np.array([before for before, _ in node.padding])
            return kind(np.array(node.kernel), np.array(node.stride), pads)
        case ir.Scale():
            return nir.Scale(np.broadcast_to(node.scale, node.shape).copy())
        case ir.Delay():
            return nir.Delay(np.broadcast_to(node.steps, node.shape) * DT)
        case ir.Reshape():
            return _flatten(node)
    assert isinstance(node, ir.Neuron)
    made = _neuron(node)
    return _narrowed(made, node) if narrow else made


def _narrowed(made: nir.NIRNode, node: ir.Neuron) -> nir.NIRNode:
    """Return the neuron with the float32 time constants of its decay; float64 ones if there are none."""
    if isinstance(made, nir.IF | nir.I):
        made.r = made.r.astype(np.float32)
    elif isinstance(made, nir.LIF | nir.LI) and node.decay is not None and not node.decay.ndim and node.gain is None:
        constants = time_constants(float(node.decay))
        ones = np.ones(node.shape, np.float32)
        made.tau, made.r, made.v_leak = ones * constants.tau, ones * constants.r, made.v_leak.astype(np.float32)
    return made


def _conv(node: ir.Conv) -> nir.NIRNode:
    bias = np.zeros(node.shape[0], np.float32) if node.bias is None else node.bias
    pads = tuple(before for before, _ in node.padding)
    if any(before != after for before, after in node.padding):
        raise _refusal(node, "pads its sides unequally, which NIR cannot express")
    common = dict(weight=node.weight, groups=node.groups, bias=bias)
    if len(node.stride) == 1:
        return nir.Conv1d(
            input_shape=node.input_shape[1],
            stride=node.stride[0],
            padding=pads[0],
            dilation=node.dilation[0],
            **common,
        )
    return nir.Conv2d(
        input_shape=(node.input_shape[1], node.input_shape[2]),
        stride=node.stride,
        padding=pads,
        dilation=node.dilation,
        **common,
    )


def _flatten(node: ir.Reshape) -> nir.NIRNode:
    before, after = node.input_shape, node.shape
    merged = (len(before) - 1,) * 2 if before == after else flattens(before, after)
    if merged is None:
        shapes = f"{list(before)} to {list(after)}"
        raise _refusal(node, f"reshapes {shapes}, which NIR's Flatten cannot")
    start, end = merged
    return nir.Flatten({"input": np.array(before)}, start - len(before), end - len(before))


def _neuron(node: ir.Neuron) -> nir.NIRNode:
    if node.adaptation is not None:
        raise _refusal(node, "has a threshold that adapts, for which NIR has no node")
    if node.i_start is not None:
        raise _refusal(node, f"has a current that starts from {_range(node.i_start)}, for which NIR has no node")
    threshold = None if node.threshold is None else full(node, node.threshold).astype(np.float32)
    if node.decay is None:
        if threshold is None:
            raise _refusal(node, "has neither memory nor a threshold, for which NIR has no node")
        return nir.Threshold(threshold)
    decay, gain = full(node, node.decay), full(node, 1 if node.gain is None else node.gain)
    offset = full(node, 0 if node.offset is None else node.offset)
    ends_at = node.v_reset if node.v_reset is not None else node.v_start
    v_reset = full(node, 0 if ends_at is None else ends_at).astype(np.float32)
    if (decay == 1).all() and node.synapse is None:
        return _integrator(node, gain, offset, threshold, v_reset)
    if _adds_first(node) and node.synapse is not None:
        return _two_currents(node, node.synapse, threshold, v_reset)
    rate = 1 - decay
    if (rate <= 0).any():
        beside = " beside others" if np.ptp(decay) else ""
        raise _refusal(
            node,
            f"has a decay of {float(decay.max()):g}{beside}; NIR's leaky neurons need "
            "one below 1: decay.clamp(max=0.999)",
        )
    starts = (
        node.v_start is not None and offset.any() and np.allclose(full(node, node.v_start), offset / rate, rtol=1e-5)
    )
    common = dict(r=gain / rate, v_leak=full(node, node.v_start) if starts else offset / rate)
    if node.synapse is not None:
        s_rate = 1 - full(node, node.synapse.decay)
        s_gain = full(node, 1 if node.synapse.gain is None else node.synapse.gain)
        if (s_rate <= 0).any():
            raise _refusal(node, "has a synapse that never decays")
        times = dict(tau_mem=DT / rate, tau_syn=DT / s_rate, w_in=s_gain / s_rate)
        if threshold is None:
            return nir.CubaLI(**common, **times)
        return nir.CubaLIF(**common, **times, v_threshold=threshold, v_reset=v_reset)
    if threshold is None:
        return nir.LI(tau=DT / rate, **common)
    return nir.LIF(tau=DT / rate, v_threshold=threshold, v_reset=v_reset, **common)


def _two_currents(node: ir.Neuron, synapse: ir.Synapse, threshold: Any, v_reset: Any) -> nir.NIRNode:
    """Return a neuron whose decays are e^(-dt/τ): its current takes input in before it decays (``exp_add``)."""
    if node.gain is not None or node.offset is not None:
        raise _refusal(
            node,
            "has a gain or a constant behind a synapse of the rule exp_add, for which NIR has no "
            "field; put it into the weights before it",
        )
    zeros = np.zeros(node.shape)
    common = dict(
        tau_mem=exponential_tau(full(node, node.decay)),
        tau_syn=exponential_tau(full(node, synapse.decay)),
        r=zeros + 1,
        v_leak=zeros,
        w_in=full(node, 1 if synapse.gain is None else synapse.gain),
    )
    if threshold is None:
        return nir.CubaLI(**common)
    return nir.CubaLIF(**common, v_threshold=threshold, v_reset=v_reset)


def _integrator(node: ir.Neuron, gain: Doubles, offset: Doubles, threshold: Any, v_reset: Any) -> nir.NIRNode:
    if offset.any():
        raise _refusal(node, "adds a constant to a potential that does not leak; put it into the bias before it")
    if threshold is None:
        return nir.I(r=gain / DT)
    return nir.IF(r=gain / DT, v_threshold=threshold, v_reset=v_reset)


def require_same(meant: tuple[ir.Node, ...], program: ir.Program) -> None:
    """Raise CaptureError unless the Program that was read back has the same numbers and edges."""
    read = program.by_name
    for node in meant:
        actual = read.get(node.name)
        if actual is None or type(actual) is not type(node):
            raise _refusal(node, "is read back from NIR as another one")
        for name in (f.name for f in fields(node)):
            if not _same(node, getattr(node, name), getattr(actual, name)):
                if name == "operands":
                    raise _other_delays(node, meant)
                is_read, is_meant = _shown(getattr(actual, name)), _shown(getattr(node, name))
                instead = "; put it into the weights before it" if name == "gain" else ""
                raise CaptureError(
                    f"layer '{node.name}': its {name} is read back from NIR as {is_read}, meant is {is_meant}{instead}",
                    layer=node.name,
                )


def _other_delays(node: ir.Node, nodes: Iterable[ir.Node]) -> CaptureError:
    """Return the refusal of a node of a loop that is read back with other delays: of each loop, one edge is late."""
    closing = "in a loop of several neurons only the first reads spikes of the step before"
    delays = {other.name for other in nodes if isinstance(other, ir.Delay)}
    readers = [other for other in nodes if any(operand.node == node.name for operand in other.operands)]
    if node.name not in delays:
        readers = [node]
    steps = [{item.node if item.node in delays else item.delay for item in reader.operands} for reader in readers]
    if any(len(of_one) > 1 for of_one in steps):
        reason = (
            "reads spikes of several steps in a loop, which NIR's edges do not hold; let a layer of its own read those "
            f"of each step: self.a(last) + self.b(before); {closing}"
        )
    else:
        reason = (
            f"is read back from NIR with other delays; {closing}: let the others read those of this step, each by a "
            "layer of its own, self.a(spikes)"
        )
    return _refusal(node, reason)


def _same(node: ir.Node, meant: Any, actual: Any) -> bool:
    if isinstance(meant, ir.Synapse) and isinstance(actual, ir.Synapse):
        return all(_same(node, getattr(meant, f.name), getattr(actual, f.name)) for f in fields(ir.Synapse))
    arrays = (np.ndarray, np.generic)
    if isinstance(meant, arrays) and isinstance(actual, arrays):
        if meant.shape != actual.shape:
            meant, actual = np.broadcast_to(meant, node.shape), np.broadcast_to(actual, node.shape)
        return bool(np.array_equal(meant, actual))
    if isinstance(meant, arrays) or isinstance(actual, arrays):
        return not np.any(meant if actual is None else actual)
    if isinstance(meant, tuple) and meant and isinstance(meant[0], ir.Operand):
        return sorted(map(repr, meant)) == sorted(map(repr, actual))
    return bool(meant == actual)


def _shown(value: Any) -> str:
    return str(value.reshape(-1)[:4].tolist()) if isinstance(value, np.ndarray) else str(value)[:200]
