"""The file formats of event datasets, read as strangers' files: sizes and ranges checked, nothing executed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stl_deploy._util.files import MAX_ARRAY_BYTES
from stl_deploy._util.install import missing
from stl_deploy.data.events import Events, place
from stl_deploy.errors import InputError

Shape = tuple[int, ...]
_OVERFLOW_ROW = 240
_OVERFLOW_TIME = 2**13


def aer40(data: bytes, shape: Shape, where: str) -> Events:
    """N-MNIST's records of 40 bits: x, y, then polarity (bit 7) and 23 bits of time in µs; row 240: the clock wrapped.

    Raises InputError, naming ``where``, for a size that is no multiple of 5 and for events outside ``shape`` (C, H, W).
    """
    if len(data) % 5:
        raise InputError(f"{where}: {len(data)} bytes; a multiple of 5 is accepted (40 bits an event)")
    x, y, high, middle, low = np.frombuffer(data, np.uint8).reshape(-1, 5).astype(np.int64).T
    wraps = y == _OVERFLOW_ROW
    when = ((high & 127) << 16 | middle << 8 | low) + _OVERFLOW_TIME * np.cumsum(wraps)
    return _named(where, shape, (high >> 7)[~wraps], y[~wraps], x[~wraps], when=when[~wraps])


def gesture_npy(path: Path, shape: Shape) -> Events:
    """A recording of DVS128 Gesture as tonic distributes it: an array ``[N, 4]`` of x, y, polarity and time in ms."""
    try:
        with path.open("rb") as stream:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            found, _, kind = read(stream)
            if len(found) != 2 or found[1] != 4 or kind.hasobject or found[0] * 4 * kind.itemsize > MAX_ARRAY_BYTES:
                raise InputError(f"{path}: an array {list(found)} of {kind}; numbers [events, 4] are accepted")
            stream.seek(0)
            table = npy.read_array(stream, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: not a whole .npy file ({error}); fetch it again") from None
    x, y, p = table[:, :3].astype(np.int64).T
    return _named(str(path), shape, p, y, x, when=np.round(1000 * table[:, 3].astype(np.float64)).astype(np.int64))


def aedat4(path: Path, shape: Shape) -> Events:
    """A recording of CIFAR10-DVS, through the package aedat; raises ToolError where that is missing."""
    try:
        import aedat
    except ImportError:
        raise missing("aedat") from None
    try:
        decoder = aedat.Decoder(str(path))
        streams = [key for key, stream in decoder.id_to_stream().items() if stream["type"] == "events"]
        parts = [packet["events"] for packet in decoder if packet["stream_id"] in streams[:1]]
    except Exception as error:  # whatever the decoder raises, the file is at fault
        raise InputError(f"{path}: not a whole AEDAT 4 file ({' '.join(str(error).split())})") from None
    if not parts:
        raise InputError(f"{path}: holds no events; a recording is accepted")
    names = [np.concatenate([part[name] for part in parts]).astype(np.int64) for name in ("on", "y", "x", "t")]
    return _named(str(path), shape, *names[:3], when=names[3])


def heidelberg(path: Path, shape: Shape) -> tuple[NDArray[np.int64], Iterator[Events]]:
    """Labels and recordings of an SHD file: HDF5 with spikes/times (seconds), spikes/units and labels."""
    try:
        with h5py.File(path, "r") as file:
            labels = np.asarray(_dataset(file, "labels"), np.int64)
            times, units = _dataset(file, "spikes/times")[()], _dataset(file, "spikes/units")[()]
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not a whole SHD file ({' '.join(str(error).split())})") from None
    if not len(labels) == len(times) == len(units):
        raise InputError(
            f"{path}: {len(labels)} labels, {len(times)} times, {len(units)} units; equal numbers are needed"
        )
    return labels, (_spikes(path, shape, *pair) for pair in zip(times, units, strict=True))


def _spikes(path: Path, shape: Shape, seconds: NDArray[Any], units: NDArray[Any]) -> Events:
    if seconds.shape != units.shape or not np.isfinite(seconds).all():
        raise InputError(f"{path}: {seconds.size} times for {units.size} units; finite times, one a unit, are accepted")
    when = np.round(seconds.astype(np.float64) * 1e6).astype(np.int64)
    return _named(str(path), shape, units.astype(np.int64), when=when)


def _dataset(file: h5py.File, name: str) -> Any:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset) or found.ndim != 1:
        raise ValueError(f"no list '{name}'")
    return found


def _named(where: str, shape: Shape, *axes: NDArray[np.int64], when: NDArray[np.int64]) -> Events:
    try:
        return Events(place(shape, *axes), when)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
