"""Turn labelled arrays, from an npz file or Python, into data, and report their faults."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import as_array, label_remedy
from stl_deploy._util.files import MAX_ARRAY_BYTES, write_npz
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data.raw import Look, Raw
from stl_deploy.data.sensors import sensed, unit_missing
from stl_deploy.data.transforms import TIMED_ENCODERS
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.graph.exact import Grid

SPLITS = {"": "train", "_val": "validation", "_test": "test"}
"""The endings of an npz file's arrays, and the splits that they are."""
CLASSES, GROUP = "classes", "group"
_MOST_AXES = 3
_IMAGE_BITS = 8
_IMAGE_CHANNELS = (1, 3, 4)
_MOST_CHANNELS = max(_IMAGE_CHANNELS)


@dataclass(frozen=True, eq=False)
class ArrayData:
    """Arrays by name: ``x`` ``[N, *shape]`` or ``[N, T, *shape]`` and ``y`` ``[N]``, with ``_val`` and ``_test``.

    Of sequences ``y`` may be ``[N, T]``: a label for each step. ``group`` ``[N]``: samples of ``x`` that stay together.
    where: their origin, for messages. classes: names in order of the labels, if they have names.
    """

    arrays: Mapping[str, NDArray[Any]]
    where: str
    classes: tuple[str, ...] | None = None

    def write(self, path: Path) -> None:
        """Write an npz file that ``dataset: {name: npz, path: ...}`` reads, whole or not at all."""
        names = {} if self.classes is None else {CLASSES: np.array(self.classes, np.str_)}
        write_npz(path, {**self.arrays, **names})


def from_arrays(
    x: Any,
    y: Any,
    *,
    x_val: Any = None,
    y_val: Any = None,
    x_test: Any = None,
    y_test: Any = None,
    group: Any = None,
    classes: Sequence[str] | None = None,
) -> ArrayData:
    """Return arrays as data for `stl_deploy.train`; numpy or torch.

    Missing splits are drawn from ``x`` with the configuration's seed and fractions.

    Args:
        x: Static samples ``[N, *shape]`` or sequences ``[N, T, *shape]``; 8-bit integers are images from 0 to 255,
            other values are used unchanged.
        y: Integers ``[N]``, or for sequences ``[N, T]``, one per step.
        group: Numbers or names ``[N]``; samples of one group, such as windows of one recording, go into one split.
        classes: Names in the order of the labels.

    Raises:
        InputError: For arrays that do not fit together, are not numeric, or hold NaN.

    Examples:
        >>> data = stl_deploy.data.from_arrays(x, y, x_test=x_test, y_test=y_test)
        >>> run = stl_deploy.train("digits", data=data)
    """
    given = {"x": x, "y": y, "x_val": x_val, "y_val": y_val, "x_test": x_test, "y_test": y_test}
    arrays = {name: _numpy(name, value) for name, value in given.items() if value is not None}
    if group is not None:
        arrays[GROUP] = np.asarray(group)
    data = ArrayData(arrays, "from_arrays", None if classes is None else tuple(str(name) for name in classes))
    check_arrays(data)
    return data


def _numpy(name: str, value: Any) -> NDArray[Any]:
    try:
        array = as_array(value)
    except InputError as error:
        raise InputError(f"from_arrays: '{name}': {error}") from None
    return array.astype(np.float32) if array.dtype == np.float64 and name.startswith("x") else array


def check_arrays(data: ArrayData) -> None:
    """Raise InputError if arrays are missing, of wrong types or sizes, or hold NaN or infinity."""
    for ending, split in SPLITS.items():
        x, y = data.arrays.get(f"x{ending}"), data.arrays.get(f"y{ending}")
        if x is None and y is None and ending:
            continue
        if x is None or y is None:
            raise InputError(
                f"{data.where}: expected x and y in the {split} split; found no '{'y' if y is None else 'x'}{ending}'"
            )
        _check_x(data, f"x{ending}", x)
        by_step = data.arrays["y"].ndim == 2
        if y.shape != x.shape[: 1 + by_step] or y.dtype.kind not in "iu":
            # One-hot rows, or a column, have two axes, too; they mean one label for each sample.
            per_step = by_step and not (y.ndim == 2 and label_remedy(y, len(x)) is not None)
            expected = ", ".join(map(str, x.shape[: 1 + per_step]))
            raise InputError(
                f"{data.where}: 'y{ending}': expected integers [{expected}], a label for each "
                f"{'step of each sample' if per_step else 'sample'}; found {y.dtype} {list(y.shape)}"
                f"{_label_remedy(x, y)}"
            )
        if len(y) and int(y.min()) < 0:
            raise InputError(f"{data.where}: 'y{ending}': expected labels from 0; found {int(y.min())}")
    group = data.arrays.get(GROUP)
    if group is not None and (group.shape != data.arrays["x"].shape[:1] or group.dtype.kind not in "iuU"):
        raise InputError(
            f"{data.where}: '{GROUP}': expected integers or names [{len(data.arrays['x'])}], one for each sample "
            f"of 'x'; found {group.dtype} {list(group.shape)}"
        )
    _check_classes(data)


