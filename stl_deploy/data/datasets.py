"""The datasets by name, each with a train, a validation and a test split that depend on the seed alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stl_deploy.config import DatasetConfig
from stl_deploy.data.sources import Raw, cifar10, digits, fashion_mnist, mnist
from stl_deploy.errors import ConfigError, InputError

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Split:
    """Images as whole numbers from 0 to ``levels``, ``[N, *shape]`` uint8, and labels ``[N]`` int64."""

    pixels: Tensor
    labels: Tensor
    levels: int

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        """The images at ``index`` (all by default) in [0, 1], float32 ``[B, *shape]``."""
        return self.pixels[index].to(torch.float32) / self.levels


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset in memory: the shape of a sample, the number of classes, and the three splits."""

    name: str
    input_shape: Shape
    classes: int
    train: Split
    validation: Split
    test: Split


@dataclass(frozen=True)
class _Entry:
    load: Callable[[Path | None], Raw]
    input_shape: Shape
    classes: int
    summary: str


_REGISTRY: Mapping[str, _Entry] = {
    "digits": _Entry(digits, (1, 8, 8), 10, "1,797 handwritten digits, 8x8; ships with scikit-learn"),
    "mnist": _Entry(mnist, (1, 28, 28), 10, "70,000 handwritten digits, 28x28"),
    "fashion_mnist": _Entry(fashion_mnist, (1, 28, 28), 10, "70,000 pictures of clothes, 28x28"),
    "cifar10": _Entry(cifar10, (3, 32, 32), 10, "60,000 colour pictures of ten kinds of things, 32x32"),
}


def dataset_names() -> tuple[str, ...]:
    """The datasets there are."""
    return tuple(_REGISTRY)


def describe(name: str) -> tuple[str, Shape, int]:
    """A dataset's summary, input shape and number of classes, without loading it; raises ConfigError if unknown."""
    entry = _entry(name)
    return entry.summary, entry.input_shape, entry.classes


def load_dataset(config: DatasetConfig) -> Dataset:
    """Load and split. Datasets with a test split of their own keep it; the splits are stratified by class.

    Raises ConfigError for an unknown name, InputError for absent or damaged files, labels out of range or an
    empty split, ToolError where torchvision is needed and missing.
    """
    entry = _entry(config.name)
    raw = entry.load(Path(config.data_dir) if config.data_dir is not None else None)
    for labels in (raw.train_labels, raw.test_labels):
        if labels is not None and len(labels) and not 0 <= labels.min() <= labels.max() < entry.classes:
            found = f"{labels.min()} to {labels.max()}"
            raise InputError(f"dataset {config.name}: labels {found}; 0 to {entry.classes - 1} are accepted")
    rng = np.random.default_rng(config.seed)
    labels = raw.train_labels
    rest = np.arange(len(labels))
    if raw.test is None or raw.test_labels is None:
        picked = _stratified(labels, rest, config.test_fraction, rng)
        test, rest = _split(raw.train, labels, picked, raw.levels), np.setdiff1d(rest, picked)
    else:
        test = _split(raw.test, raw.test_labels, np.arange(len(raw.test_labels)), raw.levels)
    held = _stratified(labels, rest, config.validation_fraction, rng)
    validation = _split(raw.train, labels, held, raw.levels)
    train = _split(raw.train, labels, np.setdiff1d(rest, held), raw.levels)
    for name, split in {"train": train, "validation": validation, "test": test}.items():
        if not len(split):
            raise InputError(f"dataset {config.name}: the {name} split is empty; use another {name}_fraction")
    return Dataset(config.name, entry.input_shape, entry.classes, train, validation, test)


def _entry(name: str) -> _Entry:
    if name not in _REGISTRY:
        raise ConfigError(f"key 'dataset.name' is {name!r}; accepted: {', '.join(_REGISTRY)}")
    return _REGISTRY[name]


def _stratified(
    labels: NDArray[np.int64], among: NDArray[np.int64], fraction: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Of each class in ``among``, ``fraction`` of all images of that class, drawn at random; sorted."""
    picked = []
    for label in np.unique(labels[among]):
        members = among[labels[among] == label]
        count = round(fraction * int((labels == label).sum()))
        picked.append(rng.permutation(members)[:count])
    return np.sort(np.concatenate(picked)) if picked else np.zeros(0, np.int64)


def _split(pixels: NDArray[np.uint8], labels: NDArray[np.int64], index: NDArray[np.int64], levels: int) -> Split:
    return Split(torch.from_numpy(pixels[index]), torch.from_numpy(labels[index]), levels)
