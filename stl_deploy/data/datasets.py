"""The datasets by name, each with a train, a validation and a test split that depend on the seed alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data.complete import class_count, complete, sample_shape
from stl_deploy.data.raw import Raw, Shape
from stl_deploy.data.registry import names, source
from stl_deploy.errors import InputError
from stl_deploy.graph.exact import Grid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Images as integers from 0 to ``levels``, ``[N, *shape]`` uint8, and labels ``[N]`` int64.

    Sequences may have a label for each step, ``[N, T]``.

    Of events: frames of counts, ``[N, T, *shape]`` with levels 1. Own data may be float32 with levels 1, taken as they
    are; ``grid`` is then what the network's input is rounded to. groups: ``[N]`` int64, of samples that stay together
    where folds are drawn (windows of one recording); None: each alone.
    """

    pixels: Tensor
    labels: Tensor
    levels: int
    grid: Grid | None = None
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        """Return the images at ``index`` (all by default) in [0, 1], or the frames' counts, float32 ``[B, ...]``."""
        return self.pixels[index].float() / self.levels

    def part(self, count: int | None) -> slice | Tensor:
        """Return the index of ``count`` samples of the split; None, or as many as there are: all, in order.

        They are the first ones; of a split sorted by class, whose first ones lack classes, the first of a fixed
        permutation. So any part of them spans the split, too.
        """
        import torch

        if count is None or count >= len(self) or not _is_sorted_by_class(self.labels.numpy()):
            return slice(0, count)
        return torch.from_numpy(np.random.default_rng(0).permutation(len(self))[:count])

    def some(self, count: int) -> Split:
        """Return the samples at `part` alone."""
        index = self.part(count)
        groups = None if self.groups is None else self.groups[index]
        return replace(self, pixels=self.pixels[index], labels=self.labels[index], groups=groups)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset in memory: the shape of a sample, the number of classes, and the three splits.

    class_names: in order of the labels, of own data. digest: sha256 of own data.
    """

    name: str
    input_shape: Shape
    classes: int
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...] | None = None
    digest: str | None = None


def present(name: str) -> bool:
    """Return whether the dataset's files are there already: shipped, or in the cache of downloads."""
    return source(name).present()


def dataset_names() -> tuple[str, ...]:
    """Return the known datasets."""
    return names()


def whole_size(name: str) -> int | None:
    """Return the number of samples of a dataset; None if releases differ. Raises ConfigError if it is unknown."""
    return source(name).samples


def describe(name: str) -> tuple[str, Shape | None, int | None]:
    """Return a dataset's summary, input shape and number of classes, without loading it; None if its data decide.

    Raises ConfigError if it is unknown.
    """
    entry = source(name)
    return entry.summary, entry.input_shape, entry.classes


def load_dataset(config: DatasetConfig, raw: Raw | None = None) -> Dataset:
    """Load and split. Datasets with splits of their own keep them; those drawn are stratified by class.

    raw: the configuration's data, if they are in memory already.
    Raises ConfigError for an unknown name, InputError for absent or damaged files, own data that have changed since
    the training that ``config`` is of, labels or values out of range or an empty split, ToolError where a package is
    missing.
    """
    config = complete(config)
    shape, classes = sample_shape(config), class_count(config)
    if raw is None:
        raw = source(config.name).load(config)
    if config.sha256 is not None and raw.digest != config.sha256:
        raise InputError(
            f"{config.path}: the data differ from those trained on (sha256 {raw.digest or 'none'}, then "
            f"{config.sha256}); restore them, or train again"
        )
    _check_labels(config, raw, classes)
    _check_levels(config, raw)
    splits = {name: _split(raw, *part) for name, part in _parts(config, raw).items()}
    for name, split in splits.items():
        if not len(split):
            remedy = "smaller test_fraction or validation_fraction" if name == "train" else f"larger {name}_fraction"
            groups = 0 if raw.groups is None else len(np.unique(raw.groups))
            own = f"groups: found {groups}, each of which goes into one split" if groups else "samples"
            remedy += f", or more {own}"
            raise InputError(f"dataset {config.name}: the {name} split is empty; use a {remedy}")
    _check_colours(config, splits["train"])
    return Dataset(config.name, shape, classes, **splits, class_names=config.classes, digest=raw.digest)


Part = tuple[NDArray[Any], NDArray[np.int64], NDArray[Any] | None]


