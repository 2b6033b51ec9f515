"""Lava's fixed-point neuron step (``lava.proc.lif``, bit-accurate model), one rule per function.

    u = wrap(tz(u·(4096 − i_decay) / 4096) + 64·a)
    v = saturate(tz(v·(4096 − v_decay) / 4096) + u + 64·bias)
    s = v > 64·threshold;  v = 0 where s
    cap above 1: the fewest s with v − 64·drop·s <= 64·threshold, at most cap;  v = v − 64·drop·s
    adaptation: s = v > 64·threshold + a;  a = tz(a·(4096 − decay) / 4096) + 64·jump·s

tz rounds toward zero. Integers are held as floats, which numpy computes fastest, without loss:

- float64: no number reaches 2^53, since u and v are below 2^24 (at most times 4096 before tz) and 64·a below 2^32.
- float32 only where u keeps nothing, and v keeps nothing or a power of two. Then 64·a, its wrap by 2^24, and 64·bias
  are multiples of 64, exact below 2^30, and scaling v by a power of two is lossless. The new v is either below 2^24,
  thus exact, or rounded to a number beyond v's limit, and saturates like the exact one.

This is Loihi's accumulator. In the wide one, u saturates instead of wrapping, and both limits are higher
(`stl_deploy.integers.net.Accumulator`); float32 is used only where bounds keep v below 2^24.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.integers.net import (
    DECAY_ONE,
    LOIHI,
    STATE_SHIFT,
    STATE_TOP,
    Accumulator,
    IntegerAdaptation,
    IntegerNeuron,
    Ints,
    Pair,
)

Floats = NDArray[Any]
"""Integers in float32 or float64."""


@dataclass
class State:
    """State of a node between steps; all None at rest."""

    u: Floats | None = None
    v: Floats | None = None
    a: Floats | None = None
    """Amount by which the spikes so far raise the threshold."""
    spikes: NDArray[np.bool_] | None = None
    past: NDArray[Any] | None = None
    """The values of the last steps, oldest first, for delays."""


def step_through(
    neuron: IntegerNeuron,
    sums: Floats | Ints,
    bias: Ints | None,
    spikes: NDArray[np.uint8],
    *,
    bound: int,
    state: State | None = None,
    accumulator: Accumulator = LOIHI,
) -> None:
    """Write spikes ``[T, B, *shape]`` for synaptic sums of the same shape, from rest or ``state``; bias broadcasts.

    sums: as `stl_deploy.integers.sums` gives them; they are overwritten. bound: on their magnitude.
    """
    reach, offset = bound << STATE_SHIFT, 0 if bias is None else int(np.abs(bias).max(initial=0)) << STATE_SHIFT
    least = int(np.min(neuron.i_decay))
    begins = 0 if neuron.u_start is None else int(np.abs(neuron.u_start).max())
    # Currents that cannot reach the accumulator's end are summed without its wrap, which is faster.
    passes = state is not None or begins + _summed(reach, least, len(sums)) >= accumulator.u_top
    from_zero = neuron.v_reset is None and neuron.v_start is None
    plain = state is None and least == DECAY_ONE and neuron.reset == "value" and from_zero
    farthest = _summed(reach + offset, int(np.min(neuron.v_decay)), len(sums)) if plain else np.inf
    kind = exact_type(neuron, farthest if not accumulator.wraps else 0)
    drive = currents(neuron, sums, kind, accumulator if passes else None, state=state)
    if bias is not None:
        drive += (bias << STATE_SHIFT).astype(drive.dtype)
    limit = accumulator.potentials if farthest >= accumulator.potentials[1] else None
    integrate(neuron, drive, spikes, limit=limit, state=state)


def integrate(
    neuron: IntegerNeuron,
    drive: Floats,
    spikes: NDArray[np.uint8],
    *,
    limit: Pair | None = LOIHI.potentials,
    observe: Callable[[Floats], None] | None = None,
    state: State | None = None,
) -> None:
    """Write the spikes of ``drive`` (u + 64·bias, ``[T, B, *shape]``), from rest or from ``state``.

    limit: where v stops; None: out of reach. observe: is called with v ``[B, *shape]`` of every step, before
    its reset.
    """
    threshold = (neuron.threshold << STATE_SHIFT).astype(drive.dtype)
    put_back = _reset_of(neuron, drive.dtype)
    state = state or State()
    v = _started(drive, neuron.v_start) if state.v is None else state.v
    last = np.zeros(v.shape, bool) if state.spikes is None else state.spikes
    several, raised = neuron.cap > 1, None if neuron.adaptation is None else _Raised(neuron.adaptation, state, v)
    for now, fired in zip(drive, spikes if several else spikes.view(bool), strict=True):
        v = leak(v, neuron.v_decay)
        v += now
        if neuron.delayed_reset:
            v = put_back(v if raised is None else raised.taken_off(v, last), last)
        if limit is not None:
            v = saturate(v, *limit)
        if observe is not None:
            observe(v)
        if several:
            fire_several(v, threshold, neuron, fired)
            continue
        fires(v, threshold if raised is None else threshold + raised.a, fired)
        if neuron.delayed_reset:
            last = fired
        else:
            v = put_back(v if raised is None else raised.taken_off(v, fired), fired)
        if raised is not None:
            raised.step(fired)
    state.v, state.spikes, state.a = v, last, None if raised is None else raised.a


def _started(drive: Floats, start: Ints | None) -> Floats:
    """Return a state before the first of the steps ``[T, B, *shape]``."""
    state = np.zeros(drive.shape[1:], drive.dtype)
    return state if start is None else state + start.astype(drive.dtype)


class _Raised:
    """Amount that an adaptation adds to the thresholds."""

    def __init__(self, adaptation: IntegerAdaptation, state: State, v: Floats) -> None:
        self.adaptation, self.a = adaptation, _started(v[None], adaptation.start) if state.a is None else state.a
        self._jump = (adaptation.jump << STATE_SHIFT).astype(v.dtype)

    def taken_off(self, v: Floats, fired: NDArray[np.bool_]) -> Floats:
        """Subtract it where neurons fired, if their reset takes off the threshold as it is."""
        return np.subtract(v, self.a, out=v, where=fired) if self.adaptation.subtracts == "adapted" else v

    def step(self, fired: NDArray[np.bool_]) -> None:
        """Let it fall, and rise with the spikes."""
        self.a = leak(self.a, self.adaptation.decay)
        np.add(self.a, self._jump, out=self.a, where=fired)


def _reset_of(neuron: IntegerNeuron, kind: np.dtype[Any]) -> Callable[[Floats, NDArray[np.bool_]], Floats]:
    """Return a spike's effect on v."""
    if neuron.reset in ("subtract", "subtract_delayed"):
        assert neuron.drop is not None
        drop = (neuron.drop << STATE_SHIFT).astype(kind)
        return lambda v, fired: np.subtract(v, drop, out=v, where=fired)
    if neuron.v_reset is None:
        return reset
    value = (neuron.v_reset << STATE_SHIFT).astype(kind)
    return lambda v, fired: np.where(fired, value, v)


