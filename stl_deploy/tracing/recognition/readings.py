"""Identify one step of a core, in normal form, as a neuron of the Program.

Let H be the potential and S the spike one step ago, and e the input currents. With S fixed, the potential of every
supported neuron is affine in H and e::

    h = a₀·H + g₀·e + k₀   without a spike        h = a₁·H + g₁·e + k₁   after a spike

These coefficients, which the normal form of its update has, describe a Program neuron (decay a₀, gain g₀, constant k₀)
in one of these cases:

    none               a₁ = a₀, g₁ = g₀, k₁ = k₀
    subtract           a₁ = a₀, g₁ = g₀, k₁ - k₀ = -a₀·θ
    subtract_delayed   a₁ = a₀, g₁ = g₀, k₁ - k₀ = -θ
    value              a₁ = 0,  g₁ = g₀, k₁ - k₀ = a₀·v_reset
    value_delayed      a₁ = 0,  g₁ = 0,  k₁ = v_reset

If the code compares the potential after the reset again, H is that potential P and S its comparison r. With
s = [h > θ], snnTorch's ``reset_delay=False`` computes::

    h = β·P + x - θ·r       P = h - (s - r)·θ       reset "subtract"
    h = β·(1 - r)·P + x     P = h - (s - r)·h       reset "zero"

The first is the Program's reset ``snntorch_subtract_now``. In the second r is always 0, because P is h without a spike
and 0 after one; so it is the reset ``value``, and the code's behaviour for r = 1 does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stl_deploy.graph.program import Reset, Subtracts
from stl_deploy.tracing.recognition.cores import Recurrence
from stl_deploy.tracing.recognition.thresholds import Adapting, Threshold
from stl_deploy.tracing.recognition.updates import Affine, Update, alike, close
from stl_deploy.tracing.unrolling.steps import NoNeuronError, Ref, Signal


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
    update = Update(core, state, foreign)
    off = update.affine(0)
    on = off if core.threshold is None else update.affine(1)
    subtracts: Subtracts = "baseline"
    if core.threshold is not None and core.threshold.adapts is not None:
        off, on, subtracts = _without_adaptation(update, core.threshold.adapts, off, on)
    nothing = [not bool(a.any() | b.any()) for a, b in zip(off.gains, on.gains, strict=True)]  # multiplied by 0
    update.without(nothing)
    population = _with_reset(update, off.without(nothing), on.without(nothing))
    several = core.threshold is not None and core.threshold.count is not None and core.threshold.count.cap != 1
    if several and population.reset in ("value", "value_delayed"):  # v * (1 - s): two spikes turn the potential round
        raise NoNeuronError(state)
    if subtracts == "adapted" and population.reset not in ("subtract", "subtract_delayed"):
        raise NoNeuronError(state)
    return replace(
        population,
        subtracts=subtracts,
        readings=tuple(replace(each, subtracts=subtracts) for each in population.readings),
    )


def _without_adaptation(update: Update, adapts: Adapting, off: Affine, on: Affine) -> tuple[Affine, Affine, Subtracts]:
    """Take what raises the threshold out of the currents; a spike may subtract it with the baseline, nothing else.

    What is subtracted at once is the threshold of the step before, a late reset's that of this step.
    """
    if update.core.again is not None:
        raise NoNeuronError(update.state)
    theta = update.full(adapts.scale)
    subtracts: Subtracts = "baseline"
    for ref, before, after in zip(update.currents, off.gains, on.gains, strict=True):
        if ref.signal not in adapts.members:
            continue
        at_once = Ref(adapts.used.signal, adapts.used.lag + 1)
        wanted = {adapts.used: -theta, at_once: -off.decay * theta}.get(ref)
        if bool(before.any()) or wanted is None or not close(after, wanted, theta):
            raise NoNeuronError(update.state)
        subtracts = "adapted"
        on = replace(on, constant=on.constant + after * update.full(adapts.rest))  # a threshold without a baseline
    out = [ref.signal in adapts.members for ref in update.currents]
    update.without(out)
    update.silent = tuple(ref for ref in update.silent if ref.signal not in adapts.members)  # code makes it itself
    return off.without(out), on.without(out), subtracts


def _state(core: Recurrence, outside: Callable[[Signal], bool]) -> Signal:
    """Return the member that others read; the one that carries on without a reader."""
    read = [member for member in core.members if outside(member)]
    if len(read) > 1:
        raise NoNeuronError(read[1])
    carried = [
        ref.signal for member in core.members for ref in member.reads() if ref.lag and ref.signal in core.members
    ]
    return (read or carried)[0]


def _with_reset(update: Update, off: Affine, on: Affine) -> Population:
    threshold = update.core.threshold
    base = Population(
        update.core,
        update.state,
        update.currents,
        off.gains,
        off.decay,
        off.constant,
        update.start(off),
        silent=update.silent,
    )
    if threshold is None:
        return base
    theta = update.full(threshold.theta)
    bound = update.bound_before(threshold)
    base = replace(base, v_min=None if bound is None else update.full(bound))
    if update.core.again is not None:
        reset, v_reset = _reset_at_once(update, off, on, base.start)
        return replace(base, reset=reset, v_reset=v_reset)
    # Several readings may fit (a decay of 1 makes both subtractions one): `trial` takes the one with the code's bits.
    same_gains = all(alike(a, b) for a, b in zip(on.gains, off.gains, strict=True))
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
        elif not any(bool(gain.any()) for gain in on.gains):
            candidates.append(replace(base, reset="value_delayed", v_reset=on.constant))
    if not candidates:
        raise NoNeuronError(update.state)
    return replace(candidates[0], readings=tuple(candidates))


def _reset_at_once(update: Update, off: Affine, on: Affine, start: Tensor | None) -> tuple[Reset, Tensor | None]:
    """Return the reset of a core with two comparisons, and the value it resets to, if it does.

    off, on: the potential's coefficients where what was left a step ago is not, and is, above the threshold. start:
    what is left before step 0. Raises CaptureError, with the line, for a reset that no neuron of the Program has.
    """
    threshold = update.core.threshold
    assert threshold is not None
    theta = update.full(threshold.theta)
    if bool(_fires(torch.zeros(()) if start is None else start, theta, threshold).any()):
        raise NoNeuronError(update.state)
    zeros = torch.zeros_like(theta)
    left = {(s, r): update.left(s, r) for s in (0, 1) for r in (0, 1)}
    scale, value = left[1, 0]
    kept = close(left[0, 0][0], zeros + 1) and close(left[0, 0][1], zeros)
    if kept and close(scale, zeros) and not bool(_fires(value, theta, threshold).any()):
        return "value", value
    same_slopes = all(alike(a, b) for a, b in zip((on.decay, *on.gains), (off.decay, *off.gains), strict=True))
    late = same_slopes and close(on.constant - off.constant, -theta, theta)
    now = all(close(a, zeros + 1) and close(b, (r - s) * theta, theta) for (s, r), (a, b) in left.items())
    if threshold.compare == "gt" and late and now:
        return "snntorch_subtract_now", None
    raise NoNeuronError(update.state)


def _fires(potential: Tensor, theta: Tensor, threshold: Threshold) -> Tensor:
    return potential > theta if threshold.compare == "gt" else potential >= theta
