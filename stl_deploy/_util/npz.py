"""Arrays by name in one file (npz): read without pickle, sizes checked before allocation."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stl_deploy._util.atomic import whole_file
from stl_deploy._util.untrusted import parse_errors_as_input_errors, plain_file
from stl_deploy.errors import InputError

MAX_ARRAY_BYTES = 8 * 2**30
"""The largest array that is read from a file; a larger declared size is refused before it is allocated."""
_FREE_BYTES = 2**30
_RATIO = 256
"""The arrays read from one file may take 1 GiB together, more only up to 256 times the file's size (spikes of one in a
thousand steps do 200; deflate ends at 1032)."""
_MAX_MEMBERS = 10_000


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]], *, level: int = 6) -> None:
    """Write a compressed npz whole or not at all; raises InputError for a name that is no plain file name.

    level: of zlib; 0 stores arrays as they are.
    """
    for name in arrays:
        if not is_plain_name(name):
            raise InputError(f"{path}: {name[:60]!a} cannot be the name of an array in it; rename the node")
    with (
        whole_file(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive,
    ):
        # not numpy.savez: it takes some names for options of its own, and refuses objects in later releases alone
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                npy.write_array(stream, np.asanyarray(array), allow_pickle=False)


def is_plain_name(name: str) -> bool:
    """Return whether a name can be a file's anywhere: printable, no path, of 1 to 255 characters."""
    return 0 < len(name) <= 255 and name.isprintable() and not set(name) & {"/", "\\"} and name not in (".", "..")


def names_in(path: Path) -> list[str]:
    """Return the names of the arrays, sorted."""
    with _open(path) as archive:
        return sorted(_stem(info.filename) for info in archive.infolist())


def read_npz(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, NDArray[Any]]:
    """Read the arrays ``wanted`` of an npz, without pickle and with the declared sizes checked first.

    Raises InputError for a missing, damaged or foreign file, an object array, one larger than `MAX_ARRAY_BYTES`, or
    arrays that take more together than a file of this size can account for.
    """
    budget = max(_FREE_BYTES, _RATIO * plain_file(path, "an .npz"))
    with _open(path) as archive:
        members = [info for info in archive.infolist() if wanted(_stem(info.filename))]
        sizes = {_stem(info.filename): _declared(archive, info, path) for info in members}
        if len(sizes) < len(members):
            raise InputError(f"{path}: expected each array once; found two of one name")
        if sum(sizes.values()) > budget:
            raise InputError(
                f"{path}: its arrays take {sum(sizes.values()) / 2**30:.1f} GiB, over the {budget / 2**30:.1f} GiB "
                "that a file of this size may take; write it without compression, or in parts"
            )
        return {_stem(info.filename): _read(archive, info) for info in members}


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    plain_file(path, "an .npz")
    with parse_errors_as_input_errors(path, "an .npz file"):
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            raise InputError(
                f"{path}: not an .npz file (or truncated); write one with numpy.savez('x.npz', x=x), or "
                "numpy.savez('x.npz', x=x, y=y) where labels are read"
            ) from None
        with archive:
            if len(archive.infolist()) > _MAX_MEMBERS:
                raise InputError(f"{path}: expected up to {_MAX_MEMBERS} arrays; found {len(archive.infolist())}")
            yield archive


def _declared(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> int:
    """Return the bytes of an array, from its header."""
    with archive.open(info) as stream:
        shape, dtype = read_npy_header(stream)
    if dtype.hasobject:
        raise InputError(f"{path}: array '{_stem(info.filename)}': expected numbers; found Python objects")
    size = prod(shape) * dtype.itemsize
    if size > MAX_ARRAY_BYTES:
        raise InputError(
            f"{path}: array '{_stem(info.filename)}' declares shape {shape}, over {MAX_ARRAY_BYTES // 2**30} GiB"
        )
    if size > info.file_size:
        raise InputError(f"{path}: array '{_stem(info.filename)}' is truncated; write the file again")
    return size


def read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read shape and type of an array in numpy's format; raise numpy's errors, or ValueError for sizes below 0."""
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    if any(axis < 0 for axis in shape):
        raise ValueError(f"shape {shape}")
    return shape, dtype


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as stream:
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    return array


def _stem(name: str) -> str:
    return name.removesuffix(".npy")
