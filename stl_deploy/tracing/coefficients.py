"""Evaluate a core's arithmetic on numbers to find the coefficients of its potential, in any coding style."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stl_deploy.tracing.cores import Recurrence
from stl_deploy.tracing.evaluation import Evaluation, Unknown, scattered
from stl_deploy.tracing.layout import BATCH, shape_of
from stl_deploy.tracing.nodes import Node
from stl_deploy.tracing.remedies import CLIPS
from stl_deploy.tracing.steps import NoNeuronError, Ref, Signal
from stl_deploy.tracing.thresholds import is_elementwise

_NO_DECAY = 1e-12
_BESIDE = (-1000.0, -3.1, -0.37, -1e-3, 0.0, 1e-3, 0.41, 2.7, 1000.0)
"""Distances from its bound, and from its threshold, at which a clipped potential is tried."""
_DEEPEST = 2
"""Number of earlier steps that a neuron's arithmetic may read."""
_PROBES = ((0.7312, (1.2457,)), (-1.5193, (0.5071, -0.2633)), (2.2749, (-1.0137, 3.0411, 0.1259)))
"""No multiples of a power of 2, which rounding to a grid would leave as they are."""
_COARSE = 64 * 2.0**-24
"""Largest deviation of the potential from its coefficients in float32, relative to its terms: 64 roundings."""
_CURVED = (
    *("acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "erf", "exp", "exp2", "expm1"),
    *("hypot", "log", "log10", "log1p", "log2", "logit", "nextafter", "pow", "reciprocal", "rsqrt"),
    *("sigmoid", "sin", "sinh", "softplus", "sqrt", "square", "tan", "tanh"),
)
"""Functions that a weighted sum holds only where another one undoes them, up to rounding: tan(atan(v))."""
_SCALES = (1.0, 2.0**-20, 2.0**-10, 2.0**10, -(2.0**10), 2.0**20, -(2.0**20))
"""By how much each probe is also taken, so that bounds far from 0 and bends near it are met."""


@dataclass(frozen=True, eq=False)
class Affine:
    """h = decay·H + Σ gains·e + constant, float64, each broadcast to the population's shape."""

    decay: Tensor
    gains: tuple[Tensor, ...]
    constant: Tensor

    def without(self, left_out: Sequence[bool]) -> Affine:
        """Return it without some of the currents."""
        return replace(self, gains=tuple(g for g, out in zip(self.gains, left_out, strict=True) if not out))


class FittedUpdate:
    """Update of a core's potential: its state, currents and bounds.

    state: the potential, as it is compared. It is read as a function of H, what ``core.carried`` (or the potential
    itself) was one step ago, of the spike of H, and of what arrives. unbounded: the potential before a lower bound,
    v_min, is applied to it; the potential itself where there is none. clip: the bound of what a spike leaves of it.
    """

    def __init__(self, core: Recurrence, state: Signal, foreign: Set[Signal]) -> None:
        self.core, self.state, self.foreign = core, state, foreign
        again = core.again
        self.carried = state if again is None else again.potential
        spiking = core.threshold is not None and again is None
        bound = lower_bound(state) if spiking else None
        self.unbounded: Signal = state if bound is None or bound[0].lag else bound[0].signal
        self.v_min: Tensor | None = None if self.unbounded is state or bound is None else bound[1]
        self.clip = _clip(core.members) if spiking and self.v_min is None else None
        self.shape = (1, *shape_of(state.node.layout, {BATCH: 1})[1:])
        comparison = core.threshold if again is None else again
        self.spike = None if comparison is None else comparison.signal
        self.counts = comparison is not None and comparison.count is not None
        self.adapts = None if comparison is None else comparison.adapts
        self.currents: tuple[Ref, ...] = tuple(dict.fromkeys(self._outer()))
        self.silent: tuple[Ref, ...] = ()

    def without(self, left_out: Sequence[bool]) -> FittedUpdate:
        """Return it without some of the currents, which do nothing."""
        self.silent += tuple(ref for ref, out in zip(self.currents, left_out, strict=True) if out)
        self.currents = tuple(ref for ref, out in zip(self.currents, left_out, strict=True) if not out)
        return self

    def _outer(self) -> list[Ref]:
        """Return outside currents: refs that depend neither on the core's state nor on its spikes."""
        currents: list[Ref] = []
        seen: set[Ref] = set()
        waiting = [Ref(self.state, 0)]
        while waiting:
            at = waiting.pop(0)
            if at in seen or at.lag > _DEEPEST:
                continue
            seen.add(at)
            for read in at.signal.reads():
                ref = Ref(read.signal, read.lag + at.lag)
                if not self._inner(ref.signal) or (ref.lag and self._is_output(ref.signal)):
                    currents.append(ref)
                elif not (ref.lag and ref.signal in (self.carried, self.spike)):
                    waiting.append(ref)
        return currents

    def _is_output(self, signal: Signal) -> bool:
        """Return whether a signal is the core's spikes, if its reset uses another comparison than theirs."""
        threshold = self.core.threshold
        return self.core.again is not None and threshold is not None and signal is threshold.signal

    def _inner(self, signal: Signal) -> bool:
        own = signal in self.core.members or signal is self.spike or self._of_own(signal, set())
        return own or (signal not in self.foreign and _is_scalar_arithmetic(signal)) or self._of_adaptation(signal)

    def _of_adaptation(self, signal: Signal) -> bool:
        """Whether a signal is elementwise arithmetic of what raises the threshold, without being that."""
        if self.adapts is None or signal in self.foreign or not is_elementwise(signal) or not signal.reads():
            return False
        read = [ref.signal for ref in signal.reads()]
        return all(source in self.adapts.members or self._of_adaptation(source) for source in read)

    def _of_own(self, signal: Signal, seen: set[Signal]) -> bool:
        """Return whether a signal is elementwise arithmetic of the core's own spikes or state."""
        if signal in self.core.members or signal is self.spike:
            return True
        if signal in seen or signal in self.foreign or not is_elementwise(signal):
            return False
        seen.add(signal)
        return any(self._of_own(ref.signal, seen) for ref in signal.reads())

    def _made_of_current(self, signal: Signal, lag: int) -> bool:
        """Return whether a signal before step 0 derives from a current of then (a bias times a gain)."""
        if self._of_own(signal, set()) or not _is_scalar_arithmetic(signal):
            return False
        return all(len(ref.signal.before) >= lag + ref.lag for ref in signal.reads())

    def evaluate(self, state: Any, spike: Any, currents: Sequence[Any], *, clipped: bool = False) -> Tensor:
        """Return the potential for given H, S and e; with the bound on a spike's remainder only if ``clipped``."""
        full = {ref: self.full(value) for ref, value in zip(self.currents, currents, strict=True)}

        def given(signal: Signal, lag: int) -> Tensor | None:
            if lag == 1 and signal is self.carried:
                return self.full(state)
            if lag == 1 and signal is self.spike:
                return self.full(spike) if self.counts else self.full(spike) != 0
            return full.get(Ref(signal, lag))

        try:
            return self.full(Evaluation(given, passing={} if clipped else self._passing())(self.unbounded, 0))
        except Unknown:
            raise NoNeuronError(self.state) from None

    def _passing(self) -> dict[Signal, Ref]:
        return {} if self.clip is None else {self.clip.signal: self.clip.source}

    def full(self, value: Any) -> Tensor:
        """Return a number or tensor as float64, in the population's shape."""
        tensor = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
        return tensor.double().expand(np.broadcast_shapes(tuple(tensor.shape), self.shape))

    def affine(self, spike: float | Tensor) -> Affine:
        """Return the coefficients with S fixed; raise CaptureError if the potential is not affine."""
        if self._bends():
            raise NoNeuronError(self.state)
        count = len(self.currents)
        zero = [0.0] * count
        constant = self.evaluate(0.0, spike, zero)
        decay = self.evaluate(1.0, spike, zero) - constant
        decay = torch.where(decay.abs() < _NO_DECAY, 0.0, decay)  # 1 - 0.5·2 in float32
        gains = tuple(self.evaluate(0.0, spike, [float(i == j) for i in range(count)]) - constant for j in range(count))
        probes: list[tuple[Any, Sequence[Any]]]
        probes = [(s * h, [e[i % len(e)] * s for i in range(count)]) for (h, e), s in product(_PROBES, _SCALES)]
        if not isinstance(spike, Tensor):
            probes += [(state, e) for state, *e in scattered(self.shape, 1 + count)]
        for state, e in probes:
            expected = decay * state + constant + sum((g * v for g, v in zip(gains, e, strict=True)), torch.zeros(()))
            potential = self.evaluate(state, spike, e)
            if not torch.allclose(potential, expected, rtol=1e-9, atol=1e-9):
                raise NoNeuronError(self.state)
        return Affine(decay, gains, constant)

    def _bends(self) -> bool:
        """Return whether the core bounds its potential otherwise than below, wherever the bound is."""
        taken = {None if self.v_min is None else self.state, None if self.clip is None else self.clip.signal}
        return bool({*self._called(CLIPS)} - taken)

    def bound_before(self, off: Affine, on: Affine, theta: Tensor) -> Tensor | None:
        """Return the lower bound of the potential equal to `clip` behind the reset; None if there is none.

        Where no spike was, the clip bounds the potential itself; what a spike leaves must lie above it. Both forms are
        run on potentials below, between and above the bound and the threshold.

        Raises CaptureError where no bound of the compared potential does the same.
        """
        if self.clip is None:
            return None
        assert self.core.threshold is not None
        bound = self.full(self.clip.bound)
        e = [0.0] * len(self.currents)
        for low in (bound, theta):
            for offset in _BESIDE:
                h = low + offset
                spike = h > theta if self.core.threshold.compare == "gt" else h >= theta
                potential = self.evaluate(h, spike, e, clipped=True)
                left = torch.maximum(h, bound)
                expected = torch.where(spike, on.decay * left + on.constant, off.decay * left + off.constant)
                if not torch.allclose(potential, expected, rtol=1e-9, atol=1e-9):
                    raise NoNeuronError(self.state)
        return self.clip.bound

    def require_float_precision(self, off: Affine) -> None:
        """Raise CaptureError where float32 rounds the potential to a grid, as (v + 1536) - 1536 does.

        In float64, where coefficients are read off, nothing is rounded. Probed around the resting potential, beside
        which a leak towards -65 is no rounding. Functions that undo each other round, too.
        """
        if self._called(_CURVED):
            raise NoNeuronError(self.state)
        if any(member.node.dtype in (torch.float16, torch.bfloat16) for member in (self.state, *self.core.members)):
            return  # capture warns of coarser numbers
        rest = torch.where(off.decay == 1, 0.0, off.constant / (1 - off.decay))
        for state, values in _PROBES:
            h = (state + rest).to(self.carried.node.dtype)
            e = [
                torch.tensor(values[i % len(values)], dtype=ref.signal.node.dtype)
                for i, ref in enumerate(self.currents)
            ]
            terms = [off.decay * h, off.constant, *(g * v for g, v in zip(off.gains, e, strict=True))]
            expected = sum(terms, torch.zeros(()))
            size = sum((term.abs() for term in terms), torch.zeros(()))
            if bool(((self._in_float32(h, e) - expected).abs() > _COARSE * size).any()):
                raise NoNeuronError(self.state)

    def _in_float32(self, state: Tensor, currents: Sequence[Tensor]) -> Tensor:
        full = {ref: value.expand(self.shape) for ref, value in zip(self.currents, currents, strict=True)}

        def given(signal: Signal, lag: int) -> Tensor | None:
            if lag == 1 and signal is self.carried:
                return state.expand(np.broadcast_shapes(tuple(state.shape), self.shape))
            if lag == 1 and signal is self.spike:
                return torch.zeros(self.shape, dtype=signal.node.dtype)
            return full.get(Ref(signal, lag))

        return Evaluation(given, exact=True, passing=self._passing())(self.unbounded, 0).double()

    def _called(self, names: Sequence[str]) -> list[Signal]:
        return [member for member in self.core.members if member.node.name in names]

    def start(self, off: Affine) -> Tensor | None:
        """Return the potential before step 0; None for 0."""

        def given(signal: Signal, lag: int) -> Tensor | None:
            if Ref(signal, lag) in (*self.currents, *self.silent):
                return self.full(0.0)
            if not lag or len(signal.before) < lag or self._made_of_current(signal, lag):
                return None
            return _double(signal.before[lag - 1].tensor)

        try:
            potential = self.full(Evaluation(given)(self.unbounded, 0))
        except Unknown:
            return None  # the first step is made otherwise: the folded graph is held against it
        difference = potential - off.constant
        if torch.allclose(potential, off.constant.expand_as(potential), rtol=1e-6, atol=0):
            return None  # 0, but for what float32 rounded of it while the model ran
        if not bool(off.decay.all()):
            raise NoNeuronError(self.state)
        return difference / off.decay


@dataclass(frozen=True)
class Clip:
    """A lower bound of what a spike leaves of a potential. source: what is bounded."""

    signal: Signal
    source: Ref
    bound: Tensor


def _clip(members: Set[Signal]) -> Clip | None:
    """Return the only lower-bounding signal of a core."""
    clips = [member for member in members if member.node.name in CLIPS]
    bound = lower_bound(clips[0]) if len(clips) == 1 else None
    return None if bound is None else Clip(clips[0], *bound)


def lower_bound(state: Signal) -> tuple[Ref, Tensor] | None:
    """Return a bounded signal's source and bound; None if the signal is no lower bound."""
    name, args = state.node.name, state.args
    low, high = (*args[1:], None, None)[:2]
    options = state.kwargs or {}
    low, high = options.get("min", low), options.get("max", high)
    if name == "maximum" and isinstance(args[1], Ref):
        args, low = args[::-1], args[0]
    if name == "relu":
        low = 0.0
    if name not in ("relu", "clamp", "clamp_min", "maximum") or high is not None:
        return None
    if not isinstance(args[0], Ref) or low is None or isinstance(low, Ref):
        return None
    bound = low.tensor if isinstance(low, Node) else torch.tensor(float(low), dtype=torch.float64)
    assert bound is not None
    return args[0], bound


def _is_scalar_arithmetic(signal: Signal) -> bool:
    """Return whether a signal is another one shifted or scaled by one number: a leak potential, an input gain."""
    if signal.node.name not in ("add", "sub", "rsub", "mul", "div") or len(signal.reads()) != 1:
        return False
    constants = [item.tensor for item in signal.args if isinstance(item, Node)]
    return all(tensor is not None and tensor.numel() == 1 for tensor in constants)


def _double(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor if tensor.dtype == torch.bool else tensor.double()


def close(a: Tensor, b: Tensor, theta: Tensor | None = None) -> bool:
    """Return whether coefficients agree up to rounding; theta: the threshold, where they are added to potentials."""
    unit = 1.0 if theta is None else torch.where(theta == 0, 1.0, theta.abs().clamp(max=1))
    return torch.allclose(a / unit, b / unit, rtol=1e-6, atol=1e-7)
