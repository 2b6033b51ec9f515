"""Identify one step of a core, by its arithmetic, as a neuron of the Program.

Let H be the potential and S the spike one step ago, and e the input currents. With S fixed, the potential of every
supported neuron is affine in H and e::

    h = a₀·H + g₀·e + k₀   without a spike        h = a₁·H + g₁·e + k₁   after a spike

A few evaluations determine these coefficients for each neuron, however the code is written. They describe a Program
neuron (decay a₀, gain g₀, constant k₀) in one of these cases:

    none               a₁ = a₀, g₁ = g₀, k₁ = k₀
    subtract           a₁ = a₀, g₁ = g₀, k₁ - k₀ = -a₀·θ
    subtract_delayed   a₁ = a₀, g₁ = g₀, k₁ - k₀ = -θ
    value              a₁ = 0,  g₁ = g₀, k₁ - k₀ = a₀·v_reset
    value_delayed      a₁ = 0,  g₁ = 0,  k₁ = v_reset

If the code compares the potential after the reset again, H is that potential and S its comparison (`at_once`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stl_deploy.graph.program import Subtracts
from stl_deploy.tracing.at_once import reset_at_once
from stl_deploy.tracing.coefficients import Affine, FittedUpdate, close
from stl_deploy.tracing.cores import Recurrence
from stl_deploy.tracing.steps import NoNeuronError, Ref, Signal
from stl_deploy.tracing.thresholds import Adapting

_COUNTS = 64
"""Tensors of counts that are tried, another count for each neuron, at most."""
_MOST_COUNTED = 1023
"""The largest count that is tried: larger ones would drown what else acts on the potential."""


@dataclass(frozen=True, eq=False)
class Population:
    """One core as a neuron. ``currents``: its inputs; ``recurrent``: a gain on its own last spikes."""

    core: Recurrence
    state: Signal
    currents: tuple[Ref, ...]
    gains: tuple[Tensor, ...]
    decay: Tensor
    constant: Tensor
    start: Tensor | None
    reset: str = "none"
    v_reset: Tensor | None = None
    recurrent: Tensor | None = None
    readings: tuple[Population, ...] = ()
    silent: tuple[Ref, ...] = ()
    v_min: Tensor | None = None
    subtracts: Subtracts = "baseline"


def read_core(core: Recurrence, outside: Callable[[Signal], bool], foreign: Set[Signal]) -> Population:
    """Return the neuron of a core.

    outside: whether a member is read by what is no part of the core. foreign: states and spikes of other cores.

    Raises CaptureError, with the line, for a core that is no neuron of the Program.
    """
    state = core.threshold.potential if core.threshold is not None else _state(core, outside)
    reading = FittedUpdate(core, state, foreign)
    off = reading.affine(0.0)
    reading.require_float_precision(off)
    if core.threshold is None:
        reading, off = reading.without(_nothing(off.gains)), off.without(_nothing(off.gains))
        return Population(
            core, state, reading.currents, off.gains, off.decay, off.constant, reading.start(off), silent=reading.silent
        )
    on = reading.affine(1.0)
    subtracts: Subtracts = "baseline"
    if core.threshold.adapts is not None:
        reading, off, on, subtracts = _without_adaptation(reading, core.threshold.adapts, off, on)
    several = core.threshold.count is not None and core.threshold.count.cap != 1
    if core.threshold.count is not None and several:
        most = min(core.threshold.count.cap or _MOST_COUNTED, _MOST_COUNTED)
        runs = min(-(-most // math.prod(reading.shape)), _COUNTS)
        spread = torch.linspace(1, most, runs * math.prod(reading.shape), dtype=torch.float64).round()
        counts = spread.reshape(runs, *reading.shape)
        for count in (*map(reading.full, (2, most)), *counts):
            _require_each(reading, off, on, reading.affine(count), count)
    nothing = [a and b for a, b in zip(_nothing(off.gains), _nothing(on.gains), strict=True)]
    population = _with_reset(reading.without(nothing), off.without(nothing), on.without(nothing))
    if several and population.reset in ("value", "value_delayed"):  # v * (1 - s): two spikes turn the potential round
        raise NoNeuronError(state)
    if subtracts == "adapted" and population.reset not in ("subtract", "subtract_delayed"):
        raise NoNeuronError(state)
    return replace(
        population,
        subtracts=subtracts,
        readings=tuple(replace(each, subtracts=subtracts) for each in population.readings),
    )


def _without_adaptation(
    reading: FittedUpdate, adapts: Adapting, off: Affine, on: Affine
) -> tuple[FittedUpdate, Affine, Affine, Subtracts]:
    """Take what raises the threshold out of the currents; a spike may subtract it with the baseline, nothing else.

    What is subtracted at once is the threshold of the step before, a late reset's that of this step.
    """
    if reading.core.again is not None:
        raise NoNeuronError(reading.state)
    theta = reading.full(adapts.scale)
    subtracts: Subtracts = "baseline"
    for ref, before, after in zip(reading.currents, off.gains, on.gains, strict=True):
        if ref.signal not in adapts.members:
            continue
        at_once = Ref(adapts.used.signal, adapts.used.lag + 1)
        wanted = {adapts.used: -theta, at_once: -off.decay * theta}.get(ref)
        if bool(before.any()) or wanted is None or not close(after, wanted, theta):
            raise NoNeuronError(reading.state)
        subtracts = "adapted"
        on = replace(on, constant=on.constant + after * reading.full(adapts.rest))  # a threshold without a baseline
    out = [ref.signal in adapts.members for ref in reading.currents]
    reading = reading.without(out)
    reading.silent = tuple(ref for ref in reading.silent if ref.signal not in adapts.members)  # code makes it itself
    return reading, off.without(out), on.without(out), subtracts


def _require_each(reading: FittedUpdate, off: Affine, on: Affine, many: Affine, count: float | Tensor) -> None:
    """Raise CaptureError unless each of ``count`` spikes acts on the potential as one does."""
    pairs = [(off.decay, on.decay, many.decay), (off.constant, on.constant, many.constant)]
    pairs += zip(off.gains, on.gains, many.gains, strict=True)
    if not all(close(several - none, count * (one - none)) for none, one, several in pairs):
        raise NoNeuronError(reading.state)


def _nothing(gains: tuple[Tensor, ...]) -> list[bool]:
    """Return the currents without any effect (code that multiplies by 0)."""
    return [not bool(gain.any()) for gain in gains]


def _state(core: Recurrence, outside: Callable[[Signal], bool]) -> Signal:
    """Return the member that others read; the one that carries on without a reader."""
    read = [member for member in core.members if outside(member)]
    if len(read) > 1:
        raise NoNeuronError(read[1])
    carried = [
        ref.signal for member in core.members for ref in member.reads() if ref.lag and ref.signal in core.members
    ]
    return (read or carried)[0]


def _with_reset(reading: FittedUpdate, off: Affine, on: Affine) -> Population:
    threshold = reading.core.threshold
    assert threshold is not None
    theta = reading.full(threshold.theta)
    base = Population(
        reading.core,
        reading.state,
        reading.currents,
        off.gains,
        off.decay,
        off.constant,
        reading.start(off),
        silent=reading.silent,
        v_min=reading.v_min if reading.clip is None else reading.bound_before(off, on, theta),
    )
    if reading.core.again is not None:
        reset, v_reset = reset_at_once(reading, off, on, base.start)
        return replace(base, reset=reset, v_reset=v_reset)
    same_gains = all(close(a, b) for a, b in zip(on.gains, off.gains, strict=True))
    jump = on.constant - off.constant
    candidates: list[Population] = []
    if same_gains and close(on.decay, off.decay):
        if close(jump, torch.zeros_like(jump), theta):
            return base
        if close(jump, -off.decay * theta, theta):
            candidates.append(replace(base, reset="subtract"))
        if close(jump, -theta, theta):
            candidates.append(replace(base, reset="subtract_delayed"))
        if not candidates and bool((theta > 0).all()):
            candidates.append(replace(base, reset="subtract_delayed", recurrent=jump + theta))
        elif not candidates:  # potentials around -65 mV: its own spikes reach it like any others
            candidates.append(replace(base, recurrent=jump))
    elif close(on.decay, torch.zeros_like(on.decay)):
        if same_gains and bool(off.decay.all()):
            candidates.append(replace(base, reset="value", v_reset=jump / off.decay))
        elif all(close(gain, torch.zeros_like(gain)) for gain in on.gains):
            candidates.append(replace(base, reset="value_delayed", v_reset=on.constant))
    if not candidates:
        raise NoNeuronError(reading.state)
    return replace(candidates[0], readings=tuple(candidates))
