"""Bound the values of an `IntegerGraph` for any input: interval arithmetic over weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stl_deploy.graph.program import Conv, Floats, Input, Linear, Neuron, Node, Pool, Program, Reshape, Scale
from stl_deploy.integers import graph as int_ir
from stl_deploy.integers.fields import refuse
from stl_deploy.integers.net import MAX_BIAS, MAX_THRESHOLD, WIDE, Ints
from stl_deploy.integers.scales import WEIGHT_TOP

Interval = tuple[int, int]
_ANYTHING: Interval = (1 - WIDE.v_top, WIDE.v_top - 1)
SUM_LIMIT = 2**24
"""64 times a sum, and what v and a bias add, then fit in 32 bits."""
CONV_LIMIT = 2**23
"""Lava's convolutions wrap past it."""
_MOST_LATER = 100
"""Limit on later nodes that are followed; untrusted files can hold any number."""
_AT_ONCE = 2**16
"""Weights, so that they stay in the cache."""


@dataclass(frozen=True)
class Bounds:
    """sums: least and greatest sum of the inputs; values: of the outputs. Both include 0.

    Every partial sum of the inputs lies within ``sums`` too, since inputs may be 0.
    """

    sums: Interval
    values: Interval


def bounds(graph: int_ir.IntegerGraph) -> dict[str, Bounds]:
    """Return bounds of every node."""
    known: dict[str, Bounds] = {}
    for node in graph.nodes:
        known[node.name] = bounds_of(node, known, graph.by_name)
    return known


def require_sums(graph: int_ir.IntegerGraph) -> None:
    """Raise UnsupportedError by node if 64 times a sum could leave 32 bits, or a convolution wrap as Lava's do."""
    known, potentials = bounds(graph), set[str]()
    for node in graph.nodes:
        reaches = [*known[node.name].sums, *known[node.name].values]
        limit = CONV_LIMIT if isinstance(node, int_ir.ConvNode) and graph.accumulator.wraps else SUM_LIMIT
        if isinstance(node, int_ir.IntegerLI):
            reaches = [*known[node.name].sums]
            potentials.add(node.name)
        elif any(source.node in potentials for source in node.operands):
            limit = 2**31
            potentials.add(node.name)
        if isinstance(node, int_ir.IntegerLIF | int_ir.IntegerLI) and node.bias is not None:
            reaches += [int(node.bias.min()), int(node.bias.max())]
        reach = max(abs(value) for value in reaches)
        if reach >= limit:
            integers = f"as x / {reach // limit + 1} or a larger divisor, rounded, here and in training"
            levels = "a coarser input grid" if graph.input.scale > 1 else integers
            refuse(
                node,
                "sums-too-large",
                f"its sums may reach {reach:,}, beyond the {limit:,} that fit",
                f"use fewer input levels ({levels}), or smaller fan-in",
            )


def estimated_reach(program: Program, largest: float) -> float:
    """Estimate the largest sum before integers are chosen: every row's largest weight is 127, halves are rounded up.

    largest: magnitude of the input in integers.
    """
    known, reaches = dict[str, float](), list[float]()
    for node in program.nodes:
        arriving = sum(known.get(source.node, 1.0) for source in node.operands)
        if isinstance(node, Input):
            arriving = largest
        elif isinstance(node, Linear | Conv):
            arriving *= relative_sum(node.weight) * WEIGHT_TOP + node.weight[0].size / 2
        elif isinstance(node, Scale):
            arriving *= WEIGHT_TOP
        elif isinstance(node, Pool):
            arriving *= math.prod(node.kernel)
        reaches.append(arriving)
        if isinstance(node, Neuron):
            arriving = (node.cap or 1) if node.spiking else 0.0
        known[node.name] = arriving
    return max(reaches)


def may_vanish(program: Program, input_scale: float) -> bool:
    """Estimate whether a layer's weights round to 0 beside the biases and thresholds of its neurons."""
    for node in program.nodes:
        if not isinstance(node, Linear | Conv) or not node.weight.any():
            continue
        read_by = [reader for reader in program.readers[node.name] if isinstance(reader, Neuron)]
        biases = [np.abs(bias).max() for bias in (node.bias, *(r.offset for r in read_by)) if bias is not None]
        thetas = [np.abs(r.threshold).max() for r in read_by if r.threshold is not None]
        limits = [MAX_BIAS / bias for bias in biases if bias] + [MAX_THRESHOLD / theta for theta in thetas if theta]
        if limits and np.abs(node.weight).max() * min(limits) < input_scale:
            return True
    return False


