"""Lava's fixed-point neuron step (``lava.proc.lif``, bit-accurate model), one rule per function.

    u = wrap(tz(u·(4096 − i_decay) / 4096) + 64·a)
    v = saturate(tz(v·(4096 − v_decay) / 4096) + u + 64·bias)
    s = v > 64·threshold;  v = 0 where s

tz rounds toward zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.loihi.net import DECAY_ONE, Ints, LoihiNeuron

STATE_SHIFT = 6
"""Synaptic input, bias and threshold are shifted left by 6 bits to meet u and v."""

_TOP = 2**23
"""u and v are 24 bits wide."""

_BLOCK = 2**15
"""Neurons stepped together through all of time, so that they stay in the cache."""


def step_through(neuron: LoihiNeuron, arriving: Ints, bias: Ints | None) -> NDArray[np.uint8]:
    """Spikes ``[T, B, *shape]`` for synaptic input of the same shape, from rest; bias broadcasts to ``shape``."""
    spikes = np.empty(arriving.shape, np.uint8)
    at_once = max(1, _BLOCK // max(1, int(np.prod(arriving.shape[2:]))))
    for start in range(0, arriving.shape[1], at_once):
        part = slice(start, start + at_once)
        _step_block(neuron, arriving[:, part], bias, spikes[:, part])
    return spikes


def _step_block(neuron: LoihiNeuron, arriving: Ints, bias: Ints | None, spikes: NDArray[np.uint8]) -> None:
    drive = _currents(neuron, arriving)
    if bias is not None:
        drive += bias << STATE_SHIFT
    threshold = neuron.threshold << STATE_SHIFT
    bounded = _stays_below(drive, neuron.v_decay)
    v = np.zeros(arriving.shape[1:], np.int32)
    for now, out in zip(drive, spikes, strict=True):
        v = leak(v, neuron.v_decay) + now
        if not bounded:
            v = saturate(v)
        fired = fires(v, threshold)
        v = reset(v, fired)
        out[...] = fired


def _currents(neuron: LoihiNeuron, arriving: Ints) -> Ints:
    """u in every step."""
    shifted = arriving << STATE_SHIFT
    if neuron.i_decay == DECAY_ONE:
        return wrap(shifted)
    u = np.zeros(arriving.shape[1:], np.int32)
    for now in shifted:
        u = wrap(leak(u, neuron.i_decay) + now)
        now[...] = u
    return shifted


def _stays_below(drive: Ints, decay: int) -> bool:
    """Whether v cannot reach its limit, whatever fires: the largest drive, summed with its leak."""
    largest = max(int(drive.max(initial=0)), -int(drive.min(initial=0)))
    return largest * (DECAY_ONE / decay if decay else drive.shape[0]) < _TOP - 1


def leak(state: Ints, decay: int) -> Ints:
    """What is left of u or v after one step."""
    kept = DECAY_ONE - decay
    if kept in (0, DECAY_ONE):
        return state if kept else np.zeros_like(state)
    twos = (kept & -kept).bit_length() - 1
    factor, bits = kept >> twos, 12 - twos
    product = state if factor == 1 else state.astype(np.int64) * factor
    return toward_zero(product, bits).astype(np.int32, copy=False)


def toward_zero(product: NDArray[Any], bits: int) -> NDArray[Any]:
    """product / 2^bits, rounded toward zero."""
    below = product >> (8 * product.itemsize - 1)
    below &= (1 << bits) - 1
    below += product
    below >>= bits
    return below


def wrap(u: Ints) -> Ints:
    """Past 2^23, u comes out at the other end (once, as in Lava's model)."""
    if u.size and (u.max() > _TOP or u.min() <= -_TOP):
        u = np.where(u > _TOP, u - 2 * _TOP, np.where(u <= -_TOP, u + 2 * _TOP, u))
    return u


def saturate(v: Ints) -> Ints:
    """v stays within ±(2^23 − 1)."""
    return np.clip(v, 1 - _TOP, _TOP - 1)


def fires(v: Ints, threshold: Ints) -> NDArray[np.bool_]:
    """A neuron fires strictly above its threshold."""
    return v > threshold


def reset(v: Ints, fired: NDArray[np.bool_]) -> Ints:
    """v is 0 after a spike; u is left alone."""
    return np.where(fired, np.int32(0), v)
