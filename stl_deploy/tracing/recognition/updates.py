"""Write the update of a core's potential in normal form."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from stl_deploy.graph.program import Doubles
from stl_deploy.tracing.recognition.cores import Recurrence
from stl_deploy.tracing.recognition.lowering import NoFormError
from stl_deploy.tracing.recognition.normal_form import DEEPEST, NormalForm, Polynomial, Symbol, number_of
from stl_deploy.tracing.recognition.thresholds import Threshold, is_elementwise
from stl_deploy.tracing.unrolling.layout import BATCH, shape_of
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import NoNeuronError, Ref, Signal

_NO_DECAY = 1e-12
_MANY_SPIKES = 2**62
"""In one step, of a neuron without a cap."""


@dataclass(frozen=True, eq=False)
class Affine:
    """h = decay·H + Σ gains·e + constant, float64, each broadcast to the population's shape."""

    decay: Tensor
    gains: tuple[Tensor, ...]
    constant: Tensor

    def without(self, left_out: Sequence[bool]) -> Affine:
        """Return it without some of the currents."""
        return replace(self, gains=tuple(g for g, out in zip(self.gains, left_out, strict=True) if not out))


class Update:
    """Update of a core's potential: its currents, bounds and coefficients.

    state: the potential, as it is compared. It is a function of H, what ``core.carried`` (or the potential itself) was
    one step ago, of the spike S of H, and of what arrives. v_min: a lower bound of the potential itself; left_above: a
    lower bound of what a spike leaves of it, and what it bounds, a polynomial of H and S.

    Raises NoNeuronError for a potential that is not affine in H and its currents, with S fixed.
    """

    def __init__(self, core: Recurrence, state: Signal, foreign: Set[Signal]) -> None:
        self.core, self.state, self.foreign = core, state, foreign
        comparison = core.threshold if core.again is None else core.again
        self.carried = state if core.again is None else core.again.potential
        self.spike = None if comparison is None else comparison.signal
        self.adapts = None if comparison is None else comparison.adapts
        self.shape = (1, *shape_of(state.node.layout, {BATCH: 1})[1:])
        self.H, self.S = Symbol(), Symbol(binary=comparison is None or comparison.count is None)
        self._symbols = {ref: Symbol(binary=ref.signal.node.dtype == torch.bool) for ref in self._outer()}
        self.silent: tuple[Ref, ...] = ()
        self.v_min: Doubles | None = None
        self.left_above: tuple[Doubles, Polynomial] | None = None
        self._form = self._unbounded(self._read(state), comparison)
        for monomial in self._form.terms:
            outer = [symbol for symbol, _ in monomial if symbol is not self.S]
            if any(power > 1 for _, power in monomial) or len(outer) > 1 or (outer and outer[0].op):
                raise NoNeuronError(state)

    @property
    def currents(self) -> tuple[Ref, ...]:
        """Currents that arrive, in the order in which the code reads them."""
        return tuple(self._symbols)

    def without(self, left_out: Sequence[bool]) -> None:
        """Leave out some of the currents, which do nothing."""
        gone = [ref for ref, out in zip(self.currents, left_out, strict=True) if out]
        self.silent += tuple(gone)
        for ref in gone:
            del self._symbols[ref]

    def affine(self, spike: int) -> Affine:
        """Return the coefficients with S fixed."""
        form = self._form.at({self.S: Polynomial.number(spike)})
        decay = self.full(form[self.H,])
        decay = torch.where(decay.abs() < _NO_DECAY, 0.0, decay)  # 1 - 0.5·2 in float32
        gains = tuple(self.full(form[symbol,]) for symbol in self._symbols.values())
        return Affine(decay, gains, self.full(form[()]))

    def full(self, value: Tensor | Doubles) -> Tensor:
        """Return numbers as float64, in the population's shape."""
        array = value.detach().double().numpy() if isinstance(value, Tensor) else value
        return torch.from_numpy(np.array(np.broadcast_to(array, np.broadcast_shapes(array.shape, self.shape))))

    def left(self, spike: int, again: int) -> tuple[Tensor, Tensor]:
        """Return scale and constant of what a reset leaves of the potential, whose remainder is compared again.

        spike: that of the potential, again: that of what was left one step ago.
        """
        threshold, h = self.core.threshold, Symbol()
        assert threshold is not None
        given = {
            Ref(self.state, 0): Polynomial.of(h),
            Ref(threshold.signal, 0): Polynomial.number(spike),
            Ref(self.spike or self.state, 1): Polynomial.number(again),
        }
        try:
            form = NormalForm(lambda signal, lag: given.get(Ref(signal, lag)))(self.carried, 0)
        except NoFormError:
            raise NoNeuronError(self.state) from None
        if not form.symbols <= {h} or form[h, h].any():
            raise NoNeuronError(self.state)
        return self.full(form[h,]), self.full(form[()])

    def _read(self, signal: Signal) -> Polynomial:
        symbols = {**self._symbols, Ref(self.carried, 1): self.H}
        if self.spike is not None:
            symbols[Ref(self.spike, 1)] = self.S
        known = {ref: Polynomial.of(symbol) for ref, symbol in symbols.items()}
        count = None if self.core.threshold is None else self.core.threshold.count
        most = 1 if count is None else count.cap or _MANY_SPIKES
        try:
            return NormalForm(lambda read, lag: known.get(Ref(read, lag)), {self.S: (np.zeros(()), np.asarray(most))})(
                signal, 0
            )
        except NoFormError:
            raise NoNeuronError(self.state) from None

    def _unbounded(self, form: Polynomial, comparison: Threshold | None) -> Polynomial:
        """Take a lower bound out of the form: of the potential, or of what a spike leaves of it."""
        bounded = [symbol for symbol in form.symbols if lower_bound(symbol) is not None]
        parts = lower_bound(bounded[0]) if len(bounded) == 1 else None
        if parts is None or comparison is None or self.core.again is not None:
            return form
        symbol, (source, bound) = bounded[0], parts
        if len(form.terms) == 1 and bool((form[symbol,] == 1).all()):
            self.v_min = bound
            return source
        if form.at({symbol: Polynomial({})}).symbols & {self.H}:
            return form
        self.left_above = bound, source
        return form.at({symbol: source})

    def bound_before(self, threshold: Threshold) -> Doubles | None:
        """Return the lower bound of the potential equal to ``left_above`` behind the reset; None if there is none.

        Where no spike was, the bound is one of the potential itself; what any number of spikes leaves must lie above
        it.

        Raises NoNeuronError where no bound of the compared potential does the same.
        """
        if self.left_above is None:
            return self.v_min
        bound, source = self.left_above
        rests = [source.at({self.S: Polynomial.number(spike)}) for spike in (0, 1)]
        if any(not rest.symbols <= {self.H} or rest[self.H, self.H].any() for rest in rests):
            raise NoNeuronError(self.state)
        (slope, shift), (after, left) = ((rest[self.H,], rest[()]) for rest in rests)
        if not (slope > 0).all() or not (after >= 0).all():
            raise NoNeuronError(self.state)
        theta, low = threshold.theta.double().numpy(), (bound - shift) / slope
        level = threshold.lowest.numpy()
        rests_below = low <= level if threshold.compare == "gt" else low < level
        if not rests_below.all() or not (after * level + left >= bound).all():
            raise NoNeuronError(self.state)
        more = after * theta + left - shift  # for each further spike, at a potential higher by θ
        if threshold.count is not None and not ((slope == after).all() and (more >= 0).all()):
            raise NoNeuronError(self.state)
        return np.asarray(low)

    def start(self, off: Affine) -> Tensor | None:
        """Return the potential before step 0; None for 0."""
        starts: dict[Symbol, Polynomial] = {}

        def known(signal: Signal, lag: int) -> Polynomial | None:
            if Ref(signal, lag) in (*self.currents, *self.silent):
                return Polynomial({})
            if not lag or len(signal.before) < lag or self._made_of_current(signal, lag):
                return None
            symbol = Symbol(binary=signal.node.dtype == torch.bool)
            starts[symbol] = number_of(signal.before[lag - 1].value)
            return Polynomial.of(symbol)

        try:
            value = NormalForm(known, unbounded=True)(self.state, 0).at(starts).constant
        except NoFormError:
            value = None
        if value is None:
            return None  # the first step is made otherwise: the folded graph is held against it
        potential = self.full(value)
        # h = a·H + k in step 0, with no current yet: H = (h - k) / a.
        difference = potential - off.constant
        if torch.allclose(potential, off.constant.expand_as(potential), rtol=1e-6, atol=0):
            return None  # 0, but for what float32 rounded of it while the model ran
        if not bool(off.decay.all()):
            raise NoNeuronError(self.state)
        return difference / off.decay

    def _outer(self) -> list[Ref]:
        """Return outside currents: refs that depend neither on the core's state nor on its spikes."""
        currents: list[Ref] = []
        seen: set[Ref] = set()
        # Where the reset uses another comparison than theirs, the core's own spikes arrive like any others.
        output = None if self.core.again is None or self.core.threshold is None else self.core.threshold.signal
        waiting = [Ref(self.state, 0)]
        while waiting:
            at = waiting.pop(0)
            if at in seen or at.lag > DEEPEST:
                continue
            seen.add(at)
            for read in at.signal.reads():
                ref = Ref(read.signal, read.lag + at.lag)
                if not self._inner(ref.signal) or (ref.lag and ref.signal is output):
                    currents.append(ref)
                elif not (ref.lag and ref.signal in (self.carried, self.spike)):
                    waiting.append(ref)
        return currents

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


