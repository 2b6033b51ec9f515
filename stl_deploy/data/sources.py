"""Load images: scikit-learn's own, IDX files, or torchvision's download."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import cache_dir
from stl_deploy._util.install import missing
from stl_deploy._util.untrusted import one_line
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data.own.folder import load as load_folder
from stl_deploy.data.own.folder import subfolders
from stl_deploy.data.raw import Raw
from stl_deploy.errors import InputError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def digits(_data_dir: Path | None) -> Raw:
    """Load scikit-learn's 8x8 digits: integers from 0 to 16, no files needed."""
    rows = _digit_rows()
    images = rows[:, :-1].reshape(-1, 1, 8, 8).astype(np.uint8)
    return Raw(images, rows[:, -1].astype(np.int64), None, None, levels=16)


def _digit_rows() -> NDArray[np.float64]:
    """Return 64 pixels and a label in each row, from the package's file: importing the package takes far longer."""
    package = find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])


def mnist(data_dir: Path | None) -> Raw:
    """Load MNIST from its four IDX files, plain or gzipped."""
    return _idx("MNIST", data_dir)


def fashion_mnist(data_dir: Path | None) -> Raw:
    """Load Fashion-MNIST from its four IDX files, plain or gzipped."""
    return _idx("FashionMNIST", data_dir)


def cifar10(data_dir: Path | None) -> Raw:
    """Load CIFAR-10 through torchvision, which checks the files' hashes before it reads them.

    Or from folders of images, ``train`` and ``test`` with one of each class in them, as copies on the web have it.
    """
    if data_dir is not None and any((data_dir / "train" / name).is_dir() for name in CIFAR10_CLASSES):
        for part in ("train", "test"):
            _check_classes(data_dir / part)
        images = load_folder(DatasetConfig(name="folder", path=str(data_dir), colour="rgb"))
        if images.train.shape[1:] != (3, 32, 32):
            raise InputError(
                f"{data_dir}: expected images [3, 32, 32] as CIFAR-10 has them; found {list(images.train.shape[1:])}"
            )
        return replace(images, digest=None)
    return _cifar("CIFAR10", "cifar-10-batches-py", data_dir)


def _check_classes(folder: Path) -> None:
    """Raise InputError unless it holds the folders of CIFAR-10's classes, whose order is that of the labels."""
    folders = set(subfolders(folder)) if folder.is_dir() else set()
    absent, strange = (
        [name for name in CIFAR10_CLASSES if name not in folders],
        sorted(folders.difference(CIFAR10_CLASSES)),
    )
    if absent or strange:
        instead = f"no {', '.join(absent)}" if absent else strange[0]
        raise InputError(
            f"{folder}: expected CIFAR-10's ten folders of images, {', '.join(CIFAR10_CLASSES)}; found {instead}"
        )


def cifar100(data_dir: Path | None) -> Raw:
    """Load CIFAR-100 and its hundred fine labels, as CIFAR-10."""
    return _cifar("CIFAR100", "cifar-100-python", data_dir)


def _cifar(name: str, folder: str, data_dir: Path | None) -> Raw:
    datasets = torchvision_datasets()
    root = data_dir if data_dir is not None else cache_dir()
    try:
        kind = getattr(datasets, name)
        train, test = (kind(root, train=part, download=data_dir is None) for part in (True, False))
    except (RuntimeError, OSError) as error:
        images = ", or train/airplane and so on with its images" if name == "CIFAR10" else ""
        raise InputError(
            f"{name} in {root}: expected the folder {folder}{images}; found none that can be read ({one_line(error)})"
        ) from None
    arrays = [np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)) for part in (train, test)]
    labels = [np.asarray(part.targets, np.int64) for part in (train, test)]
    return Raw(arrays[0], labels[0], arrays[1], labels[1], levels=255)


def _idx(name: str, data_dir: Path | None) -> Raw:
    folder = _find(name, data_dir) if data_dir is not None else _download(name)
    parts = []
    for part in ("train", "t10k"):
        images = read_idx(_file(folder, f"{part}-images-idx3-ubyte"), shape=(None, 28, 28))
        labels = read_idx(_file(folder, f"{part}-labels-idx1-ubyte"), shape=(len(images),))
        parts.append((images[:, None], labels.astype(np.int64)))
    (train, train_labels), (test, test_labels) = parts
    return Raw(train, train_labels, test, test_labels, levels=255)


def _find(name: str, data_dir: Path) -> Path:
    """Return the folder under ``data_dir`` that holds the files, in torchvision's layout or directly."""
    for folder in (data_dir, data_dir / "raw", data_dir / name / "raw", data_dir / name):
        if any(folder.glob("train-images-idx3-ubyte*")):
            return folder
    raise InputError(
        f"{data_dir}: expected train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        f"t10k-labels-idx1-ubyte (or .gz) there or in {name}/raw; found no {name} files"
    )


def _file(folder: Path, stem: str) -> Path:
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    raise InputError(f"{folder}: no file {stem} or {stem}.gz; all four files of the dataset are needed")


def _download(name: str) -> Path:
    root = cache_dir()
    try:
        getattr(torchvision_datasets(), name)(root, train=True, download=True)
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"{name} cannot be downloaded to {root} ({one_line(error)}); put the files there, or name their "
            "folder with dataset.data_dir"
        ) from None
    return root / name / "raw"


def torchvision_datasets() -> ModuleType:
    """Return torchvision's module of datasets; raise ToolError if it is missing."""
    try:
        from torchvision import datasets
    except ImportError:
        raise missing("torchvision", "downloads this dataset") from None
    module: ModuleType = datasets
    return module


_UNSIGNED_BYTE = 0x08
_MOST_BYTES = 2**27
"""Of the data, unpacked: the largest file that we know has 47 MB, and a gzip file of 2 MB can hold 2 GB."""


def read_idx(path: Path, *, shape: tuple[int | None, ...]) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes (gzipped if it ends in ``.gz``) whose sizes are ``shape`` (None: any).

    Raises InputError if it is missing, truncated, too long, damaged, of another kind or of another shape.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return _read(stream, path, shape)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or damaged ({error}); fetch it again") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def _read(stream: gzip.GzipFile | IO[bytes], path: Path, shape: tuple[int | None, ...]) -> NDArray[np.uint8]:
    header = stream.read(4 + 4 * len(shape))
    if len(header) < 4 + 4 * len(shape) or header[:4] != bytes((0, 0, _UNSIGNED_BYTE, len(shape))):
        raise InputError(
            f"{path}: expected an IDX file as MNIST has them, of bytes with {len(shape)} axes; found another"
        )
    sizes = struct.unpack(f">{len(shape)}I", header[4:])
    if any(want not in (None, size) for want, size in zip(shape, sizes, strict=True)):
        accepted = ["any" if size is None else size for size in shape]
        raise InputError(f"{path}: expected sizes {accepted}; found {list(sizes)}")
    if math.prod(sizes) > _MOST_BYTES:
        raise InputError(f"{path}: expected at most {_MOST_BYTES:,} bytes; found sizes {list(sizes)}")
    data = stream.read(math.prod(sizes))
    if len(data) < math.prod(sizes):
        raise InputError(f"{path}: truncated, {len(data)} of {math.prod(sizes)} bytes; fetch it again")
    if stream.read(1):  # of a gzipped file this also checks the sum behind the data
        raise InputError(
            f"{path}: expected {math.prod(sizes)} bytes of sizes {list(sizes)}; found more; fetch it again"
        )
    return np.frombuffer(data, np.uint8).reshape(sizes)
