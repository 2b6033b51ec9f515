"""The datasets by name, each with a train, a validation and a test split that depend on the seed alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stl_deploy._util.files import cache_dir
from stl_deploy._util.suggest import did_you_mean
from stl_deploy.config.schema import DatasetConfig, Encoder
from stl_deploy.data.encoders import EVENT_ENCODERS
from stl_deploy.data.event_sources import EVENT_SOURCES
from stl_deploy.data.events import shrunk
from stl_deploy.data.sources import Raw, cifar10, cifar100, digits, fashion_mnist, mnist
from stl_deploy.errors import ConfigError, InputError

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Split:
    """Images as whole numbers from 0 to ``levels``, ``[N, *shape]`` uint8, and labels ``[N]`` int64.

    Of events: frames of counts, ``[N, T, *shape]`` with levels 1.
    """

    pixels: Tensor
    labels: Tensor
    levels: int

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, index: Tensor | slice = slice(None)) -> Tensor:
        """The images at ``index`` (all by default) in [0, 1], or the frames' counts, float32 ``[B, ...]``."""
        return self.pixels[index].to(torch.float32) / self.levels

    def first(self, count: int) -> Split:
        """The first ``count`` images alone (all, if there are fewer)."""
        return replace(self, pixels=self.pixels[:count], labels=self.labels[:count])


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
    """samples: of the whole dataset, where that is one number."""

    load: Callable[[DatasetConfig], Raw]
    input_shape: Shape
    classes: int
    samples: int | None
    summary: str


def _images(read: Callable[[Path | None], Raw]) -> Callable[[DatasetConfig], Raw]:
    return lambda config: read(Path(config.data_dir) if config.data_dir is not None else None)


def _events(name: str, classes: int, samples: int | None, summary: str) -> _Entry:
    return _Entry(EVENT_SOURCES[name].load, EVENT_SOURCES[name].shape, classes, samples, summary)


_REGISTRY: Mapping[str, _Entry] = {
    "digits": _Entry(_images(digits), (1, 8, 8), 10, 1_797, "handwritten digits, 8x8; ships with scikit-learn"),
    "mnist": _Entry(_images(mnist), (1, 28, 28), 10, 70_000, "handwritten digits, 28x28"),
    "fashion_mnist": _Entry(_images(fashion_mnist), (1, 28, 28), 10, 70_000, "pictures of clothes, 28x28"),
    "cifar10": _Entry(_images(cifar10), (3, 32, 32), 10, 60_000, "colour pictures of ten kinds of things, 32x32"),
    "cifar100": _Entry(_images(cifar100), (3, 32, 32), 100, 60_000, "colour pictures of a hundred kinds, 32x32"),
    "n_mnist": _events("n_mnist", 10, 70_000, "MNIST seen by a moving event camera, 34x34, 2 polarities"),
    "dvs128_gesture": _events("dvs128_gesture", 11, None, "hand gestures seen by an event camera, 128x128"),
    "cifar10_dvs": _events("cifar10_dvs", 10, 10_000, "CIFAR-10 pictures moved before an event camera, 128x128"),
    "shd": _events("shd", 20, 10_420, "spoken digits, English and German, as spikes of 700 cochlear channels"),
}


def sample_shape(config: DatasetConfig) -> Shape:
    """What one sample is at one step, without loading any; raises ConfigError if too little of it would be left."""
    shape = _entry(config.name).input_shape
    if config.downscale == 1:
        return shape
    if config.name not in EVENT_SOURCES:
        raise ConfigError(f"key 'dataset.downscale' is {config.downscale}; {config.name} has no events, 1 is accepted")
    if 0 in (small := shrunk(shape, config.downscale)):
        raise ConfigError(f"key 'dataset.downscale' is {config.downscale}; nothing is left of {list(shape)}")
    return small


def check_dataset(config: DatasetConfig) -> tuple[Shape, int]:
    """Shape of a sample and number of classes, without loading any; raises ConfigError where settings do not fit."""
    entry = _entry(config.name)
    _check_encoder(config)
    return sample_shape(config), entry.classes


def present(name: str) -> bool:
    """Whether the dataset's files are there already: shipped, or in the cache of downloads."""
    if name in EVENT_SOURCES:
        return EVENT_SOURCES[name].files(cache_dir()) is not None
    folders = {
        "mnist": "MNIST/raw",
        "fashion_mnist": "FashionMNIST/raw",
        "cifar10": "cifar-10-batches-py",
        "cifar100": "cifar-100-python",
    }
    return name not in folders or (cache_dir() / folders[name]).is_dir()


def dataset_names() -> tuple[str, ...]:
    """The datasets there are."""
    return tuple(_REGISTRY)


def whole_size(name: str) -> int | None:
    """How many samples the whole dataset has; None where releases differ. Raises ConfigError if it is unknown."""
    return _entry(name).samples


def describe(name: str) -> tuple[str, Shape, int]:
    """A dataset's summary, input shape and number of classes, without loading it; raises ConfigError if unknown."""
    entry = _entry(name)
    return entry.summary, entry.input_shape, entry.classes


def load_dataset(config: DatasetConfig) -> Dataset:
    """Load and split. Datasets with a test split of their own keep it; the splits are stratified by class.

    Raises ConfigError for an unknown name, InputError for absent or damaged files, labels out of range or an
    empty split, ToolError where torchvision is needed and missing.
    """
    shape, _ = check_dataset(config)
    entry = _entry(config.name)
    raw = entry.load(config)
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
    return Dataset(config.name, shape, entry.classes, train, validation, test)


def _check_encoder(config: DatasetConfig) -> None:
    events, takes_events = config.name in EVENT_SOURCES, config.encoder in EVENT_ENCODERS
    if events != takes_events:
        accepted = EVENT_ENCODERS if events else [e for e in get_args(Encoder) if e not in EVENT_ENCODERS]
        raise ConfigError(
            f"key 'dataset.encoder' is {config.encoder!r}; of {config.name}, "
            f"{'events' if events else 'images'}, {', '.join(accepted)} are accepted"
        )


def _entry(name: str) -> _Entry:
    if name not in _REGISTRY:
        close = did_you_mean(name, _REGISTRY)
        raise ConfigError(f"key 'dataset.name' is {name!r}{close}; accepted: {', '.join(_REGISTRY)}")
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
