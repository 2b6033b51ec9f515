"""Datasets by name: built-in ones, own data, and those of other packages.

Another package adds one through the entry point group ``stl_deploy.datasets``: a name, and a `Source`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from stl_deploy._util import foreign
from stl_deploy._util.files import cache_dir
from stl_deploy._util.remedies import did_you_mean
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data.event_sources import EVENT_SOURCES
from stl_deploy.data.own import folder, npz, python_file, qtdb_ecg
from stl_deploy.data.raw import Look, Raw, Shape
from stl_deploy.data.sources import cifar10, cifar100, digits, fashion_mnist, mnist
from stl_deploy.errors import ConfigError, InputError

GROUP = "stl_deploy.datasets"


@dataclass(frozen=True)
class Source:
    """One dataset.

    load: all samples. look: shape, classes and steps before they are loaded; of own data, which a configuration
    decides. input_shape, classes: of one that has them by itself. samples: of the whole dataset, where that is one
    number. takes_data_dir: whether its files lie somewhere. present: whether they are there already.
    """

    load: Callable[[DatasetConfig], Raw]
    summary: str
    input_shape: Shape | None = None
    classes: int | None = None
    samples: int | None = None
    look: Callable[[DatasetConfig], Look] | None = None
    takes_data_dir: bool = True
    events: bool = False
    present: Callable[[], bool] = lambda: True


def _images(
    read: Callable[[Path | None], Raw], summary: str, shape: Shape, samples: int, kept: str | None, classes: int = 10
) -> Source:
    """Pictures. kept: where in the cache a download lies; None: they come with a package."""
    return Source(
        lambda config: read(Path(config.data_dir) if config.data_dir is not None else None),
        summary,
        shape,
        classes,
        samples,
        takes_data_dir=kept is not None,
        present=lambda: kept is None or any(path.is_file() for path in (cache_dir() / kept).rglob("*")),
    )


def _events(name: str, classes: int, samples: int | None, summary: str) -> Source:
    source = EVENT_SOURCES[name]
    return Source(
        source.load,
        summary,
        source.shape,
        classes,
        samples,
        events=True,
        present=lambda: source.files(cache_dir()) is not None,
    )


def _own(load: Callable[[DatasetConfig], Raw], look: Callable[[DatasetConfig], Look], summary: str) -> Source:
    return Source(load, summary, look=look, takes_data_dir=False)


_SHIPPED: Mapping[str, Source] = {
    "digits": _images(digits, "handwritten digits, 8x8; ships with scikit-learn", (1, 8, 8), 1_797, None),
    "mnist": _images(mnist, "handwritten digits, 28x28", (1, 28, 28), 70_000, "MNIST/raw"),
    "fashion_mnist": _images(fashion_mnist, "pictures of clothes, 28x28", (1, 28, 28), 70_000, "FashionMNIST/raw"),
    "cifar10": _images(
        cifar10, "colour pictures of ten kinds of things, 32x32", (3, 32, 32), 60_000, "cifar-10-batches-py"
    ),
    "cifar100": _images(
        cifar100, "colour pictures of a hundred kinds, 32x32", (3, 32, 32), 60_000, "cifar-100-python", classes=100
    ),
    "n_mnist": _events("n_mnist", 10, 70_000, "MNIST seen by a moving event camera, 34x34, 2 polarities"),
    "dvs128_gesture": _events("dvs128_gesture", 11, None, "hand gestures seen by an event camera, 128x128"),
    "cifar10_dvs": _events("cifar10_dvs", 10, 10_000, "CIFAR-10 pictures moved before an event camera, 128x128"),
    "shd": _events("shd", 20, 10_420, "spoken digits, English and German, as spikes of 700 cochlear channels"),
    "qtdb_ecg": _own(qtdb_ecg.load, qtdb_ecg.look, qtdb_ecg.SUMMARY),
    "folder": _own(folder.load, folder.look, "own images, a sub-folder for each class (dataset.path: DIR)"),
    "npz": _own(npz.load, npz.look, "own arrays x and y of an npz file (dataset.path: FILE)"),
    "python": _own(
        python_file.load,
        python_file.look,
        "torch Datasets that a function of yours returns (dataset.path: FILE.py:NAME)",
    ),
}


def names() -> tuple[str, ...]:
    """Return the name of every dataset, those of other packages last; built-in names cannot be replaced."""
    return tuple(dict.fromkeys([*_SHIPPED, *(entry.name for entry in entry_points(group=GROUP))]))


def source(name: str) -> Source:
    """Return the dataset of that name, of another package only if none of ours has it.

    Raises:
        ConfigError: If there is none.
        InputError: If the package cannot be imported, or gives no `Source`.
    """
    if name in _SHIPPED:
        return _SHIPPED[name]
    if name not in names():
        known = names()
        raise ConfigError(f"key 'dataset.name': expected {', '.join(known)}; found {name!r}{did_you_mean(name, known)}")
    return _foreign(name)


@cache
def _foreign(name: str) -> Source:
    entry = next(entry for entry in entry_points(group=GROUP) if entry.name == name)
    try:
        loaded = foreign.load(entry)
    except InputError as error:
        raise InputError(f"the dataset '{name}' is installed, but {error}") from error
    if not isinstance(loaded, Source):
        raise InputError(
            f"entry point '{name}' of {GROUP} ({entry.value}): expected a stl_deploy.data.Source; found a "
            f"{type(loaded).__name__}"
        )
    if loaded.look is None and None in (loaded.input_shape, loaded.classes):
        raise InputError(
            f"entry point '{name}' of {GROUP} ({entry.value}): expected look, or input_shape and classes; found "
            f"{loaded.input_shape} and {loaded.classes}"
        )
    return loaded
