"""HDF5 files from strangers: every object is looked at before anything is allocated for it.

Refused: links out of the file (external, soft), objects linked twice (so no cycles), data stored outside the file,
filters other than HDF5's common ones, types other than numbers and text, and more data than the file's own size can
account for (an HDF5 file of a few bytes can declare terabytes of zeros).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stl_deploy.errors import InputError, StlDeployError
from stl_deploy.files import MAX_ARRAY_BYTES
from stl_deploy.graph._guard import probe

_FREE_BYTES = 256 * 2**20
_RATIO = 64
"""All arrays together may take 256 MiB, more only up to 64 times the file's size (gzip on constants does 1000)."""

_SMALL_BYTES = 2**20
_MAX_OBJECTS = 200_000
_MAX_DEPTH = 100
_MAX_TEXTS = 200_000
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}


@contextmanager
def open_hdf5(path: Path, kind: str) -> Iterator[tuple[h5py.File, Scan]]:
    """Open ``path`` for reading, after another process has read it through (see `_guard`).

    Everything that goes wrong inside becomes an InputError in one sentence.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected {kind}")
    probe(path, kind)
    with scanned(path, kind, lambda: None) as opened:
        yield opened


@contextmanager
def scanned(path: Path, kind: str, progress: Callable[[], object]) -> Iterator[tuple[h5py.File, Scan]]:
    """The same without the other process; ``progress`` is called for every object."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file, Scan(path, path.stat().st_size, progress)
    except StlDeployError:
        raise
    except MemoryError:
        raise InputError(f"{path}: not enough memory to read it") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: damaged, truncated or not {kind} ({reason})") from None


class Scan:
    """Safe access to one open file, with a budget for objects and bytes."""

    def __init__(self, path: Path, file_size: int, progress: Callable[[], object]) -> None:
        self._path, self._progress = path, progress
        self._bytes = max(_FREE_BYTES, _RATIO * file_size)
        self._budget = self._bytes
        self._seen: dict[tuple[int, int], str] = {}

    def names(self, group: h5py.Group) -> list[str]:
        """The names in a group, in order."""
        if len(group) + len(self._seen) > _MAX_OBJECTS:
            raise self._error(f"holds more than {_MAX_OBJECTS} objects")
        names = list(group)
        if not all(isinstance(name, str) for name in names):
            raise self._error(f"a name in {group.name!a} is no UTF-8 text")
        return names

    def child(self, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
        """An object of a group, or None if there is none of that name."""
        self._progress()
        link = group.get(name, getlink=True)
        if link is None:
            return None
        where = f"{group.name}/{name}"
        if not isinstance(link, h5py.HardLink):
            raise self._error(f"{where!a} is a link to elsewhere; a file that holds its data itself is accepted")
        found = group[name]
        info = h5py.h5o.get_info(found.id)
        key = (info.fileno, info.addr)
        if self._seen.setdefault(key, where) != where:
            raise self._error(f"{where!a} and {self._seen[key]!a} are the same object; one place is accepted")
        if len(self._seen) > _MAX_OBJECTS or where.count("/") > _MAX_DEPTH:
            raise self._error(f"holds more than {_MAX_OBJECTS} objects or is over {_MAX_DEPTH} levels deep")
        return found if isinstance(found, h5py.Group | h5py.Dataset) else None

    def text(self, group: h5py.Group, name: str) -> str | None:
        """A single string, or None if there is none of that name."""
        found = self.child(group, name)
        value = self._read(found) if isinstance(found, h5py.Dataset) and found.shape == () else None
        return value if isinstance(value, str) else None

    def value(self, group: h5py.Group, name: str) -> Any:
        """A dataset as numpy array or scalar, str, or object array of str; None if there is none of that name."""
        found = self.child(group, name)
        return self._read(found) if isinstance(found, h5py.Dataset) else None

    def walk(self, group: h5py.Group) -> None:
        """Look at every object below ``group``; read text and small arrays, look large ones up."""
        for name in self.names(group):
            found = self.child(group, name)
            if isinstance(found, h5py.Group):
                self.walk(found)
            elif found is not None:
                self._look_up(found)

    def _look_up(self, data: h5py.Dataset) -> None:
        self._afford(data)
        if data.dtype.kind == "O" or data.nbytes <= _SMALL_BYTES:
            self._budget += data.nbytes
            self._read(data)
        elif data.chunks:
            data.id.chunk_iter(lambda chunk: self._progress() and None)

    def tree(self, group: h5py.Group) -> dict[str, Any]:
        """A group as nested dicts of plain Python values."""
        result: dict[str, Any] = {}
        for name in self.names(group):
            found = self.child(group, name)
            if isinstance(found, h5py.Group):
                result[name] = self.tree(found)
            elif found is not None:
                value = self._read(found)
                result[name] = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        return result

    def _read(self, data: h5py.Dataset) -> Any:
        self._afford(data)
        if h5py.check_string_dtype(data.dtype) is None:
            return data[()]
        if data.size > _MAX_TEXTS:
            raise self._error(f"{data.name!a} declares {data.size} strings; up to {_MAX_TEXTS} are accepted")
        found = data.asstr()[()]
        return found if isinstance(found, str) else np.asarray(found, object)

    def _afford(self, data: h5py.Dataset) -> None:
        """Refuse a dataset that is not plain numbers or text, or costs more than the budget left."""
        name, text = ascii(data.name), h5py.check_string_dtype(data.dtype) is not None
        if data.shape is None or not (text or data.dtype.kind in "fiub") or len(data.shape) > 8:
            raise self._error(f"{name} is of type {data.dtype} {data.shape}; numbers and text are accepted")
        plist = data.id.get_create_plist()
        if plist.get_external_count() or data.is_virtual:
            raise self._error(f"{name} keeps its data in another file; a file that holds its data itself is accepted")
        strange = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())} - _FILTERS
        if strange:
            raise self._error(f"{name} is compressed with filter {min(strange)}; gzip and lzf are accepted")
        chunk = int(np.prod(data.chunks or (0,), dtype=object))
        needed = max(int(np.prod(data.shape, dtype=object)), chunk) * data.dtype.itemsize
        self._budget -= needed
        if self._budget < 0 or needed > MAX_ARRAY_BYTES:
            raise self._error(
                f"{name} declares {list(data.shape)} {data.dtype}: "
                f"{_size(needed)}, with all the others over the {_size(self._bytes)} that a file of this size may take"
            )

    def _error(self, what: str) -> InputError:
        return InputError(f"{self._path}: {what}")


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"