def potentials(neuron: IntegerNeuron, drive: Floats, state: State | None = None, *, limit: int = STATE_TOP) -> Floats:
    """Return v ``[T, B, *shape]`` without a threshold, from rest or ``state``; overwrites ``drive``."""
    state = state or State()
    v = _started(drive, neuron.v_start) if state.v is None else state.v
    for now in drive:
        v = saturate(leak(v, neuron.v_decay) + now, 1 - limit, limit - 1)
        now[...] = v
    state.v = v
    return drive


def currents(
    neuron: IntegerNeuron,
    sums: Floats | Ints,
    kind: type[Any],
    accumulator: Accumulator | None,
    *,
    state: State | None = None,
) -> Floats:
    """Return u in every step, as floats of ``kind``; may overwrite ``sums``. accumulator: None if u stays within it."""
    arriving: Floats
    if sums.dtype.kind == "f":
        arriving = sums.astype(kind, copy=False)
        arriving *= kind(2**STATE_SHIFT)
    else:
        arriving = (sums << STATE_SHIFT).astype(kind)
    if np.all(neuron.i_decay == DECAY_ONE):
        return arriving if accumulator is None else _within(arriving, accumulator)
    state = state or State()
    u = _started(arriving, neuron.u_start) if state.u is None else state.u
    for now in arriving:
        u = leak(u, neuron.i_decay)
        u += now
        if accumulator is not None:
            u = _within(u.astype(np.int64).astype(np.int32).astype(u.dtype), accumulator)  # added to u in 32 bits
        now[...] = u
    state.u = u
    return arriving


def exact_type(neuron: IntegerNeuron, farthest: float = 0) -> type[np.float32] | type[np.float64]:
    """Return the narrowest type for a neuron's states; see the module. farthest: |v| stays within it."""
    if farthest >= 2**24:
        return np.float64
    if not isinstance(neuron.v_decay, int) or not isinstance(neuron.i_decay, int) or neuron.reset != "value":
        return np.float64
    if neuron.adaptation is not None:
        return np.float64
    kept = DECAY_ONE - neuron.v_decay
    return np.float32 if neuron.i_decay == DECAY_ONE and kept & (kept - 1) == 0 else np.float64


def _summed(reach: int, decay: int, steps: int) -> float:
    """Bound a state that gets ``reach`` in each of the steps and is never reset."""
    return reach * min(DECAY_ONE / decay if decay else steps, steps)


def leak(state: Floats, decay: int | Ints) -> Floats:
    """Return the decayed u or v after one step."""
    state *= np.asarray((DECAY_ONE - decay) / DECAY_ONE, state.dtype)
    return toward_zero(state)


def toward_zero(product: Floats) -> Floats:
    """Round toward zero."""
    return np.trunc(product, out=product)


def _within(u: Floats, accumulator: Accumulator) -> Floats:
    """Wrap u at its limits, or stop it there."""
    return wrap(u) if accumulator.wraps else saturate(u, -accumulator.u_top, accumulator.u_top)


def wrap(u: Floats) -> Floats:
    """Wrap u at 2^23 (once, as in Lava's model)."""
    u -= u.dtype.type(2 * STATE_TOP) * (u > STATE_TOP)
    u += u.dtype.type(2 * STATE_TOP) * (u <= -STATE_TOP)
    return u


def saturate(v: Floats, least: int, most: int) -> Floats:
    """Clip v in place."""
    return np.clip(v, least, most, out=v)


def fires(v: Floats, threshold: Floats, fired: NDArray[np.bool_]) -> None:
    """Write spikes to ``fired``: a neuron fires strictly above its threshold."""
    np.greater(v, threshold, out=fired)


def fire_several(v: Floats, threshold: Floats, neuron: IntegerNeuron, spikes: NDArray[np.uint8]) -> None:
    """Write the spikes of a step, each of which takes its drop off v (in place, float64).

    The quotient is exact where it is whole; else it is 2^-24 or more away from an integer, far beyond rounding.
    """
    assert neuron.drop is not None
    drop = (neuron.drop << STATE_SHIFT).astype(v.dtype)
    spikes[...] = np.clip(np.ceil((v - threshold) / drop), 0, neuron.cap)
    v -= drop * spikes


def reset(v: Floats, fired: NDArray[np.bool_]) -> Floats:
    """Set v to 0 after a spike; u is unchanged."""
    v *= ~fired
    return v
