"""Batch norm, LIF scan, max pooling and their gradients in one pass over memory each, compiled by numba.

Arrays are channels-last, by image rows: ``x[T, B, R, L]`` with R the height and L = width·channels (R = 1 and L the
features behind a dense layer); what holds for a channel is tiled to L. Currents, spikes and their gradients are
float32, float64, or bfloat16 as the uint16 of its bits; potentials are float32 or float64. Every function works on the
samples ``first <= b < last`` alone and releases the GIL; sums over samples come back as one part per call, so that the
caller adds them in a fixed order, however many threads there are.

The scan is that of `stl_deploy._scan`: multiply, add and compare are operations of their own (LLVM contracts none
without being asked), so the spikes are those of the torch path bit for bit where there is no batch norm. Loops are
short and touch few arrays: LLVM vectorises a loop only if few pairs of arrays could overlap.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]
SURROGATES = ("arctan", "sigmoid", "triangular", "rectangular")
"""Surrogate gradients by the number that the kernels know them by."""

_compiled = njit(nogil=True, cache=True, error_model="numpy")


@_compiled
def _widen(row: Array, out: Array) -> None:
    """Read a row of currents or gradients."""
    if row.itemsize == 2:
        bits = out.view(np.uint32)
        for i in range(row.size):
            bits[i] = np.uint32(row[i]) << np.uint32(16)
    else:
        for i in range(row.size):
            out[i] = row[i]


@_compiled
def _narrow(row: Array, out: Array) -> None:
    """Write a row of gradients: to the nearest, ties to even; NaN stays NaN."""
    if out.itemsize == 2:
        bits = row.view(np.uint32)
        for i in range(row.size):
            word = bits[i]
            rounded = (word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            out[i] = np.uint16(rounded) if row[i] == row[i] else np.uint16(0x7FC0)
    else:
        for i in range(row.size):
            out[i] = row[i]


@_compiled
def _multiply(row: Array, factor: Any) -> None:
    for i in range(row.size):
        row[i] *= factor


@_compiled
def moments(x: Array, first: int, last: int, count: Array, mean: Array, spread: Array, wide: Array) -> None:
    """Number, mean and sum of squared deviations of each column of the samples, ``[S]``, ``[S, L]`` twice; S = T or 1.

    Each map's deviations are summed about its own mean and combined as Chan, Golub and LeVeque (1983, eq. 2.1) do.
    ``wide`` is any array of the type to compute in.
    """
    steps, rows, size = x.shape[0], x.shape[2], x.shape[3]
    row, center, total = np.empty(size, wide.dtype), np.empty(size, wide.dtype), np.empty(size, wide.dtype)
    for b in range(first, last):
        for t in range(steps):
            s = t if mean.shape[0] > 1 else 0
            center[:] = 0
            total[:] = 0
            for r in range(rows):
                _widen(x[t, b, r], row)
                for i in range(size):
                    center[i] += row[i]
            _multiply(center, wide.dtype.type(1.0 / rows))
            for r in range(rows):
                _widen(x[t, b, r], row)
                for i in range(size):
                    away = row[i] - center[i]
                    total[i] += away * away
            n = count[s] + rows
            of_shift, share = count[s] * rows / n, rows / n
            means, spreads = mean[s], spread[s]
            for i in range(size):
                shift = center[i] - means[i]
                spreads[i] += total[i] + shift * shift * of_shift
                means[i] += shift * share
            count[s] = n


@_compiled
def forward(
    x: Array,
    first: int,
    last: int,
    scale: Array,
    shift: Array,
    theta: Array,
    beta: Any,
    channels: int,
    pool: int,
    trace: Array,
    no_and_yes: Array,
    out: Array,
) -> None:
    """Spikes, max-pooled over pool·pool windows, into ``out[T, B, R', L']``; u before the reset into ``trace``.

    x: currents ``[T or 1, B, R, L]``; a single step is shown at every step. scale, shift: batch norm's affine
    ``[S, L]``, S = T or 1, or 0: there is none. theta: ``[R or 1, L]``. trace: ``[T, B, R, L]``, or ``[1, B, R, L]``
    where it is not kept. no_and_yes: silence and a spike in out's type.
    """
    steps, rows, size = out.shape[0], x.shape[2], x.shape[3]
    z, any_fired = np.empty(size, trace.dtype), np.empty((steps, size), np.uint8)
    no, yes = no_and_yes[0], no_and_yes[1]
    kept, moving = trace.shape[0] > 1, x.shape[0] > 1
    for b in range(first, last):
        for r in range(rows):
            level = theta[r if theta.shape[0] > 1 else 0]
            for t in range(steps):
                u, before = trace[t if kept else 0, b, r], trace[t - 1 if kept and t else 0, b, r]
                _widen(x[t if moving else 0, b, r], z)
                if scale.shape[0]:
                    s = t if scale.shape[0] > 1 else 0
                    _affine(z, scale[s], shift[s])
                if t:
                    _leak_and_add(before, level, beta, z, u)
                else:
                    u[:] = z
                if pool == 1:
                    _compare(u, level, no, yes, out[t, b, r])
                elif r // pool < out.shape[2]:
                    if r % pool == 0:
                        any_fired[t] = 0
                    _compare_any(u, level, any_fired[t])
                    if r % pool == pool - 1:
                        _pool_row(any_fired[t], channels, pool, no, yes, out[t, b, r // pool])


@_compiled
def _affine(row: Array, scale: Array, shift: Array) -> None:
    for i in range(row.size):
        row[i] = row[i] * scale[i] + shift[i]


@_compiled
def _leak_and_add(before: Array, level: Array, beta: Any, z: Array, u: Array) -> None:
    zero = u.dtype.type(0)
    for i in range(u.size):
        rest = zero if before[i] >= level[i] else before[i]
        u[i] = rest * beta + z[i]


@_compiled
def _compare(u: Array, level: Array, no: Any, yes: Any, out: Array) -> None:
    for i in range(u.size):
        out[i] = yes if u[i] >= level[i] else no


@_compiled
def _compare_any(u: Array, level: Array, fired: Array) -> None:
    for i in range(u.size):
        fired[i] |= u[i] >= level[i]


@_compiled
def _pool_row(any_fired: Array, channels: int, pool: int, no: Any, yes: Any, out: Array) -> None:
    for window in range(out.size // channels):
        place, corner = window * channels, window * channels * pool
        for c in range(channels):
            fired = any_fired[corner + c]
            for j in range(1, pool):
                fired |= any_fired[corner + j * channels + c]
            out[place + c] = yes if fired else no


@_compiled
def backward(
    grad: Array,
    trace: Array,
    x: Array,
    first: int,
    last: int,
    mean: Array,
    theta: Array,
    beta: Any,
    channels: int,
    pool: int,
    surrogate: int,
    detach: bool,
    grad_z: Array,
    grad_theta: Array,
    grad_beta: Array,
    sums: Array,
) -> None:
    """Through time, by hand (see `stl_deploy._scan`): the gradient of the LIF's input into ``grad_z``.

    grad: of the pooled spikes, ``[T, B, R', L']``. grad_z: ``[T, B, R, L]``, trace itself if it has the type, or
    ``[1, B, R, L]`` for the sum over the steps where x has a single one. Added to: grad_theta ``[R or 1, L]``,
    grad_beta ``[1]`` (or ``[0]``: not wanted), and where mean has rows ``sums[S, 2, L]``, Σ grad_z and
    Σ grad_z·(x − mean).
    """
    steps, rows, size = trace.shape[0], trace.shape[2], trace.shape[3]
    rest, z = np.empty((pool, size), trace.dtype), np.empty(size, trace.dtype)
    routed = np.zeros((pool, size), trace.dtype)
    of_map = np.empty((mean.shape[0], 2, size), trace.dtype)
    single = grad_z.shape[0] < steps
    for b in range(first, last):
        of_map[:] = 0
        for top in range(0, rows, pool):
            rest[:] = 0
            for t in range(steps - 1, -1, -1):
                if top // pool == grad.shape[2]:
                    routed[:] = 0
                elif pool > 1:
                    _route(grad[t, b, top // pool], trace[t, b], theta, channels, top, routed)
                else:
                    _widen(grad[t, b, top], routed[0])
                for r in range(top, min(top + pool, rows)):
                    row = r if theta.shape[0] > 1 else 0
                    level, u, carried = theta[row], trace[t, b, r], rest[r - top]
                    _through_neuron(routed[r - top], u, level, carried, surrogate, detach, z, grad_theta[row])
                    if grad_beta.size and t:
                        grad_beta[0] += _through_decay(trace[t - 1, b, r], level, carried)
                    if mean.shape[0]:
                        s = t if mean.shape[0] > 1 else 0
                        _widen(x[0 if single else t, b, r], z)
                        _add(carried, of_map[s, 0])
                        _add_product(carried, z, mean[s], of_map[s, 1])
                    if not single:
                        _narrow(carried, grad_z[t, b, r])
                    else:
                        if t == steps - 1:
                            grad_z[0, b, r] = 0
                        _add(carried, grad_z[0, b, r])
                    _multiply(carried, beta)
        for s in range(mean.shape[0]):
            _add(of_map[s, 0], sums[s, 0])
            _add(of_map[s, 1], sums[s, 1])


@_compiled
def _through_neuron(
    gradient: Array,
    u: Array,
    level: Array,
    carried: Array,
    surrogate: int,
    detach: bool,
    slope: Array,
    grad_level: Array,
) -> None:
    """From ∂s in ``gradient`` and ∂r in ``carried`` to ∂u in ``carried``; ``slope`` is scratch."""
    zero = slope.dtype.type(0)
    _derivative(surrogate, u, level, slope)
    if detach:
        for i in range(u.size):
            slope[i] *= gradient[i]
    else:
        for i in range(u.size):
            slope[i] *= gradient[i] - u[i] * carried[i]
    for i in range(u.size):
        grad_level[i] -= slope[i]
    for i in range(u.size):
        carried[i] = (zero if u[i] >= level[i] else carried[i]) + slope[i]


@_compiled
def _derivative(surrogate: int, u: Array, level: Array, out: Array) -> None:
    """`stl_deploy.surrogate` at u − θ."""
    zero, half, one = out.dtype.type(0), out.dtype.type(0.5), out.dtype.type(1)
    if surrogate == 0:
        pi = out.dtype.type(np.pi)
        for i in range(u.size):
            y = (u[i] - level[i]) * pi
            out[i] = one / (y * y + one)
    elif surrogate == 1:
        four = out.dtype.type(4)
        for i in range(u.size):
            y = one / (one + np.exp(-four * (u[i] - level[i])))
            out[i] = y * (one - y) * four
    elif surrogate == 2:
        for i in range(u.size):
            out[i] = max(one - abs(u[i] - level[i]), zero)
    else:
        for i in range(u.size):
            out[i] = one if abs(u[i] - level[i]) < half else zero


@_compiled
def _route(grad: Array, now: Array, theta: Array, channels: int, top: int, out: Array) -> None:
    """Each window's gradient to its first spike, or to its first place if none fired: as torch's max_pool2d does.

    grad: of one row of windows, ``[L']``; top: the first image row of it; out: ``[pool, L]``.
    """
    left, pool = np.empty(grad.size, out.dtype), out.shape[0]
    zero = out.dtype.type(0)
    _widen(grad, left)
    for i in range(pool):
        level, u, row = theta[top + i if theta.shape[0] > 1 else 0], now[top + i], out[i]
        for window in range(left.size // channels):
            for j in range(pool):
                a, b = (window * pool + j) * channels, window * channels
                for c in range(channels):
                    fired = u[a + c] >= level[a + c]
                    row[a + c] = left[b + c] if fired else zero
                    left[b + c] = zero if fired else left[b + c]
    first = out[0]
    for window in range(left.size // channels):
        for c in range(channels):
            first[window * pool * channels + c] += left[window * channels + c]


@_compiled
def _through_decay(before: Array, level: Array, gradient: Array) -> float:
    total = 0.0
    for i in range(before.size):
        if before[i] < level[i]:
            total += before[i] * gradient[i]
    return total


@_compiled
def _add(row: Array, total: Array) -> None:
    for i in range(row.size):
        total[i] += row[i]


@_compiled
def _add_product(gradient: Array, x: Array, mean: Array, total: Array) -> None:
    for i in range(x.size):
        total[i] += gradient[i] * (x[i] - mean[i])


@_compiled
def norm_backward(
    grad_z: Array, x: Array, first: int, last: int, mean: Array, of_grad: Array, of_x: Array, rest: Array, grad_x: Array
) -> None:
    """Batch norm's input gradient, of_grad·grad_z + of_x·(x − mean) + rest, coefficients ``[S, L]``."""
    row, z = np.empty(x.shape[3], grad_z.dtype), np.empty(x.shape[3], grad_z.dtype)
    for b in range(first, last):
        for t in range(x.shape[0]):
            s = t if mean.shape[0] > 1 else 0
            center, a, k, d = mean[s], of_grad[s], of_x[s], rest[s]
            for r in range(x.shape[2]):
                _widen(x[t, b, r], z)
                gradient = grad_z[t, b, r]
                for i in range(z.size):
                    row[i] = k[i] * (z[i] - center[i]) + d[i]
                for i in range(z.size):
                    row[i] += a[i] * gradient[i]
                _narrow(row, grad_x[t, b, r])


@_compiled
def columns(
    x: Array, first: int, last: int, stride: Array, padding: Array, kernel: Array, one: Array, out: Array
) -> None:
    """The windows of a convolution, ``x[N, C, H, W]`` -> ``out[N, H', W', taps]``.

    one: the 1 to end every window with, or empty. stride, padding, kernel: of height and width. Taps are in the order
    of ``weight[channel].ravel()``.
    """
    _, channels, height, width = x.shape
    _, high, wide, taps = out.shape
    padded = np.zeros((channels, height + 2 * padding[0], width + 2 * padding[1]), x.dtype)
    for n in range(first, last):
        padded[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width] = x[n]
        for i in range(high):
            if one.size:
                out[n, i, :, taps - 1] = one[0]
            tap = 0
            for c in range(channels):
                for a in range(kernel[0]):
                    row = padded[c, i * stride[0] + a]
                    for b in range(kernel[1]):
                        target = out[n, i]
                        for j in range(wide):
                            target[j, tap] = row[j * stride[1] + b]
                        tap += 1
