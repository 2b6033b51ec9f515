"""Scan an untrusted HDF5 file: check every object before allocating anything.

Refused: links out of the file (external, soft), objects linked twice (so no cycles), data stored outside the file,
filters other than HDF5's common ones, types other than numbers and text, and more data than the file's size can account
for (an HDF5 file of a few bytes can declare terabytes of zeros).

The result is JSON and bytes, readable by another process without HDF5. A group is a dict of its members; a text is
``["text", shape, strings]``; a row of lists is ``["lists of <f4", shape, None]``; an array is ``[dtype, shape,
offset]``, the offset into `Scan.content`, or None if the array is too large to be passed on. Attributes are read, to
detect damage, but not passed on.
"""

from __future__ import annotations

from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s

from stl_deploy._util.files import MAX_ARRAY_BYTES
from stl_deploy._util.isolated import Answer, progress
from stl_deploy._util.untrusted import parse_errors_as_input_errors
from stl_deploy.errors import InputError

_FREE_BYTES = 256 * 2**20
_RATIO = 64
"""All arrays together may take 256 MiB, more only up to 64 times the file's size (gzip on constants does 1000)."""

_READ_BYTES = 2**20
"""Arrays up to this size are read here, so that damage is met here; of larger ones the chunks are looked up."""
_HANDED_BYTES = 2**16
_ALL_HANDED_BYTES = 2**25
MAX_MEMBERS = 25_000
"""Most members of one group: 10,000 layers with their weights. Each takes at least some hundred bytes of the file."""
_MAX_OBJECTS = 250_000
_MAX_DEPTH = 100
_MAX_ATTRIBUTES = 100
_MAX_ATTRIBUTE_BYTES = 2**16
_MAX_TEXTS = 200_000
_MAX_LISTS = 1_000_000
_LISTS_AT_A_TIME = 64
LISTS = "lists of "
_MAX_TEXT_BYTES = 2**26
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}


def look_through(path: Path, kind: str, lists: bool) -> Answer:
    """Return a file's contents, and the bytes of its small arrays: a reader for `isolated`.

    Raises InputError if it is refused or damaged.
    """
    progress()
    with parse_errors_as_input_errors(path, kind), h5py.File(path, "r", locking=False) as file:
        scan = Scan(path, lists)
        content = scan.group(h5g.open(file.id, b"/"))
    return content, [np.frombuffer(scan.content, np.uint8)]


