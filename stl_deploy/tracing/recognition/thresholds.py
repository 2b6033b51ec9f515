"""Find comparisons of a signal with a constant, and the level of the compared potential."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stl_deploy.tracing.recognition.counts import Count, find_counts
from stl_deploy.tracing.recognition.spellings import in_one_spelling
from stl_deploy.tracing.recording.operations import map_tree
from stl_deploy.tracing.unrolling.layout import BATCH, shape_of
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import Ref, Signal, Steps, fold_steps

_MONOTONE = ("add", "sub", "mul", "div", "_to_copy", "relu", "clamp_min")
"""Operations with constants that round monotonically."""


@dataclass(frozen=True, eq=False)
class Adapting:
    """State that raises a threshold. used: as it is compared; members: of its core. Numbers are float64.

    scale: β, decay: ρ, jump: what a spike adds to the state of the next step (see `adaptation`).
    rest: U0. start: the adaptation before the first step; None: 0.
    """

    used: Ref
    members: frozenset[Signal]
    scale: Tensor
    decay: Tensor
    jump: Tensor
    rest: Tensor
    start: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Threshold:
    """A comparison: spikes where the potential is above θ (``gt``), or has reached it (``ge``).

    count: how many, where the signal counts how often θ is in the potential. adapts: what raises θ with each spike.
    """

    signal: Signal
    potential: Signal
    theta: Tensor
    compare: str
    count: Count | None = None
    adapts: Adapting | None = None

    @property
    def lowest(self) -> Tensor:
        """The lowest potential at which it may fire: θ, where counts are rounded to the nearest θ/2."""
        theta = self.theta.double()
        if self.count is not None and self.count.rounding != "down":
            return theta / 2
        if self.adapts is None or self.adapts.start is None:
            return theta
        return theta + self.adapts.start.clamp(max=0)


def is_elementwise(signal: Signal) -> bool:
    """Return whether a signal is made of others element by element, in the same shape."""
    return signal.node.pointwise or signal.node.name in ("reshape", "expand")


def is_affine_norm(signal: Signal) -> bool:
    """Return whether a signal is a batch norm with running statistics."""
    return signal.node.name == "native_batch_norm" and not signal.args[5]


def find_thresholds(steps: Steps) -> dict[Signal, Threshold]:
    """Return every comparison of a signal with a constant, and every count of a constant's multiples in one."""
    counts = find_counts(steps)
    gates = {gate for count in counts.values() for gate in count.gates}
    thresholds = {s: Threshold(s, count.potential, count.theta, "ge", count) for s, count in counts.items()}
    for signal in (signal for signal in steps.signals if signal not in gates):
        threshold = _threshold(signal)
        if threshold is not None:
            thresholds[signal] = threshold
    return thresholds


def one_step(outputs: Sequence[Node]) -> Steps:
    """Return the graph of one step, with each comparison once.

    Raises CaptureError where steps differ.
    """
    return _merge_comparisons(in_one_spelling(fold_steps(outputs)))


def _merge_comparisons(steps: Steps) -> Steps:
    """Merge comparisons of one potential with one threshold: ``v > θ`` and ``v - θ > 0``."""
    same: dict[Signal, Signal] = {}
    first: list[Threshold] = []
    for signal in steps.signals:
        threshold = _threshold(signal)
        if threshold is None or signal.first is not None or threshold.potential.node.dtype != torch.float32:
            continue  # in coarser numbers a difference may be 0
        earlier = next((known.signal for known in first if _are_same(known, threshold)), None)
        if earlier is None:
            first.append(threshold)
            continue
        same[signal] = earlier
        earlier.before = max(signal.before, earlier.before, key=len)
    if same:

        def merged(ref: Ref) -> Ref:
            return Ref(same.get(ref.signal, ref.signal), ref.lag)

        for signal in steps.signals:
            signal.args, signal.kwargs = map_tree((signal.args, signal.kwargs), Ref, merged)
        steps.signals = tuple(signal for signal in steps.signals if signal not in same)
        steps.output = merged(steps.output)
        steps.of_node = {node: (same.get(signal, signal), step) for node, (signal, step) in steps.of_node.items()}
    return steps


def _are_same(a: Threshold, b: Threshold) -> bool:
    """Return whether two comparisons give the same at every step, those before the first that are known included."""
    alike = a.potential is b.potential and a.compare == b.compare and a.signal.still == b.signal.still
    if not alike or a.signal.node.layout != b.signal.node.layout or a.theta.shape != b.theta.shape:
        return False
    starts = zip(a.signal.before, b.signal.before, strict=False)  # one of them may be read later than the other
    return torch.equal(a.theta, b.theta) and all(torch.equal(*map(constant_of, pair)) for pair in starts)


