"""Convolve the input from its events, its nonzero numbers; compiled by numba."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stl_deploy.nn.fused.compile import compiled, inlined, part
from stl_deploy.nn.fused.rows import Array, add, copy
from stl_deploy.nn.fused.vectors import LANES, fill, load, row_at, store


class Kernel(NamedTuple):
    """Sides of a convolution's kernel, and padding above and below, left and right; the stride is 1."""

    height: int
    width: int
    high: int
    wide: int


class Entry(NamedTuple):
    """The convolution of a network's input that feeds a block; arrays of size 0: there is none.

    image: ``[T or 1, B, C_in, H, W]``. taps: ``[S, C_in, kernel height, L]``, S = T or 1; a row of them is the weights
    ``[kernel width, C]``, the last column first, and zeros up to a multiple of `LANES`: what an event adds to
    neighbouring columns of an output row. bias: ``[S, C]``, float64 as all that is tiled: one type, compiled once.
    """

    image: Array
    taps: Array
    bias: Array
    kernel: Kernel


class Events(NamedTuple):
    """The nonzero numbers in some rows of an image: columns and values, ``[C_in, rows, W]``, from the left.

    number: how many a row has, ``[C_in, rows]``.
    """

    columns: Array
    values: Array
    number: Array


@part
def event_scratch(image: Array, kernel: Kernel, rows: int, channels: int, like: Array) -> tuple[Events, Array]:
    """Scratch for the events that ``rows`` output rows see, and for one output row with what falls beside it."""
    inputs, width = image.shape[2], image.shape[4]
    seen, reach = rows + kernel.height - 1, kernel.width * channels
    columns, values = np.empty((inputs, seen, width), np.int64), np.empty((inputs, seen, width), like.dtype)
    line = np.zeros((width + 2 * kernel.wide) * channels + reach + -reach % LANES, like.dtype)
    return Events(columns, values, np.empty((inputs, seen), np.int64)), line


@part
def find_events(image: Array, top: int, events: Events) -> None:
    """Return the events of the rows from ``top`` on of ``image[C_in, H, W]``; rows outside have none."""
    number = events.number
    for c in range(number.shape[0]):
        for r in range(number.shape[1]):
            count = 0
            if 0 <= top + r < image.shape[1]:
                row, columns, values = image[c, top + r], events.columns[c, r], events.values[c, r]
                for j in range(row.size):
                    columns[count] = j
                    values[count] = row[j]
                    count += 1 if row[j] != 0 else 0
            number[c, r] = count


@part
def convolve_events(
    events: Events, taps: Array, kernel: Kernel, channels: int, bias: Array, line: Array, out: Array
) -> None:
    """Compute whole output rows into ``out``; bias: ``[row]``."""
    size, before, whole = taps.shape[2], (kernel.width - 1) * channels, row_at(line, 0)
    for r in range(out.size // bias.size):
        copy(bias, line[before : before + bias.size])
        for c in range(taps.shape[0]):
            for a in range(taps.shape[1]):
                weights, columns, values = row_at(taps[c, a], 0), events.columns[c, r + a], events.values[c, r + a]
                for event in range(events.number[c, r + a]):
                    add_scaled(values[event], weights, 0, whole, (columns[event] + kernel.wide) * channels, size)
        copy(line[before : before + bias.size], out[r * bias.size : (r + 1) * bias.size])


@part
def to_taps(
    events: Events, grad: Array, kernel: Kernel, channels: int, line: Array, of_taps: Array, of_bias: Array
) -> None:
    """Add the gradient of whole output rows to those of taps ``[C_in, kernel height, L]`` and bias ``[row]``.

    line: zero outside the output row.
    """
    size, before, whole = of_taps.shape[2], (kernel.width - 1) * channels, row_at(line, 0)
    for r in range(grad.size // of_bias.size):
        gradient = grad[r * of_bias.size : (r + 1) * of_bias.size]
        add(gradient, of_bias)
        copy(gradient, line[before : before + gradient.size])
        for c in range(of_taps.shape[0]):
            for a in range(of_taps.shape[1]):
                weights, columns, values = row_at(of_taps[c, a], 0), events.columns[c, r + a], events.values[c, r + a]
                for event in range(events.number[c, r + a]):
                    add_scaled(values[event], whole, (columns[event] + kernel.wide) * channels, weights, 0, size)


@inlined
def add_scaled(factor: Any, source: Any, start: int, total: Any, place: int, size: int) -> None:
    """Add ``factor·source[start + i]`` to ``total[place + i]`` for ``i < size``, a multiple of `LANES`."""
    factors = fill(factor)
    for i in range(0, size, LANES):
        summed = load(total, place + i, LANES) + load(source, start + i, LANES) * factors
        store(total, place + i, LANES, summed)


@compiled
def window_products(image: Array, kernel: Kernel, first: int, last: int, products: Array) -> None:
    """Add to ``products[S, taps, L]`` each window's outer product with itself; column ``taps`` is the windows' sum.

    image: ``[T, B, C_in, H, W]``; S = T or 1. L: taps and one, up to a multiple of `LANES`. Taps are in the order
    of ``weight[channel].ravel()``.
    """
    _, _, inputs, height, width = image.shape
    taps, size = products.shape[1:]
    rows, columns = height + 2 * kernel.high - kernel.height + 1, width + 2 * kernel.wide - kernel.width + 1
    events, _ = event_scratch(image, kernel, rows, 1, products)
    windows, flat = np.empty(columns * size, products.dtype), products.reshape(products.shape[0], -1)
    for b in range(first, last):
        for t in range(image.shape[0]):
            sums, seen = row_at(flat[t if products.shape[0] > 1 else 0], 0), row_at(windows, 0)
            find_events(image[t, b], -kernel.high, events)
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
                                        add_scaled(v, seen, (right - k) * size, sums, (tap + k) * size, size)
                                    else:
                                        windows[(right - k) * size + tap + k] = v
