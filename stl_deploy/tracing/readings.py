"""What one step of a core computes, read off its arithmetic, and the neuron of the Program that it is.

Let H be the potential one step ago, S the spike then, and e the currents that arrive. With S fixed, every known
neuron's potential is affine in H and e::

    h = a₀·H + g₀·e + k₀   where no spike was        h = a₁·H + g₁·e + k₁   after a spike

so a few evaluations give all numbers, for each neuron of the population, however the code is written. They are those of
a neuron of the Program (decay a₀, gain g₀, constant k₀) if one of these holds:

    none               a₁ = a₀, g₁ = g₀, k₁ = k₀
    subtract           a₁ = a₀, g₁ = g₀, k₁ - k₀ = -a₀·θ
    subtract_delayed   a₁ = a₀, g₁ = g₀, k₁ - k₀ = -θ
    value              a₁ = 0,  g₁ = g₀, k₁ - k₀ = a₀·v_reset
    value_delayed      a₁ = 0,  g₁ = 0,  k₁ = v_reset
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stl_deploy.errors import CaptureError
from stl_deploy.tracing.cores import Core, Evaluation, Unknown, is_elementwise
from stl_deploy.tracing.layout import BATCH, shape_of
from stl_deploy.tracing.nodes import Node
from stl_deploy.tracing.steps import Ref, Signal

_DEEPEST = 2
"""How many steps back a neuron's arithmetic may reach."""
_PROBES = ((0.75, (1.25,)), (-1.5, (0.5, -0.25)), (2.25, (-1.0, 3.0, 0.125)))


@dataclass(frozen=True, eq=False)
class Affine:
    """h = decay·H + Σ gains·e + constant, float64, each broadcast to the population's shape."""

    decay: Tensor
    gains: tuple[Tensor, ...]
    constant: Tensor

    def without(self, left_out: Sequence[bool]) -> Affine:
        """Without some of the currents."""
        return replace(self, gains=tuple(g for g, out in zip(self.gains, left_out, strict=True) if not out))


@dataclass(frozen=True, eq=False)
class Population:
    """One core as a neuron. ``currents``: what arrives; ``recurrent``: a gain of its own spikes of the step before."""

    core: Core
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

    @property
    def line(self) -> str | None:
        """Where it stands in the user's code."""
        return self.state.node.place.line


def read_core(core: Core, outside: Callable[[Signal], bool], foreign: Set[Signal]) -> Population:
    """The neuron that a core is.

    outside: whether a member is read by what is no part of the core. foreign: states and spikes of other cores.

    Raises CaptureError, with the line, for a core that is no neuron of the Program.
    """
    state = core.threshold.potential if core.threshold is not None else _state(core, outside)
    reading = _Reading(core, state, foreign)
    off = reading.affine(0.0)
    if core.threshold is None:
        reading, off = reading.without(_nothing(off.gains)), off.without(_nothing(off.gains))
        return Population(
            core, state, reading.currents, off.gains, off.decay, off.constant, reading.start(off), silent=reading.silent
        )
    on = reading.affine(1.0)
    nothing = [a and b for a, b in zip(_nothing(off.gains), _nothing(on.gains), strict=True)]
    return _with_reset(reading.without(nothing), off.without(nothing), on.without(nothing))


def _nothing(gains: tuple[Tensor, ...]) -> list[bool]:
    """Which currents do not count at all (code that multiplies by 0)."""
    return [not bool(gain.any()) for gain in gains]


def _state(core: Core, outside: Callable[[Signal], bool]) -> Signal:
    """The member that others read; the one that carries on if nobody does."""
    read = [member for member in core.members if outside(member)]
    if len(read) > 1:
        raise CaptureError(
            "two different values of one potential are read outside of the neuron; a neuron puts out one",
            line=read[1].node.place.line,
        )
    carried = [
        ref.signal for member in core.members for ref in member.reads() if ref.lag and ref.signal in core.members
    ]
    return (read or carried)[0]


