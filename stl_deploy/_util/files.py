"""Read untrusted files with validation; write files atomically."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import label_remedy, require_held_by_float32
from stl_deploy._util.atomic import make_folder, make_place, require_folder, whole_file, write_json, write_text
from stl_deploy._util.npz import MAX_ARRAY_BYTES, names_in, read_npz, write_npz
from stl_deploy._util.units import counted
from stl_deploy._util.untrusted import parse_errors_as_input_errors, plain_file
from stl_deploy.errors import InputError

__all__ = [
    "MAX_ARRAY_BYTES",
    "Inputs",
    "checked_labels",
    "leading",
    "make_folder",
    "make_place",
    "parse_errors_as_input_errors",
    "plain_file",
    "read_input",
    "read_inputs",
    "read_json",
    "read_npz",
    "require_folder",
    "sha256",
    "whole_file",
    "write_json",
    "write_npz",
    "write_text",
]

_MAX_JSON_BYTES = 2**24
"""Parsed, JSON takes up to 25 times as much memory."""


def as_path(value: Any) -> Path:
    """Return a path; raise InputError for what is none, as a module or a list."""
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"expected the path of one file or folder; found a {type(value).__name__}; give its name")
    return Path(value)


def as_paths(value: Any) -> list[str | Path]:
    """Return one name or path, or several, as a list; raise InputError for what is none."""
    return [each if isinstance(each, str) else as_path(each) for each in one_or_several(value)]


def one_or_several(value: Any) -> list[Any]:
    """Return the items of any iterable of them as a list; a string, path, mapping, array or module is one item."""
    one = isinstance(value, str | bytes | os.PathLike | Mapping) or hasattr(value, "dtype") or hasattr(value, "forward")
    return [value] if one or not isinstance(value, Iterable) else list(value)


def require_suffix(path: Path, suffix: str, why: str = "") -> None:
    """Raise InputError unless the file's name ends in ``suffix``; why: the reason, as in " for onnx"."""
    if path.suffix != suffix:
        raise InputError(f"{path}: expected a name that ends in {suffix}{why}; found '{path.suffix}'")


def require_other(path: Path, *read: Path) -> None:
    """Raise InputError if an output file is also an input."""
    for source in read:
        if path.exists() and source.exists() and path.samefile(source):
            raise InputError(f"{path}: expected a file to write; found {source}, which is read; name another")


def user_cache() -> Path:
    """Return ``$XDG_CACHE_HOME``, by default ``~/.cache``; for a user without a home a folder in ``$TMPDIR``."""
    chosen = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if chosen.startswith("~"):
        return Path(tempfile.gettempdir()) / f"stl-deploy-{os.geteuid() if hasattr(os, 'geteuid') else 'cache'}"
    return Path(chosen)


def cache_dir() -> Path:
    """Return the folder of downloads: ``stl-deploy`` in the user's cache."""
    return user_cache() / "stl-deploy"


