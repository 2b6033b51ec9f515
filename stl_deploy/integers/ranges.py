"""Measure and bound u and v against their 24 bits: in the worst case, and on calibration data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import UnsupportedError
from stl_deploy.graph.program import Node
from stl_deploy.integers.bounds import Interval, bounds
from stl_deploy.integers.graph import IntegerGraph, IntegerLIF
from stl_deploy.integers.net import DECAY_ONE, STATE_SHIFT, STATE_TOP, IntegerNeuron
from stl_deploy.integers.real_weights import late
from stl_deploy.integers.scales import WEIGHT_TOP
from stl_deploy.integers.simulate import VALUES_AT_ONCE, Values, entered_by, values_of
from stl_deploy.integers.step import currents, integrate

T = TypeVar("T")
WEIGHT_TOPS = (WEIGHT_TOP, 63, 31, 15)
"""Largest weights tried, where sums overflow with 8 bits: with each the sums are half as large."""
OVERFLOWS = ("u-overflow", "v-overflow", "sums-too-large")


@dataclass(frozen=True)
class LayerRange:
    """(least, greatest) u and v of a layer, in 64ths as the registers hold them.

    worst: no input within the given bounds and of the given number of steps goes further. seen: on calibration.
    """

    node: str
    u_worst: Interval
    v_worst: Interval
    u_seen: Interval
    v_seen: Interval

    def joined(self, other: LayerRange) -> LayerRange:
        """Return the range over the samples of both."""
        return replace(self, u_seen=_hull(self.u_seen, other.u_seen), v_seen=_hull(self.v_seen, other.v_seen))

    @property
    def holds(self) -> bool:
        """Whether no input at all can overflow."""
        return _within(self.u_worst) and _within(self.v_worst)


def require_seen(ranges: Iterable[LayerRange], input_scale: float = 1) -> None:
    """Raise UnsupportedError for the first layer that overflowed on calibration data.

    input_scale: from real input to integers; 1 for integers, which have no coarser grid.
    """
    for layer in ranges:
        for what, (low, high) in (("u", layer.u_seen), ("v", layer.v_seen)):
            if not _within((low, high)):
                beyond = -(-max(-low, high) // (STATE_TOP - 1))
                divided = f"as x / {beyond} or a larger divisor, rounded, here and in training"
                levels = "a coarser input grid" if input_scale > 1 else divided
                raise UnsupportedError(
                    f"{what} runs from {low} to {high} on calibration data, 24 bits hold ±{STATE_TOP - 1}",
                    node=layer.node,
                    slug=f"{what}-overflow",
                    remedy=f"use fewer input levels ({levels}), smaller weights, or a faster decay",
                )


def first_that_holds(made: Callable[[int], T], weight_tops: Sequence[int]) -> T:
    """Return what ``made`` makes with the first of the largest weights at which nothing overflows on calibration data.

    Raises the refusal of the first of them if all overflow (see `require_seen` and `require_sums`).
    """
    refused: UnsupportedError | None = None
    for weight_top in weight_tops:
        try:
            return made(weight_top)
        except UnsupportedError as error:
            if error.slug not in OVERFLOWS:
                raise
            refused = refused or error
    assert refused is not None
    raise refused


def _hull(one: Interval, other: Interval) -> Interval:
    return min(one[0], other[0]), max(one[1], other[1])


def _within(interval: Interval) -> bool:
    return max(-interval[0], interval[1]) < STATE_TOP


def ranges(graph: IntegerGraph, x: NDArray[Any]) -> tuple[LayerRange, ...]:
    """Return ranges of u and v of every population, in order.

    Args:
        graph: The integers.
        x: Calibration input in integers ``[T, B, *shape]``, whose extremes bound every input.
    """
    known = bounds(entered_by(graph, x))
    arriving = {source.node for node in graph.populations for source in node.operands}
    parts_of_ranges: list[list[LayerRange]] = []
    widest = max(math.prod(node.shape) for node in graph.nodes)
    at_once = max(1, VALUES_AT_ONCE // (widest * x.shape[0]))
    for start in range(0, x.shape[1], at_once):
        values = values_of(graph, x[:, start : start + at_once], arriving)
        parts_of_ranges.append([_range(node, known[node.name].sums, values) for node in graph.populations])
    return tuple(reduce(LayerRange.joined, parts) for parts in zip(*parts_of_ranges, strict=True))


def _range(node: IntegerLIF, worst: Interval, values: Mapping[str, Values]) -> LayerRange:
    """Return a layer's range. worst: bounds of any synaptic sum, 0 included."""
    neuron = node.neuron
    sums = sum_of_sources(node, values)
    steps = len(sums)
    u_low, u_high = (_series(extreme << STATE_SHIFT, int(np.min(neuron.i_decay)), steps) for extreme in worst)
    if neuron.u_start is not None:
        u_low, u_high = u_low + min(0, int(neuron.u_start.min())), u_high + max(0, int(neuron.u_start.max()))
    offset = np.zeros(1, np.int64) if node.bias is None else node.bias.astype(np.int64)
    low, high = u_low + (int(offset.min()) << STATE_SHIFT), u_high + (int(offset.max()) << STATE_SHIFT)
    least = int(np.min(neuron.v_decay))
    back = np.zeros(1, np.int64) if neuron.v_reset is None else neuron.v_reset.astype(np.int64)
    begin = np.zeros(1, np.int64) if neuron.v_start is None else neuron.v_start.astype(np.int64)
    top = max(0, int(begin.max())) + _series(high, least, steps)
    if not neuron.reset.startswith("subtract"):
        kept = (DECAY_ONE - least) / DECAY_ONE
        top = int(max(neuron.level_top, int(back.max()) * 2**STATE_SHIFT, int(begin.max())) * kept) + high
    # Input below 0 goes on from what a reset left: -200 after a spike, then -6,400 a step.
    bottom = min(0, int(begin.min()), _left_by_reset(neuron, int(back.min()))) + min(0, _series(low, least, steps))
    v_worst = (bottom, max(0, top))
    return LayerRange(node.name, (u_low, u_high), v_worst, *_seen(neuron, offset, sums))