class Scan:
    """Scan one open file, with a budget for objects and bytes; report every object to `progress`."""

    def __init__(self, path: Path, lists: bool = False) -> None:
        self.content = bytearray()
        self._lists = lists
        self._path = path
        self._bytes = self._budget = max(_FREE_BYTES, _RATIO * path.stat().st_size)
        self._texts = _MAX_TEXT_BYTES
        self._seen: dict[int, str] = {}

    def group(self, group: h5g.GroupID, where: str = "") -> dict[str, Any]:
        """Return the contents of ``group``. Raises InputError for refused objects, and whatever HDF5 raises."""
        members = group.get_num_objs()
        if members > MAX_MEMBERS:
            raise self._error(f"{where or '/'!a}: expected up to {MAX_MEMBERS} members; found {members}")
        if len(self._seen) + members > _MAX_OBJECTS:
            raise self._error(f"holds more than {_MAX_OBJECTS} objects")
        if where.count("/") >= _MAX_DEPTH:
            raise self._error(f"is over {_MAX_DEPTH} levels deep")
        self._look_at_attributes(group, where)
        contents: dict[str, Any] = {}
        for raw in group:
            progress()
            try:
                name = raw.decode()
            except UnicodeDecodeError:
                raise self._error(f"a name in {where or '/'!a} is not UTF-8 text") from None
            value = self._member(group, raw, f"{where}/{name}")
            if value is not None:
                contents[name] = value
        return contents

    def _look_at_attributes(self, group: h5g.GroupID, where: str) -> None:
        count = h5a.get_num_attrs(group)
        if count > _MAX_ATTRIBUTES:
            raise self._error(f"{where or '/'!a}: expected up to {_MAX_ATTRIBUTES} attributes; found {count}")
        for index in range(count):
            progress()
            attribute = h5a.open(group, index=index)
            if attribute.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
                raise self._error(f"{where or '/'!a} has an attribute of {attribute.get_storage_size()} bytes")
            with suppress(TypeError, ValueError, UnicodeError):  # of a kind that numpy has not; nobody asks for it
                _ = h5py.Group(group).attrs[attribute.name]

    def _member(self, group: h5g.GroupID, raw: bytes, where: str) -> Any:
        link = group.links.get_info(raw)
        if link.type != h5l.TYPE_HARD:
            raise self._error(f"{where!a}: expected a file that holds its data itself; found a link to elsewhere")
        if self._seen.setdefault(link.u, where) != where:
            raise self._error(f"{where!a}: expected each object in one place; found it in {self._seen[link.u]!a}, too")
        child = h5o.open(group, raw)
        if isinstance(child, h5g.GroupID):
            return self.group(child, where)
        return self._data(child, where) if isinstance(child, h5d.DatasetID) else None

    def _data(self, data: h5d.DatasetID, where: str) -> list[Any]:
        dtype, shape = data.dtype, data.shape
        text = dtype.kind in "OS" and h5py.check_string_dtype(dtype) is not None
        inner = h5py.check_vlen_dtype(dtype) if self._lists and dtype.kind == "O" else None
        if not shape and data.get_space().get_simple_extent_type() == h5s.NULL:
            shape = None
        known = text or dtype.kind in "fiub" or (isinstance(inner, np.dtype) and inner.kind in "fiu")
        if shape is None or not known or len(shape) > 8:
            raise self._error(f"{where!a}: expected numbers or text; found {dtype} {shape}")
        if isinstance(inner, np.dtype):
            return self._read_lists(data, where, inner, shape)
        size = prod(shape)
        chunks = self._afford(data, where, dtype, shape)
        if text:
            return ["text", shape, self._read_text(data, where, dtype, shape)]
        if size * dtype.itemsize > _READ_BYTES:
            if chunks:
                data.chunk_iter(lambda chunk: progress())
            return [dtype.str, shape, None]
        array = _read(data, dtype, shape)
        if array.nbytes > _HANDED_BYTES or len(self.content) + array.nbytes > _ALL_HANDED_BYTES:
            return [dtype.str, shape, None]
        # to the next 8 bytes: the reader views float64 in place
        self.content += bytes(-len(self.content) % 8)
        self.content += array.tobytes()
        return [dtype.str, shape, len(self.content) - array.nbytes]

    def _read_lists(self, data: h5d.DatasetID, where: str, inner: np.dtype[Any], shape: tuple[int, ...]) -> list[Any]:
        """Read a row of lists in parts, so that damage shows here; their size is taken from the budget."""
        self._afford(data, where, np.dtype("V16"), shape)
        if len(shape) != 1 or shape[0] > _MAX_LISTS:
            raise self._error(f"{where!a}: expected a row of up to {_MAX_LISTS} lists; found shape {list(shape)}")
        rows = h5py.Dataset(data)
        for first in range(0, shape[0], _LISTS_AT_A_TIME):
            progress()
            self._take(sum(row.nbytes for row in rows[first : first + _LISTS_AT_A_TIME]), where)
        return [f"{LISTS}{inner.str}", shape, None]

    def _take(self, needed: int, where: str) -> None:
        self._budget -= needed
        if self._budget < 0:
            raise self._error(
                f"{where!a} takes {_size(needed)}, with all the others over the {_size(self._bytes)} that a file of "
                "this size may take"
            )

    def _read_text(self, data: h5d.DatasetID, where: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
        if prod(shape) > _MAX_TEXTS:
            raise self._error(f"{where!a}: expected up to {_MAX_TEXTS} strings; found {prod(shape)} declared")
        if dtype.kind == "S":  # of a declared length: known before it is unpacked, which may take long
            self._take_text(prod(shape) * dtype.itemsize, where)
        strings = [raw.decode() if isinstance(raw, bytes) else "" for raw in _read(data, dtype, shape).flat]
        if dtype.kind == "O":
            self._take_text(sum(map(len, strings)), where)
        return strings if shape else strings[0]

    def _take_text(self, size: int, where: str) -> None:
        self._texts -= size
        if self._texts < 0:
            raise self._error(f"{where!a} and others hold over {_size(_MAX_TEXT_BYTES)} of text")

    def _afford(self, data: h5d.DatasetID, where: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
        """Refuse a dataset that is not plain, or exceeds the budget; return whether it is stored in chunks."""
        plist = data.get_create_plist()
        layout = plist.get_layout()
        if plist.get_external_count() or layout == h5d.VIRTUAL:
            raise self._error(f"{where!a}: expected a file that holds its data itself; found data in another file")
        strange = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())} - _FILTERS
        if strange:
            raise self._error(f"{where!a}: expected compression by gzip or lzf; found filter {min(strange)}")
        chunk = prod(plist.get_chunk()) if layout == h5d.CHUNKED else 0
        needed = max(prod(shape), chunk) * dtype.itemsize
        self._budget -= needed
        if self._budget < 0 or needed > MAX_ARRAY_BYTES:
            raise self._error(
                f"{where!a} declares {list(shape)} {dtype}: "
                f"{_size(needed)}, with all the others over the {_size(self._bytes)} that a file of this size may take"
            )
        return bool(layout == h5d.CHUNKED)

    def _error(self, what: str) -> InputError:
        return InputError(f"{self._path}: {what}")


def _read(data: h5d.DatasetID, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    array = np.empty(shape, dtype)
    if array.size:
        data.read(h5s.ALL, h5s.ALL, array)
    return array


def _size(count: int) -> str:
    number, unit = (count / 2**30, "GiB") if count >= 2**30 else (count / 2**20, "MiB")
    return f"{number:.3g} {unit}" if number < 999.5 else f"{number:,.0f} {unit}"
