"""Simulate an `IntegerGraph` in numpy, every sample from rest.

Feed-forward graphs take all time steps at once; a graph with loops goes step by step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stl_deploy._util.arrays import ShapeError
from stl_deploy._util.remedies import remedy
from stl_deploy.errors import InputError
from stl_deploy.graph.program import Node, Reshape, Shape
from stl_deploy.graph.threads import map_samples
from stl_deploy.integers import graph as int_ir
from stl_deploy.integers.bounds import Bounds, bounds, require_sums
from stl_deploy.integers.net import STATE_SHIFT, Accumulator, Conv, Dense, Ints
from stl_deploy.integers.step import State, currents, potentials, step_through
from stl_deploy.integers.sums import adder, blocks
from stl_deploy.passes.base import by_row

Values = NDArray[Any]
"""Integers ``[T, B, *shape]``, in uint8 (spikes), int32, or floats that hold them exactly."""

VALUES_AT_ONCE = 2**24
"""Samples are run in groups whose widest nodes have about this many values over all of time, all threads together."""


@dataclass(frozen=True)
class IntegerRun:
    """``y``: integers ``[T, B, *shape]``; ``spikes`` by population or layer, if recorded."""

    y: Values
    spikes: Mapping[str, NDArray[np.uint8]]


def simulate(graph: int_ir.IntegerGraph, x: Values, *, record: bool = False) -> IntegerRun:
    """Run integers ``x`` ``[T, B, *input shape]``.

    Raises InputError if x does not fit the graph, holds fractions, or leaves the range the graph is made for;
    UnsupportedError if sums could leave 32 bits.
    """
    names = [node.name for node in graph.populations] if record else []
    outputs = values_of(graph, x, [*names, graph.output.name])
    return IntegerRun(outputs[graph.output.name].astype(np.int32), {name: outputs[name] for name in names})


def values_of(graph: int_ir.IntegerGraph, x: Values, keep: Collection[str]) -> dict[str, Values]:
    """Return some nodes' outputs, ``[T, B, *shape]``; raise as `simulate`."""
    x = as_integers(x, graph.input.shape)
    _check_range(graph.input, x)
    if not graph.accumulator.wraps:
        require_sums(graph)
    known = bounds(entered_by(graph, x))
    widest = max(math.prod(node.shape) for node in graph.nodes)
    run = _stepped if graph.delayed else _at_once
    steps, samples = x.shape[:2]

    def run_part(part: slice) -> dict[str, Values]:
        return run(graph, x[:, part].astype(np.int32), keep, known)

    parts = map_samples(run_part, samples, widest * steps, VALUES_AT_ONCE)
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in keep}


def entered_by(graph: int_ir.IntegerGraph, x: Values) -> int_ir.IntegerGraph:
    """Return the graph with an input as narrow as ``x``, so that bounds are those of this input."""
    entry = replace(graph.input, low=min(0, int(x.min())), high=max(0, int(x.max())))
    return replace(graph, nodes=tuple(entry if node is graph.input else node for node in graph.nodes))


def check_input(node: int_ir.IntegerInput, x: Values) -> Ints:
    """Return ``x`` as int32; raise InputError if it is not integers within the input's range and shape."""
    x = as_integers(x, node.shape)
    _check_range(node, x)
    return x.astype(np.int32)


def _check_range(node: int_ir.IntegerInput, x: Values) -> None:
    low, high = int(x.min()), int(x.max())
    if low < node.low or high > node.high:
        raise InputError(
            f"expected input from {node.low} to {node.high}, which the integers were chosen for; found {low} to "
            f"{high} (integers, multiples of its grid); export again with such input "
            f"({remedy(cli='--input X.npz', python='x=')})"
        )


def as_integers(x: Values, shape: Shape) -> Values:
    """Return ``x`` ``[T, B, *shape]`` as integers or bool; raise InputError for fractions and other types."""
    if x.ndim < 2 or x.shape[2:] != shape or x.size == 0:
        raise ShapeError(f"expected input [T, B, {', '.join(map(str, shape))}]; found {list(x.shape)}")
    if x.dtype.kind not in "fiub":
        raise InputError(f"expected integer or bool input; found {x.dtype}")
    if x.dtype.kind == "f" and not np.array_equal(x, np.trunc(x)):
        raise InputError("expected integer input; found fractions or NaN; multiply by the input scale")
    if x.dtype.kind != "b" and np.abs(x).max() >= 2**31:
        raise InputError("expected input within 32 bits; found larger values; use a coarser grid")
    return x if x.dtype.kind != "f" else x.astype(np.int32)


