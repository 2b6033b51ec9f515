"""``dataset: {name: qtdb_ecg, path: DIR}``: PhysioNet's QT database as level-crossing spikes, a label for each step.

The files QTDB_train.mat and QTDB_test.mat of Yin, Corradi and Bohte (Nature Machine Intelligence, 2021), in their
repository Efficient-spiking-networks: two leads, each with spikes where it rises and where it falls, ``[N, 1301, 4]``.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from stl_deploy._util.files import sha256
from stl_deploy._util.isolated import isolated
from stl_deploy._util.readers import read_mat
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data.own import arrays
from stl_deploy.data.own.arrays import ArrayData
from stl_deploy.data.raw import Look, Raw
from stl_deploy.errors import ConfigError, InputError

SUMMARY = "heartbeats as spikes, six waves, a label for each of 1,301 steps (dataset.path: DIR with QTDB_train.mat)"
_PARTS = {"": "QTDB_train.mat", "_test": "QTDB_test.mat"}
_CLASSES = 6
_MOST_BYTES = 2**22
_MEMORY = 2**29 + 2**28
_SECONDS = 60.0


def look(config: DatasetConfig) -> Look:
    """Return shape, classes and steps."""
    return arrays.look(_read(Path(config.path or "")), config)


def load(config: DatasetConfig) -> Raw:
    """Load both parts; raise InputError for files that are missing, damaged or of another form."""
    if config.path is None:
        raise ConfigError(f"key 'dataset.path': expected {SUMMARY} for {config.name}; found none")
    folder = Path(config.path)
    return arrays.to_raw(_read(folder), config, "+".join(sha256(folder / name)[:32] for name in _PARTS.values()))


def _read(folder: Path) -> ArrayData:
    states = []
    for name in _PARTS.values():
        path = folder / name
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: no such file, or not the one of the QT database; see docs/training.md")
        states.append((path.stat().st_mtime_ns, path.stat().st_size))
    return _cached(folder, tuple(states))


@lru_cache(maxsize=1)
def _cached(folder: Path, _states: tuple[tuple[int, int], ...]) -> ArrayData:
    """Steps without a label, one in ten, count as the first class, as in the authors' code."""
    signals = {}
    for ending, name in _PARTS.items():
        path = folder / name
        what = "a file of the QT database"
        _, (x, y) = isolated(read_mat, path, what=what, memory=_MEMORY, seconds=_SECONDS)
        if x.dtype.kind not in "iu" or y.dtype.kind not in "iu" or x.ndim != 3 or y.shape != (*x.shape[:2], _CLASSES):
            raise InputError(f"{path}: x is {x.dtype} {list(x.shape)}, y {y.dtype} {list(y.shape)}; get it again")
        signals[f"x{ending}"], signals[f"y{ending}"] = x, y.argmax(axis=2)
    data = ArrayData(signals, str(folder))
    arrays.check_arrays(data)
    return data