class _Reading:
    def __init__(self, core: Core, state: Signal, foreign: Set[Signal]) -> None:
        self.core, self.state, self.foreign = core, state, foreign
        self.shape = (1, *shape_of(state.node.layout, {BATCH: 1})[1:])
        self.spike = core.threshold.signal if core.threshold is not None else None
        self.currents: tuple[Ref, ...] = tuple(dict.fromkeys(self._outer()))
        self.silent: tuple[Ref, ...] = ()

    def without(self, left_out: Sequence[bool]) -> _Reading:
        """Without some of the currents, which do nothing."""
        self.silent += tuple(ref for ref, out in zip(self.currents, left_out, strict=True) if out)
        self.currents = tuple(ref for ref, out in zip(self.currents, left_out, strict=True) if not out)
        return self

    def _outer(self) -> list[Ref]:
        """What arrives from outside: refs that depend neither on the core's state nor on its spikes."""
        found: list[Ref] = []
        seen: set[Ref] = set()
        waiting = [Ref(self.state, 0)]
        while waiting:
            at = waiting.pop(0)
            if at in seen or at.lag > _DEEPEST:
                continue
            seen.add(at)
            for read in at.signal.reads():
                ref = Ref(read.signal, read.lag + at.lag)
                if not self._inner(ref.signal):
                    found.append(ref)
                elif not (ref.lag and ref.signal in (self.state, self.spike)):
                    waiting.append(ref)
        return found

    def _inner(self, signal: Signal) -> bool:
        own = signal in self.core.members or signal is self.spike or self._of_own(signal, set())
        return own or (signal not in self.foreign and _is_scalar_arithmetic(signal))

    def _of_own(self, signal: Signal, seen: set[Signal]) -> bool:
        """Whether a signal is elementwise arithmetic of the core's own spikes or state."""
        if signal in self.core.members or signal is self.spike:
            return True
        if signal in seen or signal in self.foreign or not is_elementwise(signal):
            return False
        seen.add(signal)
        return any(self._of_own(ref.signal, seen) for ref in signal.reads())

    def evaluate(self, state: Any, spike: Any, currents: Sequence[Any]) -> Tensor:
        """The potential for given H, S and e."""
        full = {ref: self._full(value) for ref, value in zip(self.currents, currents, strict=True)}

        def given(signal: Signal, lag: int) -> Tensor | None:
            if lag == 1 and signal is self.state:
                return self._full(state)
            if lag == 1 and signal is self.spike:
                return self._full(spike) != 0
            return full.get(Ref(signal, lag))

        try:
            return self._full(Evaluation(given)(self.state, 0))
        except Unknown as unknown:
            raise self.refuse(f"it reads '{unknown.signal.node.name}' of {unknown.lag} steps ago") from None

    def _full(self, value: Any) -> Tensor:
        tensor = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
        return tensor.double().expand(np.broadcast_shapes(tuple(tensor.shape), self.shape))

    def refuse(self, why: str) -> CaptureError:
        """A refusal that names the neuron's line."""
        where = f" in module '{self.state.node.place.module}'" if self.state.node.place.module else ""
        return CaptureError(f"the neuron{where} is none that a graph can hold: {why}", line=self.state.node.place.line)

    def affine(self, spike: float) -> Affine:
        """The coefficients with S fixed; raises CaptureError if the potential is not affine."""
        count = len(self.currents)
        zero = [0.0] * count
        constant = self.evaluate(0.0, spike, zero)
        decay = self.evaluate(1.0, spike, zero) - constant
        gains = tuple(self.evaluate(0.0, spike, [float(i == j) for i in range(count)]) - constant for j in range(count))
        for state, values in _PROBES:
            e = [values[i % len(values)] for i in range(count)]
            expected = decay * state + constant + sum((g * v for g, v in zip(gains, e, strict=True)), torch.zeros(()))
            found = self.evaluate(state, spike, e)
            if not torch.allclose(found, expected, rtol=1e-9, atol=1e-9):
                raise self.refuse("its potential is not a weighted sum of what it was and what arrives")
        return Affine(decay, gains, constant)

    def start(self, off: Affine) -> Tensor | None:
        """The potential before step 0; None for 0."""

        def given(signal: Signal, lag: int) -> Tensor | None:
            if Ref(signal, lag) in (*self.currents, *self.silent):
                return self._full(0.0)
            return _double(signal.before[lag - 1].tensor) if lag and len(signal.before) >= lag else None

        try:
            found = self._full(Evaluation(given)(self.state, 0))
        except Unknown:
            return None  # the first step is made otherwise: the folded graph is held against it
        difference = found - off.constant
        if not bool(difference.any()):
            return None
        if not bool(off.decay.all()):
            raise self.refuse("what it starts from is lost in the first step")
        return difference / off.decay


def _is_scalar_arithmetic(signal: Signal) -> bool:
    """Whether a signal is another one shifted or scaled by one number: a leak potential, an input gain."""
    if signal.node.name not in ("add", "sub", "rsub", "mul", "div") or len(signal.reads()) != 1:
        return False
    constants = [item.tensor for item in signal.args if isinstance(item, Node)]
    return all(tensor is not None and tensor.numel() == 1 for tensor in constants)


def _double(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor if tensor.dtype == torch.bool else tensor.double()


def _with_reset(reading: _Reading, off: Affine, on: Affine) -> Population:
    threshold = reading.core.threshold
    assert threshold is not None
    theta = reading._full(threshold.theta)
    base = Population(
        reading.core,
        reading.state,
        reading.currents,
        off.gains,
        off.decay,
        off.constant,
        reading.start(off),
        silent=reading.silent,
    )
    same_gains = all(_close(a, b) for a, b in zip(on.gains, off.gains, strict=True))
    jump = on.constant - off.constant
    found: list[Population] = []
    if same_gains and _close(on.decay, off.decay):
        if _close(jump, torch.zeros_like(jump)):
            return base
        if _close(jump, -off.decay * theta):
            found.append(replace(base, reset="subtract"))
        if _close(jump, -theta):
            found.append(replace(base, reset="subtract_delayed"))
        if not found:
            found.append(replace(base, reset="subtract_delayed", recurrent=jump + theta))
    elif _close(on.decay, torch.zeros_like(on.decay)):
        if same_gains and bool(off.decay.all()):
            found.append(replace(base, reset="value", v_reset=jump / off.decay))
        elif all(_close(gain, torch.zeros_like(gain)) for gain in on.gains):
            found.append(replace(base, reset="value_delayed", v_reset=on.constant))
    if not found:
        raise reading.refuse(
            "a spike neither subtracts the threshold from its potential nor sets it to a value (nor leaves it alone)"
        )
    return replace(found[0], readings=tuple(found))


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-6, atol=1e-7)
