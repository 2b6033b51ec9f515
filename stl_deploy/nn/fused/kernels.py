"""Batch norm, LIF scan, max pooling and their gradients in one pass over memory each, compiled by numba.

A map is worked on in strips, runs of whole image rows (windows of rows, where there is pooling) that stay in the cache
from step to step: ``x[T, B, M]`` is channels-last, M = height·width·channels, and ``strip`` numbers of it are one. What
holds for a channel is tiled to a strip. Currents, spikes and their gradients are float32, float64, or bfloat16 as the
uint16 of its bits; potentials are float32 or float64. Every function works on the samples ``first <= b < last`` alone
and releases the GIL; sums over samples come back as one part per call, so that the caller adds them in a fixed order,
however many threads there are.

The convolution of a network's input can be part of the pass: currents are then made strip by strip where they are
needed, from the events of the input, its numbers other than 0, and never written to memory; nor are their gradients.

The scan is that of `stl_deploy.nn.lif_scan`: multiply, add and compare are operations of their own, so the spikes are
those of the torch path bit for bit where there is no batch norm. Neurons are worked on by vectors
(`stl_deploy.nn.fused.vectors`); other loops are long and touch few arrays: LLVM vectorises a loop only if few pairs of
arrays could overlap, and numba copies a slice to a slice slowly. Norm, scan and events share a file because they share
a pass, and because numba's cache renews a function with its own file alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stl_deploy.nn.fused.vectors import (
    LANES,
    at_least,
    choose,
    either,
    exp,
    fill,
    is_aligned,
    load,
    row_at,
    store,
    stream,
)

Array = NDArray[Any]
SURROGATES = ("arctan", "sigmoid", "triangular", "rectangular")
"""Surrogate gradients by the number that the kernels know them by."""
_FAR = 1 << 24
"""Bytes of potentials from which on they are written past the caches: they would not be there any more when read."""

compiled = njit(nogil=True, cache=True, error_model="numpy")
inlined = njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
"""For what takes or gives vectors: they stay in registers."""


class Layout(NamedTuple):
    """A map in memory: numbers in an image row, channels-last, and in a strip of rows; side of the pooling windows."""

    row: int
    channels: int
    pool: int
    strip: int


class Kernel(NamedTuple):
    """Sides of a convolution's kernel, and padding above and below, left and right; the stride is 1."""

    height: int
    width: int
    high: int
    wide: int


class Entry(NamedTuple):
    """The convolution of a network's input that feeds a block; with arrays of size 0: there is none.

    image: ``[T or 1, B, C_in, H, W]``. taps: ``[S, C_in, kernel height, L]``, S = T or 1; a row of them is the weights
    ``[kernel width, C]``, the last column first, and zeros up to a whole number of `LANES`: what an event adds to
    neighbouring columns of an output row. bias: ``[S, C]``.
    """

    image: Array
    taps: Array
    bias: Array
    kernel: Kernel


class Events(NamedTuple):
    """The numbers other than 0 in some rows of an image: columns and values, ``[C_in, rows, W]``, from the left.

    number: how many a row has, ``[C_in, rows]``.
    """

    columns: Array
    values: Array
    number: Array


@compiled
def _widen(row: Array, out: Array) -> None:
    """Read a row of currents or gradients."""
    if row.itemsize == 2:
        bits = out.view(np.uint32)
        for i in range(row.size):
            bits[i] = np.uint32(row[i]) << np.uint32(16)
    else:
        for i in range(row.size):
            out[i] = row[i]


@compiled
def copy(row: Array, out: Array) -> None:
    """Copy a run of numbers."""
    for i in range(row.size):
        out[i] = row[i]


@compiled
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


@compiled
def _multiply(row: Array, factor: Any) -> None:
    for i in range(row.size):
        row[i] *= factor


@compiled
def _tiled(by_channel: Array, size: int, like: Array) -> Array:
    """``[S, C]`` as ``[S, size]``."""
    out = np.empty((by_channel.shape[0], size), like.dtype)
    for s in range(out.shape[0]):
        for i in range(size):
            out[s, i] = by_channel[s, i % by_channel.shape[1]]
    return out


@compiled
def _by_channel(rows: Array, total: Array) -> None:
    """Add ``[S, size]`` to ``[S, C]``."""
    for s in range(total.shape[0]):
        for i in range(0, rows.shape[1], total.shape[1]):
            _add(rows[s, i : i + total.shape[1]], total[s])