def _at_once(
    graph: int_ir.IntegerGraph, x: Ints, keep: Collection[str], known: Mapping[str, Bounds]
) -> dict[str, Values]:
    values: dict[str, Values] = {graph.input.name: x}
    left = dict(graph.readers)
    ahead = {node.operands[0].node: node for node in graph.populations if _stands_alone(graph, node, keep)}
    for node in graph.nodes:
        if node.name in values:
            continue
        arriving = [values[source.node] for source in node.operands]
        if node.name in ahead:
            reader = ahead[node.name]
            (values[reader.name],) = sum_and_step(node, [reader], arriving, known, graph.accumulator)
        else:
            values[node.name] = evaluate(node, arriving, known, graph.accumulator)
        for source in node.operands:
            left[source.node] -= 1
            if not left[source.node] and source.node not in keep:
                values.pop(source.node, None)
    return {name: values[name] for name in keep}


def _stands_alone(graph: int_ir.IntegerGraph, node: int_ir.IntegerLIF, keep: Collection[str]) -> bool:
    """Return whether a population's only source is a layer of weights with no other reader."""
    before = graph.by_name[node.operands[0].node]
    return (
        len(node.operands) == 1
        and isinstance(before, int_ir.DenseNode | int_ir.ConvNode)
        and graph.readers[before.name] == 1
        and before.name not in keep
    )


def sum_and_step(
    layer: Node,
    nodes: Sequence[int_ir.IntegerLIF],
    arriving: Sequence[Values],
    known: Mapping[str, Bounds],
    accumulator: Accumulator,
) -> list[Values]:
    """Return spikes of populations from the input of the layer of weights before them, the only source of each.

    Sums are formed for some samples at a time, so that they stay in the cache.
    """
    assert isinstance(layer, int_ir.DenseNode | int_ir.ConvNode)
    x, shape = _together(arriving), nodes[0].shape
    add_up, spikes = _summing(layer, x, accumulator), [np.empty((*x.shape[:2], *shape), np.uint8) for _ in nodes]
    for part in blocks(shape, x):
        sums = add_up(x[:, part])
        for node, fired in zip(nodes[1:], spikes[1:], strict=True):
            _fire(node, sums.copy(), known, accumulator, fired[:, part])
        _fire(nodes[0], sums, known, accumulator, spikes[0][:, part])
    return spikes


def _stepped(
    graph: int_ir.IntegerGraph, x: Ints, keep: Collection[str], known: Mapping[str, Bounds]
) -> dict[str, Values]:
    states = {node.name: State() for node in graph.nodes}
    before: dict[str, Values] = {}
    kept: dict[str, list[Values]] = {name: [] for name in keep}
    for now in x:
        values: dict[str, Values] = {graph.input.name: now[None]}
        for node in graph.nodes:
            if not isinstance(node, int_ir.IntegerInput):
                arriving = [
                    before.get(source.node, np.zeros((1, len(now), *graph.by_name[source.node].shape), np.uint8))
                    if source.delay
                    else values[source.node]
                    for source in node.operands
                ]
                values[node.name] = evaluate(node, arriving, known, graph.accumulator, states[node.name])
        before = values
        for name in keep:
            kept[name].append(values[name])
    return {name: np.concatenate(parts) for name, parts in kept.items()}


def evaluate(
    node: Node,
    arriving: Sequence[Values],
    known: Mapping[str, Bounds],
    accumulator: Accumulator,
    state: State | None = None,
) -> Values:
    """Return a node's values from its sources' ``[T, B, ...]``; state: carried from step to step (None: rest)."""
    if isinstance(node, int_ir.ProductNode):
        return _product(node, arriving[0], arriving[1], known)
    x = _together(arriving)
    match node:
        case int_ir.DenseNode() if state is not None and node.delay is not None:
            line = _remembered(x, int(node.delay.max()), state)
            return _summing(node, line, accumulator)(line)[len(line) - len(x) :]
        case int_ir.DenseNode() | int_ir.ConvNode():
            return _summing(node, x, accumulator)(x)
        case int_ir.GainNode():
            return x.astype(np.int32) * node.weight
        case int_ir.SumPoolNode():
            return _sum_pool(node, x)
        case int_ir.MaxPoolNode():
            return _max_pool(node, x)
        case Reshape():
            return x.reshape(*x.shape[:2], *node.shape)
        case int_ir.GatherNode():
            return _gather(node, x)
        case int_ir.DelayNode():
            return _delay(node, x, state)
        case int_ir.IntegerLIF():
            spikes = np.empty(x.shape, np.uint8)
            sums = x.copy() if x.dtype.kind == "f" and state is None else x.astype(np.int32)
            _fire(node, sums, known, accumulator, spikes, state)
            return spikes
        case int_ir.IntegerLI():
            return _integrate(node, x, accumulator, state)
    assert isinstance(node, int_ir.IntegerOutput)
    return x


def _together(arriving: Sequence[Values]) -> Values:
    x = arriving[0]
    for other in arriving[1:]:
        x = x.astype(np.int32) + other.astype(np.int32)
    return x


