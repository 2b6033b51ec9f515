"""The integer model: an `IntegerGraph` in numpy, every sample from rest.

Feed-forward graphs take all time steps at once; a graph with loops goes step by step.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.graph.program import Node, Reshape, Shape
from stl_deploy.graph.threads import map_samples
from stl_deploy.integers.bounds import Bounds, bounds
from stl_deploy.integers.graph import (
    ConvNode,
    DelayNode,
    DenseNode,
    GainNode,
    IntegerGraph,
    IntegerInput,
    IntegerOutput,
    IntegratorNode,
    PopulationNode,
    SumPoolNode,
)
from stl_deploy.integers.net import STATE_SHIFT, Conv, Dense, IntegerNeuron, Ints
from stl_deploy.integers.step import State, currents, potentials, step_through
from stl_deploy.integers.sums import adder

Values = NDArray[Any]
"""Whole numbers ``[T, B, *shape]``, in uint8 (spikes), int32, or floats that hold them exactly."""

VALUES_AT_ONCE = 2**24
"""Samples are run in groups whose widest nodes have about this many values over all of time, all threads together."""


@dataclass(frozen=True)
class IntegerRun:
    """``y``: whole numbers ``[T, B, *shape]``; ``spikes`` by population or layer, if recorded."""

    y: Values
    spikes: Mapping[str, NDArray[np.uint8]]


def simulate(graph: IntegerGraph, x: Values, *, record: bool = False) -> IntegerRun:
    """Run whole numbers ``x`` ``[T, B, *input shape]``.

    Raises InputError if x does not fit the graph, holds fractions, or leaves the range the graph is made for.
    """
    names = [node.name for node in graph.populations] if record else []
    found = values_of(graph, x, [*names, graph.output.name])
    return IntegerRun(found[graph.output.name].astype(np.int32), {name: found[name] for name in names})


def values_of(graph: IntegerGraph, x: Values, keep: Collection[str]) -> dict[str, Values]:
    """What some nodes put out, ``[T, B, *shape]``; raises as `simulate`."""
    x = check_input(graph.input, x)
    widest = max(math.prod(node.shape) for node in graph.nodes)
    run = _stepped if graph.delayed else _at_once
    steps, samples = x.shape[:2]
    parts = map_samples(lambda part: run(graph, x[:, part], keep), samples, widest * steps, VALUES_AT_ONCE)
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in keep}


def check_input(node: IntegerInput, x: Values) -> Ints:
    """``x`` as int32; raises InputError if it is anything else than whole numbers in the input's range and shape."""
    x = whole_numbers(x, node.shape)
    low, high = x.min(), x.max()
    if low < node.low or high > node.high:
        raise InputError(
            f"expected input from {node.low} to {node.high}, which the integers were chosen for; found {low} to "
            f"{high}; scale it, or export again with such input"
        )
    return x.astype(np.int32)


def whole_numbers(x: Values, shape: Shape) -> Values:
    """``x`` ``[T, B, *shape]`` in integers or bool; raises InputError if it is anything else than whole numbers."""
    if x.ndim < 2 or x.shape[2:] != shape or x.size == 0:
        raise InputError(f"expected input [T, B, {', '.join(map(str, shape))}]; found {list(x.shape)}")
    if x.dtype.kind not in "fiub":
        raise InputError(f"expected input in whole numbers or bool; found {x.dtype}")
    if x.dtype.kind == "f" and not np.array_equal(x, np.trunc(x)):
        raise InputError("expected input in whole numbers; found fractions or NaN; multiply by the input scale")
    if x.dtype.kind != "b" and np.abs(x).max() >= 2**31:
        raise InputError("expected input within 32 bits; found larger values; use a coarser grid")
    return x if x.dtype.kind != "f" else x.astype(np.int32)


def _at_once(graph: IntegerGraph, x: Ints, keep: Collection[str]) -> dict[str, Values]:
    values: dict[str, Values] = {graph.input.name: x}
    known = bounds(graph)
    left = {node.name: 0 for node in graph.nodes}
    for node in graph.nodes:
        for source in node.sources:
            left[source.node] += 1
    for node in graph.nodes:
        if not isinstance(node, IntegerInput):
            values[node.name] = evaluate(node, [values[source.node] for source in node.sources], known)
        for source in node.sources:
            left[source.node] -= 1
            if not left[source.node] and source.node not in keep:
                values.pop(source.node, None)
    return {name: values[name] for name in keep}