def _parts(config: DatasetConfig, raw: Raw) -> dict[str, Part]:
    """Return samples, labels and groups of each split; missing test, then validation splits are drawn from train."""

    def picked_of(at: NDArray[np.int64]) -> Part:
        return raw.train[at], labels[at], None if raw.groups is None else raw.groups[at]

    rng = np.random.default_rng(config.seed)
    labels, rest = raw.train_labels, np.arange(len(raw.train_labels))
    parts: dict[str, Part] = {}
    given = {"test": (raw.test, raw.test_labels), "validation": (raw.validation, raw.validation_labels)}
    for name, fraction in (("test", config.test_fraction), ("validation", config.validation_fraction)):
        samples, own = given[name]
        if samples is None or own is None:
            picked = drawn(labels if labels.ndim == 1 else np.zeros(len(labels)), raw.groups, rest, fraction, rng)
            # test is drawn first: the same test samples whatever the validation fraction
            rest = np.setdiff1d(rest, picked)
            parts[name] = picked_of(picked)
        else:
            parts[name] = samples, own, None
    parts["train"] = picked_of(rest)
    return {name: parts[name] for name in ("train", "validation", "test")}


def _check_labels(config: DatasetConfig, raw: Raw, classes: int) -> None:
    for labels in (raw.train_labels, raw.validation_labels, raw.test_labels):
        if labels is not None and len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            bounds = f"{labels.min()} to {labels.max()}"
            raise InputError(f"dataset {config.name}: expected labels from 0 to {classes - 1}; found {bounds}")


def _check_levels(config: DatasetConfig, raw: Raw) -> None:
    """Raise InputError if the input's grid follows from ``levels``, but samples are no integers up to it."""
    if config.levels is None or raw.grid is not None:
        return
    for x in (raw.train, raw.validation, raw.test):
        if x is None or not x.size:
            continue
        largest = max(-float(x.min()), float(x.max()))
        whole = x.dtype.kind in "ub" or bool((x == np.round(x)).all())
        if largest > raw.levels or not whole:
            values = f"values up to {largest:g}" if largest > raw.levels else "others"
            raise InputError(
                f"{config.path}: expected integers up to {raw.levels} (key 'dataset.levels', the value that means "
                f"1); found {values}; name the largest value that may occur, or leave levels out"
            )


def _check_colours(config: DatasetConfig, split: Split) -> None:
    """Raise InputError if values would be lost, as colour changes clip at 0 and 1."""
    if "colour" not in (config.augment or ()):
        return
    low, high = float(split.pixels.min()) / split.levels, float(split.pixels.max()) / split.levels
    if not 0 <= low <= high <= 1:
        raise InputError(
            f"{config.path or config.name}: expected values from 0 to 1 for dataset.augment colour; found {low:g} to "
            f"{high:g}; scale them, or leave colour out"
        )


def _is_sorted_by_class(labels: NDArray[np.int64]) -> bool:
    """Return whether neighbours differ in label less than half as often as in random order; no for ``[N, T]``."""
    if labels.ndim != 1 or len(labels) < 2:
        return False
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return bool((labels[1:] != labels[:-1]).mean() < (1 - (shares**2).sum()) / 2)


def drawn(
    labels: NDArray[Any],
    groups: NDArray[Any] | None,
    among: NDArray[np.int64],
    fraction: float,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw samples of a split, stratified by class; groups stay whole, each counted under its commonest label."""
    if groups is None:
        return _stratified(labels, among, fraction, rng)
    names, members = np.unique(groups, return_inverse=True)
    kinds = np.array([_commonest(labels[members == number]) for number in range(len(names))])
    picked = _stratified(kinds, np.unique(members[among]), fraction, rng)
    return among[np.isin(members[among], picked)]


def _commonest(labels: NDArray[Any]) -> Any:
    values, counts = np.unique(labels, return_counts=True)
    return values[counts.argmax()]


def _stratified(
    labels: NDArray[Any], among: NDArray[np.int64], fraction: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw ``fraction`` of all images of each class in ``among``; sorted."""
    picked = []
    for label in np.unique(labels[among]):
        members = among[labels[among] == label]
        count = round(fraction * int((labels == label).sum()))
        picked.append(rng.permutation(members)[:count])
    return np.sort(np.concatenate(picked)) if picked else np.zeros(0, np.int64)


def _split(raw: Raw, samples: NDArray[Any], labels: NDArray[np.int64], groups: NDArray[Any] | None) -> Split:
    import torch

    held = samples if samples.flags.writeable else samples.copy()  # torch takes no others
    members = None if groups is None else torch.from_numpy(np.unique(groups, return_inverse=True)[1])
    return Split(torch.from_numpy(held), torch.from_numpy(labels), raw.levels, raw.grid, members)
