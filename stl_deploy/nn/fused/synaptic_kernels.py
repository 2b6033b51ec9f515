"""The scan of `stl_deploy.nn.synaptic_scan` and its gradient, compiled by numba: one sample after the other.

Arrays are ``[T, B, N]`` and ``[N]``, contiguous; a synapse of no neurons means none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.nn.fused.compile import compiled, inlined

Array = NDArray[Any]
LOW, BEYOND = 0.3, 0.7


def forward(given: Sequence[Array], rule: tuple[int, int, bool, bool], learning: bool) -> tuple[Array, Array, Array]:
    """Return the output ``[T, B, N]``, u before the reset, and the current (both empty unless learning).

    given: x, θ, decay, synapse decay. rule: cap (0: no spikes), surrogate, soft reset, detached reset.
    """
    x, theta, decay, synapse = given
    y = np.empty_like(x)
    u, current = (
        np.empty(x.shape if kept else (0, 0, 0), x.dtype) for kept in (learning, learning and synapse.size > 0)
    )
    _forward(x, theta, decay, synapse, _constants(rule[0], x), rule[0], rule[2], y, u, current)
    return y, u, current


def backward(
    grad: Array, given: Sequence[Array], trace: tuple[Array, Array, Array], rule: tuple[int, int, bool, bool]
) -> tuple[Array, Array, Array, Array]:
    """Return gradients of x, θ, decay and synapse decay. trace: `forward`'s result."""
    x, theta, decay, synapse = given
    gradients = (np.empty_like(x), np.zeros_like(theta), np.zeros_like(decay), np.zeros_like(synapse))
    if synapse.size and rule[0] > 1 and not rule[3]:
        _backward_staircase(grad, x, theta, decay, synapse, *trace, _constants(rule[0], x), *gradients)
    else:
        _backward(grad, x, theta, decay, synapse, *trace, *rule, *gradients)
    return gradients


def _constants(cap: int, like: Array) -> Array:
    """Return 0, 1, the cap and the staircase's ends, in the numbers' own type, so that no operation widens them."""
    return np.array([0, 1, cap, LOW, cap + BEYOND], like.dtype)


@inlined
def _slope(u: Any, theta: Any, cap: int, surrogate: int) -> Any:
    """Return ds/du."""
    if cap > 1:
        ratio = u / theta
        return 1 / theta if LOW < ratio < cap + BEYOND else 0 * theta
    x = u - theta
    if surrogate == 0:
        return 1 / (1 + (math.pi * x) ** 2)
    if surrogate == 1:
        y = 1 / (1 + math.exp(-4 * x))
        return 4 * y * (1 - y)
    if surrogate == 2:
        return max(1 - abs(x), 0.0)
    return 1.0 if abs(x) < 0.5 else 0.0


@compiled
def _forward(
    x: Array,
    theta: Array,
    decay: Array,
    synapse: Array,
    constants: Array,
    cap: int,
    soft: bool,
    y: Array,
    u: Array,
    current: Array,
) -> None:
    steps, batch, neurons = x.shape
    zero, one, most = constants[0], constants[1], constants[2]
    for b in range(batch):
        v, i, level = np.zeros(neurons, x.dtype), np.zeros(neurons, x.dtype), np.zeros(neurons, x.dtype)
        for t in range(steps):
            now, out = x[t, b], y[t, b]
            if synapse.size:
                for n in range(neurons):
                    i[n] = (i[n] + now[n]) * synapse[n]
                now = i
            for n in range(neurons):
                level[n] = v[n] * decay[n] + now[n]
            if cap == 0:
                for n in range(neurons):
                    out[n] = v[n] = level[n]
            elif cap == 1:
                for n in range(neurons):
                    out[n] = one if level[n] >= theta[n] else zero
                    v[n] = level[n] - (theta[n] if soft else level[n]) * out[n]
            else:
                for n in range(neurons):
                    out[n] = min(max(np.floor(level[n] / theta[n]), zero), most)
                    v[n] = level[n] - theta[n] * out[n]
            if u.size:
                for n in range(neurons):
                    u[t, b, n] = level[n]
            if current.size:
                for n in range(neurons):
                    current[t, b, n] = i[n]


