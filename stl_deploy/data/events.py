"""Gather events (place, time, polarity) into frames, and read the untrusted files of event datasets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stl_deploy._util.hdf5.guard import Group, open_hdf5
from stl_deploy._util.isolated import isolated
from stl_deploy._util.npz import read_npy_header
from stl_deploy._util.readers import read_aedat4
from stl_deploy._util.untrusted import parse_errors_as_input_errors, plain_file
from stl_deploy.config.schema import Binning
from stl_deploy.errors import InputError

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
        # times * steps in int64: the span was checked above, or it would wrap
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


Shape = tuple[int, ...]
_MOST = 2.0**53
_MOST_BYTES = 2**32
_AEDAT_MEMORY, _AEDAT_MOST_MEMORY = 2**28, 3 * 2**30
_AEDAT_SECONDS = 60.0
_OVERFLOW_ROW = 240
_OVERFLOW_TIME = 2**13


def aer40(data: bytes, shape: Shape, where: str) -> Events:
    """Read N-MNIST's records of 40 bits: x, y, then polarity (bit 7) and 23 bits of time in µs; row 240: clock wrap.

    Raises InputError, naming ``where``, for a size that is no multiple of 5 and for events outside ``shape`` (C, H, W).
    """
    if len(data) % 5:
        raise InputError(f"{where}: expected a multiple of 5 bytes (40 bits an event); found {len(data)}")
    x, y, high, middle, low = np.frombuffer(data, np.uint8).reshape(-1, 5).astype(np.int64).T
    # row 240 is no pixel of 34: it adds 2^13 us to all later events
    wraps = y == _OVERFLOW_ROW
    when = ((high & 127) << 16 | middle << 8 | low) + _OVERFLOW_TIME * np.cumsum(wraps)
    return _named(where, shape, (high >> 7)[~wraps], y[~wraps], x[~wraps], when=when[~wraps])


def gesture_npy(path: Path, shape: Shape) -> Events:
    """Read a recording of DVS128 Gesture as an array ``[N, 4]`` of x, y, polarity and time in ms."""
    size = plain_file(path, "a .npy file", _MOST_BYTES)
    with parse_errors_as_input_errors(path, "a whole .npy file"), path.open("rb") as stream:
        extent, kind = read_npy_header(stream)
        if len(extent) != 2 or extent[1] != 4 or kind.kind not in "iuf" or prod(extent) * kind.itemsize > size:
            raise InputError(f"{path}: expected numbers [events, 4]; found {kind} {list(extent)}")
        stream.seek(0)
        table = npy.read_array(stream, allow_pickle=False)
    x, y, p = _whole(path, table[:, :3]).T
    return _named(str(path), shape, p, y, x, when=_whole(path, np.round(1000 * table[:, 3].astype(np.float64))))


def _whole(path: Path, values: NDArray[Any]) -> NDArray[np.int64]:
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (np.abs(values) < _MOST).all()):
        raise InputError(f"{path}: expected places and times of events; found NaN, infinity or values beyond 2^53")
    return values.astype(np.int64)


def aedat4(path: Path, shape: Shape) -> Events:
    """Read a recording of CIFAR10-DVS, decoded by the package aedat in a worker process.

    Raises ToolError if that package is missing, InputError for a file that cannot be decoded.
    """
    size = plain_file(path, "an AEDAT 4 file", _MOST_BYTES)
    memory = _AEDAT_MEMORY + 64 * size
    _, ((on, y, x, when),) = isolated(
        read_aedat4, path, what="an AEDAT 4 file", memory=min(memory, _AEDAT_MOST_MEMORY), seconds=_AEDAT_SECONDS
    )
    return _named(str(path), shape, on, y, x, when=when)


def heidelberg(path: Path, shape: Shape) -> tuple[NDArray[np.int64], Iterator[Events]]:
    """Read labels and recordings of an SHD file: HDF5 with spikes/times (seconds), spikes/units and labels."""
    with open_hdf5(path, "an SHD file", lists=True) as (_, root):
        labels, times, units = (_row(path, root, name) for name in ("labels", "spikes/times", "spikes/units"))
    if labels.dtype.kind not in "iu":
        raise InputError(f"{path}: expected integer labels; found {labels.dtype}")
    labels = labels.astype(np.int64)
    if not len(labels) == len(times) == len(units):
        raise InputError(
            f"{path}: expected as many labels as times and units; found {len(labels)}, {len(times)} and {len(units)}"
        )
    return labels, (_spikes(path, shape, *pair) for pair in zip(times, units, strict=True))


def _row(path: Path, root: Group, name: str) -> NDArray[Any]:
    *groups, last = name.split("/")
    inner: Group | None = root
    for group in groups:
        inner = None if inner is None else inner.group(group)
    values = None if inner is None else inner.value(last)
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        raise InputError(f"{path}: not a whole SHD file (no list '{name}')")
    return values


def _spikes(path: Path, shape: Shape, seconds: NDArray[Any], units: NDArray[Any]) -> Events:
    if not (isinstance(seconds, np.ndarray) and isinstance(units, np.ndarray)):
        raise InputError(f"{path}: not a whole SHD file (a recording is no list of numbers)")
    if seconds.shape != units.shape or seconds.dtype.kind != "f" or units.dtype.kind not in "iu":
        raise InputError(
            f"{path}: expected times in floats, one for each unit in integers; found {seconds.size} "
            f"({seconds.dtype}) for {units.size} ({units.dtype})"
        )
    when = _whole(path, np.round(seconds.astype(np.float64) * 1e6))
    return _named(str(path), shape, units.astype(np.int64), when=when)


def _named(where: str, shape: Shape, *axes: NDArray[np.int64], when: NDArray[np.int64]) -> Events:
    try:
        return Events(place(shape, *axes), when)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