def _label_remedy(x: NDArray[Any], y: NDArray[Any]) -> str:
    """Name the likely mistake behind labels that do not fit: one-hot rows, floats, names, or time first."""
    known = label_remedy(y, len(x), "y")
    if known is not None:
        return f"; {known}"
    if y.ndim == 1 and x.ndim > 2 and len(y) == x.shape[1]:
        return f"; samples come first: if x is [T, N, ...], give x.swapaxes(0, 1), {list(x.swapaxes(0, 1).shape)}"
    if y.shape[:1] == x.shape[:1] and y.dtype.kind == "f" and bool((y == y.round()).all()):
        return "; give y as int64"
    if y.shape == x.shape[:1] and y.dtype.kind in "US":
        return "; give classes, y = numpy.unique(y, return_inverse=True)"
    return ""


def _check_x(data: ArrayData, name: str, x: NDArray[Any]) -> None:
    first = data.arrays["x"]
    if x.dtype.kind not in "fiub":
        raise InputError(f"{data.where}: '{name}': expected floats, integers or bool; found {x.dtype}")
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(
            f"{data.where}: '{name}': expected [N, *shape] or [N, T, *shape], N >= 1; found {list(x.shape)}"
        )
    if x.shape[1:] != first.shape[1:] or x.dtype != first.dtype:
        raise InputError(
            f"{data.where}: '{name}': expected samples of {first.dtype} {list(first.shape[1:])} as in 'x'; found "
            f"{x.dtype} {list(x.shape[1:])}"
        )
    if x.nbytes > MAX_ARRAY_BYTES:
        raise InputError(f"{data.where}: '{name}': expected at most {MAX_ARRAY_BYTES:,} bytes; found {x.nbytes:,}")
    if x.dtype.kind == "f" and not bool((np.abs(x) <= np.finfo(np.float32).max).all()):
        raise InputError(f"{data.where}: '{name}': expected finite numbers; found NaN, or values beyond float32")


_MOST_LABELS = 10_000


def _labels(data: ArrayData) -> NDArray[Any]:
    """Return the labels of all splits, flat."""
    return np.concatenate([y.reshape(-1) for name, y in data.arrays.items() if name.startswith("y")])


def _check_classes(data: ArrayData) -> None:
    labels = _labels(data)
    most = int(labels.max(initial=0))
    if data.classes is not None and most >= len(data.classes):
        raise InputError(
            f"{data.where}: expected labels below {len(data.classes)}, the classes that are named; found {most}"
        )
    if data.classes is not None or most >= _MOST_LABELS:
        return
    if without := sorted(set(range(most + 1)) - set(labels.tolist())):
        shown = ", ".join(map(str, without[:5])) + ", ..." * (len(without) > 5)
        warnings.warn(
            f"{data.where}: no sample has the label {shown}; labels count from 0, so there are {most + 1} classes",
            stacklevel=2,
        )


def class_names(data: ArrayData, config: DatasetConfig) -> tuple[str, ...]:
    """Return names by the configuration, else by the data, else the labels themselves."""
    most = int(_labels(data).max(initial=0))
    named = config.classes or data.classes or tuple(str(label) for label in range(most + 1))
    if most >= len(named):
        raise ConfigError(
            f"key 'dataset.classes': expected {most + 1} names or more, as {data.where} has labels; found {len(named)}"
        )
    return named


def look(data: ArrayData, config: DatasetConfig) -> Look:
    """Return shape of a sample at one step, classes, and steps; raise ConfigError if the axes are ambiguous."""
    x = sensed(data.arrays["x"] if unit_missing(config) else data.arrays["x"][:1], config, data.where)
    shape, steps = sample_axes(x.shape[1:], config, data.where)
    if steps is None and data.arrays["y"].ndim == 2:
        raise ConfigError(
            f"{data.where}: expected one label for each sample; found one for each step; for sequences say "
            "dataset.encoder: sequence"
        )
    _warn_of_channels_last(shape, steps is not None, data.where)
    return Look(shape, class_names(data, config), steps)