@compiled
def _backward_staircase(
    grad: Array,
    x: Array,
    theta: Array,
    decay: Array,
    synapse: Array,
    y: Array,
    u: Array,
    current: Array,
    constants: Array,
    of_x: Array,
    of_theta: Array,
    of_decay: Array,
    of_synapse: Array,
) -> None:
    """Compute `_backward` for a synapse and several spikes a step, without branches, so that it vectorises."""
    steps, batch, neurons = grad.shape
    zero, one, low, high = constants[0], constants[1], constants[3], constants[4]
    inverse = one / theta
    for b in range(batch):
        of_rest, of_current = np.zeros(neurons, grad.dtype), np.zeros(neurons, grad.dtype)
        nothing = np.zeros(neurons, grad.dtype)
        for t in range(steps - 1, -1, -1):
            coming, level, fired, arrived, out = grad[t, b], u[t, b], y[t, b], x[t, b], of_x[t, b]
            before = u[t - 1, b] if t else nothing
            spent = y[t - 1, b] if t else nothing
            held = current[t - 1, b] if t else nothing
            for n in range(neurons):
                ratio = level[n] / theta[n]
                slope = inverse[n] if (ratio > low) & (ratio < high) else zero
                through = (coming[n] - theta[n] * of_rest[n]) * slope
                of_u = through + of_rest[n]
                of_theta[n] -= through * ratio + fired[n] * of_rest[n]
                of_decay[n] += of_u * (before[n] - theta[n] * spent[n])
                of_rest[n] = of_u * decay[n]
                of_i = of_u + of_current[n]
                of_synapse[n] += of_i * (held[n] + arrived[n])
                of_current[n] = of_i * synapse[n]
                out[n] = of_current[n]


@compiled
def _backward(
    grad: Array,
    x: Array,
    theta: Array,
    decay: Array,
    synapse: Array,
    y: Array,
    u: Array,
    current: Array,
    cap: int,
    surrogate: int,
    soft: bool,
    detach: bool,
    of_x: Array,
    of_theta: Array,
    of_decay: Array,
    of_synapse: Array,
) -> None:
    steps, batch, neurons = grad.shape
    for b in range(batch):
        of_rest, of_current = np.zeros(neurons, grad.dtype), np.zeros(neurons, grad.dtype)
        for t in range(steps - 1, -1, -1):
            for n in range(neurons):
                level, threshold, spikes = u[t, b, n], theta[n], y[t, b, n]
                if cap == 0:
                    of_u = grad[t, b, n] + of_rest[n]
                else:
                    taken = threshold if soft else level
                    of_spikes = grad[t, b, n]
                    if not detach:
                        of_spikes -= taken * of_rest[n]
                    through = of_spikes * _slope(level, threshold, cap, surrogate)
                    of_u = through + (of_rest[n] if soft else of_rest[n] * (1 - spikes))
                    of_theta[n] -= through * (level / threshold) if cap > 1 else through
                    if soft:
                        of_theta[n] -= spikes * of_rest[n]
                if t:
                    before = u[t - 1, b, n]
                    if cap:
                        before -= (threshold if soft else before) * y[t - 1, b, n]
                    of_decay[n] += of_u * before
                of_rest[n] = of_u * decay[n]
                if synapse.size:
                    of_i = of_u + of_current[n]
                    held = current[t - 1, b, n] if t else 0 * level
                    of_synapse[n] += of_i * (held + x[t, b, n])
                    of_current[n] = of_i * synapse[n]
                    of_x[t, b, n] = of_current[n]
                else:
                    of_x[t, b, n] = of_u
