"""Batch norm, LIF scan, max pooling and their gradients in one pass over memory each, compiled by numba.

A map is worked on in strips, runs of whole image rows (windows of rows, where there is pooling) that stay in the cache
from step to step: ``x[T, B, M]`` is channels-last, M = height·width·channels, and ``strip`` numbers of it are one. What
holds for a channel is tiled to a strip. Currents, spikes and their gradients are float32, float64, or bfloat16 as the
uint16 of its bits; potentials are float32 or float64. Every function works on the samples ``first <= b < last`` alone
and releases the GIL; sums over samples come back as one part per call, so that the caller adds them in a fixed order,
however many threads there are.

The scan is that of `stl_deploy._scan`: multiply, add and compare are operations of their own (LLVM contracts none
without being asked), so the spikes are those of the torch path bit for bit where there is no batch norm. Loops are
long and touch few arrays: LLVM vectorises a loop only if few pairs of arrays could overlap.
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

    x: ``[T, B, R, L]``, a map as R equal rows of whatever length. Each map's deviations are summed about its own mean
    and combined as Chan, Golub and LeVeque (1983, eq. 2.1) do.
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
    row: int,
    channels: int,
    pool: int,
    strip: int,
    trace: Array,
    no_and_yes: Array,
    out: Array,
) -> None:
    """Spikes, max-pooled over pool·pool windows, into ``out[T, B, M']``; u before the reset into ``trace``.

    x: currents ``[T or 1, B, M]``; a single step is shown at every step. scale, shift: batch norm's affine
    ``[S, strip]``, S = T or 1, or 0: there is none. theta: ``[M]``, or ``[strip]`` where it repeats. row: numbers in an
    image row. trace: ``[T, B, M]``, or ``[0, B, M]`` where it is not kept. no_and_yes: silence and a spike in out's
    type.
    """
    steps, size = out.shape[0], x.shape[2]
    kept, moving, window = trace.shape[0] > 0, x.shape[0] > 1, pool * row
    z, rest = np.empty(strip, trace.dtype), np.empty(strip, trace.dtype)
    fired, total = np.empty(row, trace.dtype), np.empty(row, trace.dtype)
    pooled = row // channels // pool * channels
    for b in range(first, last):
        for start in range(0, size, strip):
            stop = min(start + strip, size)
            n = stop - start
            level = theta[start:stop] if theta.size == size else theta[:n]
            rest[:] = 0
            for t in range(steps):
                _widen(x[t if moving else 0, b, start:stop], z[:n])
                if scale.shape[0]:
                    s = t if scale.shape[0] > 1 else 0
                    _affine(z[:n], scale[s, :n], shift[s, :n])
                if kept:
                    u = trace[t, b, start:stop]
                    _leak_and_add(trace[t - 1, b, start:stop] if t else rest[:n], level, beta, z[:n], u)
                else:
                    u = z[:n]
                    _step(beta, level, rest[:n], u)
                if pool == 1:
                    _compare(u, level, no_and_yes, out[t, b, start:stop])
                else:
                    for top in range(0, n - window + 1, window):
                        place = (start + top) // window * pooled
                        target = out[t, b, place : place + pooled]
                        end = top + window
                        _pool(u[top:end], level[top:end], channels, pool, fired, total, no_and_yes, target)


@_compiled
def _affine(row: Array, scale: Array, shift: Array) -> None:
    for i in range(row.size):
        row[i] = row[i] * scale[i] + shift[i]


@_compiled
def _leak_and_add(before: Array, level: Array, beta: Any, current: Array, u: Array) -> None:
    zero = u.dtype.type(0)
    for i in range(u.size):
        rest = zero if before[i] >= level[i] else before[i]
        u[i] = rest * beta + current[i]


@_compiled
def _step(beta: Any, level: Array, rest: Array, u: Array) -> None:
    """From currents to potentials in ``u``; ``rest``: potentials after the reset, of the step before, then this one."""
    zero = u.dtype.type(0)
    for i in range(u.size):
        potential = rest[i] * beta + u[i]
        u[i] = potential
        rest[i] = zero if potential >= level[i] else potential


@_compiled
def _compare(u: Array, level: Array, no_and_yes: Array, out: Array) -> None:
    no, yes = no_and_yes[0], no_and_yes[1]
    for i in range(u.size):
        out[i] = yes if u[i] >= level[i] else no


@_compiled
def _pool(
    u: Array, level: Array, channels: int, pool: int, fired: Array, total: Array, no_and_yes: Array, out: Array
) -> None:
    """A row of windows, from the rows of u that they cover; ``fired`` and ``total`` are scratch rows."""
    row, (no, yes) = fired.size, (no_and_yes[0], no_and_yes[1])
    zero, one = fired.dtype.type(0), fired.dtype.type(1)
    fired[:] = 0
    for i in range(pool):
        now, theta = u[i * row : (i + 1) * row], level[i * row : (i + 1) * row]
        for j in range(row):
            fired[j] += one if now[j] >= theta[j] else zero
    total[:] = fired
    for j in range(1, pool):
        _add(fired[j * channels :], total[: row - j * channels])
    for window in range(out.size // channels):
        corner, place = window * pool * channels, window * channels
        for c in range(channels):
            out[place + c] = yes if total[corner + c] > 0 else no


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
    row: int,
    channels: int,
    pool: int,
    strip: int,
    surrogate: int,
    detach: bool,
    grad_z: Array,
    grad_theta: Array,
    grad_beta: Array,
    sums: Array,
) -> None:
    """Through time, by hand (see `stl_deploy._scan`): the gradient of the LIF's input into ``grad_z``.

    grad: of the pooled spikes, ``[T, B, M']``. grad_z: ``[T, B, M]``, trace itself if it has the type, or ``[1, B, M]``
    for the sum over the steps where x has a single one. Added to: grad_theta, of theta's shape, grad_beta ``[1]`` (or
    ``[0]``: not wanted), and where mean has rows ``sums[S, 2, strip]``, Σ grad_z and Σ grad_z·(x − mean).
    """
    steps, size, window = trace.shape[0], trace.shape[2], pool * row
    carried, routed, z = np.empty(strip, trace.dtype), np.zeros(strip, trace.dtype), np.empty(strip, trace.dtype)
    pooled = row // channels // pool * channels
    left = np.empty(pooled, trace.dtype)
    of_map = np.empty((mean.shape[0], 2, strip), trace.dtype)
    by_reset = trace.dtype.type(0 if detach else 1)
    single = grad_z.shape[0] < steps
    for b in range(first, last):
        of_map[:] = 0
        for start in range(0, size, strip):
            stop = min(start + strip, size)
            n = stop - start
            level = theta[start:stop] if theta.size == size else theta[:n]
            of_level = grad_theta[start:stop] if theta.size == size else grad_theta[:n]
            carried[:] = 0
            for t in range(steps - 1, -1, -1):
                u = trace[t, b, start:stop]
                if pool == 1:
                    _widen(grad[t, b, start:stop], routed[:n])
                else:
                    routed[n // window * window :] = 0
                    for top in range(0, n - window + 1, window):
                        place, end = (start + top) // window * pooled, top + window
                        _widen(grad[t, b, place : place + pooled], left)
                        _route(left, u[top:end], level[top:end], channels, pool, routed[top:end])
                _through_neuron(surrogate, by_reset, u, level, routed[:n], carried[:n], of_level)
                if grad_beta.size and t:
                    grad_beta[0] += _through_decay(trace[t - 1, b, start:stop], level, carried[:n])
                if mean.shape[0]:
                    s = t if mean.shape[0] > 1 else 0
                    _widen(x[0 if single else t, b, start:stop], z[:n])
                    _add_both(carried[:n], z[:n], mean[s, :n], of_map[s, 0, :n], of_map[s, 1, :n])
                if not single:
                    _narrow(carried[:n], grad_z[t, b, start:stop])
                else:
                    if t == steps - 1:
                        grad_z[0, b, start:stop] = 0
                    _add(carried[:n], grad_z[0, b, start:stop])
                _multiply(carried, beta)
        for s in range(mean.shape[0]):
            _add(of_map[s, 0], sums[s, 0])
            _add(of_map[s, 1], sums[s, 1])


@_compiled
def _through_neuron(
    surrogate: int, by_reset: Any, u: Array, level: Array, gradient: Array, carried: Array, grad_level: Array
) -> None:
    """From ∂s in ``gradient`` and ∂r in ``carried`` to ∂u in ``carried``; by_reset: 0 where the reset is detached."""
    if surrogate == 0:
        for i in range(u.size):
            of_spike = (gradient[i] - u[i] * carried[i] * by_reset) * _arctan(u[i] - level[i])
            grad_level[i] -= of_spike
            carried[i] = _unless_fired(carried[i], u[i], level[i]) + of_spike
    elif surrogate == 1:
        for i in range(u.size):
            of_spike = (gradient[i] - u[i] * carried[i] * by_reset) * _sigmoid(u[i] - level[i])
            grad_level[i] -= of_spike
            carried[i] = _unless_fired(carried[i], u[i], level[i]) + of_spike
    elif surrogate == 2:
        for i in range(u.size):
            of_spike = (gradient[i] - u[i] * carried[i] * by_reset) * _triangular(u[i] - level[i])
            grad_level[i] -= of_spike
            carried[i] = _unless_fired(carried[i], u[i], level[i]) + of_spike
    else:
        for i in range(u.size):
            of_spike = (gradient[i] - u[i] * carried[i] * by_reset) * _rectangular(u[i] - level[i])
            grad_level[i] -= of_spike
            carried[i] = _unless_fired(carried[i], u[i], level[i]) + of_spike


@_compiled
def _unless_fired(carried: Any, u: Any, level: Any) -> Any:
    return type(carried)(0) if u >= level else carried


@_compiled
def _arctan(away: Any) -> Any:
    one, y = type(away)(1), away * type(away)(np.pi)
    return one / (y * y + one)


@_compiled
def _sigmoid(away: Any) -> Any:
    one, four = type(away)(1), type(away)(4)
    y = one / (one + np.exp(-four * away))
    return y * (one - y) * four


@_compiled
def _triangular(away: Any) -> Any:
    return max(type(away)(1) - abs(away), type(away)(0))


@_compiled
def _rectangular(away: Any) -> Any:
    return type(away)(1) if abs(away) < type(away)(0.5) else type(away)(0)


@_compiled
def _route(left: Array, u: Array, level: Array, channels: int, pool: int, out: Array) -> None:
    """Each window's gradient to its first spike, or to its first place if none fired: as torch's max_pool2d does.

    left: the gradients of a row of windows, lost here. u, level, out: the image rows that the windows cover.
    """
    row, zero = u.size // pool, out.dtype.type(0)
    for i in range(pool):
        now, theta = u[i * row : (i + 1) * row], level[i * row : (i + 1) * row]
        routed = out[i * row : (i + 1) * row]
        for window in range(left.size // channels):
            for j in range(pool):
                a, b = (window * pool + j) * channels, window * channels
                for c in range(channels):
                    fired = now[a + c] >= theta[a + c]
                    routed[a + c] = left[b + c] if fired else zero
                    left[b + c] = zero if fired else left[b + c]
        routed[left.size * pool :] = 0
    for window in range(left.size // channels):
        for c in range(channels):
            out[window * pool * channels + c] += left[window * channels + c]


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
def _add_both(gradient: Array, x: Array, mean: Array, total: Array, of_x: Array) -> None:
    for i in range(x.size):
        total[i] += gradient[i]
        of_x[i] += gradient[i] * (x[i] - mean[i])


@_compiled
def norm_backward(
    grad_z: Array, x: Array, first: int, last: int, mean: Array, of_grad: Array, of_x: Array, rest: Array, grad_x: Array
) -> None:
    """Batch norm's input gradient, of_grad·grad_z + of_x·(x − mean) + rest.

    grad_z, x, grad_x: ``[T, B, R, L]``, as in `moments`; coefficients: ``[S, L]``.
    """
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
