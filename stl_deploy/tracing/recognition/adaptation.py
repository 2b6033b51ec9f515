"""Recognise adapting thresholds: one state compared with another that rises with each spike and decays.

With U the second state as it is compared, the comparison is that of v with θ + β·U, and U's normal form is
U0 + ρ·(U - U0) + j·s of the step before; U0, where it returns to, joins θ. Then
a = β·(U - U0) is the adaptation of the Program's neuron, which starts from another value than 0 where U does not start
at U0: published SRNNs begin b at the baseline, 0.01, and let it fall to 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stl_deploy.graph.program import Doubles
from stl_deploy.tracing.recognition.lowering import NoFormError
from stl_deploy.tracing.recognition.normal_form import NormalForm, Polynomial, Ranges, Symbol, number_of
from stl_deploy.tracing.recognition.thresholds import Adapting, Threshold, constant_of
from stl_deploy.tracing.unrolling.steps import NoNeuronError, Ref, Signal

_COARSE = 2.0**-20
"""Adaptation at the start, relative to the threshold, that is none: what float32 rounds of it while the model runs."""
_MIRRORED = {"gt": "gt", "ge": "ge", "lt": "gt", "le": "ge"}


def adapting_threshold(signal: Signal, cores: Sequence[frozenset[Signal]]) -> Threshold | None:
    """Return the comparison of a state with a threshold that another one raises; None for other comparisons.

    Raises CaptureError, with the line, for a threshold that moves otherwise.
    """
    if signal.node.name not in _MIRRORED:
        return None
    states: dict[Ref, Symbol] = {}

    def known(read: Signal, lag: int) -> Polynomial | None:
        if not any(read in core for core in cores):
            return None
        return Polynomial.of(states.setdefault(Ref(read, lag), Symbol()))

    try:
        above = _above(signal, NormalForm(known, unbounded=True))
    except NoFormError:  # a current is compared, too
        return None
    refs = [ref for ref, symbol in states.items() if symbol in above.symbols]
    owners = [next(core for core in cores if ref.signal in core) for ref in refs]
    if len(refs) != 2 or owners[0] is owners[1] or not above.is_affine({*states.values()}):
        return None
    slopes = [above[states[ref],] for ref in refs]
    # The potential pushes upwards and is this step's; the other state pushes down, from any step.
    at = next((i for i, slope in enumerate(slopes) if (slope > 0).all() and not refs[i].lag), None)
    if at is None or not (slopes[1 - at] <= 0).all():
        return None
    potential, used, size = refs[at], refs[1 - at], slopes[at]
    raised = _raised(signal, used, owners[1 - at])
    reached = {states[used]: _reached(raised)}
    if not _above(signal, NormalForm(known, reached), reached).is_affine({*states.values()}):
        raise NoNeuronError(signal)
    scale = torch.from_numpy(np.asarray(-slopes[1 - at] / size))
    theta = torch.from_numpy(np.asarray(-above[()] / size)) + scale * raised.rest
    threshold = Threshold(signal, potential.signal, theta, _MIRRORED[signal.node.name])

    def at_start(read: Signal, lag: int) -> Polynomial | None:
        if Ref(read, lag) == potential:
            return Polynomial.of(states[potential])
        if not lag and read.first is not None:
            raise NoFormError("the first step is made otherwise")
        return number_of(read.before[lag - 1].value) if 0 < lag <= len(read.before) else None

    try:
        at_start(signal, 0)
        above = _above(signal, NormalForm(at_start))
        start = torch.from_numpy(np.asarray(-above[()] / above[states[potential],])) - theta
    except NoFormError:
        start = None
    return replace(threshold, adapts=replace(raised, scale=scale, start=_start(threshold, raised, start)))


def _above(signal: Signal, form: NormalForm, ranges: Ranges | None = None) -> Polynomial:
    """Return a true comparison's greater side less the smaller one, up to a divisor: ``(v - B) / B > 0``.

    ranges: in which the divisor must be above 0, else it is not looked at.
    """
    left, right = (
        form(side.signal, side.lag) if isinstance(side, Ref) else number_of(constant_of(side))
        for side in signal.args[:2]
    )
    above = right - left if signal.node.name in ("lt", "le") else left - right
    (symbol, *others) = above.symbols or {Symbol()}
    if others or symbol.op != "div" or not (above[symbol,] > 0).all() or len(above.terms) > 1:
        return above
    over, under = symbol.args
    ends = under.ends(ranges or {})
    return above if ranges is not None and (ends is None or not (ends[0] > 0).all()) else over


def _raised(signal: Signal, used: Ref, members: frozenset[Signal]) -> Adapting:
    """Return the state's own update and the value that it returns to; raise CaptureError for one that no neuron has."""
    state, spike = Symbol(), Symbol(binary=True)
    given = {Ref(used.signal, used.lag + 1): Polynomial.of(state), Ref(signal, 1): Polynomial.of(spike)}

    def known(read: Signal, lag: int) -> Polynomial | None:
        return given.get(Ref(read, lag))

    try:
        after = NormalForm(known, unbounded=True)(used.signal, used.lag)
        decay, jump, constant = (torch.from_numpy(np.asarray(after[key])) for key in ((state,), (spike,), ()))
        falls_back = bool(((decay >= 0) & (decay < 1)).all())
        if not falls_back or bool((jump < 0).any()):
            raise NoNeuronError(signal)
        raised = Adapting(used, members, torch.ones(()), decay, jump, constant / (1 - decay))
        after = NormalForm(known, {state: _reached(raised)})(used.signal, used.lag)
    except NoFormError:
        raise NoNeuronError(signal) from None
    if not after.is_affine({state, spike}):
        raise NoNeuronError(signal)
    return raised


def _reached(raised: Adapting) -> tuple[Doubles, Doubles]:
    """Return the least and the largest value of the state: at rest, where every step fires, and where it starts."""
    limit = raised.rest + raised.jump / (1 - raised.decay)
    starts = [node.tensor.double() for member in raised.members for node in member.before if node.tensor is not None]
    low, high = raised.rest, limit
    for start in starts:
        low, high = torch.minimum(low, start.min()), torch.maximum(high, start.max())
    return low.numpy(), high.numpy()


def _start(threshold: Threshold, raised: Adapting, first: Tensor | None) -> Tensor | None:
    """Return the adaptation before the first step; None: 0, up to roundings of the threshold.

    first: the adaptation in the first step; None where that is made otherwise.

    Raises NoNeuronError for a start that the first step does not carry on.
    """
    if first is None:
        raise NoNeuronError(threshold.signal)
    if bool((first.abs() <= _COARSE * threshold.theta.abs()).all()):
        return None
    if bool(((raised.decay == 0) & (first != 0)).any()):
        raise NoNeuronError(threshold.signal)
    return torch.where(first == 0, 0.0, first / raised.decay)
