"""Multiply a sparse matrix by a dense one from the sparse one's events, its nonzero numbers; compiled by numba.

A tile of the dense matrix, `TILE` rows of `WIDTH` numbers, stays in a processor's first cache while all events that
meet it are added up: the events of a row of the sparse matrix lie together by tile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stl_deploy.nn.fused.compile import compiled, inlined, part
from stl_deploy.nn.fused.rows import Array, copy
from stl_deploy.nn.fused.vectors import LANES, beyond, fill, is_aligned, load, row_at, store

TILE = 128
"""Rows of the dense matrix in a tile: places in it fit into a byte."""
WIDTH = 4 * LANES
"""Columns of the dense matrix in a tile: as many sums as stay in registers."""
ROWS = 512
"""Rows of the product whose sums are worked on at a time: they stay in the second cache."""


class Events(NamedTuple):
    """The events of a matrix ``[rows, columns]``, of which the columns are cut into tiles of `TILE`.

    Those of a row and a tile run from ``start[row · apart[0] + tile · apart[1]]`` to the next start. place: the column
    in its tile. value: the number.
    """

    place: Array
    value: Array
    start: Array
    apart: tuple[int, int]


@compiled
def count(x: Array, first: int, last: int, number: Array) -> None:
    """Count the events of rows first to last of ``x``."""
    for r in range(first, last):
        row, events = x[r], 0
        for i in range(row.size):
            events += row[i] != 0
        number[r] = events


@compiled
def find(x: Array, first: int, last: int, events: Events) -> None:
    """Write the events of rows first to last of ``x``, whose first starts are known."""
    tiles = events.apart[0]
    places, values = np.empty(TILE, events.place.dtype), np.empty(TILE, x.dtype)
    for r in range(first, last):
        row, start = x[r], events.start[r * tiles]
        for t in range(tiles):
            count, edge = 0, t * TILE
            for i in range(min(TILE, row.size - edge)):
                number = row[edge + i]
                places[count] = i
                values[count] = number
                count += number != 0
            events.start[r * tiles + t] = start
            copy(places[:count], events.place[start:])
            copy(values[:count], events.value[start:])
            start += count


@compiled
def turn(events: Events, rows: int, first: int, last: int, turned: Events) -> None:
    """Sort the events of ``rows`` rows by column, for the tiles of rows from first to last."""
    tiles, columns = events.apart[0], turned.apart[1]
    after = np.empty(columns, np.int64)
    for tile in range(first, last):
        top, bottom = tile * TILE, min((tile + 1) * TILE, rows)
        after[:] = 0
        for segment in range(top * tiles, bottom * tiles):
            for event in range(events.start[segment], events.start[segment + 1]):
                after[segment % tiles * TILE + events.place[event]] += 1
        place = events.start[top * tiles]
        for i in range(columns):
            turned.start[tile * columns + i] = place
            place, after[i] = place + after[i], place
        for segment in range(top * tiles, bottom * tiles):
            for event in range(events.start[segment], events.start[segment + 1]):
                i = segment % tiles * TILE + events.place[event]
                turned.place[after[i]] = segment // tiles - top
                turned.value[after[i]] = events.value[event]
                after[i] += 1


@compiled
def multiply(events: Events, dense: Array, bias: Array, first: int, last: int, out: Array) -> None:
    """Compute pieces of ``out`` from first to last: events times ``dense``, and bias.

    Pieces are `ROWS` rows by `WIDTH` columns, from left to right, then down. bias: ``[columns]``; of size 0: there is
    none.
    """
    sums, tile = _aligned(ROWS * WIDTH, dense), _aligned(TILE * WIDTH, dense)
    by_row, by_tile = events.apart
    for piece in range(first, last):
        strip, panel = divmod(piece, -(-dense.shape[1] // WIDTH))
        top, left = strip * ROWS, panel * WIDTH
        bottom, right = min(top + ROWS, out.shape[0]), min(left + WIDTH, dense.shape[1])
        width = right - left
        sums[:] = 0
        if bias.size:
            for r in range(bottom - top):
                copy(bias[left:right], sums[r * WIDTH : r * WIDTH + width])
        for t in range(-(-dense.shape[0] // TILE)):
            for i in range(min(TILE, dense.shape[0] - t * TILE)):
                copy(dense[t * TILE + i, left:right], tile[i * WIDTH : i * WIDTH + width])
            for r in range(top, bottom):
                segment = r * by_row + t * by_tile
                start, end = events.start[segment], events.start[segment + 1]
                _add_up(events, start, end, row_at(tile, 0), row_at(sums, (r - top) * WIDTH))
        for r in range(top, bottom):
            copy(sums[(r - top) * WIDTH : (r - top) * WIDTH + width], out[r, left:right])


@part
def _aligned(size: int, like: Array) -> Array:
    """Return zeros from a place where a vector does not cross a cache line."""
    numbers, first = np.zeros(size + LANES, like.dtype), 0
    while first < LANES and not is_aligned(row_at(numbers, first)):
        first += 1
    return numbers[first : first + size]


@inlined
def _add_up(events: Events, start: int, end: int, tile: Any, total: Any) -> None:
    """Add some events' values times their rows of the tile."""
    a, b = load(total, 0, LANES), load(total, LANES, LANES)
    c, d = load(total, 2 * LANES, LANES), load(total, 3 * LANES, LANES)
    for event in range(np.uint64(start), np.uint64(end)):  # unsigned: no look from an array's end
        row, value = beyond(tile, np.int64(events.place[event]) * WIDTH), fill(events.value[event])
        a = a + value * load(row, 0, LANES)
        b = b + value * load(row, LANES, LANES)
        c = c + value * load(row, 2 * LANES, LANES)
        d = d + value * load(row, 3 * LANES, LANES)
    store(total, 0, LANES, a)
    store(total, LANES, LANES, b)
    store(total, 2 * LANES, LANES, c)
    store(total, 3 * LANES, LANES, d)