def _fire(
    node: int_ir.IntegerLIF,
    sums: Values,
    known: Mapping[str, Bounds],
    accumulator: Accumulator,
    spikes: NDArray[np.uint8],
    state: State | None = None,
) -> None:
    """Write the spikes of ``sums``, which are overwritten."""
    low, high = known[node.name].sums
    bound = max(-low, high)
    step_through(node.neuron, sums, node.bias, spikes, bound=bound, state=state, accumulator=accumulator)


def _summing(
    node: int_ir.DenseNode | int_ir.ConvNode, x: Values, accumulator: Accumulator
) -> Callable[[Values], Values]:
    """Return a function that sums a layer's input ``[T, b, *shape]`` for some samples of ``x`` ``[T, B, ...]``."""
    if isinstance(node, int_ir.DenseNode):
        dense = Dense(weight=node.weight, delay=node.delay, shift=node.shift, enlarged=node.enlarged)
        add_up = adder(dense, x)
        return lambda part: _with_bias(add_up(part), node.bias, 1)
    (top, bottom), (left, right) = node.padding
    alike = top == bottom and left == right
    channels, height, width = node.input_shape
    layer = Conv(
        weight=node.weight,
        input_shape=node.input_shape if alike else (channels, height + top + bottom, width + left + right),
        stride=node.stride,
        padding=(top, left) if alike else (0, 0),
        dilation=node.dilation,
        groups=node.groups,
    )
    convolve = adder(layer, x, wraps=accumulator.wraps)

    def of(part: Values) -> Values:
        frames = part.reshape(*part.shape[:2], *node.input_shape)
        if not alike:
            frames = np.pad(frames, [(0, 0)] * 3 + list(node.padding))
        return _with_bias(convolve(frames), node.bias, 3).reshape(*part.shape[:2], *node.shape)

    return of


def _with_bias(total: Values, bias: Ints | None, axes: int) -> Values:
    if bias is None:
        return total
    return total.astype(np.int32) + by_row(bias, axes)


def _sum_pool(node: int_ir.SumPoolNode, x: Values) -> Ints:
    x = np.pad(x.astype(np.int32), [(0, 0)] * 3 + list(node.padding))
    total = np.zeros((*x.shape[:2], *node.shape), np.int32)
    rows, columns = ((size - 1) * step + 1 for size, step in zip(node.shape[1:], node.stride, strict=True))
    for i in range(node.kernel[0]):
        for j in range(node.kernel[1]):
            total += x[..., i : i + rows : node.stride[0], j : j + columns : node.stride[1]]
    return total


def _max_pool(node: int_ir.MaxPoolNode, x: Values) -> Ints:
    frames = x.astype(np.int32).reshape(*x.shape[:2], *node.input_shape)
    frames = np.pad(frames, [(0, 0)] * 3 + list(node.padding), constant_values=np.iinfo(np.int32).min)
    windows = sliding_window_view(frames, node.kernel, axis=(3, 4))[:, :, :, :: node.stride[0], :: node.stride[1]]
    largest: Ints = windows.max(axis=(-2, -1))
    return largest.reshape(*x.shape[:2], *node.shape)


def _gather(node: int_ir.GatherNode, x: Values) -> Values:
    values = x.reshape(*x.shape[:2], -1)[..., node.indices]
    return values if (node.indices >= 0).all() else np.where(node.indices < 0, x.dtype.type(0), values)


def _product(node: int_ir.ProductNode, one: Values, other: Values, known: Mapping[str, Bounds]) -> Ints:
    """Multiply, in the narrowest float type that holds every partial sum."""
    low, high = known[node.name].sums
    kind = np.float32 if max(-low, high) < 2**24 else np.float64
    left: NDArray[Any] = one.astype(kind)
    right: NDArray[Any] = other.astype(kind)
    products: Ints = (np.matmul if node.matrices else np.multiply)(left, right).astype(np.int32)
    return products


def _delay(node: int_ir.DelayNode, x: Values, state: State | None) -> Values:
    longest = int(node.steps.max(initial=0))
    line = _remembered(x, longest, state or State())
    steps = np.broadcast_to(node.steps, node.shape)
    delayed = np.empty_like(x)
    for delay in np.unique(steps):
        late = line[longest - delay : longest - delay + len(x)]
        np.copyto(delayed, late, where=steps == delay)
    return delayed


def _remembered(x: Values, steps: int, state: State) -> Values:
    """Prepend the last steps from the state to ``x`` (0 at rest)."""
    past = np.zeros((steps, *x.shape[1:]), x.dtype) if state.past is None else state.past
    line = np.concatenate([past, x])
    state.past = line[len(line) - steps :]
    return line


def _integrate(node: int_ir.IntegerLI, x: Values, accumulator: Accumulator, state: State | None) -> Values:
    neuron = node.neuron
    drive = currents(neuron, x.astype(np.int32), np.float64, accumulator, state=state)
    if node.bias is not None:
        drive = drive + (node.bias << STATE_SHIFT)
    return potentials(neuron, drive, state=state, limit=accumulator.v_top).astype(np.int32)
