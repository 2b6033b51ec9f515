"""Recognise adapting thresholds: one state compared with another that rises with each spike and decays.

With U the second state as it is compared, the comparison is that of v with θ + β·U, and U is read off its arithmetic as
U0 + ρ·(U - U0) + j·s of the step before, however the code is written; U0, where it returns to, joins θ. Then
a = β·(U - U0) is the adaptation of the Program's neuron, which starts from another value than 0 where U does not start
at U0: published SRNNs begin b at the baseline, 0.01, and let it fall to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from stl_deploy.tracing.evaluation import Evaluation, Unknown
from stl_deploy.tracing.steps import NoNeuronError, Ref, Signal
from stl_deploy.tracing.thresholds import Adapting, Threshold, constant_of, is_elementwise

Values = Callable[[Signal, int], Tensor | None]

_PROBES = ((0.7312, 1.2457), (-1.5193, 0.5071), (2.2749, -0.2633))
_PARTS = tuple(part / 64 for part in range(1, 65))
"""Of its limit, at which an adaptation is tried."""
_BESIDE = (-(2.0**20), -1000.0, -3.1, -0.37, -1e-3, 1e-3, 0.41, 2.7, 1000.0, 2.0**20)
"""Distances from the threshold at which a potential is tried."""
_COARSE = 2.0**-20
"""Adaptation at the start, relative to the threshold, that is none: what float32 rounds of it while the model runs."""
_MIRRORED = {"gt": "gt", "ge": "ge", "lt": "gt", "le": "ge"}


def adapting_threshold(signal: Signal, cores: Sequence[frozenset[Signal]]) -> Threshold | None:
    """Return the comparison of a state with a threshold that another one raises; None for other comparisons.

    Raises CaptureError, with the line, for a threshold that moves otherwise.
    """
    if signal.node.name not in _MIRRORED:
        return None
    *sides, divisor = _sides(signal)
    compared = [side for side in sides if isinstance(side, Ref)]
    refs = list(dict.fromkeys(state for side in compared for state in _states(side, cores, [signal])))
    owners = [next(core for core in cores if ref.signal in core) for ref in refs]
    if len(refs) != 2 or owners[0] is owners[1]:
        return None

    def above(values: Sequence[float | Tensor]) -> Tensor:
        """Return the first side less the second."""
        numbers = (value if isinstance(value, Tensor) else _number(value) for value in values)
        fixed = {(ref.signal, ref.lag): value for ref, value in zip(refs, numbers, strict=True)}
        return difference(lambda signal, lag: fixed.get((signal, lag)))

    def difference(given: Values) -> Tensor:
        return _value(sides[0], given) - _value(sides[1], given)

    try:
        constant = above((0.0, 0.0))
    except Unknown:  # a current is compared, too
        return None
    slopes = above((1.0, 0.0)) - constant, above((0.0, 1.0)) - constant

    def is_affine(values: Sequence[float | Tensor]) -> bool:
        terms = constant, slopes[0] * values[0], slopes[1] * values[1]
        return _adds_up(above(values), *terms)

    if not all(map(is_affine, _PROBES)):
        return None
    at = next((i for i, slope in enumerate(slopes) if bool((slope > 0).all()) and not refs[i].lag), None)
    if at is None or not bool((slopes[1 - at] <= 0).all()):
        return None
    potential, used = refs[at], refs[1 - at]
    size = slopes[at]
    raised = _raised(signal, used, owners[1 - at])
    if divisor is not None and not _is_positive(divisor, potential, used):
        return None
    scale = -slopes[1 - at] / size
    for state in _reached(raised):
        level = -constant / size + scale * state
        if not all(is_affine((level + d, state) if at == 0 else (state, level + d)) for d in _BESIDE):
            raise NoNeuronError(signal)
    threshold = Threshold(signal, potential.signal, -constant / size + scale * raised.rest, _MIRRORED[signal.node.name])
    at_rest = (potential.signal, potential.lag)
    start = _start(
        threshold,
        raised,
        lambda given: -difference(lambda *at: _number(0.0) if at == at_rest else given(*at)) / size,
    )
    return replace(threshold, adapts=replace(raised, scale=scale, start=start))


def _start(threshold: Threshold, raised: Adapting, level: Callable[[Values], Tensor]) -> Tensor | None:
    """Return the adaptation before the first step; None: 0, up to roundings of the threshold.

    level: the level of potentials, of signals' values. Raises CaptureError, with the line, for a start that the first
    step does not carry on.
    """

    def before(read: Signal, lag: int) -> Tensor | None:
        if not lag and read.first is not None:
            raise Unknown
        value = read.before[lag - 1].tensor if 0 < lag <= len(read.before) else None
        return value if value is None or value.dtype == torch.bool else value.double()

    try:
        before(threshold.signal, 0)
        first = level(before) - threshold.theta
    except Unknown:  # the first step is made otherwise, which is compared with the others later
        starts = [node.tensor for member in raised.members for node in member.before]
        if all(start is not None and _close(start.double(), raised.rest, _COARSE) for start in starts):
            return None
        raise NoNeuronError(threshold.signal) from None
    if bool((first.abs() <= _COARSE * threshold.theta.abs()).all()):
        return None
    if bool(((raised.decay == 0) & (first != 0)).any()):
        raise NoNeuronError(threshold.signal)
    return torch.where(first == 0, 0.0, first / raised.decay)


def _is_positive(divisor: Ref, potential: Ref, used: Ref) -> bool:
    """Return whether a divisor is above 0 at rest, grows with the adaptation, and is independent of the potential."""

    def at(v: float, raised: float) -> Tensor:
        fixed = {(potential.signal, potential.lag): _number(v), (used.signal, used.lag): _number(raised)}
        return _value(divisor, lambda signal, lag: fixed.get((signal, lag)))

    try:
        rest, higher, other = at(0.0, 0.0), at(0.0, 1.0), at(1.0, 0.0)
    except Unknown:
        return False
    return bool((rest > 0).all() and (higher >= rest).all() and (other == rest).all())


def _sides(signal: Signal) -> tuple[Ref | Tensor, Ref | Tensor, Ref | None]:
    """Return a true comparison's greater and smaller side, and the divisor of their difference: ``(v - B) / B > 0``."""
    left, right = (arg if isinstance(arg, Ref) else constant_of(arg) for arg in signal.args[:2])
    if signal.node.name in ("lt", "le"):
        left, right = right, left
    if not isinstance(left, Ref) or isinstance(right, Ref) or bool(right.any()) or left.signal.node.name != "div":
        return left, right, None
    over, under = left.signal.args[:2]
    if left.lag or not isinstance(over, Ref) or not isinstance(under, Ref):
        return left, right, None
    return over, right, under


