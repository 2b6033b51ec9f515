"""Event datasets: their files, which the user fetches, and frames cached between calls."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import (
    MAX_ARRAY_BYTES,
    cache_dir,
    parse_errors_as_input_errors,
    plain_file,
    read_npz,
    write_npz,
)
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data.events import Events, Frames, aedat4, aer40, gather, gesture_npy, heidelberg
from stl_deploy.data.raw import Raw
from stl_deploy.data.sources import CIFAR10_CLASSES
from stl_deploy.errors import InputError

Recordings = Iterator[tuple[Events, int]]
_LAYOUT_VERSION = 2
_MOST_BYTES = 2**28
_DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class EventSource:
    """One dataset. parts: of train and of test the files below a folder; a lone part has no test split of its own.

    folder: where the files may lie, too. layout: its folders, in words. download: the files to fetch, and from where.
    """

    folder: str
    shape: tuple[int, ...]
    parts: tuple[Callable[[Path], list[Path]], ...]
    recordings: Callable[[list[Path], tuple[int, ...]], Recordings]
    layout: str
    download: str

    def files(self, root: Path) -> list[list[Path]] | None:
        """Return the files of each part below ``root`` or ``root/<folder>``; None for a part without files."""
        for folder in (root, root / self.folder):
            files = [part(folder) for part in self.parts]
            if all(files):
                return files
        return None

    def load(self, config: DatasetConfig) -> Raw:
        """Load frames uint8 ``[N, T, *shape]`` and labels; raise InputError if files are absent or damaged."""
        root = Path(config.data_dir) if config.data_dir is not None else cache_dir()
        parts = self.files(root)
        if parts is None:
            raise InputError(
                f"{root}: expected {self.layout} there or in {self.folder}/; found none; unpack {self.download} there, "
                "or name their folder with dataset.data_dir"
            )
        frames = [self._frames(files, config) for files in parts]
        (train, train_labels), (test, test_labels) = frames[0], frames[1] if len(frames) > 1 else (None, None)
        return Raw(train, train_labels, test, test_labels, levels=1, timed=True)

    def _frames(self, files: list[Path], config: DatasetConfig) -> tuple[Frames, NDArray[np.int64]]:
        kept = cache_dir() / "frames" / f"{config.name}-{_fingerprint(files, config)}.npz"
        if kept.is_file():
            arrays = read_npz(kept)
            return arrays["frames"], arrays["labels"]
        frames, labels = [], []
        for events, label in self.recordings(files, self.shape):
            frames.append(gather(events, config.T, self.shape, config.binning, config.downscale))
            labels.append(label)
            if len(frames) * frames[0].nbytes > MAX_ARRAY_BYTES:
                raise InputError(
                    f"{files[0]}: over {MAX_ARRAY_BYTES // 2**30} GiB of frames at dataset.T = {config.T}; take "
                    "fewer steps or a dataset.downscale"
                )
        if not frames:
            raise InputError(f"{files[0]}: expected {self.layout}; found no recordings")
        stacked, targets = np.stack(frames), np.array(labels, np.int64)
        write_npz(kept, {"frames": stacked, "labels": targets})
        return stacked, targets


def _fingerprint(files: list[Path], config: DatasetConfig) -> str:
    """Hash the files and every setting that decides the frames."""
    seen = [[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    about = [_LAYOUT_VERSION, config.T, config.binning, config.downscale, seen]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


def _nmnist_part(name: str) -> Callable[[Path], list[Path]]:
    def files(folder: Path) -> list[Path]:
        unpacked = sorted((folder / name).glob("[0-9]/*.bin"))
        packed = folder / f"{name.lower()}.zip"
        return unpacked or ([packed] if packed.is_file() else [])

    return files


def _nmnist(files: list[Path], shape: tuple[int, ...]) -> Recordings:
    if files[0].suffix == ".zip":
        yield from _nmnist_zip(files[0], shape)
        return
    for path in files:
        yield aer40(_bytes(path), shape, str(path)), int(path.parent.name)


def _nmnist_zip(path: Path, shape: tuple[int, ...]) -> Recordings:
    with parse_errors_as_input_errors(path, "a whole zip file"), zipfile.ZipFile(path) as archive:
        members: list[tuple[zipfile.ZipInfo, int]] = []
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            *_, label, name = ("", "", *info.filename.split("/"))
            if name.endswith(".bin") and label in _DIGITS and info.file_size <= _MOST_BYTES:
                members.append((info, int(label)))
        for info, number in members:
            yield aer40(archive.read(info), shape, f"{path}: {info.filename}"), number


def _bytes(path: Path) -> bytes:
    plain_file(path, "a recording", _MOST_BYTES)
    with parse_errors_as_input_errors(path, "a recording"):
        return path.read_bytes()


def _gesture_part(name: str) -> Callable[[Path], list[Path]]:
    return lambda folder: sorted(p for p in (folder / name).glob("user*_*/*.npy") if p.stem.isdecimal())


def _gesture(files: list[Path], shape: tuple[int, ...]) -> Recordings:
    for path in files:
        yield gesture_npy(path, shape), int(path.stem)


def _cifar_part(folder: Path) -> list[Path]:
    return [path for name in CIFAR10_CLASSES for path in sorted((folder / name).glob("*.aedat4"))]


def _cifar(files: list[Path], shape: tuple[int, ...]) -> Recordings:
    for path in files:
        yield aedat4(path, shape), CIFAR10_CLASSES.index(path.parent.name)


def _heidelberg_part(name: str) -> Callable[[Path], list[Path]]:
    return lambda folder: [path for path in (folder / name,) if path.is_file()]


def _heidelberg(files: list[Path], shape: tuple[int, ...]) -> Recordings:
    labels, recordings = heidelberg(files[0], shape)
    yield from zip(recordings, labels.tolist(), strict=True)


EVENT_SOURCES = {
    "n_mnist": EventSource(
        "NMNIST",
        (2, 34, 34),
        (_nmnist_part("Train"), _nmnist_part("Test")),
        _nmnist,
        "Train/<label>/*.bin and Test/<label>/*.bin, or train.zip and test.zip,",
        "Train.zip and Test.zip of https://www.garrickorchard.com/datasets/n-mnist",
    ),
    "dvs128_gesture": EventSource(
        "DVSGesture",
        (2, 128, 128),
        (_gesture_part("ibmGestureTrain"), _gesture_part("ibmGestureTest")),
        _gesture,
        "ibmGestureTrain/user*/<label>.npy and ibmGestureTest/user*/<label>.npy",
        "ibmGestureTrain.tar.gz and ibmGestureTest.tar.gz (figshare.com/ndownloader/files/38022171 and 38020584)",
    ),
    "cifar10_dvs": EventSource(
        "CIFAR10DVS",
        (2, 128, 128),
        (_cifar_part,),
        _cifar,
        "<class>/*.aedat4",
        "CIFAR10DVS.zip (figshare.com/ndownloader/files/38023437) and the zip file of each class in it",
    ),
    "shd": EventSource(
        "SHD",
        (700,),
        (_heidelberg_part("shd_train.h5"), _heidelberg_part("shd_test.h5")),
        _heidelberg,
        "shd_train.h5 and shd_test.h5",
        "shd_train.h5.zip and shd_test.h5.zip of https://zenkelab.org/datasets",
    ),
}
