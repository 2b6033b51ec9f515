"""Batch norm over channels-last maps: statistics and gradient; compiled by numba."""

from __future__ import annotations

import numpy as np

from stl_deploy.nn.fused.compile import compiled
from stl_deploy.nn.fused.rows import Array, add_by_channel, convert, multiply, tiled


@compiled
def moments(x: Array, first: int, last: int, count: Array, mean: Array, spread: Array, wide: Array) -> None:
    """Return number, mean and sum of squared deviations of each channel, ``[S]``, ``[S, C]`` twice; S = T or 1.

    x: ``[T, B, R, L]``, a map as R equal rows of whole pixels. Each map's deviations are summed about its own mean,
    by place in a row, and combined as Chan, Golub and LeVeque (1983, eq. 2.1) do. ``wide`` is any array of the type to
    compute in.
    """
    steps, rows, size = x.shape[0], x.shape[2], x.shape[3]
    channels = mean.shape[1]
    row, center, total = np.empty(size, wide.dtype), np.empty(size, wide.dtype), np.empty(size, wide.dtype)
    means, spreads = np.zeros((mean.shape[0], size)), np.zeros((mean.shape[0], size))
    for b in range(first, last):
        for t in range(steps):
            s = t if mean.shape[0] > 1 else 0
            center[:] = 0
            total[:] = 0
            for r in range(rows):
                convert(x[t, b, r], row)
                for i in range(size):
                    center[i] += row[i]
            multiply(center, wide.dtype.type(1.0 / rows))
            for r in range(rows):
                convert(x[t, b, r], row)
                for i in range(size):
                    away = row[i] - center[i]
                    total[i] += away * away
            n = count[s] + rows
            of_shift, share = count[s] * rows / n, rows / n
            column_means, column_spreads = means[s], spreads[s]
            for i in range(size):
                shift = center[i] - column_means[i]
                column_spreads[i] += total[i] + shift * shift * of_shift
                column_means[i] += shift * share
            count[s] = n
    add_by_channel(means, mean)
    mean /= size // channels
    for s in range(mean.shape[0]):
        for i in range(size):
            away = means[s, i] - mean[s, i % channels]
            spreads[s, i] += count[s] * away * away
        count[s] *= size // channels
    add_by_channel(spreads, spread)


@compiled
def norm_backward(
    grad_z: Array, x: Array, first: int, last: int, mean: Array, of_grad: Array, of_x: Array, rest: Array, grad_x: Array
) -> None:
    """Compute batch norm's input gradient, of_grad·grad_z + of_x·(x − mean) + rest.

    grad_z, x, grad_x: ``[T, B, R, L]``, as in `moments`; coefficients: ``[S, C]``.
    """
    size = x.shape[3]
    row, z = np.empty(size, grad_z.dtype), np.empty(size, grad_z.dtype)
    centers, scales = tiled(mean, size, row), tiled(of_grad, size, row)
    slopes, rests = tiled(of_x, size, row), tiled(rest, size, row)
    for b in range(first, last):
        for t in range(x.shape[0]):
            s = t if mean.shape[0] > 1 else 0
            center, a, k, d = centers[s], scales[s], slopes[s], rests[s]
            for r in range(x.shape[2]):
                convert(x[t, b, r], z)
                gradient = grad_z[t, b, r]
                for i in range(z.size):
                    row[i] = k[i] * (z[i] - center[i]) + d[i]
                for i in range(z.size):
                    row[i] += a[i] * gradient[i]
                convert(row, grad_x[t, b, r])
