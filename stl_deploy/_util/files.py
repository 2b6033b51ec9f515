"""Reading what strangers wrote and writing without leaving halves."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from stl_deploy.errors import InputError

MAX_ARRAY_BYTES = 8 * 2**30
"""The largest array that is read from a file; a larger declared size is refused before it is allocated."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the name only if the block ends well.

    Raises InputError if ``path`` is a folder or a device, or cannot be written.
    """
    make_place(path)
    with _said(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        with _said(path):
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def make_place(path: Path) -> None:
    """Make the folder of a file to be written; raises InputError if ``path`` is a folder or a device."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: {'a folder' if path.is_dir() else 'no plain file'}; name a file to write")
    make_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, if they are not there; raises InputError where none can be."""
    with _said(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """The operating system's refusal to write, as a sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON (indented, no NaN) whole or not at all."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; raises InputError in one sentence."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file ({error})") from None


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write a compressed npz whole or not at all."""
    with whole_file(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an npz, without pickle and with the declared sizes checked first.

    Raises InputError for a missing, truncated or foreign file, an object array, or one
    larger than `MAX_ARRAY_BYTES`.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an .npz")
    try:
        with zipfile.ZipFile(path) as archive:
            return {_stem(info.filename): _read_member(archive, info, path) for info in archive.infolist()}
    except zipfile.BadZipFile:
        raise InputError(f"{path}: not an .npz file (or truncated); write one with numpy.savez") from None
    except (ValueError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read as .npz ({error})") from None


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    with archive.open(info) as stream:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        if dtype.hasobject:
            raise InputError(f"{path}: array '{_stem(info.filename)}' holds Python objects; numbers are accepted")
        if int(np.prod(shape, dtype=object)) * dtype.itemsize > MAX_ARRAY_BYTES:
            raise InputError(
                f"{path}: array '{_stem(info.filename)}' declares shape {shape}, over {MAX_ARRAY_BYTES // 2**30} GiB"
            )
    with archive.open(info) as stream:
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    return array


def _stem(name: str) -> str:
    return name.removesuffix(".npy")


Inputs = NDArray[Any] | dict[str, NDArray[Any]]
"""One array for a network's only input, or one for each input by name; ``[T, B, *shape]``, with the same T and B."""

_NAMED = "x__"


def read_input(path: Path) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """The input npz of INTERFACES: ``x`` ``[T, B, *shape]``, optional labels ``y`` ``[B]``.

    ``x`` keeps its type: float32 (other floats are cast), any integer type, or bool.
    Raises InputError if ``x`` is missing, empty, not numeric, has fewer than 2 axes,
    holds NaN or infinity, or if ``y`` is not one whole number per sample.
    """
    x, labels = read_inputs(path)
    if isinstance(x, dict):
        raise InputError(f"{path}: holds {', '.join(_NAMED + name for name in x)}; one array 'x' is accepted here")
    return x, labels


def read_inputs(path: Path) -> tuple[Inputs, NDArray[np.int64] | None]:
    """As `read_input`; for a network of several inputs, instead of ``x`` an array ``x__<input>`` for each."""
    arrays = read_npz(path)
    named = {name: values for name, values in arrays.items() if name.startswith(_NAMED)}
    if "x" in arrays and named:
        raise InputError(
            f"{path}: holds both 'x' and {', '.join(named)}; one array, or one for each input, is accepted"
        )
    if "x" not in arrays and not named:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise InputError(
            f"{path}: no array 'x' (found: {found}); expected x of shape [T, B, *input shape], or x__NAME for each of "
            "several inputs"
        )
    x: Inputs
    if named:
        x = {name.removeprefix(_NAMED): _values(path, name, values) for name, values in named.items()}
    else:
        x = _values(path, "x", arrays["x"])
    return x, _labels(path, arrays.get("y"), leading(x)[1])


def leading(x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> tuple[int, int]:
    """T and B of a network's input."""
    steps, samples = (next(iter(x.values())) if isinstance(x, Mapping) else x).shape[:2]
    return steps, samples


def _values(path: Path, name: str, x: NDArray[Any]) -> NDArray[Any]:
    if x.dtype.kind not in "fiub":
        raise InputError(f"{path}: '{name}' has type {x.dtype}; float32, integers or bool are accepted")
    if x.ndim < 2 or x.size == 0:
        raise InputError(f"{path}: '{name}' has shape {list(x.shape)}; expected [T, B, *input shape] with T, B >= 1")
    if x.dtype.kind == "f":
        x = x.astype(np.float32, copy=False)
        if not np.isfinite(x).all():
            raise InputError(f"{path}: '{name}' holds NaN or infinite values; finite numbers are accepted")
    return x


def _labels(path: Path, labels: NDArray[Any] | None, samples: int) -> NDArray[np.int64] | None:
    if labels is None:
        return None
    if labels.shape != (samples,) or labels.dtype.kind not in "iub":
        raise InputError(
            f"{path}: 'y' is {labels.dtype} {list(labels.shape)}; expected whole numbers of shape [{samples}]"
        )
    return labels.astype(np.int64)
