"""Gather events (place, time, polarity) into frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError

Binning = Literal["count", "time"]
Frames = NDArray[np.uint8]
MOST = 255
"""Events that one pixel of a frame counts at most; more are left out."""


@dataclass(frozen=True, eq=False)
class Events:
    """One recording, int64 ``[N]`` each: an event's place in a flattened sample, and its time in µs."""

    where: NDArray[np.int64]
    when: NDArray[np.int64]


def place(shape: tuple[int, ...], *axes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return coordinates, one array per axis of ``shape``, as flat places; raise InputError outside the shape."""
    for axis, (size, values) in enumerate(zip(shape, axes, strict=True)):
        if len(values) and not 0 <= values.min() <= values.max() < size:
            raise InputError(
                f"expected events at 0 to {size - 1} on axis {axis}; found {values.min()} to {values.max()}"
            )
    return np.ravel_multi_index(tuple(values.astype(np.int64) for values in axes), shape).astype(np.int64)


def gather(events: Events, steps: int, shape: tuple[int, ...], binning: Binning, downscale: int = 1) -> Frames:
    """Count events, uint8 ``[steps, *shrunk(shape, downscale)]``, at most `MOST` each.

    ``count``: the events in order of time, in ``steps`` runs of equal length (the last ones shorter by at most one
    event). ``time``: the span from the first event to the last in ``steps`` equal pieces; the last event belongs to
    the last piece. downscale: the counts of so many neighbours along each spatial axis are added up.
    Raises InputError for times too far apart to be parted.
    """
    order = np.argsort(events.when, kind="stable")
    where, when = events.where[order], events.when[order]
    if binning == "count":
        frame = np.arange(len(when)) * steps // max(len(when), 1)
    else:
        span = int(when[-1]) - int(when[0]) if len(when) else 0
        if span * steps >= 2**63:
            raise InputError(f"expected events over a time that {steps} time steps can part; found {span} µs")
        frame = np.minimum((when - when[:1]) * steps // max(span, 1), steps - 1)
    size = int(np.prod(shape))
    counts = np.bincount(frame * size + where, minlength=steps * size).reshape(steps, *shape)
    return np.minimum(_shrink(counts, shape, downscale), MOST).astype(np.uint8)


def shrunk(shape: tuple[int, ...], downscale: int) -> tuple[int, ...]:
    """Return the shape after downscaling: every axis but a camera's polarity; incomplete blocks are cut off."""
    kept = shape[:1] if len(shape) == 3 else ()
    return (*kept, *(size // downscale for size in shape[len(kept) :]))


def _shrink(counts: NDArray[np.int64], shape: tuple[int, ...], by: int) -> NDArray[np.int64]:
    for axis, (before, after) in enumerate(zip(shape, shrunk(shape, by), strict=True), start=1):
        if before != after:
            whole = np.take(counts, np.arange(after * by), axis)
            counts = whole.reshape(*whole.shape[:axis], after, by, *whole.shape[axis + 1 :]).sum(axis + 1)
    return counts
