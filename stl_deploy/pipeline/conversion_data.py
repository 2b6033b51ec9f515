"""Split the data of a conversion: samples to calibrate and learn on, to choose on, and to judge on."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stl_deploy._util.arrays import as_array
from stl_deploy._util.caller import warn_caller
from stl_deploy._util.npz import names_in, read_npz
from stl_deploy._util.remedies import did_you_mean
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data import ArrayData, from_arrays, from_datasets, load_dataset
from stl_deploy.data.datasets import drawn
from stl_deploy.data.own.arrays import GROUP
from stl_deploy.data.own.npz import read_arrays
from stl_deploy.data.registry import names
from stl_deploy.errors import InputError
from stl_deploy.pipeline.evaluate_graph import labelled_batches

_DRAWN = {"_test": 0.2, "_val": 0.1}
"""Shares of the samples that are drawn for splits that are not given: those of training, which draws the same ones."""
_AT_ONCE = 64
_DARK = 64
"""Images whose pixels all stay below are other numbers, it seems."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Samples to calibrate and learn on, to choose on, and to judge on; labels None: there are none."""

    train: Tensor
    held_out: tuple[Tensor, Tensor] | None
    test: tuple[Tensor, Tensor] | None


def parts_of(data: Any, *, whole: bool = False) -> Parts:
    """Return the three disjoint parts of the data; raise InputError for what is none.

    whole: all is judged, unless there is a test split.
    """
    arrays = _arrays(data)
    if "x" not in arrays:
        raise InputError(f"{data}: expected an array 'x' [N, *shape], and 'y' for labels; found neither")
    x = _floats(arrays["x"])
    if not bool(torch.isfinite(x).all()):
        raise InputError("data: expected finite numbers; found NaN or infinity")
    if "y" not in arrays:
        return Parts(x, None, None)
    for name in ("y", "y_val", "y_test"):
        if name in arrays and arrays[name].ndim != 1:
            raise InputError(f"data: expected labels [N], one a sample; found {name} {list(arrays[name].shape)}")
    if whole:
        split = "_test" if "x_test" in arrays else ""
        return Parts(x, None, (_floats(arrays[f"x{split}"]), torch.from_numpy(arrays[f"y{split}"].astype(np.int64))))
    labels, rest = arrays["y"].astype(np.int64), np.arange(len(x))
    random = np.random.default_rng(0)
    judged = {}
    for ending, share in _DRAWN.items():
        if f"x{ending}" in arrays:
            judged[ending] = _floats(arrays[f"x{ending}"]), torch.from_numpy(arrays[f"y{ending}"].astype(np.int64))
        else:
            picked = drawn(labels, arrays.get(GROUP), rest, share, random)
            rest = np.setdiff1d(rest, picked)
            judged[ending] = x[picked], torch.from_numpy(labels[picked])
    np.random.default_rng(0).shuffle(rest)  # whether or not splits were drawn
    if not len(rest) or not all(len(part) for part, _ in judged.values()):
        have = f"found {len(x)}; give 10 or more of each class"
        raise InputError(f"data: expected samples to calibrate, choose and judge on; {have}")
    return Parts(x[rest], judged["_val"], judged["_test"])


def _arrays(data: Any) -> Mapping[str, Any]:
    """Return x, y and the splits that the data have as arrays by name."""
    if isinstance(data, ArrayData):
        return data.arrays
    if isinstance(data, str | Path):
        return _read(Path(data)) if Path(data).exists() else _named(str(data))
    if isinstance(data, Tensor | np.ndarray):
        return {"x": as_array(data)}
    if isinstance(data, tuple | list) and len(data) == 2 and data[1] is None:
        return _arrays(data[0])
    if (unlabelled := _unlabelled(data)) is not None:
        return {"x": unlabelled}
    if (
        isinstance(data, tuple | list)
        and len(data) == 2
        and all(isinstance(each, Tensor | np.ndarray) for each in data)
    ):
        return from_arrays(*data).arrays
    if isinstance(data, torch.utils.data.DataLoader):
        batches = list(labelled_batches(data))
        if not batches:
            raise InputError("data: expected batches (x, labels); found none")
        xs, ys = zip(*batches, strict=True)
        return from_arrays(np.concatenate([as_array(x) for x in xs]), np.concatenate(ys)).arrays
    return from_datasets(data).arrays


def _unlabelled(data: Any) -> NDArray[Any] | None:
    """Return the samples of a Dataset, or of a loader's batches, that has no labels; None for other data."""
    if isinstance(data, torch.utils.data.Dataset) and isinstance(data, Sized) and len(data):
        data = torch.utils.data.DataLoader(data, batch_size=_AT_ONCE)
    if not isinstance(data, torch.utils.data.DataLoader):
        return None
    first = next(iter(data), None)
    if not isinstance(first, Tensor) and not (isinstance(first, list | tuple) and len(first) == 1):
        return None
    batches = (batch if isinstance(batch, Tensor) else batch[0] for batch in data)
    return np.concatenate([as_array(batch) for batch in batches])


def _named(name: str) -> Mapping[str, Any]:
    """Return the arrays of a ready-made dataset."""
    if name not in names():
        close = did_you_mean(name, names())
        raise InputError(f"data: expected a dataset's name, an npz file or a folder; found no '{name}'{close}")
    return _loaded(DatasetConfig(name=name))


def _read(path: Path) -> Mapping[str, Any]:
    """Return the arrays of an npz file, with labels or without, or of a folder of images."""
    if path.is_dir():
        return _loaded(DatasetConfig(name="folder", path=str(path)))
    if "y" not in names_in(path):
        return read_npz(path, lambda name: name == "x")
    return read_arrays(path).arrays


def _loaded(config: DatasetConfig) -> Mapping[str, Any]:
    """Return a dataset's splits as arrays."""
    dataset = load_dataset(config)
    parts = {"": dataset.train, "_val": dataset.validation, "_test": dataset.test}
    images = {f"x{ending}": split.images().numpy() for ending, split in parts.items()}
    return images | {f"y{ending}": split.labels.numpy() for ending, split in parts.items()}


def _floats(x: Any) -> Tensor:
    """Return samples as the ANN takes them: 8-bit images in [0, 1], other numbers as they are."""
    array = as_array(x)
    if array.dtype == np.uint8 and 0 < array.max(initial=0) < _DARK:
        warn_caller(f"x: 8-bit integers are pixels and become x / 255; the largest is {array.max()}: else give floats")
    scaled = array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)
    return torch.from_numpy(np.ascontiguousarray(scaled, np.float32))