def _threshold(signal: Signal) -> Threshold | None:
    name = signal.node.name
    if name not in ("gt", "ge"):  # `in_one_spelling` has written the others so
        return None
    left, right = signal.args
    if not isinstance(left, Ref) or isinstance(right, Ref):
        return None
    return _of_difference(signal, left, constant_of(right), name)


def _of_difference(signal: Signal, left: Ref, theta: Tensor, compare: str) -> Threshold | None:
    """Return ``h - θ > 0`` as ``h > θ``: a difference of floats is 0 only if they are equal."""
    if left.lag:
        return None
    potential = left.signal
    if bool((theta == 0).all()) and potential.node.name == "sub" and not _alpha(potential):
        first, second = potential.args[0], potential.args[1]
        if isinstance(first, Ref) and not first.lag and not isinstance(second, Ref):
            potential, theta = first.signal, constant_of(second)
    return Threshold(signal, potential, _level_in_float32(potential, theta, compare), compare)


def _level_in_float32(potential: Signal, theta: Tensor, compare: str) -> Tensor:
    """Return the float32 θ with which float32 potentials fire as with one of float64.

    torch compares float32 with a float64 tensor in float64, unless that has no axis. ``gt``: θ rounded down, the
    largest float32 that does not fire; ``ge``: rounded up, the smallest that does.
    """
    if potential.node.dtype != torch.float32 or theta.dtype != torch.float64 or not theta.dim():
        return theta
    rounded = theta.float()
    wrong_side, direction = (rounded > theta, -torch.inf) if compare == "gt" else (rounded < theta, torch.inf)
    return torch.where(wrong_side, rounded.nextafter(torch.tensor(direction)), rounded)


def _alpha(signal: Signal) -> bool:
    return (signal.kwargs or {}).get("alpha", 1) != 1 or len(signal.args) > 2


def constant_of(item: Any) -> Tensor:
    """A constant of an operation's arguments as a tensor."""
    return item.value if isinstance(item, Node) else torch.tensor(float(item))


def of_state(threshold: Threshold, held: Set[Signal]) -> Threshold:
    """Return a comparison of a function of a potential, ``(v - θ) / θ > 0``, as one of the potential itself.

    held: the signals that hold states. The level is found among the float32 numbers, so both fire alike on every bit.
    """
    if threshold.count is not None:
        return threshold
    chain = path_to_state(threshold.potential, held)
    if not chain:
        return threshold
    potential = chain[-1].reads()[0].signal
    theta = _level(potential, chain[::-1], threshold)
    below = theta is not None and bool((theta <= 0).any()) and any(map(is_affine_norm, chain))
    return threshold if theta is None or below else replace(threshold, potential=potential, theta=theta)


def path_to_state(signal: Signal, held: Set[Signal]) -> list[Signal]:
    """Return the operations with constants that make a signal of a state, the last one first; empty if none does."""
    chain: list[Signal] = []
    while signal not in held:
        reads = signal.reads()
        monotone = signal.node.name in _MONOTONE or is_affine_norm(signal)
        if not monotone or len(reads) != 1 or reads[0].lag:
            return []
        chain.append(signal)
        signal = reads[0].signal
    return chain


def _level(potential: Signal, chain: list[Signal], threshold: Threshold) -> Tensor | None:
    """Return the largest potential that does not fire (``gt``), or the smallest that does (``ge``), or None."""
    if potential.node.dtype != torch.float32:
        return None

    def fires(keys: Tensor) -> Tensor:
        values = _float_of(keys)
        for signal in chain:
            values = signal.made_of(partial(_given, values), {BATCH: 1})
        return values > threshold.theta if threshold.compare == "gt" else values >= threshold.theta

    shape = (1, *shape_of(potential.node.layout, {BATCH: 1})[1:])
    # Bisection over the bits: floats of one sign are ordered as their bits are, so 32 halvings find the level.
    top = torch.tensor(torch.finfo(torch.float32).max).view(torch.int32)  # its place among the floats from 0 up
    high = torch.full(shape, int(top), dtype=torch.int64)
    low = -high
    if bool(fires(low).any()) or not bool(fires(high).all()):
        return None
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        above = fires(middle)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return _float_of(low if threshold.compare == "gt" else high)


def _given(values: Tensor, _: Ref) -> Tensor:
    return values


def _float_of(keys: Tensor) -> Tensor:
    """Return the float32 at a place among all of them; 0 is at 0."""
    return torch.copysign(keys.abs().to(torch.int32).view(torch.float32), keys)
