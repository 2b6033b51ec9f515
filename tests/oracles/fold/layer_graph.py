"""A Program becomes a NIR graph and the dialect it is meant in; what is read back from them is the one meant.

    graph, dialect, program, arranged = fold_layers(layer_graph)

Time constants are written in float64, in which every float32 decay and gain has ones that give it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

import nir
import numpy as np

from stl_deploy import __version__
from stl_deploy.errors import CaptureError
from stl_deploy.exporters.nir.dialect import Dialect, Loop
from stl_deploy.exporters.nir.lower import METADATA_KEY, lower
from stl_deploy.exporters.nir.lower.loops import ordered
from stl_deploy.graph.program import (
    DT,
    Conv,
    Delay,
    Doubles,
    Floats,
    Input,
    Linear,
    Neuron,
    Node,
    Operand,
    Output,
    Pool,
    Program,
    Reshape,
    Scale,
    Synapse,
)
from tests.oracles.fold.index_maps import Arranged, flattens
from tests.oracles.fold.layer_passes import PASSES, join_linears
from tests.oracles.fold.rearrange import rearrange


class FoldedLayers(NamedTuple):
    """A NIR graph, its dialect, and the Program that they are read back as.

    arranged: for each neuron and input whose values stand in another order than the layer's, the layer's flat place of
    each value.
    """

    graph: nir.NIRGraph
    dialect: Dialect
    program: Program
    arranged: Arranged


def fold_layers(layers: Program) -> FoldedLayers:
    """The NIR graph of layers, and what it is read back as.

    Raises CaptureError for a layer that NIR has no node for.
    """
    nodes = {layer.name: layer for layer in layers.nodes}
    for one_pass in PASSES:
        nodes = one_pass(nodes)
    nodes, arranged = rearrange(nodes)
    nodes = join_linears(nodes)
    nodes = {name: _from_leak(node) if isinstance(node, Neuron) else node for name, node in nodes.items()}
    meant = ordered(join_currents(explicit_delays(nodes)))
    dialect = _dialect(meant)
    attempts: list[tuple[tuple[Node, ...], Loop]] = [(meant, "closing_edge")]
    if any(source.delay for node in meant for source in node.operands):
        attempts += [(ordered(late_behind(meant)), "closing_edge"), (meant, "neuron_output")]
    *others, last = attempts
    for form, loop in others:
        graph, program = _read_back(form, replace(dialect, loop=loop), layers)
        if all(_same(node, node.operands, program.by_name[node.name].operands) for node in form):
            require_same(form, program)
            return FoldedLayers(graph, replace(dialect, loop=loop), program, arranged)
    form, loop = last
    graph, program = _read_back(form, replace(dialect, loop=loop), layers)
    require_same(form, program)
    return FoldedLayers(graph, replace(dialect, loop=loop), program, arranged)


def _read_back(nodes: tuple[Node, ...], dialect: Dialect, layers: Program) -> tuple[nir.NIRGraph, Program]:
    graph = to_nir(nodes, dialect, layers.metadata)
    return graph, lower(graph, dialect)


def explicit_delays(nodes: dict[str, Node]) -> dict[str, Node]:
    """Delays that no loop makes become Delay nodes; one step of each loop is made by the edge that closes it."""
    found = dict(nodes)
    for name, node in nodes.items():
        sources = []
        for source in node.operands:
            closing = int(bool(source.delay) and _reaches(nodes, name, source.node))
            more = source.delay - closing
            if more:
                # In a loop the reader's own, as one with other readers is not moved past when the loop is read back.
                late = f"{source.node}_late{more}" + f"_to_{name}" * closing
                delayed = (Operand(source.node, closing),)
                shape = nodes[source.node].shape
                found[late] = Delay(name=late, shape=shape, operands=delayed, steps=np.asarray(more, np.int64))
                sources.append(Operand(late))
            else:
                sources.append(source)
        found[name] = replace(found[name], operands=tuple(sources))
    return found


def late_behind(nodes: Iterable[Node]) -> dict[str, Node]:
    """The same network with its late edges as far on as can be: behind layers that make zeros of zeros.

    Every loop must go through another kind of layer, or an edge would go round it for ever.
    A layer that reads all its sources a step late does what one does that reads them at once and is read a step late,
    but for the first step, where the one makes something of zeros and the other is not there yet.
    """
    found = {node.name: node for node in nodes}
    while True:
        moved = next((n for n in found.values() if _of_zeros(n) and min(s.delay for s in n.operands)), None)
        if moved is None:
            return found
        late = min(source.delay for source in moved.operands)
        for name, node in found.items():
            sources = (
                replace(s, delay=s.delay + (late if s.node == moved.name else 0) - (late if node is moved else 0))
                for s in node.operands
            )
            found[name] = replace(node, operands=tuple(sources))


def _of_zeros(node: Node) -> bool:
    """Whether a layer without memory makes zeros of zeros."""
    if isinstance(node, Linear | Conv):
        return node.bias is None or not node.bias.any()
    return isinstance(node, Scale | Pool | Reshape)


def _reaches(nodes: Mapping[str, Node], start: str, end: str) -> bool:
    """Whether ``end`` depends on ``start`` (or is it)."""
    waiting, seen = [end], {end}
    while waiting:
        name = waiting.pop()
        if name == start:
            return True
        for source in nodes[name].operands:
            if source.node not in seen:
                seen.add(source.node)
                waiting.append(source.node)
    return False


def join_currents(nodes: dict[str, Node]) -> dict[str, Node]:
    """A leaky current that feeds one neuron only is that neuron's synapse (CubaLIF)."""
    found = dict(nodes)
    for name, node in nodes.items():
        if not isinstance(node, Neuron) or node.decay is None or node.synapse is not None or len(node.operands) != 1:
            continue
        (source,) = node.operands
        current = found.get(source.node)
        if not isinstance(current, Neuron) or current.spiking or source.delay or current.decay is None:
            continue
        plain = current.offset is None and current.v_start is None and current.synapse is None
        readers = sum(s.node == current.name for other in nodes.values() for s in other.operands)
        if plain and readers == 1 and "output" in nodes:
            synapse = Synapse("euler", current.decay, current.gain)
            found[name] = replace(node, operands=current.operands, synapse=synapse)
            del found[current.name]
    return found