def _warn_of_channels_last(shape: tuple[int, ...], timed: bool, where: str) -> None:
    if len(shape) == _MOST_AXES and min(shape[:2]) > _MOST_CHANNELS and shape[2] in _IMAGE_CHANNELS:
        order = (0, 1, 4, 2, 3) if timed else (0, 3, 1, 2)
        warnings.warn(
            f"{where}: samples of {list(shape)} are read as [channels, height, width], {shape[0]} channels; if they "
            f"are [height, width, channels], give x.transpose{order}",
            stacklevel=2,
        )


def sample_axes(axes: tuple[int, ...], config: DatasetConfig, where: str) -> tuple[tuple[int, ...], int | None]:
    """Return the shape of one step, and the number of steps (None: static), of samples with these axes.

    The encoder decides, if the configuration names one; else four axes are [T, C, H, W] and one is [features]; three
    are an image [C, H, W], and two are unclear. An image without channels gets one.
    """
    named = config.encoder if "encoder" in config.model_fields_set else None
    timed = named in TIMED_ENCODERS if named is not None else len(axes) > _MOST_AXES
    if named is None and len(axes) == 2:
        raise ConfigError(
            f"{where}: samples are {list(axes)}: is the first axis time, or is it an image without channels? say "
            "dataset.encoder: sequence for the one, or dataset.encoder: direct for the other"
        )
    shape, steps = (axes[1:], axes[0]) if timed else (axes, None)
    if len(shape) == 2 and not timed:
        shape = (1, *shape)
    if not 1 <= len(shape) <= _MOST_AXES:
        form = "[T, features] or [T, channels, height, width]" if timed else "[features] or [channels, height, width]"
        remedy = "" if timed else "; for sequences say dataset.encoder: sequence"
        raise ConfigError(f"{where}: expected samples {form}; found {list(axes)}{remedy}")
    return shape, steps


def to_raw(data: ArrayData, config: DatasetConfig, digest: str | None) -> Raw:
    """Return arrays for training: 8-bit images and integers as stored, everything else in float32."""
    samples = {name: sensed(x, config, data.where) for name, x in data.arrays.items() if name.startswith("x")}
    shape, steps = sample_axes(samples["x"].shape[1:], config, data.where)
    levels = config.levels or (255 if samples["x"].dtype == np.uint8 and steps is None else 1)
    splits: dict[str, Any] = {}
    for ending, split in SPLITS.items():
        x = samples.get(f"x{ending}")
        splits[split] = splits[f"{split}_labels"] = None
        if x is not None:
            axes = shape if steps is None else (steps, *shape)
            splits[split] = _stored(x).reshape(len(x), *axes)
            splits[f"{split}_labels"] = data.arrays[f"y{ending}"].astype(np.int64)
    xs = [x for split, x in splits.items() if not split.endswith("labels") and x is not None]
    _check_unit(xs, levels, config, data.where)
    grid, groups = input_grid(xs, levels, config), data.arrays.get(GROUP)
    return Raw(**splits, levels=levels, timed=steps is not None, grid=grid, digest=digest, groups=groups)


def _stored(x: NDArray[Any]) -> NDArray[Any]:
    if x.dtype in (np.uint8, np.bool_):
        return x.astype(np.uint8, copy=False)
    return x.astype(np.float32)


def _check_unit(xs: Sequence[NDArray[Any]], levels: int, config: DatasetConfig, where: str) -> None:
    """Raise ConfigError if an encoder of values from 0 to 1 gets others."""
    low, high = min(float(x.min()) for x in xs) / levels, max(float(x.max()) for x in xs) / levels
    if config.encoder in ("bernoulli", "latency") and not 0 <= low <= high <= 1:
        raise ConfigError(
            f"{where}: expected values from 0 to 1 for the encoder {config.encoder!r}; found {low:g} to {high:g}; "
            "scale them, or name the value that means 1, of integers, with dataset.levels"
        )


def input_grid(xs: Sequence[NDArray[Any]], levels: int, config: DatasetConfig) -> Grid | None:
    """Return the grid of the network's input, or the grid to round it to; None: that of images with ``levels``."""
    if config.input_grid is None and levels != 1:
        return None
    bound = max(float(np.abs(x).max()) for x in xs) / levels
    if config.input_grid is not None:
        bits = config.input_grid
    elif levels == 1 and all(x.dtype.kind in "ub" or (x == np.round(x)).all() for x in xs):
        bits = 0  # spikes and counts are integers already
    else:
        bits = _IMAGE_BITS
    return Grid(bits, max(round(bound * 2.0**bits), 1) / 2.0**bits)