def lower_bound(symbol: Symbol) -> tuple[Polynomial, Doubles] | None:
    """Return what a symbol bounds from below, and the bound; None if it is no lower bound."""
    if symbol.op != "max":
        return None
    (source, bound) = sorted(symbol.args, key=lambda arg: arg.constant is not None)
    return None if bound.constant is None else (source, bound.constant)


def _is_scalar_arithmetic(signal: Signal) -> bool:
    """Return whether a signal is another one shifted or scaled by one number: a leak potential, an input gain."""
    if signal.node.name not in ("add", "sub", "rsub", "mul", "div") or len(signal.reads()) != 1:
        return False
    constants = [item.tensor for item in signal.args if isinstance(item, Node)]
    return all(tensor is not None and tensor.numel() == 1 for tensor in constants)


def alike(a: Tensor, b: Tensor) -> bool:
    """Return whether gains agree up to rounding, however small they are."""
    return bool(((a - b).abs() <= 1e-6 * torch.maximum(a.abs(), b.abs())).all())


def close(a: Tensor, b: Tensor, theta: Tensor | None = None) -> bool:
    """Return whether coefficients agree up to rounding; theta: the threshold, where they are added to potentials."""
    unit = 1.0 if theta is None else torch.where(theta == 0, 1.0, theta.abs().clamp(max=1))
    return torch.allclose(a / unit, b / unit, rtol=1e-6, atol=1e-7)