def _dialect(nodes: tuple[Node, ...]) -> Dialect:
    """One dialect for the graph: what most neurons need; each that needs another has its own options."""
    wanted = {node.name: _options(node) for node in nodes if isinstance(node, Neuron)}
    base = Dialect(dt=DT)
    if not wanted:
        return base
    kinds = [tuple(sorted(options.items())) for options in wanted.values()]
    common = dict(Counter(kinds).most_common(1)[0][0])
    base = replace(base, **common)
    apart = {
        name: {key: value for key, value in options.items() if value != common[key]} for name, options in wanted.items()
    }
    return replace(base, nodes={name: options for name, options in apart.items() if options})


def _options(node: Neuron) -> dict[str, Any]:
    start = "zero"
    if node.v_start is not None:
        reset = np.zeros((), np.float32) if node.v_reset is None else node.v_reset
        if np.array_equal(_full(node, node.v_start), _full(node, reset)):
            start = "v_reset"
        elif node.offset is not None and np.allclose(_full(node, node.v_start), _v_leak(node), rtol=1e-5):
            start = "v_leak"
        elif node.spiking and node.v_reset is None and node.reset not in ("value", "value_delayed"):
            start = "v_reset"
        else:
            raise CaptureError(
                f"layer '{node.name}' starts from {_range(node.v_start)}, which is neither 0 nor its reset value; "
                "start it from one of these",
                layer=node.name,
            )
    reset_name = node.reset if node.spiking and node.decay is not None else "value"
    return {"compare": node.compare, "reset": reset_name, "start": start}


def _range(values: Floats) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:g}" if low == high else f"values from {low:g} to {high:g}"


def _from_leak(node: Neuron) -> Neuron:
    """A potential that starts where it leaks to, but for rounding, does so to the bit: its offset comes from there."""
    if node.v_start is None or node.offset is None or node.decay is None:
        return node
    start = _full(node, node.v_start)
    if not np.allclose(start, _v_leak(node), rtol=1e-5):
        return node
    return replace(node, offset=((1 - _full(node, node.decay)) * start).astype(np.float32))


def _v_leak(node: Neuron) -> Doubles:
    """The potential that leaks end at: offset/(1 - decay)."""
    assert node.decay is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(_full(node, 0 if node.offset is None else node.offset) / (1 - _full(node, node.decay)))


def to_nir(nodes: tuple[Node, ...], dialect: Dialect, metadata: Mapping[str, Any]) -> nir.NIRGraph:
    """The graph of nodes, under ``dialect``."""
    edges = [(source.node, node.name) for node in nodes for source in node.operands]
    own = {"version": __version__, "dialect": dialect.written(), **metadata}
    return nir.NIRGraph(
        {node.name: _node(node) for node in nodes}, edges, metadata={METADATA_KEY: own}, type_check=False
    )


def _node(node: Node) -> nir.NIRNode:
    match node:
        case Input():
            return nir.Input({"input": np.array(node.shape)})
        case Output():
            return nir.Output({"output": np.array(node.shape)})
        case Linear():
            return nir.Linear(node.weight) if node.bias is None else nir.Affine(node.weight, node.bias)
        case Conv():
            return _conv(node)
        case Pool():
            kind = nir.SumPool2d if node.divisor == 1 else nir.AvgPool2d
            if any(before != after for before, after in node.padding):
                raise CaptureError(f"layer '{node.name}' pads its sides unequally, for which NIR has no pool")
            pads = np.array([before for before, _ in node.padding])
            return kind(np.array(node.kernel), np.array(node.stride), pads)
        case Scale():
            return nir.Scale(np.broadcast_to(node.scale, node.shape).copy())
        case Delay():
            return nir.Delay(np.broadcast_to(node.steps, node.shape) * DT)
        case Reshape():
            return _flatten(node)
    assert isinstance(node, Neuron)
    return _neuron(node)