def relative_sum(weight: Floats) -> float:
    """Return the largest sum of a row's magnitudes, in units of its largest."""
    rows = np.abs(weight.reshape(len(weight), -1).astype(np.float64))
    most = rows.max(axis=1)
    return float((rows.sum(axis=1)[most > 0] / most[most > 0]).max(initial=0))


def bounds_of(
    node: Node, known: Mapping[str, Bounds], by_name: Mapping[str, Node], later: dict[str, Interval] | None = None
) -> Bounds:
    """Return a node's bounds from those of the nodes before it.

    by_name: nodes that it may read a step late; those that are not in it are populations. later: known bounds of them.
    """
    later = {} if later is None else later
    arriving = [_arriving(source.node, known, by_name, later) for source in node.operands]
    if isinstance(node, int_ir.ProductNode):
        return _product(node, *arriving)
    sums = sum(low for low, _ in arriving), sum(high for _, high in arriving)
    return Bounds(sums, _values(node, sums))


def _product(node: int_ir.ProductNode, one: Interval, other: Interval) -> Bounds:
    """Return the bounds of sums of products, partial ones included."""
    terms = node.operand_shapes[0][-1] if node.matrices else 1
    ends = [low * high for low in one for high in other]
    reach = terms * min(0, *ends), terms * max(0, *ends)
    return Bounds(reach, reach)


def _arriving(
    name: str, known: Mapping[str, Bounds], by_name: Mapping[str, Node], later: dict[str, Interval]
) -> Interval:
    """Return bounds of a source, possibly a later node: every loop has a population, so bounds exist."""
    if name in known:
        return known[name].values
    node = by_name.get(name)
    if isinstance(node, int_ir.IntegerLIF):
        return 0, node.neuron.cap
    if node is None:
        return later.get(name, (0, 1))
    if name not in later:
        later[name] = _ANYTHING  # in a loop without populations, or at the end of a long way back
        if len(later) <= _MOST_LATER:
            later[name] = bounds_of(node, known, by_name, later).values
    return later[name]


def _values(node: Node, sums: Interval) -> Interval:
    match node:
        case int_ir.IntegerInput():
            return min(0, node.low), max(0, node.high)
        case int_ir.DenseNode():
            low, high = weighted(node.weight, node.bias, sums)
            # Each delay's sum is rounded down by itself, so that together they may come to less than one sum does.
            return (low if node.delay is not None else low >> node.shift), high >> node.shift
        case int_ir.ConvNode():
            return weighted(node.weight.reshape(len(node.weight), -1), node.bias, sums)
        case int_ir.GainNode():
            return weighted(node.weight.reshape(-1, 1), None, sums)
        case int_ir.SumPoolNode():
            window = node.kernel[0] * node.kernel[1]
            return sums[0] * window, sums[1] * window
        case Reshape() | int_ir.GatherNode() | int_ir.DelayNode() | int_ir.IntegerOutput() | int_ir.MaxPoolNode():
            return sums
        case int_ir.IntegerLIF():
            return 0, node.neuron.cap
    assert isinstance(node, int_ir.IntegerLI)
    return _ANYTHING


def largest(weight: Ints | NDArray[np.int8]) -> int:
    """Return the largest magnitude of the weights."""
    return max(int(weight.max(initial=0)), -int(weight.min(initial=0)))


def weighted(rows: Ints, bias: Ints | None, within: Interval) -> Interval:
    """Return bounds of ``rows · x + bias`` and of every partial sum, for every x within an interval that holds 0."""
    kind = np.int32 if largest(rows) * rows.shape[1] < 2**31 else np.int64
    at_once = max(1, _AT_ONCE // max(1, rows.shape[1]))
    positive = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        positive[start : start + at_once] = np.maximum(part, 0).sum(axis=1, dtype=kind)
    negative = rows.sum(axis=1, dtype=kind) - positive
    offset: NDArray[np.int64] = np.zeros(1, np.int64) if bias is None else bias.astype(np.int64)
    low, high = within
    greatest = positive * high + negative * low + np.maximum(offset, 0)
    least = positive * low + negative * high + np.minimum(offset, 0)
    return min(0, int(least.min())), max(0, int(greatest.max()))
