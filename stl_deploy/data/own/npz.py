"""``dataset: {name: npz, path: FILE}``: arrays of an untrusted file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from stl_deploy._util.files import read_npz, sha256
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data.own import arrays
from stl_deploy.data.own.arrays import CLASSES, GROUP, SPLITS, ArrayData
from stl_deploy.data.raw import Look, Raw
from stl_deploy.errors import InputError


def look(config: DatasetConfig) -> Look:
    """Return shape, classes and steps."""
    return arrays.look(read_arrays(Path(config.path or "")), config)


def load(config: DatasetConfig) -> Raw:
    """Load all arrays; raise InputError for a file that is missing, damaged, no npz, or whose arrays do not fit."""
    path = Path(config.path or "")
    return arrays.to_raw(read_arrays(path), config, sha256(path))


def read_arrays(path: Path) -> ArrayData:
    """Return the arrays of a file as they stand; raise InputError as `load`."""
    if not path.is_file():
        raise InputError(f"{path}: expected an .npz with x and y (key 'dataset.path'); found no such file")
    status = path.stat()
    return _cached(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _cached(path: Path, _when: int, _size: int) -> ArrayData:
    """Read once for both look and load."""
    content = read_npz(path)
    known = {f"{letter}{ending}" for letter in "xy" for ending in SPLITS} | {GROUP}
    names = content.pop(CLASSES, None)
    strange = sorted(set(content) - known)
    if strange:
        raise InputError(f"{path}: expected arrays {', '.join(sorted(known))}, {CLASSES}; found '{strange[0]}'")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise InputError(
            f"{path}: '{CLASSES}': expected one name for each class; found {names.dtype} {list(names.shape)}"
        )
    data = ArrayData(content, str(path), None if names is None else tuple(names.tolist()))
    arrays.check_arrays(data)
    return data