def _left_by_reset(neuron: IntegerNeuron, back: int) -> int:
    """Return the least v that a spike leaves, in 64ths; back: the value that it may be put to."""
    if neuron.drop is None:
        return back << STATE_SHIFT
    if neuron.delayed_reset:  # v may have leaked to 0 before
        raised = 0 if neuron.adaptation is None else neuron.adaptation.top
        return -(int(neuron.drop.max()) << STATE_SHIFT) - raised
    return int((neuron.threshold - neuron.drop).min()) << STATE_SHIFT


def sum_of_sources(node: Node, values: Mapping[str, Values]) -> NDArray[np.int64]:
    """Sum a node's input in each step, from its sources' values ``[T, B, ...]``."""
    wide = [values[source.node].astype(np.int64) for source in node.operands]
    return sum(
        late(values_of_source) if source.delay else values_of_source
        for source, values_of_source in zip(node.operands, wide, strict=True)
    )  # type: ignore[return-value]


def _series(step: int, decay: int, steps: int) -> int:
    """Return the sum of a constant input after ``steps`` steps with this decay (magnitudes are never rounded down)."""
    kept = (DECAY_ONE - decay) / DECAY_ONE
    factor = steps if kept == 1 else (1 - kept**steps) / (1 - kept)
    return int(np.sign(step)) * int(np.ceil(abs(step) * factor))


def _seen(neuron: IntegerNeuron, bias: NDArray[np.int64], sums: NDArray[np.int64]) -> tuple[Interval, Interval]:
    """Return extremes of u and v, without wrap and saturation."""
    extremes = [0.0, 0.0]

    def seen(v: NDArray[Any]) -> None:
        extremes[:] = min(extremes[0], v.min()), max(extremes[1], v.max())

    u = currents(neuron, sums.astype(np.float64), np.float64, None)
    reached = int(min(0, u.min())), int(max(0, u.max()))
    u += bias << STATE_SHIFT
    integrate(neuron, u, np.empty(u.shape, np.uint8), limit=None, observe=seen)
    return reached, (int(extremes[0]), int(extremes[1]))
