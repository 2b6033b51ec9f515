"""Write HDF5 files whole; read untrusted ones after a worker process has scanned them (see `scan`).

Small arrays and all text come from that process. HDF5 is used here only for larger arrays of plain numbers, whose size
is known to be affordable. h5py stays: a reader in pure Python (pyfive) gave equal values, at equal speed, but allocated
and looped without bound on damaged files (4 of 1,000), and does not write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import whole_file
from stl_deploy._util.hdf5.scan import LISTS, look_through
from stl_deploy._util.isolated import isolated
from stl_deploy._util.untrusted import parse_errors_as_input_errors, plain_file
from stl_deploy.errors import InputError

_MEMORY = 3 * 2**30
_OBJECT_SECONDS = 0.5
"""Of processor time for one object of a file."""
Found = Mapping[str, Any] | list[Any]


@contextmanager
def whole_hdf5(path: Path) -> Iterator[h5py.File]:
    """Yield a file to be filled, written whole or not at all; raise InputError if it cannot be written.

    It is made in memory: where the disk under an open file is full, HDF5 takes the process down. Its name there is the
    temporary file's, because HDF5 takes two files of one name in different threads for the same one.
    """
    with whole_file(path) as temporary:
        with h5py.File(temporary, "w", driver="core", backing_store=False) as file:
            yield file
            file.flush()
            image = file.id.get_file_image()
        temporary.write_bytes(image)


@contextmanager
def open_hdf5(path: Path, kind: str, *, lists: bool = False) -> Iterator[tuple[h5py.File, Group]]:
    """Yield the open file and its contents; every error inside becomes an InputError in one sentence.

    lists: also take arrays whose entries are lists of numbers, each of its own length.
    """
    plain_file(path, kind)
    # libhdf5 can hang or crash on corrupt files, so a worker process parses each file first.
    members, (content,) = isolated(look_through, path, kind, lists, what=kind, memory=_MEMORY, seconds=_OBJECT_SECONDS)
    with parse_errors_as_input_errors(path, kind), h5py.File(path, "r", locking=False) as file:
        yield file, Group("", members, content, file)


@dataclass(frozen=True)
class Group:
    """A group of the file: its members, as `_scan` describes them."""

    where: str
    members: Mapping[str, Found]
    content: NDArray[np.uint8]
    file: h5py.File

    @property
    def names(self) -> list[str]:
        """Return the names in the group, in the file's order."""
        return list(self.members)

    def group(self, name: str) -> Group | None:
        """Return a group in it, or None if there is none of that name."""
        member = self.members.get(name)
        return Group(f"{self.where}/{name}", member, self.content, self.file) if isinstance(member, Mapping) else None

    def text(self, name: str) -> str | None:
        """Return a single string, or None if there is none of that name."""
        value = self.value(name) if self._is_text(name) else None
        return value if isinstance(value, str) else None

    def value(self, name: str) -> Any:
        """Return a dataset as numpy array or scalar, str, or object array of str; None if it is missing."""
        member = self.members.get(name)
        if not isinstance(member, list):
            return None
        kind, shape, value = member
        if kind == "text":
            return np.array(value, object).reshape(shape) if shape else value
        if value is None:
            return self._read(name, kind, shape)
        return np.frombuffer(self.content, kind, prod(shape), value).copy().reshape(shape)[()]

    def tree(self) -> dict[str, Any]:
        """Return all of it as nested dicts of plain Python values."""
        result: dict[str, Any] = {}
        for name in self.names:
            inner = self.group(name)
            value = self.value(name) if inner is None else inner.tree()
            result[name] = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        return result

    def _is_text(self, name: str) -> bool:
        member = self.members.get(name)
        return isinstance(member, list) and member[0] == "text"

    def _read(self, name: str, dtype: str, shape: list[int]) -> Any:
        data = self.file[f"{self.where}/{name}"]
        if _form(data) != dtype or list(data.shape) != shape:
            raise InputError(f"{self.file.filename}: changes while it is read")
        return data[()]


def _form(data: h5py.Dataset) -> str:
    """Return the type as `_scan` names it: of a list, ``lists of`` and its numbers' type."""
    inner = h5py.check_vlen_dtype(data.dtype)
    return str(data.dtype.str) if inner is None else f"{LISTS}{np.dtype(inner).str}"
