"""Batch norm, LIF scan, max pooling and their gradients, each in one pass over memory, compiled by numba.

A map is processed in strips of whole image rows (of pooling windows, if any) that stay in the cache from step to step:
``x[T, B, M]`` is channels-last with M = height·width·channels, and a strip has ``strip`` numbers. Per-channel values
are tiled to a strip. Currents, spikes and their gradients are float32, float64, or bfloat16 stored as uint16;
potentials are float32 or float64. Every function handles the samples ``first <= b < last``, releases the GIL, and
returns sums over samples as one part per call; the caller adds the parts in a fixed order for any number of threads.

The input's convolution can be part of the pass: currents are computed strip by strip from the input's events (its
non-zero values); neither they nor their gradients are written to memory.

The scan is that of `stl_deploy.nn.lif_scan`: multiply, add and compare are separate operations, so without batch norm
the spikes equal the torch path's bit for bit. Neurons are processed in vectors (`stl_deploy.nn.fused.vectors`). Other
loops are long and touch few arrays: LLVM vectorises a loop only if few pairs of arrays could overlap, and numba copies
slices slowly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stl_deploy.nn.fused.compile import compiled
from stl_deploy.nn.fused.input_convolution.events import Entry, convolve_events, event_scratch, find_events, to_taps
from stl_deploy.nn.fused.neuron_kernels import Layout, Neurons, descend, fire, pooled
from stl_deploy.nn.fused.rows import Array, add, add_both, add_by_channel, convert, copy, multiply, put_by, tiled
from stl_deploy.nn.fused.vectors import LANES, row_at


class Sums(NamedTuple):
    """Gradients summed over samples.

    level: of θ, of its shape. decay: ``[1]``, or ``[0]``: not wanted. norm: Σ grad_z and Σ grad_z·(x − mean),
    ``[2, S, C]``. taps, bias: of an entry's, of their shapes.
    """

    level: Array
    decay: Array
    norm: Array
    taps: Array
    bias: Array


FAR = 1 << 24
"""Bytes of potentials from which on they are written past the caches: they would not be there any more when read."""


@compiled
def forward(
    x: Array,
    entry: Entry,
    first: int,
    last: int,
    scale: Array,
    shift: Array,
    theta: Array,
    beta: Any,
    layout: Layout,
    trace: Array,
    out: Array,
) -> None:
    """Write spikes, max-pooled over pool·pool windows, into ``out[T, B, M']``; u before the reset into ``trace``.

    x: currents ``[T or 1, B, M]``; a single step is shown at every step. Where ``entry`` makes the currents, x is of
    size 0. scale, shift: batch norm's affine ``[S, C]``, S = T or 1, or 0: there is none. theta: ``[M]``, or
    ``[strip]`` where it repeats. trace: ``[T, B, M]``, or ``[0, B, M]`` where it is not kept; of neurons that no window
    holds it is of no meaning.
    """
    image, taps, kernel = entry.image, entry.taps, entry.kernel
    steps, size, strip = out.shape[0], trace.shape[2], layout.strip
    normed, kept, entering = scale.shape[0] > 0, trace.shape[0] > 0, taps.size > 0
    moving, changing = image.shape[0] > 1, image.shape[0] > 1 or taps.shape[0] > 1
    far = trace.size * trace.itemsize > FAR
    z, rest, steady = np.empty(strip, trace.dtype), np.empty(strip, trace.dtype), np.empty(strip, trace.dtype)
    scales, shifts, biases = tiled(scale, strip, z), tiled(shift, strip, z), tiled(entry.bias, layout.row, z)
    events, line = event_scratch(image, kernel, strip // layout.row, layout.channels, trace)
    for b in range(first, last):
        for start in range(0, size, strip):
            n = min(strip, size - start)
            level = row_at(theta, start if theta.size == size else 0)
            rest[:] = 0
            for t in range(steps):
                s = t if scale.shape[0] > 1 else 0
                factor, offset = (row_at(scales[s], 0), row_at(shifts[s], 0)) if normed else (level, level)
                spikes = row_at(out[t, b], pooled(start, layout))
                if not entering and layout.pool == 1:  # in order: nothing is gained by a strip of its own
                    currents = row_at(x[t if x.shape[0] > 1 else 0, b], start)
                    u = row_at(trace[t, b], start) if kept else row_at(z, 0)
                    fire(currents, u, n, normed, factor, offset, level, beta, layout, row_at(rest, 0), spikes)
                    continue
                if not entering:
                    convert(x[t if x.shape[0] > 1 else 0, b, start : start + n], z[:n])
                elif changing or t == 0:
                    if moving or t == 0:
                        find_events(image[t if moving else 0, b], start // layout.row - kernel.high, events)
                    s = t if taps.shape[0] > 1 else 0
                    convolve_events(events, taps[s], kernel, layout.channels, biases[s], line, z[:n])
                    if not changing:
                        copy(z[:n], steady[:n])
                else:
                    copy(steady[:n], z[:n])
                u = row_at(z, 0)
                fire(u, u, n, normed, factor, offset, level, beta, layout, row_at(rest, 0), spikes)
                if kept:
                    put_by(z, n, row_at(trace[t, b], start), far)


@compiled
def backward(
    grad: Array,
    trace: Array,
    x: Array,
    entry: Entry,
    first: int,
    last: int,
    mean: Array,
    neurons: Neurons,
    layout: Layout,
    grad_z: Array,
    sums: Sums,
) -> None:
    """Backpropagate through time (see `stl_deploy.nn.lif_scan`): write the gradient of the LIF's input into ``grad_z``.

    grad: of the pooled spikes, ``[T, B, M']``. grad_z: ``[T, B, M]``, trace itself if it has the type, or ``[1, B, M]``
    for the sum over the steps where x has a single one, or, where there is an entry, of size 0. mean: of a norm,
    ``[S, C]``. The samples' gradients are added to ``sums``.
    """
    theta = neurons.theta
    image, taps, kernel = entry.image, entry.taps, entry.kernel
    steps, size, strip, channels = trace.shape[0], trace.shape[2], layout.strip, layout.channels
    entering, moving, changing = taps.size > 0, image.shape[0] > 1, image.shape[0] > 1 or taps.shape[0] > 1
    summing = not changing if entering else grad_z.shape[0] < steps
    carried, here, z = np.empty(strip, trace.dtype), np.empty(strip, trace.dtype), np.empty(strip, trace.dtype)
    total, of_decay, means = np.empty(strip, trace.dtype), np.empty(LANES, trace.dtype), tiled(mean, strip, here)
    of_one, of_x = np.empty(means.shape, trace.dtype), np.empty(means.shape, trace.dtype)
    of_taps, of_bias = np.empty(taps.shape, trace.dtype), np.empty((len(taps), layout.row), trace.dtype)
    events, line = event_scratch(image, kernel, strip // layout.row, channels, trace)
    for b in range(first, last):
        of_one[:] = 0
        of_x[:] = 0
        of_taps[:] = 0
        of_bias[:] = 0
        of_decay[:] = 0
        for start in range(0, size, strip):
            n = min(strip, size - start)
            level = row_at(theta, start if theta.size == size else 0)
            of_level = row_at(sums.level, start if theta.size == size else 0)
            carried[:] = 0
            total[:] = 0
            here[:] = 0
            for t in range(steps - 1, -1, -1):
                decaying = sums.decay.size > 0 and t > 0
                before = row_at(trace[t - 1 if decaying else 0, b], start)
                if layout.pool == 1:
                    u = row_at(trace[t, b], start)
                else:
                    copy(trace[t, b, start : start + n], z[:n])
                    u = row_at(z, 0)
                arrived, of_rest = row_at(grad[t, b], pooled(start, layout)), row_at(carried, 0)
                descend(
                    arrived, n, u, level, neurons, layout, decaying, before, of_rest, of_level,
                    row_at(of_decay, 0), row_at(here, 0),
                )  # fmt: skip
                if mean.shape[0]:
                    s = t if mean.shape[0] > 1 else 0
                    convert(x[t if x.shape[0] > 1 else 0, b, start : start + n], z[:n])
                    add_both(here[:n], z[:n], means[s, :n], of_one[s, :n], of_x[s, :n])
                if summing:
                    add(here[:n], total[:n])
                elif entering:
                    if moving or t == steps - 1:
                        find_events(image[t if moving else 0, b], start // layout.row - kernel.high, events)
                    s = t if taps.shape[0] > 1 else 0
                    to_taps(events, here[:n], kernel, channels, line, of_taps[s], of_bias[s])
                else:
                    convert(here[:n], grad_z[t, b, start : start + n])
            if summing and entering:
                find_events(image[0, b], start // layout.row - kernel.high, events)
                to_taps(events, total[:n], kernel, channels, line, of_taps[0], of_bias[0])
            elif summing:
                convert(total[:n], grad_z[0, b, start : start + n])
        add_by_channel(of_one, sums.norm[0])
        add_by_channel(of_x, sums.norm[1])
        for s in range(taps.shape[0]):  # not as whole arrays: numba would compile the message of shapes that differ
            for i in range(taps.shape[1]):
                for j in range(taps.shape[2]):
                    add(of_taps[s, i, j], sums.taps[s, i, j])
        add_by_channel(of_bias, sums.bias)
        if sums.decay.size:
            for i in range(1, LANES):  # numba would compile far more for its own sum
                of_decay[0] += of_decay[i]
            sums.decay[0] += of_decay[0]


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
