"""Copy, convert (bfloat16), scale and add rows of numbers in memory; compiled by numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.nn.fused.compile import part
from stl_deploy.nn.fused.vectors import LANES, is_aligned, load, row_at, store, stream

Array = NDArray[Any]


@part
def convert(row: Array, out: Array) -> None:
    """Copy a row of numbers into one of another type: bfloat16 to float32, or back as `vectors.store` rounds."""
    source, target, whole = row_at(row, 0), row_at(out, 0), row.size // LANES * LANES
    for i in range(0, whole, LANES):
        store(target, i, LANES, load(source, i, LANES))
    store(target, whole, row.size - whole, load(source, whole, row.size - whole))


@part
def copy(row: Array, out: Array) -> None:
    """Copy a run of numbers."""
    for i in range(row.size):
        out[i] = row[i]


@part
def multiply(row: Array, factor: Any) -> None:
    """Scale a row."""
    for i in range(row.size):
        row[i] *= factor


@part
def tiled(by_channel: Array, size: int, like: Array) -> Array:
    """Return ``[S, C]`` as ``[S, size]``."""
    out = np.empty((by_channel.shape[0], size), like.dtype)
    for s in range(out.shape[0]):
        for i in range(size):
            out[s, i] = by_channel[s, i % by_channel.shape[1]]
    return out


@part
def add_by_channel(rows: Array, total: Array) -> None:
    """Add ``[S, size]`` to ``[S, C]``."""
    for s in range(total.shape[0]):
        for i in range(0, rows.shape[1], total.shape[1]):
            add(rows[s, i : i + total.shape[1]], total[s])


@part
def add(row: Array, total: Array) -> None:
    """Add a row to a total."""
    for i in range(row.size):
        total[i] += row[i]


@part
def add_both(gradient: Array, x: Array, mean: Array, total: Array, of_x: Array) -> None:
    """Add a gradient, and the gradient times how far x is from its mean."""
    for i in range(x.size):
        total[i] += gradient[i]
        of_x[i] += gradient[i] * (x[i] - mean[i])


@part
def put_by(z: Array, size: int, out: Any, far: bool) -> None:
    """Copy ``z[:size]`` to ``out``; far: no cache would hold it until it is read."""
    source, whole = row_at(z, 0), size // LANES * LANES if far and is_aligned(out) else 0
    for i in range(0, whole, LANES):
        stream(out, i, load(source, i, LANES))
    for i in range(whole, size, LANES):
        count = min(LANES, size - i)
        store(out, i, count, load(source, i, count))
