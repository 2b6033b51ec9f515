"""Lava's fixed-point neuron step (``lava.proc.lif``, bit-accurate model), one rule per function.

    u = wrap(tz(u·(4096 − i_decay) / 4096) + 64·a)
    v = saturate(tz(v·(4096 − v_decay) / 4096) + u + 64·bias)
    s = v > 64·threshold;  v = 0 where s

tz rounds toward zero. The whole numbers are held as floats, in which numpy is fastest, and the result is exact. In
float64 no number reaches 2^53: u and v are below 2^24 (times 4096 at most before tz), 64·a below 2^32. float32 is used
where u keeps nothing and v keeps a power of two or nothing. There 64·a, its wrap by 2^24, and 64·bias are multiples of
64, exact below 2^30; scaling v by a power of two loses nothing; and what then arrives at v comes to less than 2^24,
so exact, or it is rounded to a number past v's limit, and v is put at its limit as it would be for the exact one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.integers.net import DECAY_ONE, STATE_SHIFT, STATE_TOP, IntegerNeuron, Ints

Floats = NDArray[Any]
"""Whole numbers in float32 or float64."""


@dataclass
class State:
    """What a node keeps from one step to the next; all None at rest."""

    u: Floats | None = None
    v: Floats | None = None
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
) -> None:
    """Write spikes ``[T, B, *shape]`` for synaptic sums of the same shape, from rest or ``state``; bias broadcasts.

    sums: as `stl_deploy.integers.sums` gives them; they are overwritten. bound: what they do not exceed.
    """
    reach = bound << STATE_SHIFT
    least = int(np.min(neuron.i_decay))
    wraps = state is not None or _summed(reach, least, len(sums)) >= STATE_TOP
    drive = currents(neuron, sums, exact_type(neuron), wraps=wraps, state=state)
    if bias is not None:
        drive += (bias << STATE_SHIFT).astype(drive.dtype)
        reach += int(np.abs(bias).max(initial=0)) << STATE_SHIFT
    plain = state is None and least == DECAY_ONE and neuron.reset == "value" and neuron.v_reset is None
    saturates = not plain or _summed(reach, int(np.min(neuron.v_decay)), len(sums)) >= STATE_TOP - 1
    integrate(neuron, drive, spikes, saturates=saturates, state=state)


def integrate(
    neuron: IntegerNeuron,
    drive: Floats,
    spikes: NDArray[np.uint8],
    *,
    saturates: bool = True,
    observe: Callable[[Floats], None] | None = None,
    state: State | None = None,
) -> None:
    """Write the spikes that ``drive`` (u + 64·bias, ``[T, B, *shape]``) makes, from rest or from ``state``.

    observe: is shown v ``[B, *shape]`` of every step, before its reset.
    """
    threshold = (neuron.threshold << STATE_SHIFT).astype(drive.dtype)
    put_back = _reset_of(neuron, drive.dtype)
    state = state or State()
    v = np.zeros(drive.shape[1:], drive.dtype) if state.v is None else state.v
    last = np.zeros(v.shape, bool) if state.spikes is None else state.spikes
    for now, fired in zip(drive, spikes.view(bool), strict=True):
        v = leak(v, neuron.v_decay)
        v += now
        if neuron.resets_late:
            v = put_back(v, last)
        if saturates:
            v = saturate(v)
        if observe is not None:
            observe(v)
        fires(v, threshold, fired)
        if neuron.resets_late:
            last = fired
        else:
            v = put_back(v, fired)
    state.v, state.spikes = v, last


def _reset_of(neuron: IntegerNeuron, kind: np.dtype[Any]) -> Callable[[Floats, NDArray[np.bool_]], Floats]:
    """What a spike does to v."""
    if neuron.reset in ("subtract", "subtract_delayed"):
        assert neuron.drop is not None
        drop = (neuron.drop << STATE_SHIFT).astype(kind)
        return lambda v, fired: np.subtract(v, drop, out=v, where=fired)
    if neuron.v_reset is None:
        return reset
    value = (neuron.v_reset << STATE_SHIFT).astype(kind)
    return lambda v, fired: np.where(fired, value, v)


def potentials(v_decay: int | Ints, drive: Floats, state: State | None = None) -> Floats:
    """v ``[T, B, *shape]`` of neurons without threshold, from rest or ``state``; overwrites ``drive`` (float64)."""
    state = state or State()
    v = np.zeros(drive.shape[1:], drive.dtype) if state.v is None else state.v
    for now in drive:
        v = saturate(leak(v, v_decay) + now)
        now[...] = v
    state.v = v
    return drive


def currents(
    neuron: IntegerNeuron, sums: Floats | Ints, kind: type[Any], *, wraps: bool, state: State | None = None
) -> Floats:
    """u in every step, as floats of ``kind``; may overwrite ``sums``."""
    arriving: Floats
    if sums.dtype.kind == "f":
        arriving = sums.astype(kind, copy=False)
        arriving *= kind(2**STATE_SHIFT)
    else:
        arriving = (sums << STATE_SHIFT).astype(kind)
    if np.all(neuron.i_decay == DECAY_ONE):
        return wrap(arriving) if wraps else arriving
    state = state or State()
    u = np.zeros(arriving.shape[1:], arriving.dtype) if state.u is None else state.u
    for now in arriving:
        u = leak(u, neuron.i_decay)
        u += now
        if wraps:
            u = wrap(u.astype(np.int64).astype(np.int32).astype(u.dtype))  # Lava adds the input to u in 32 bits
        now[...] = u
    state.u = u
    return arriving


def exact_type(neuron: IntegerNeuron) -> type[np.float32] | type[np.float64]:
    """The narrowest type for a neuron's states; see the module."""
    if not isinstance(neuron.v_decay, int) or not isinstance(neuron.i_decay, int) or neuron.reset != "value":
        return np.float64
    kept = DECAY_ONE - neuron.v_decay
    return np.float32 if neuron.i_decay == DECAY_ONE and kept & (kept - 1) == 0 else np.float64


def _summed(reach: int, decay: int, steps: int) -> float:
    """What a state cannot exceed that gets ``reach`` in each of the steps and is never reset."""
    return reach * min(DECAY_ONE / decay if decay else steps, steps)


def leak(state: Floats, decay: int | Ints) -> Floats:
    """What is left of u or v after one step."""
    state *= np.asarray((DECAY_ONE - decay) / DECAY_ONE, state.dtype)
    return toward_zero(state)


def toward_zero(product: Floats) -> Floats:
    """Rounded toward zero."""
    return np.trunc(product, out=product)


def wrap(u: Floats) -> Floats:
    """Past 2^23, u comes out at the other end (once, as in Lava's model)."""
    u -= u.dtype.type(2 * STATE_TOP) * (u > STATE_TOP)
    u += u.dtype.type(2 * STATE_TOP) * (u <= -STATE_TOP)
    return u


def saturate(v: Floats) -> Floats:
    """v stays within ±(2^23 − 1)."""
    return np.clip(v, 1 - STATE_TOP, STATE_TOP - 1, out=v)


def fires(v: Floats, threshold: Floats, fired: NDArray[np.bool_]) -> None:
    """A neuron fires strictly above its threshold; written to ``fired``."""
    np.greater(v, threshold, out=fired)


def reset(v: Floats, fired: NDArray[np.bool_]) -> Floats:
    """v is 0 after a spike; u is left alone."""
    v *= ~fired
    return v
