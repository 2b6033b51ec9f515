"""``dataset: {name: folder, path: DIR}``: one sub-folder of images for each class.

With ``train/`` and ``val/`` or ``test/`` above them those are the splits, else they are drawn from the seed. Images may
also lie in folders below a class's own images.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import MAX_ARRAY_BYTES, plain_file, sha256
from stl_deploy._util.install import require
from stl_deploy._util.isolated import isolated
from stl_deploy._util.readers import read_image
from stl_deploy.config.schema import DatasetConfig
from stl_deploy.data.raw import Look, Raw
from stl_deploy.errors import InputError

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".gif"})
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Names of their folders, in whatever case."""
_MOST_BYTES = 2**28
_MEMORY = 2**30
_SECONDS = 60.0
Files = dict[str, list[tuple[Path, int]]]


def look(config: DatasetConfig) -> Look:
    """Return classes, and the images' shape, from their names and the first image."""
    require("torchvision", purpose="reads a folder of images")
    _, classes, files = _listed(config)
    first = files["train"][0][0]
    channels, *size = _opened(first, config).shape
    return Look((channels, *(config.size or size)), config.classes or classes)


def load(config: DatasetConfig) -> Raw:
    """Load all images as uint8 ``[N, channels, height, width]``, in order of their paths.

    Raises InputError for images that cannot be read, or whose sizes differ where no ``size`` is given.
    """
    root, _, files = _listed(config)
    shape = look(config).shape
    count = sum(len(images_of_split) for images_of_split in files.values())
    if count * int(np.prod(shape)) > MAX_ARRAY_BYTES:
        raise InputError(
            f"{root}: {count:,} images of {list(shape)} take more than {MAX_ARRAY_BYTES // 2**30} GiB; choose a "
            "smaller dataset.size"
        )
    digest = hashlib.sha256()
    splits: dict[str, Any] = {name: None for split in _SPLITS for name in (split, f"{split}_labels")}
    for split, images_of_split in files.items():
        images = np.empty((len(images_of_split), *shape), np.uint8)
        for index, (path, _) in enumerate(images_of_split):
            # names, too: an image moved to another class is other data
            digest.update(f"{path.relative_to(root)}\0{sha256(path)}\n".encode("utf-8", "surrogateescape"))
            images[index] = _pixels(path, shape, config)
        splits[split], splits[f"{split}_labels"] = images, np.array([label for _, label in images_of_split], np.int64)
    return Raw(**splits, levels=config.levels or 255, digest=digest.hexdigest())


def _listed(config: DatasetConfig) -> tuple[Path, tuple[str, ...], Files]:
    root = Path(config.path or "")
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder with a sub-folder of images for each class; found no such folder")
    parts = _parts(root)
    classes = subfolders(parts["train"])
    if len(classes) < 2:
        alone = len(classes) == 1 and classes[0].casefold() in _SPLITS["train"]
        instead = f", '{classes[0]}', without test or val beside it" if alone else ""
        raise InputError(
            f"{parts['train']}: expected a sub-folder for each class, two or more; found {len(classes)}{instead}"
        )
    files: Files = {}
    for split, folder in parts.items():
        strange = sorted(set(subfolders(folder)) - set(classes))
        if strange:
            raise InputError(
                f"{folder / strange[0]}: expected a class of '{parts['train']}'; found another; name both alike"
            )
        files[split] = [(p, label) for label, name in enumerate(classes) for p in _images(folder / name)]
        if not files[split]:
            raise _no_images(folder)
    empty = [n for label, n in enumerate(classes) if all(label != other for _, other in files["train"])]
    if empty:
        raise InputError(f"{parts['train'] / empty[0]}: expected images of a class; found none; remove the folder")
    return root, classes, files


def _parts(root: Path) -> dict[str, Path]:
    """Return the splits' folders; ``root`` alone, to be split by the seed, unless it has training and other folders."""
    splits = {
        split: [root / name for name in subfolders(root) if name.casefold() in names]
        for split, names in _SPLITS.items()
    }
    if not splits["train"] or not (splits["validation"] or splits["test"]):
        return {"train": root}
    for split, folders in splits.items():
        if len(folders) > 1:
            names = ", ".join(folder.name for folder in folders)
            raise InputError(f"{root}: expected one folder of the {split} split; found {names}; remove or rename one")
    return {split: folders[0] for split, folders in splits.items() if folders}


def _no_images(folder: Path) -> InputError:
    """Return a message with the folder's real contents, since event recordings are kept in such folders, too."""
    suffixes = sorted({path.suffix for path in folder.rglob("*") if path.suffix and path.is_file()})
    instead = f"; found {', '.join(suffixes[:5])}: use dataset.name npz or python for other files" * bool(suffixes)
    return InputError(
        f"{folder}: expected images ({', '.join(sorted(_SUFFIXES))}) in its sub-folders; found none{instead}"
    )


def subfolders(folder: Path) -> tuple[str, ...]:
    """Return the names of visible subfolders, sorted."""
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))


def _images(folder: Path) -> list[Path]:
    """Return a class's images, those of folders below it included; raise InputError if there are none."""
    if not folder.is_dir():
        return []
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file())
    if files and all(path.parent != folder for path in files):
        below = files[0].relative_to(folder).parts[0]
        raise InputError(
            f"{folder}: expected images of one class; found them in folders below it alone ({below}); move them up, or "
            "name the folder above the classes with dataset.path"
        )
    return files


def _pixels(path: Path, shape: tuple[int, ...], config: DatasetConfig) -> NDArray[np.uint8]:
    """Return one image as uint8 ``[channels, height, width]``."""
    array = _opened(path, config)
    channels, height, width = shape
    if array.shape[0] != channels:
        colours = "grey" if channels == 3 else "in colour"
        raise InputError(f"{path}: {colours}, unlike the first image; say dataset.colour: grey, or rgb")
    if config.size is not None:
        return _resized(array, config.size)
    if array.shape[1:] != (height, width):
        raise InputError(
            f"{path}: {array.shape[1]}x{array.shape[2]} pixels, the first image has {height}x{width}; give one "
            "size to all with dataset.size: [height, width]"
        )
    return array


def _resized(array: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image
    from torchvision.transforms.v2 import functional

    image = Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))
    resized: NDArray[np.uint8] = np.asarray(functional.resize(image, list(size), antialias=True), np.uint8)
    return resized[None] if len(array) == 1 else resized.transpose(2, 0, 1)


def _opened(path: Path, config: DatasetConfig) -> NDArray[np.uint8]:
    """Decode an untrusted image in a worker process: uint8 ``[channels, height, width]``."""
    plain_file(path, "an image", _MOST_BYTES)
    _, (array,) = isolated(read_image, path, config.colour, what="an image", memory=_MEMORY, seconds=_SECONDS)
    return array
