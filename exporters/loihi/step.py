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


def step_through(neuron: LoihiNeuron, arriving: Ints, bias: Ints | None) -> NDArray[np.uint8]:
    """Spikes ``[T, B, *shape]`` for synaptic input of the same shape, from rest; bias broadcasts to ``shape``."""
    spikes = np.empty(arriving.shape, np.uint8)
    u = np.zeros(arriving.shape[1:], np.int32)
    v = np.zeros(arriving.shape[1:], np.int32)
    shifted_bias = np.int32(0) if bias is None else bias << STATE_SHIFT
    threshold = neuron.threshold << STATE_SHIFT
    for now, out in zip(arriving, spikes, strict=True):
        u = wrap(leak(u, neuron.i_decay) + (now << STATE_SHIFT))
        v = saturate(leak(v, neuron.v_decay) + u + shifted_bias)
        fired = fires(v, threshold)
        v = reset(v, fired)
        out[...] = fired
    return spikes


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
    rounded: NDArray[Any] = (product + ((product < 0) * product.dtype.type((1 << bits) - 1))) >> bits
    return rounded


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