def read_json(path: Path) -> Any:
    """Read a JSON file; raise InputError in one sentence."""
    plain_file(path, "a JSON file", _MAX_JSON_BYTES)
    with parse_errors_as_input_errors(path, "a JSON file"):
        return json.loads(path.read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    """Return the hex digest of a file's bytes."""
    plain_file(path, "a file")
    with parse_errors_as_input_errors(path, "a file"), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


Inputs = NDArray[Any] | dict[str, NDArray[Any]]
"""One array for a network's only input, or one for each input by name; ``[T, B, *shape]``, with the same T and B."""

_NAMED = "x__"


def read_input(path: Path) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Read an input npz: ``x`` ``[T, B, *shape]``, optional labels ``y`` ``[B]``.

    ``x`` keeps its type: float32 (other floats are cast, with a warning where a value moves), integers or bool.
    Raises InputError if ``x`` is missing, empty, not numeric, has fewer than 2 axes, holds NaN, infinity or a whole
    number beyond 2^24, or if ``y`` is not one integer per sample.
    """
    x, labels = read_inputs(path)
    if isinstance(x, dict):
        raise InputError(f"{path}: expected one array 'x'; found {', '.join(_NAMED + name for name in x)}")
    return x, labels


def read_inputs(
    path: Path, *, any_target: bool = False, given: Callable[[Inputs], Inputs] = lambda x: x
) -> tuple[Inputs, NDArray[Any] | None]:
    """Read as `read_input`; a network of several inputs needs an array ``x__<input>`` for each instead of ``x``.

    any_target: ``y`` may be any array, for a metric of the user's. given: makes the input ``[T, B, *shape]``.
    """
    arrays = read_npz(path, lambda name: name in ("x", "y") or name.startswith(_NAMED))
    named = {name: values for name, values in arrays.items() if name.startswith(_NAMED)}
    if "x" in arrays and named:
        raise InputError(
            f"{path}: expected one array x, or x__NAME for each input; found both 'x' and {', '.join(named)}"
        )
    if "x" not in arrays and not named:
        names = ", ".join(names_in(path)) or "nothing"
        raise InputError(
            f"{path}: expected array 'x' [T, B, *input shape], or x__NAME for each of several inputs; found {names}"
        )
    x: Inputs
    if named:
        x = {name.removeprefix(_NAMED): _values(path, name, values) for name, values in named.items()}
    else:
        x = _values(path, "x", arrays["x"])
    x, labels = given(x), arrays.get("y")
    return x, labels if labels is None or any_target else checked_labels(labels, *leading(x), f"{path}: 'y'")


def leading(x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> tuple[int, int]:
    """Return T and B of a network's input."""
    steps, samples = (next(iter(x.values())) if isinstance(x, Mapping) else x).shape[:2]
    return steps, samples


def first_samples(x: Inputs | Mapping[str, NDArray[Any]], count: int) -> Inputs:
    """Return the first ``count`` samples of a network's input."""
    return part_of(x, slice(None), slice(count))


def part_of(x: Inputs | Mapping[str, NDArray[Any]], *part: slice) -> Inputs:
    """Return a part of a network's input. part: of its steps, and of its samples."""
    return {name: array[part] for name, array in x.items()} if isinstance(x, Mapping) else x[part]


def _values(path: Path, name: str, x: NDArray[Any]) -> NDArray[Any]:
    if x.dtype.kind not in "fiub":
        raise InputError(f"{path}: '{name}': expected float32, integers or bool; found {x.dtype}")
    if x.ndim < 2 or x.size == 0:
        raise InputError(f"{path}: '{name}': expected [T, B, *input shape] with T, B >= 1; found {list(x.shape)}")
    require_held_by_float32(x, f"{path}: '{name}'")
    if x.dtype.kind != "f":
        return x
    with np.errstate(over="ignore"):  # infinite then, which is refused
        rounded = x.astype(np.float32, copy=False)
    if not np.isfinite(rounded).all():
        raise InputError(f"{path}: '{name}': expected finite numbers; found NaN or infinity")
    if rounded.dtype != x.dtype and (moved := rounded != x).any():
        warnings.warn(
            f"{path}: '{name}': {x.dtype} rounded to float32, in which networks run: {np.count_nonzero(moved):,} of "
            f"{x.size:,} values move, by at most {np.abs(rounded[moved] - x[moved]).max():.2g}",
            stacklevel=4,
        )
    return rounded


def checked_labels(labels: NDArray[Any], steps: int, samples: int, where: str) -> NDArray[np.int64]:
    """Return labels ``[B]``, or ``[B, T]``; raise InputError naming ``where`` for others."""
    if labels.shape not in ((samples,), (samples, steps)) or labels.dtype.kind not in "iub":
        swapped = labels.shape in ((steps,), (steps, samples))
        known = label_remedy(labels, samples)
        remedy = known or "leave labels out if there are none"
        if known is None and swapped:
            remedy = "if it is [B, T, ...], swap its first two axes"
            remedy += "; if it has no axis of time, give np.repeat(x[None], T, axis=0)" if labels.ndim == 1 else ""
        raise InputError(
            f"{where}: expected integers [{samples}], or [{samples}, {steps}] for labels of each step (x is read "
            f"as [T, B, ...], {counted(steps, 'step')} of {counted(samples, 'sample')}); found {labels.dtype} "
            f"{list(labels.shape)}; {remedy}"
        )
    return labels.astype(np.int64)