def _states(ref: Ref, cores: Sequence[frozenset[Signal]], path: Sequence[Signal]) -> list[Ref]:
    """Return the states that elementwise arithmetic of a comparison's side reads.

    path: the signals from the comparison to here. Raises CaptureError for spikes that raise their own threshold without
    a state between.
    """
    if any(ref.signal in core for core in cores):
        return [ref]
    if not is_elementwise(ref.signal):
        return []
    if ref.signal in path:
        raise NoNeuronError(ref.signal)
    path = [*path, ref.signal]
    reads = [Ref(read.signal, read.lag + ref.lag) for read in ref.signal.reads()]
    return [state for read in reads for state in _states(read, cores, path)]


def _raised(signal: Signal, used: Ref, members: frozenset[Signal]) -> Adapting:
    """Return the state's own update and the value that it returns to; raise CaptureError for one that no neuron has."""

    def after(state: float | Tensor, spike: float) -> Tensor:
        value = state if isinstance(state, Tensor) else _number(state)
        fixed = {(used.signal, used.lag + 1): value, (signal, 1): torch.tensor(spike != 0)}
        return _value(used, lambda signal, lag: fixed.get((signal, lag)))

    try:
        constant = after(0.0, 0.0)
        decay, jump = after(1.0, 0.0) - constant, after(0.0, 1.0) - constant
        affine = all(
            _adds_up(after(state, spike), constant, decay * state, jump * spike)
            for state, _ in _PROBES
            for spike in (0.0, 1.0)
        )
    except Unknown:
        raise NoNeuronError(signal) from None
    falls_back = bool(((decay >= 0) & (decay < 1)).all())
    if not affine or not falls_back or bool((jump < 0).any()):
        raise NoNeuronError(signal)
    raised = Adapting(used, members, torch.ones(()), decay, jump, constant / (1 - decay))
    for state in _reached(raised):
        if not all(_adds_up(after(state, spike), constant, decay * state, jump * spike) for spike in (0.0, 1.0)):
            raise NoNeuronError(signal)
    return raised


def _reached(raised: Adapting) -> list[Tensor]:
    """Return values of the state up to its limit, where every step fires, and those that it starts from."""
    limit = raised.jump / (1 - raised.decay)
    starts = [node.tensor.double() for member in raised.members for node in member.before if node.tensor is not None]
    return [raised.rest + part * limit for part in _PARTS] + starts


def _value(side: Ref | Tensor, given: Values) -> Tensor:
    return side.double() if isinstance(side, Tensor) else Evaluation(given)(side.signal, side.lag).double()


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _adds_up(made: Tensor, *terms: Tensor) -> bool:
    """Return whether ``made`` is the sum of the terms, up to rounding of these."""
    none = torch.zeros((), dtype=torch.float64)
    size = sum((term.abs() for term in terms), none).clamp(min=1)
    return bool(((made - sum(terms, none)).abs() <= 1e-9 * size).all())


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    first, second = torch.broadcast_tensors(a, b)  # type: ignore[no-untyped-call]
    return torch.allclose(first, second, rtol=tolerance, atol=tolerance)
