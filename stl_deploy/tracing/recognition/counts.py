"""Recognise spikes that carry counts: a potential divided by its threshold, rounded, and clamped to [0, cap].

    s = clamp(trunc(v / θ), 0, cap)          s = floor(clamp(v, 0, cap) + 0.5)          s = round(clamp(v, 0, cap))
    s = (v >= θ) * floor(v / θ)              as Sinabs writes it

Rounding is monotone and leaves whole bounds alone, so the clamp may stand before it or behind it, and before
the division, too, where its bound in thresholds is the cap. Spellings put a clamp of n / c before that division.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stl_deploy.graph.program import Rounding
from stl_deploy.tracing.recording.operations import ROUNDS
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import Ref, Signal, Steps

_CLAMPS = ("clamp", "clamp_min", "clamp_max", "relu", "minimum", "maximum", "hardtanh")


@dataclass(frozen=True, eq=False)
class Count:
    """A count of spikes: its output signal, the potential, the threshold, and its other signals."""

    signal: Signal
    potential: Signal
    theta: Tensor
    rounding: Rounding
    cap: int | None
    gates: tuple[Signal, ...]
    """Comparisons that only say where the count is above 0."""


def find_counts(steps: Steps) -> dict[Signal, Count]:
    """Return every count, by its output signal."""
    readers: dict[Signal, list[Signal]] = {}
    for signal in steps.signals:
        for ref in signal.reads():
            readers.setdefault(ref.signal, []).append(signal)
    counts = {}
    for signal in steps.signals:
        if signal.node.name in ROUNDS and signal.node.dtype.is_floating_point and len(signal.reads()) == 1:
            count = _count(signal, readers, steps.output.signal)
            if count is not None:
                counts[count.signal] = count
    return counts


def _count(signal: Signal, readers: dict[Signal, list[Signal]], output: Signal) -> Count | None:
    rounding = ROUNDS[signal.node.name]
    low: float | None = None
    high: float | None = None
    here = _only(signal.args[0])
    if here is not None and signal.node.name == "floor":
        half = _added_half(here)
        here, rounding = (half, "half_up") if half is not None else (here, rounding)
    theta = torch.ones((), dtype=torch.float32)
    while here is not None:
        bounds, inner = clamp_bounds(here), _divided(here)
        if here.node.name == "mul" and (len(readers[here]) > 1 or here is output):
            inner = None  # a state, v = (v + x) * 0.5
        scaled = None if bounds is None else _divided_bounds(bounds, theta)
        if scaled is not None:
            low, high = _tighter((low, high), scaled)
        elif inner is not None and bool((theta == 1).all()):
            theta = inner
        else:
            break
        here = _first(here)
    if here is None:
        return None
    gates: tuple[Signal, ...] = ()
    while signal is not output and len(readers.get(signal, ())) == 1:
        (reader,) = readers[signal]
        bounds, gate = clamp_bounds(reader), _gate(reader, signal, here, theta)
        if any(ref.lag for ref in reader.reads()) or (bounds is None and gate is None):
            break
        low, high = _tighter((low, high), bounds or (0.0, None))
        gates += () if gate is None else (gate,)
        signal = reader
    if low is None or low < 0:
        return None
    if low or (high is not None and (high < 1 or high != int(high))):
        return None
    return Count(signal, here, theta, rounding, None if high is None else int(high), gates)


def _only(item: Any) -> Signal | None:
    return item.signal if isinstance(item, Ref) and not item.lag else None


def _first(signal: Signal) -> Signal | None:
    """Return the one signal of the same step that another is made of."""
    reads = signal.reads()
    return reads[0].signal if len(reads) == 1 and not reads[0].lag else None


def constant_number(item: Any) -> float | None:
    """Return a constant that is the same everywhere as a number; None for others."""
    if isinstance(item, Node):
        values = set() if item.tensor is None else set(item.tensor.double().reshape(-1).tolist())
        return values.pop() if len(values) == 1 else None
    return float(item) if isinstance(item, int | float) else None


def _added_half(signal: Signal) -> Signal | None:
    """Return u if a signal is u + 1/2."""
    if signal.node.name != "add" or constant_number((signal.kwargs or {}).get("alpha", 1)) != 1 or len(signal.args) > 2:
        return None
    constants = [constant_number(item) for item in signal.args if not isinstance(item, Ref)]
    return _first(signal) if constants == [0.5] else None


def _divided(signal: Signal) -> Tensor | None:
    """Return θ if a signal is another one divided by it; a division that rounds otherwise is none.

    ``v * 4`` is ``v / 0.25`` on every bit, but ``v * 3`` is rounded otherwise than ``v / (1 / 3)``.
    """
    name, args = signal.node.name, signal.args
    if name not in ("div", "mul") or len(args) != 2 or signal.kwargs:
        return None
    signals, numbers = [item for item in args if isinstance(item, Ref)], [_tensor(item) for item in args]
    number = numbers[0] if name == "mul" and isinstance(args[1], Ref) else numbers[1]
    if len(signals) != 1 or number is None:
        return None
    if name == "div":
        return number
    powers = bool((torch.frexp(number.double()).mantissa == 0.5).all())
    return 1 / number if powers and bool(torch.isfinite(1 / number).all()) else None


def _tensor(item: Any) -> Tensor | None:
    """Return a constant argument as a tensor."""
    if isinstance(item, Node):
        return item.tensor
    return torch.tensor(float(item)) if isinstance(item, int | float) else None


def clamp_bounds(signal: Signal) -> tuple[float | None, float | None] | None:
    """Return the bounds that a signal is clamped to; None if it is no clamp to numbers."""
    name, args, options = signal.node.name, signal.args, signal.kwargs or {}
    if name not in _CLAMPS or len(signal.reads()) != 1:
        return None
    if name == "relu":
        return 0.0, None
    if name in ("minimum", "maximum"):
        bound = next((constant_number(item) for item in args if not isinstance(item, Ref)), None)
        return None if bound is None else (None, bound) if name == "minimum" else (bound, None)
    low, high = (*args[1:], None, None)[:2]
    low, high = options.get("min", low), options.get("max", high)
    if name == "clamp_max":
        low, high = None, low
    if name == "hardtanh" and len(args) < 3:
        return None
    bounds = tuple(None if item is None else constant_number(item) for item in (low, high))
    given = sum(item is not None for item in (low, high))
    return (bounds[0], bounds[1]) if sum(bound is not None for bound in bounds) == given else None


def _divided_bounds(
    bounds: tuple[float | None, float | None], theta: Tensor
) -> tuple[float | None, float | None] | None:
    """Return the bounds of a clamp before a division by θ as bounds behind it; None if they are not one number each."""
    low, high = bounds
    if bool((theta == 1).all()):
        return bounds
    if low or not bool((theta > 0).all()):
        return None
    highs = set() if high is None else set((torch.tensor(high) / theta.float()).reshape(-1).tolist())
    return (low, highs.pop() if highs else None) if len(highs) < 2 else None


def _tighter(
    a: tuple[float | None, float | None], b: tuple[float | None, float | None]
) -> tuple[float | None, float | None]:
    lows, highs = ([x for x in pair if x is not None] for pair in zip(a, b, strict=True))
    return max(lows, default=None), min(highs, default=None)


def _gate(reader: Signal, count: Signal, potential: Signal, theta: Tensor) -> Signal | None:
    """Return the comparison that a count is multiplied by without effect: of the same potential, not above θ."""
    if reader.node.name != "mul":
        return None
    others = [ref.signal for ref in reader.reads() if ref.signal is not count]
    if len(others) != 1:
        return None
    gate = others[0]
    if gate.node.name == "_to_copy" and (inner := _first(gate)) is not None:
        gate = inner
    if gate.node.name not in ("gt", "ge") or _only(gate.args[0]) is not potential or isinstance(gate.args[1], Ref):
        return None
    level = gate.args[1].tensor if isinstance(gate.args[1], Node) else torch.tensor(float(gate.args[1]))
    assert level is not None
    # Below θ every count is 0 anyway, so a gate at or below θ takes nothing away.
    below = level < theta if gate.node.name == "gt" else level <= theta
    return gate if bool((below & (level >= 0)).all()) else None
