"""Read the layers of an untrusted netx file key by key.

`open_hdf5` has checked every link and size before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stl_deploy._util.hdf5.guard import open_hdf5
from stl_deploy._util.npz import is_plain_name
from stl_deploy.errors import InputError
from stl_deploy.integers.net import Ints

MAX_LAYERS = 1000


class Record:
    """One layer's group. Errors name the file, the layer and the key."""

    def __init__(self, path: Path, group: Any, name: str) -> None:
        self.path, self._group, self.name = path, group, name

    def error(self, key: str, problem: str) -> InputError:
        """Return an InputError with file, layer and key."""
        return InputError(f"{self.path}: {self.name}/{key}: {problem}")

    def has(self, key: str) -> bool:
        """Return whether the key exists."""
        return _member(self._group, key) is not None

    def text(self, key: str) -> str:
        """Read a short ASCII string, plain or as the only entry of an array."""
        dataset = self._dataset(key)
        if dataset.dtype.kind not in "SO" or dataset.size != 1 or dataset.dtype.itemsize > 64:
            raise self.error(key, f"expected a short text; found {dataset.dtype} {list(dataset.shape)}")
        value = np.asarray(dataset[()]).reshape(-1)[0]
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
        return text[:40]

    def whole(self, key: str) -> Ints:
        """Read an array of integers within 32 bits (integral floats are accepted, as lava-dl writes them)."""
        dataset = self._dataset(key)
        if dataset.dtype.kind not in "iuf" or dataset.dtype.itemsize > 8:
            raise self.error(key, f"expected integers; found {dataset.dtype}")
        values = np.asarray(dataset[()])
        if dataset.dtype.kind == "f" and not np.array_equal(values, np.trunc(values)):
            raise self.error(key, "holds fractions or NaN, which netx would cut off; round to integers first")
        if values.size and (values.max() >= 2**31 or values.min() < -(2**31)):
            raise self.error(key, "holds values beyond 32 bits")
        return values.astype(np.int32)

    def number(self, key: str) -> int:
        """Read one integer."""
        values = self.whole(key)
        if values.size != 1:
            raise self.error(key, f"expected one number; found shape {list(values.shape)}")
        return int(values.reshape(()))

    def attribute(self, key: str) -> str | None:
        """Read a short text attribute of the layer, or None."""
        value = self._group.attrs.get(key) if key in self._group.attrs else None
        if not isinstance(value, str):
            return None
        if not is_plain_name(value):
            raise self.error(key, f"expected a printable name of up to 255 characters, no path; found {value[:60]!a}")
        return value

    def whole_attribute(self, key: str, least: int, most: int) -> int | None:
        """Read an integer attribute of the layer from least to most, or None."""
        if key not in self._group.attrs:
            return None
        value = np.asarray(self._group.attrs[key])
        if value.dtype.kind not in "iu" or value.shape or not least <= value <= most:
            raise self.error(key, f"expected an integer from {least} to {most}; found {str(value)[:40]}")
        return int(value)

    def _dataset(self, key: str) -> Any:
        member = _member(self._group, key)
        if member is None:
            raise self.error(key, "missing; netx needs it")
        if not isinstance(member, h5py.Dataset) or member.shape is None:
            raise self.error(key, "is not an array of numbers or a text")
        return member


def _member(group: Any, key: str) -> Any:
    for part in key.split("/"):
        if not isinstance(group, h5py.Group) or part not in group:
            return None
        group = group[part]
    return group


@contextmanager
def open_layers(path: Path) -> Iterator[list[Record]]:
    """Open the layers of a netx file in order; raise InputError for a missing, foreign, damaged or truncated file."""
    with open_hdf5(path, "a netx .net file") as (file, _):
        yield _layers(path, file)


def _layers(path: Path, file: Any) -> list[Record]:
    layers = _member(file, "layer")
    if not isinstance(layers, h5py.Group) or not 1 <= len(layers) <= MAX_LAYERS:
        raise InputError(f"{path}: expected a netx .net file; found no group 'layer' with 1 to {MAX_LAYERS} layers")
    records = []
    for index in range(len(layers)):
        group = _member(layers, str(index))
        if not isinstance(group, h5py.Group):
            raise InputError(f"{path}: layer/{index} is missing; layers are numbered from 0 without gaps")
        records.append(Record(path, group, f"layer/{index}"))
    return records
