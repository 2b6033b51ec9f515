"""Read the IDX format of the MNIST files: a magic number, the sizes, then bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError

_UNSIGNED_BYTE = 0x08
_MOST_BYTES = 2**27
"""Of the data, unpacked: the largest file that we know has 47 MB, and a gzip file of 2 MB can hold 2 GB."""


def read_idx(path: Path, *, shape: tuple[int | None, ...]) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes (gzipped if it ends in ``.gz``) whose sizes are ``shape`` (None: any).

    Raises InputError if it is missing, truncated, too long, damaged, of another kind or of another shape.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return _read(stream, path, shape)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or damaged ({error}); fetch it again") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def _read(stream: gzip.GzipFile | IO[bytes], path: Path, shape: tuple[int | None, ...]) -> NDArray[np.uint8]:
    header = stream.read(4 + 4 * len(shape))
    if len(header) < 4 + 4 * len(shape) or header[:4] != bytes((0, 0, _UNSIGNED_BYTE, len(shape))):
        raise InputError(
            f"{path}: expected an IDX file as MNIST has them, of bytes with {len(shape)} axes; found another"
        )
    sizes = struct.unpack(f">{len(shape)}I", header[4:])
    if any(want not in (None, size) for want, size in zip(shape, sizes, strict=True)):
        accepted = ["any" if size is None else size for size in shape]
        raise InputError(f"{path}: expected sizes {accepted}; found {list(sizes)}")
    if math.prod(sizes) > _MOST_BYTES:
        raise InputError(f"{path}: expected at most {_MOST_BYTES:,} bytes; found sizes {list(sizes)}")
    data = stream.read(math.prod(sizes))
    if len(data) < math.prod(sizes):
        raise InputError(f"{path}: truncated, {len(data)} of {math.prod(sizes)} bytes; fetch it again")
    if stream.read(1):  # of a gzipped file this also checks the sum behind the data
        raise InputError(
            f"{path}: expected {math.prod(sizes)} bytes of sizes {list(sizes)}; found more; fetch it again"
        )
    return np.frombuffer(data, np.uint8).reshape(sizes)