@compiled
def moments(x: Array, first: int, last: int, count: Array, mean: Array, spread: Array, wide: Array) -> None:
    """Number, mean and sum of squared deviations of each channel of the samples, ``[S]``, ``[S, C]`` twice; S = T or 1.

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
            column_means, column_spreads = means[s], spreads[s]
            for i in range(size):
                shift = center[i] - column_means[i]
                column_spreads[i] += total[i] + shift * shift * of_shift
                column_means[i] += shift * share
            count[s] = n
    _by_channel(means, mean)
    mean /= size // channels
    for s in range(mean.shape[0]):
        for i in range(size):
            away = means[s, i] - mean[s, i % channels]
            spreads[s, i] += count[s] * away * away
        count[s] *= size // channels
    _by_channel(spreads, spread)


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
    """Spikes, max-pooled over pool·pool windows, into ``out[T, B, M']``; u before the reset into ``trace``.

    x: currents ``[T or 1, B, M]``; a single step is shown at every step. Where ``entry`` makes the currents, x is of
    size 0. scale, shift: batch norm's affine ``[S, C]``, S = T or 1, or 0: there is none. theta: ``[M]``, or
    ``[strip]`` where it repeats. trace: ``[T, B, M]``, or ``[0, B, M]`` where it is not kept; of neurons that no window
    holds it is of no meaning.
    """
    image, taps, kernel = entry.image, entry.taps, entry.kernel
    steps, size, strip = out.shape[0], trace.shape[2], layout.strip
    normed, kept, entering = scale.shape[0] > 0, trace.shape[0] > 0, taps.size > 0
    moving, changing = image.shape[0] > 1, image.shape[0] > 1 or taps.shape[0] > 1
    far = trace.size * trace.itemsize > _FAR
    scales, shifts = _tiled(scale, strip, trace), _tiled(shift, strip, trace)
    biases = _tiled(entry.bias, layout.row, trace)
    z, rest, steady = np.empty(strip, trace.dtype), np.empty(strip, trace.dtype), np.empty(strip, trace.dtype)
    events, line = _for_events(image, kernel, strip // layout.row, layout.channels, trace)
    for b in range(first, last):
        for start in range(0, size, strip):
            n = min(strip, size - start)
            level = row_at(theta, start if theta.size == size else 0)
            rest[:] = 0
            for t in range(steps):
                s = t if scale.shape[0] > 1 else 0
                factor, offset = (row_at(scales[s], 0), row_at(shifts[s], 0)) if normed else (level, level)
                spikes = row_at(out[t, b], _pooled(start, layout))
                if not entering and layout.pool == 1:  # in order: nothing is gained by a strip of its own
                    currents = row_at(x[t if x.shape[0] > 1 else 0, b], start)
                    u = row_at(trace[t, b], start) if kept else row_at(z, 0)
                    _fire(currents, u, n, normed, factor, offset, level, beta, layout, row_at(rest, 0), spikes)
                    continue
                if not entering:
                    _widen(x[t if x.shape[0] > 1 else 0, b, start : start + n], z[:n])
                elif changing or t == 0:
                    if moving or t == 0:
                        _find_events(image[t if moving else 0, b], start // layout.row - kernel.high, events)
                    s = t if taps.shape[0] > 1 else 0
                    _convolve(events, taps[s], kernel, layout.channels, biases[s], line, z[:n])
                    if not changing:
                        copy(z[:n], steady[:n])
                else:
                    copy(steady[:n], z[:n])
                u = row_at(z, 0)
                _fire(u, u, n, normed, factor, offset, level, beta, layout, row_at(rest, 0), spikes)
                if kept:
                    _put_by(z, n, row_at(trace[t, b], start), far)


@compiled
def _put_by(z: Array, size: int, out: Any, far: bool) -> None:
    """``z[:size]`` to ``out``; far: by the time it is read no cache would hold it."""
    source, whole = row_at(z, 0), size // LANES * LANES if far and is_aligned(out) else 0
    for i in range(0, whole, LANES):
        stream(out, i, load(source, i, LANES))
    for i in range(whole, size, LANES):
        count = min(LANES, size - i)
        store(out, i, count, load(source, i, count))


@inlined
def _pooled(size: int, layout: Layout) -> int:
    """How many numbers windows make of so many, whole rows of windows."""
    across = layout.row // layout.channels // layout.pool
    return size // (layout.pool * layout.row) * across * layout.channels


@compiled
def _fire(
    currents: Any,
    u: Any,
    size: int,
    normed: bool,
    scale: Any,
    shift: Any,
    level: Any,
    beta: Any,
    layout: Layout,
    rest: Any,
    out: Any,
) -> None:
    """One step of a strip: potentials into ``u``, those after the reset into ``rest``, pooled spikes into ``out``."""
    channels, pool = layout.channels, layout.pool
    zero, one = fill(type(beta)(0)), fill(type(beta)(1))
    if pool == 1:
        for i in range(0, size, LANES):
            count = min(LANES, size - i)
            fired = _advance(currents, u, normed, scale, shift, level, beta, rest, i, count)
            store(out, i, count, choose(fired, one, zero))
        return
    for window in range(_pooled(size, layout) // channels):
        corner = _corner(window, layout)
        for c in range(0, channels, LANES):
            count, any_fired = min(LANES, channels - c), at_least(zero, one)
            for a in range(pool):
                for j in range(pool):
                    i = corner + a * layout.row + j * channels + c
                    any_fired = either(
                        any_fired, _advance(currents, u, normed, scale, shift, level, beta, rest, i, count)
                    )
            store(out, window * channels + c, count, choose(any_fired, one, zero))


@inlined
def _corner(window: int, layout: Layout) -> int:
    """Where in a strip a pooling window begins."""
    across = layout.row // layout.channels // layout.pool
    return (window // across * layout.row + window % across * layout.channels) * layout.pool


@inlined
def _advance(
    currents: Any, u: Any, normed: bool, scale: Any, shift: Any, level: Any, beta: Any, rest: Any, i: int, count: int
) -> Any:
    """Which of ``count`` neurons from i on fire."""
    current = load(currents, i, count)
    if normed:
        current = current * load(scale, i, count) + load(shift, i, count)
    potential = load(rest, i, count) * fill(beta) + current
    fired = at_least(potential, load(level, i, count))
    store(u, i, count, potential)
    store(rest, i, count, choose(fired, fill(type(beta)(0)), potential))
    return fired


@compiled
def _for_events(image: Array, kernel: Kernel, rows: int, channels: int, like: Array) -> tuple[Events, Array]:
    """Scratch for the events that ``rows`` output rows see, and for one output row with what falls beside it."""
    inputs, width = image.shape[2], image.shape[4]
    seen, reach = rows + kernel.height - 1, kernel.width * channels
    columns, values = np.empty((inputs, seen, width), np.int64), np.empty((inputs, seen, width), like.dtype)
    line = np.zeros((width + 2 * kernel.wide) * channels + reach + -reach % LANES, like.dtype)
    return Events(columns, values, np.empty((inputs, seen), np.int64)), line


@compiled
def _find_events(image: Array, top: int, events: Events) -> None:
    """The events of the rows from ``top`` on of ``image[C_in, H, W]``; rows outside have none."""
    number = events.number
    for c in range(number.shape[0]):
        for r in range(number.shape[1]):
            found = 0
            if 0 <= top + r < image.shape[1]:
                row, columns, values = image[c, top + r], events.columns[c, r], events.values[c, r]
                for j in range(row.size):
                    columns[found] = j
                    values[found] = row[j]
                    found += 1 if row[j] != 0 else 0
            number[c, r] = found


@compiled
def _convolve(events: Events, taps: Array, kernel: Kernel, channels: int, bias: Array, line: Array, out: Array) -> None:
    """Whole output rows into ``out``; bias: ``[row]``."""
    size, before, whole = taps.shape[2], (kernel.width - 1) * channels, row_at(line, 0)
    for r in range(out.size // bias.size):
        copy(bias, line[before : before + bias.size])
        for c in range(taps.shape[0]):
            for a in range(taps.shape[1]):
                weights, columns, values = row_at(taps[c, a], 0), events.columns[c, r + a], events.values[c, r + a]
                for event in range(events.number[c, r + a]):
                    _add_scaled(values[event], weights, 0, whole, (columns[event] + kernel.wide) * channels, size)
        copy(line[before : before + bias.size], out[r * bias.size : (r + 1) * bias.size])


@compiled
def _to_taps(
    events: Events, grad: Array, kernel: Kernel, channels: int, line: Array, of_taps: Array, of_bias: Array
) -> None:
    """Add the gradient of whole output rows to those of taps ``[C_in, kernel height, L]`` and bias ``[row]``.

    line: zero outside the output row.
    """
    size, before, whole = of_taps.shape[2], (kernel.width - 1) * channels, row_at(line, 0)
    for r in range(grad.size // of_bias.size):
        gradient = grad[r * of_bias.size : (r + 1) * of_bias.size]
        _add(gradient, of_bias)
        copy(gradient, line[before : before + gradient.size])
        for c in range(of_taps.shape[0]):
            for a in range(of_taps.shape[1]):
                weights, columns, values = row_at(of_taps[c, a], 0), events.columns[c, r + a], events.values[c, r + a]
                for event in range(events.number[c, r + a]):
                    _add_scaled(values[event], whole, (columns[event] + kernel.wide) * channels, weights, 0, size)


@compiled
def backward(
    grad: Array,
    trace: Array,
    x: Array,
    entry: Entry,
    first: int,
    last: int,
    mean: Array,
    theta: Array,
    beta: Any,
    layout: Layout,
    surrogate: int,
    detach: bool,
    grad_z: Array,
    grad_theta: Array,
    grad_beta: Array,
    sums: Array,
    grad_taps: Array,
    grad_bias: Array,
) -> None:
    """Through time, by hand (see `stl_deploy.nn.lif_scan`): the gradient of the LIF's input into ``grad_z``.

    grad: of the pooled spikes, ``[T, B, M']``. grad_z: ``[T, B, M]``, trace itself if it has the type, or ``[1, B, M]``
    for the sum over the steps where x has a single one. mean: of a norm, ``[S, C]``. Added to: grad_theta, of theta's
    shape, grad_beta ``[1]`` (or ``[0]``: not wanted), ``sums[2, S, C]``, Σ grad_z and Σ grad_z·(x − mean), where mean
    has rows, and where there is an entry grad_taps and grad_bias, as its taps and bias; grad_z is then of size 0.
    """
    image, taps, kernel = entry.image, entry.taps, entry.kernel
    steps, size, strip, channels = trace.shape[0], trace.shape[2], layout.strip, layout.channels
    entering, moving, changing = taps.size > 0, image.shape[0] > 1, image.shape[0] > 1 or taps.shape[0] > 1
    summing = not changing if entering else grad_z.shape[0] < steps
    carried, here, z = np.empty(strip, trace.dtype), np.empty(strip, trace.dtype), np.empty(strip, trace.dtype)
    total, of_decay, means = np.empty(strip, trace.dtype), np.empty(LANES, trace.dtype), _tiled(mean, strip, trace)
    of_one, of_x = np.empty(means.shape, trace.dtype), np.empty(means.shape, trace.dtype)
    of_taps, of_bias = np.empty(taps.shape, trace.dtype), np.empty((len(taps), layout.row), trace.dtype)
    events, line = _for_events(image, kernel, strip // layout.row, channels, trace)
    for b in range(first, last):
        of_one[:] = 0
        of_x[:] = 0
        of_taps[:] = 0
        of_bias[:] = 0
        of_decay[:] = 0
        for start in range(0, size, strip):
            n = min(strip, size - start)
            level = row_at(theta, start if theta.size == size else 0)
            of_level = row_at(grad_theta, start if theta.size == size else 0)
            carried[:] = 0
            total[:] = 0
            here[:] = 0
            for t in range(steps - 1, -1, -1):
                decaying = grad_beta.size > 0 and t > 0
                before = row_at(trace[t - 1 if decaying else 0, b], start)
                if layout.pool == 1:
                    u = row_at(trace[t, b], start)
                else:
                    copy(trace[t, b, start : start + n], z[:n])
                    u = row_at(z, 0)
                arrived, of_rest = row_at(grad[t, b], _pooled(start, layout)), row_at(carried, 0)
                _descend(
                    arrived, n, u, level, beta, detach, surrogate, layout, decaying, before, of_rest, of_level,
                    row_at(of_decay, 0), row_at(here, 0),
                )  # fmt: skip
                if mean.shape[0]:
                    s = t if mean.shape[0] > 1 else 0
                    _widen(x[t if x.shape[0] > 1 else 0, b, start : start + n], z[:n])
                    _add_both(here[:n], z[:n], means[s, :n], of_one[s, :n], of_x[s, :n])
                if summing:
                    _add(here[:n], total[:n])
                elif entering:
                    if moving or t == steps - 1:
                        _find_events(image[t if moving else 0, b], start // layout.row - kernel.high, events)
                    s = t if taps.shape[0] > 1 else 0
                    _to_taps(events, here[:n], kernel, channels, line, of_taps[s], of_bias[s])
                else:
                    _narrow(here[:n], grad_z[t, b, start : start + n])
            if summing and entering:
                _find_events(image[0, b], start // layout.row - kernel.high, events)
                _to_taps(events, total[:n], kernel, channels, line, of_taps[0], of_bias[0])
            elif summing:
                _narrow(total[:n], grad_z[0, b, start : start + n])
        _by_channel(of_one, sums[0])
        _by_channel(of_x, sums[1])
        grad_taps += of_taps
        _by_channel(of_bias, grad_bias)
        if grad_beta.size:
            grad_beta[0] += of_decay.sum()


@compiled
def _descend(
    grad: Any,
    size: int,
    u: Any,
    level: Any,
    beta: Any,
    detach: bool,
    surrogate: int,
    layout: Layout,
    decaying: bool,
    before: Any,
    carried: Any,
    of_level: Any,
    of_decay: Any,
    out: Any,
) -> None:
    """One step of a strip, backwards: from ∂(pooled spikes) and ∂r in ``carried`` to ∂u in ``out`` and the ∂r before.

    decaying: the gradient of the decay is wanted; before: potentials of the step before. Where no window is, nothing
    is written.
    """
    channels, pool = layout.channels, layout.pool
    zero, one, reset = fill(type(beta)(0)), fill(type(beta)(1)), fill(type(beta)(0 if detach else 1))
    if pool == 1:
        for i in range(0, size, LANES):
            count = min(LANES, size - i)
            of_spike = load(grad, i, count)
            _retreat(
                of_spike, u, level, beta, reset, surrogate, decaying, before, carried, of_level, of_decay,
                out, i, count,
            )  # fmt: skip
        return
    for window in range(_pooled(size, layout) // channels):
        corner = _corner(window, layout)
        for c in range(0, channels, LANES):
            count, any_fired = min(LANES, channels - c), at_least(zero, one)
            for a in range(pool):
                for j in range(pool):
                    i = corner + a * layout.row + j * channels + c
                    any_fired = either(any_fired, at_least(load(u, i, count), load(level, i, count)))
            # to a window's first spike, or to its first place if none fired, as torch's max_pool2d does
            left = load(grad, window * channels + c, count)
            for a in range(pool):
                for j in range(pool):
                    i = corner + a * layout.row + j * channels + c
                    fired = at_least(load(u, i, count), load(level, i, count))
                    of_spike = choose(fired, left, zero)
                    if a == 0 and j == 0:
                        of_spike = choose(any_fired, of_spike, left)
                    left = choose(fired, zero, left)
                    _retreat(
                        of_spike, u, level, beta, reset, surrogate, decaying, before, carried, of_level,
                        of_decay, out, i, count,
                    )  # fmt: skip


@inlined
def _retreat(
    of_spike: Any,
    u: Any,
    level: Any,
    beta: Any,
    reset: Any,
    surrogate: int,
    decaying: bool,
    before: Any,
    carried: Any,
    of_level: Any,
    of_decay: Any,
    out: Any,
    i: int,
    count: int,
) -> None:
    """``count`` neurons from i on; reset: 0 where it is detached, else 1."""
    potential, theta, of_rest = load(u, i, count), load(level, i, count), load(carried, i, count)
    zero = fill(type(beta)(0))
    through_spike = (of_spike - potential * of_rest * reset) * _slope(surrogate, potential - theta, type(beta)(1))
    store(of_level, i, count, load(of_level, i, count) - through_spike)
    of_potential = choose(at_least(potential, theta), zero, of_rest) + through_spike
    if decaying:
        earlier = load(before, i, count)
        share = choose(at_least(earlier, theta), zero, earlier * of_potential)
        store(of_decay, 0, LANES, load(of_decay, 0, LANES) + share)
    store(out, i, count, of_potential)
    store(carried, i, count, of_potential * fill(beta))


@inlined
def _slope(surrogate: int, away: Any, unit: Any) -> Any:
    """The surrogate derivative at u − θ; unit: the 1 of its type."""
    one, zero = fill(unit), fill(unit - unit)
    if surrogate == 0:
        y = away * fill(type(unit)(np.pi))
        return one / (y * y + one)
    if surrogate == 1:
        four = fill(type(unit)(4))
        y = one / (one + exp(zero - four * away))
        return y * (one - y) * four
    distance = choose(at_least(away, zero), away, zero - away)
    if surrogate == 2:
        return choose(at_least(one, distance), one - distance, zero)
    return choose(at_least(distance, fill(type(unit)(0.5))), zero, one)


@inlined
def _add_scaled(factor: Any, source: Any, start: int, total: Any, place: int, size: int) -> None:
    """``total[place + i] += factor·source[start + i]`` for ``i < size``, a whole number of `LANES`."""
    factors = fill(factor)
    for i in range(0, size, LANES):
        summed = load(total, place + i, LANES) + load(source, start + i, LANES) * factors
        store(total, place + i, LANES, summed)


@compiled
def _add(row: Array, total: Array) -> None:
    for i in range(row.size):
        total[i] += row[i]


@compiled
def _add_both(gradient: Array, x: Array, mean: Array, total: Array, of_x: Array) -> None:
    for i in range(x.size):
        total[i] += gradient[i]
        of_x[i] += gradient[i] * (x[i] - mean[i])


@compiled
def norm_backward(
    grad_z: Array, x: Array, first: int, last: int, mean: Array, of_grad: Array, of_x: Array, rest: Array, grad_x: Array
) -> None:
    """Batch norm's input gradient, of_grad·grad_z + of_x·(x − mean) + rest.

    grad_z, x, grad_x: ``[T, B, R, L]``, as in `moments`; coefficients: ``[S, C]``.
    """
    size = x.shape[3]
    row, z = np.empty(size, grad_z.dtype), np.empty(size, grad_z.dtype)
    centers, scales = _tiled(mean, size, grad_z), _tiled(of_grad, size, grad_z)
    slopes, rests = _tiled(of_x, size, grad_z), _tiled(rest, size, grad_z)
    for b in range(first, last):
        for t in range(x.shape[0]):
            s = t if mean.shape[0] > 1 else 0
            center, a, k, d = centers[s], scales[s], slopes[s], rests[s]
            for r in range(x.shape[2]):
                _widen(x[t, b, r], z)
                gradient = grad_z[t, b, r]
                for i in range(z.size):
                    row[i] = k[i] * (z[i] - center[i]) + d[i]
                for i in range(z.size):
                    row[i] += a[i] * gradient[i]
                _narrow(row, grad_x[t, b, r])


@compiled
def window_products(image: Array, kernel: Kernel, first: int, last: int, products: Array) -> None:
    """Add to ``products[S, taps, L]`` each window's outer product with itself; column ``taps`` is the windows' sum.

    image: ``[T, B, C_in, H, W]``; S = T or 1. L: taps and one, up to a whole number of `LANES`. Taps are in the order
    of ``weight[channel].ravel()``.
    """
    _, _, inputs, height, width = image.shape
    taps, size = products.shape[1:]
    rows, columns = height + 2 * kernel.high - kernel.height + 1, width + 2 * kernel.wide - kernel.width + 1
    events, _ = _for_events(image, kernel, rows, 1, products)
    windows, flat = np.empty(columns * size, products.dtype), products.reshape(products.shape[0], -1)
    for b in range(first, last):
        for t in range(image.shape[0]):
            sums, seen = row_at(flat[t if products.shape[0] > 1 else 0], 0), row_at(windows, 0)
            _find_events(image[t, b], -kernel.high, events)
            for r in range(rows):
                windows[:] = 0
                windows[taps::size] = 1
                for summing in (False, True):  # the row's windows are there, then each event meets those it is in
                    for c in range(inputs):
                        for a in range(kernel.height):
                            tap = (c * kernel.height + a) * kernel.width
                            for event in range(events.number[c, r + a]):
                                v = events.values[c, r + a, event]
                                right = events.columns[c, r + a, event] + kernel.wide
                                for k in range(max(0, right - columns + 1), min(kernel.width, right + 1)):
                                    if summing:
                                        _add_scaled(v, seen, (right - k) * size, sums, (tap + k) * size, size)
                                    else:
                                        windows[(right - k) * size + tap + k] = v