def _conv(node: Conv) -> nir.NIRNode:
    bias = np.zeros(node.shape[0], np.float32) if node.bias is None else node.bias
    pads = tuple(before for before, _ in node.padding)
    if any(before != after for before, after in node.padding):
        raise CaptureError(f"layer '{node.name}' pads its sides unequally, which NIR has no word for", layer=node.name)
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


def _flatten(node: Reshape) -> nir.NIRNode:
    before, after = node.input_shape, node.shape
    merged = flattens(before, after)
    assert merged is not None, "rearrange leaves no other reshape"
    start, end = merged
    return nir.Flatten({"input": np.array(before)}, start - len(before), end - len(before))


def _neuron(node: Neuron) -> nir.NIRNode:
    threshold = None if node.threshold is None else _full(node, node.threshold).astype(np.float32)
    if node.decay is None:
        assert threshold is not None
        return nir.Threshold(threshold)
    decay, gain = _full(node, node.decay), _full(node, 1 if node.gain is None else node.gain)
    offset = _full(node, 0 if node.offset is None else node.offset)
    ends_at = node.v_reset if node.v_reset is not None else node.v_start
    v_reset = _full(node, 0 if ends_at is None else ends_at).astype(np.float32)
    if (decay == 1).all() and node.synapse is None:
        return _integrator(node, gain, offset, threshold, v_reset)
    rate = 1 - decay
    if (rate <= 0).any():
        beside = " beside others" if np.ptp(decay) else ""
        raise CaptureError(
            f"layer '{node.name}' has a decay of {float(decay.max()):g}{beside}; NIR's leaky neurons need one below 1",
            layer=node.name,
        )
    starts = (
        node.v_start is not None and offset.any() and np.allclose(_full(node, node.v_start), offset / rate, rtol=1e-5)
    )
    common = dict(r=gain / rate, v_leak=_full(node, node.v_start) if starts else offset / rate)
    if node.synapse is not None:
        s_rate = 1 - _full(node, node.synapse.decay)
        s_gain = _full(node, 1 if node.synapse.gain is None else node.synapse.gain)
        if (s_rate <= 0).any():
            raise CaptureError(f"layer '{node.name}' has a synapse that never decays", layer=node.name)
        times = dict(tau_mem=DT / rate, tau_syn=DT / s_rate, w_in=s_gain / s_rate)
        if threshold is None:
            return nir.CubaLI(**common, **times)
        return nir.CubaLIF(**common, **times, v_threshold=threshold, v_reset=v_reset)
    if threshold is None:
        return nir.LI(tau=DT / rate, **common)
    return nir.LIF(tau=DT / rate, v_threshold=threshold, v_reset=v_reset, **common)


def _integrator(node: Neuron, gain: Doubles, offset: Doubles, threshold: Any, v_reset: Any) -> nir.NIRNode:
    if offset.any():
        raise CaptureError(
            f"layer '{node.name}' adds a constant to a potential that does not leak; put it into the bias before it",
            layer=node.name,
        )
    if threshold is None:
        return nir.I(r=gain / DT)
    return nir.IF(r=gain / DT, v_threshold=threshold, v_reset=v_reset)


def _full(node: Node, array: Any) -> Doubles:
    return np.broadcast_to(np.asarray(array, np.float64), node.shape).copy()


def require_same(meant: tuple[Node, ...], program: Program) -> None:
    """Raise CaptureError unless the Program that was read back has the very numbers and edges that were meant."""
    read = program.by_name
    for node in meant:
        found = read.get(node.name)
        if found is None or type(found) is not type(node):
            raise CaptureError(f"layer '{node.name}' is read back from NIR as another one", layer=node.name)
        for name in (f.name for f in fields(node)):
            if not _same(node, getattr(node, name), getattr(found, name)):
                if name == "operands":
                    raise CaptureError(
                        f"layer '{node.name}' reads spikes of several steps in a loop, which NIR's edges do not hold; "
                        "let weights of their own read those of each step",
                        layer=node.name,
                    )
                is_read, is_meant = _shown(getattr(found, name)), _shown(getattr(node, name))
                raise CaptureError(
                    f"layer '{node.name}': its {name} is read back from NIR as {is_read}, meant is {is_meant}",
                    layer=node.name,
                )


def _same(node: Node, meant: Any, found: Any) -> bool:
    if isinstance(meant, Synapse) and isinstance(found, Synapse):
        return all(_same(node, getattr(meant, f.name), getattr(found, f.name)) for f in fields(Synapse))
    arrays = (np.ndarray, np.generic)
    if isinstance(meant, arrays) and isinstance(found, arrays):
        if meant.shape != found.shape:
            meant, found = np.broadcast_to(meant, node.shape), np.broadcast_to(found, node.shape)
        return bool(np.array_equal(meant, found))
    if isinstance(meant, arrays) or isinstance(found, arrays):
        return not np.any(meant if found is None else found)
    if isinstance(meant, tuple) and meant and isinstance(meant[0], Operand):
        return sorted(map(repr, meant)) == sorted(map(repr, found))
    return bool(meant == found)


def _shown(value: Any) -> str:
    return str(value.reshape(-1)[:4].tolist()) if isinstance(value, np.ndarray) else str(value)[:200]