def _stepped(graph: IntegerGraph, x: Ints, keep: Collection[str]) -> dict[str, Values]:
    known, states = bounds(graph), {node.name: State() for node in graph.nodes}
    before: dict[str, Values] = {}
    kept: dict[str, list[Values]] = {name: [] for name in keep}
    for now in x:
        values: dict[str, Values] = {graph.input.name: now[None]}
        for node in graph.nodes:
            if not isinstance(node, IntegerInput):
                arriving = [
                    before.get(source.node, np.zeros((1, len(now), *graph.by_name[source.node].shape), np.uint8))
                    if source.delay
                    else values[source.node]
                    for source in node.sources
                ]
                values[node.name] = evaluate(node, arriving, known, states[node.name])
        before = values
        for name in keep:
            kept[name].append(values[name])
    return {name: np.concatenate(parts) for name, parts in kept.items()}


def evaluate(node: Node, arriving: Sequence[Values], known: Mapping[str, Bounds], state: State | None = None) -> Values:
    """A node's values from its sources' ``[T, B, ...]``; state: what it keeps from the steps before (None: rest)."""
    x = arriving[0]
    for other in arriving[1:]:
        x = x.astype(np.int32) + other.astype(np.int32)
    match node:
        case DenseNode():
            return _with_bias(adder(Dense(weight=node.weight), x)(x), node.bias, 1)
        case ConvNode():
            return _conv(node, x)
        case GainNode():
            return x.astype(np.int32) * node.weight
        case SumPoolNode():
            return _sum_pool(node, x)
        case Reshape():
            return x.reshape(*x.shape[:2], *node.shape)
        case DelayNode():
            return _delay(node, x, state)
        case PopulationNode():
            x = x.astype(np.int32) if x.dtype.kind != "f" or state is not None else x
            spikes = np.empty(x.shape, np.uint8)
            low, high = known[node.name].sums
            step_through(node.neuron, x, node.bias, spikes, bound=max(-low, high), state=state)
            return spikes
        case IntegratorNode():
            return _integrate(node, x, state)
    assert isinstance(node, IntegerOutput)
    return x


def _with_bias(total: Values, bias: Ints | None, axes: int) -> Values:
    if bias is None:
        return total
    return total.astype(np.int32) + bias.reshape(-1, *(1,) * (axes - 1))


def _conv(node: ConvNode, x: Values) -> Values:
    frames = x.reshape(*x.shape[:2], *node.input_shape)
    if any(before or after for before, after in node.padding):
        frames = np.pad(frames, [(0, 0)] * 3 + list(node.padding))
    layer = Conv(
        weight=node.weight,
        input_shape=frames.shape[2:],
        stride=node.stride,
        dilation=node.dilation,
        groups=node.groups,
    )
    total = _with_bias(adder(layer, frames)(frames), node.bias, 3)
    return total.reshape(*x.shape[:2], *node.shape)


def _sum_pool(node: SumPoolNode, x: Values) -> Ints:
    x = np.pad(x.astype(np.int32), [(0, 0)] * 3 + list(node.padding))
    total = np.zeros((*x.shape[:2], *node.shape), np.int32)
    rows, columns = ((size - 1) * step + 1 for size, step in zip(node.shape[1:], node.stride, strict=True))
    for i in range(node.kernel[0]):
        for j in range(node.kernel[1]):
            total += x[..., i : i + rows : node.stride[0], j : j + columns : node.stride[1]]
    return total


def _delay(node: DelayNode, x: Values, state: State | None) -> Values:
    longest = int(node.steps.max(initial=0))
    past = np.zeros((longest, *x.shape[1:]), x.dtype) if state is None or state.past is None else state.past
    line = np.concatenate([past, x])
    if state is not None:
        state.past = line[len(line) - longest :]
    steps = np.broadcast_to(node.steps, node.shape)
    delayed = np.empty_like(x)
    for delay in np.unique(steps):
        late = line[longest - delay : longest - delay + len(x)]
        np.copyto(delayed, late, where=steps == delay)
    return delayed


def _integrate(node: IntegratorNode, x: Values, state: State | None) -> Values:
    filtered = IntegerNeuron(v_decay=node.v_decay, threshold=np.zeros((), np.int32), i_decay=node.i_decay)
    drive = currents(filtered, x.astype(np.int32), np.float64, wraps=True, state=state)
    if node.bias is not None:
        drive = drive + (node.bias << STATE_SHIFT)
    return potentials(node.v_decay, drive, state=state).astype(np.int32)
