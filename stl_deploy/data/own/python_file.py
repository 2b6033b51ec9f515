"""``dataset: {name: python, path: FILE.py:NAME}``: a function of the user's that returns torch Datasets. It runs code.

The function takes no arguments and returns ``(train, validation, test)``, ``(train, test)``, a dict with the keys
train, validation (or val) and test, or one Dataset, which is split. Its samples are ``(x, label)``; x is an array or a
tensor of one shape. All are held in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import as_array
from stl_deploy._util.untrusted import error_location
from stl_deploy._util.user_file import run_as_module
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data.own import arrays, trust
from stl_deploy.data.own.arrays import ArrayData
from stl_deploy.data.raw import Look, Raw
from stl_deploy.errors import InputError

_cache: dict[tuple[str, int], ArrayData] = {}


def split_path(path: str | None) -> tuple[Path, str]:
    """Return FILE.py and NAME; raise InputError for other text."""
    file, colon, name = (path or "").rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise InputError(f"key 'dataset.path': expected FILE.py:NAME, a file and a function in it; found {path!r}")
    return Path(file), name


def look(config: DatasetConfig) -> Look:
    """Return shape, classes and steps; runs the function."""
    return arrays.look(_read(config), config)


def load(config: DatasetConfig) -> Raw:
    """Load all data. Raises InputError for a file that may not run, fails, or returns no Datasets of one shape."""
    data = _read(config)
    digest = hashlib.sha256()
    for name, array in sorted(data.arrays.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode() + np.ascontiguousarray(array).tobytes())
    return arrays.to_raw(data, config, digest.hexdigest())


def _read(config: DatasetConfig) -> ArrayData:
    file, name = split_path(config.path)
    trust.require(file)
    key = str(config.path), file.stat().st_mtime_ns
    if key not in _cache:
        _cache.clear()
        with _errors_of(file):
            _cache[key] = from_datasets(_run(file, name), f"{file}:{name}")
    return _cache[key]


@contextmanager
def _errors_of(file: Path) -> Iterator[None]:
    """Raise InputError, with the line, for whatever the user's file raises: at import, or in a Dataset's methods."""
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{file}: {error_location(error, file)}") from error


def _run(file: Path, name: str) -> Any:
    with run_as_module(file, f"stl_deploy_data_{file.stem}") as module:
        function = getattr(module, name, None)
        if not callable(function):
            raise InputError(f"{file}: expected a function '{name}' that returns torch Datasets; found none")
        return function()


def from_datasets(found: Any, where: str = "data") -> ArrayData:
    """Return torch Datasets (one, ``(train, test)``, ``(train, validation, test)`` or a dict) as arrays in memory.

    Raises InputError for what is none, is empty, or whose samples are not ``(x, label)`` of one shape.
    """
    parts = _parts(found, where)
    classes = getattr(parts["train"], "classes", None)
    held: dict[str, NDArray[Any]] = {}
    for ending, split in arrays.SPLITS.items():
        if parts.get(split) is not None:
            held[f"x{ending}"], held[f"y{ending}"] = _stacked(parts[split], f"{where}: {split}")
    names = tuple(map(str, classes)) if isinstance(classes, list | tuple) else None
    data = ArrayData(held, where, names)
    arrays.check_arrays(data)
    return data


def _parts(found: Any, where: str) -> dict[str, Any]:
    if isinstance(found, Mapping):
        aliases = {"val": "validation"}
        parts = {aliases.get(str(key), str(key)): part for key, part in found.items()}
        strange = sorted(set(parts) - set(arrays.SPLITS.values()))
        if strange or "train" not in parts:
            raise InputError(
                f"{where}: expected train, and validation and test as splits; found {', '.join(map(str, found))}"
            )
        return parts
    if isinstance(found, list | tuple):
        names = {1: ("train",), 2: ("train", "test"), 3: ("train", "validation", "test")}.get(len(found))
        if names is None:
            raise InputError(f"{where}: expected (train, test) or (train, validation, test); found {len(found)} parts")
        return dict(zip(names, found, strict=True))
    return {"train": found}


def _stacked(dataset: Any, where: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise InputError(
            f"{where}: expected a torch Dataset with __len__ and __getitem__; found a {type(dataset).__name__}"
        )
    if not len(dataset):
        raise InputError(f"{where}: expected a Dataset of samples (x, label); found an empty one")
    xs: list[NDArray[Any]] = []
    ys: list[int] = []
    for index in range(len(dataset)):
        x, y = _sample(dataset[index], f"{where}, sample {index}")
        if xs and (x.shape != xs[0].shape or x.dtype != xs[0].dtype):
            raise InputError(
                f"{where}, sample {index}: expected {xs[0].dtype} {list(xs[0].shape)} as the first; found {x.dtype} "
                f"{list(x.shape)}; resize or pad them"
            )
        xs.append(x)
        ys.append(y)
    return np.stack(xs), np.array(ys, np.int64)


def _sample(sample: Any, where: str) -> tuple[NDArray[Any], int]:
    if not isinstance(sample, Sequence) or len(sample) != 2:
        raise InputError(
            f"{where}: expected (x, label); found a {type(sample).__name__}; arrays go through "
            "stl_deploy.data.from_arrays(x, y)"
        )
    x, y = sample
    try:
        array = as_array(x)
    except InputError as error:
        raise InputError(f"{where}, x: {error}; add a transform to tensor") from None
    label = np.asarray(y.detach().cpu() if hasattr(y, "detach") else y)
    if label.size != 1 or label.dtype.kind not in "iu":
        raise InputError(f"{where}: expected an integer as label; found {y!r}")
    return array.astype(np.float32) if array.dtype == np.float64 else array, int(label.reshape(())[()])
