"""One SHA-256 of what an artifact holds, apart from versions and from how a library lays bytes out."""

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx

_BESIDE = ("version", "stl_deploy/steps", "stl_deploy/classes", "stl_deploy/captured/largest")


def of_hdf5(path: Path) -> str:
    """Every dataset and attribute but versions and records of training and capture, in order of name."""
    found: dict[str, Any] = {}

    def take(name: str, node: Any) -> None:
        found.update({f"{name}@{key}": str(value) for key, value in node.attrs.items()})
        if isinstance(node, h5py.Dataset) and not name.endswith(_BESIDE):
            value = np.asarray(node[()])
            text = [v.decode() if isinstance(v, bytes) else v for v in value.reshape(-1).tolist()]
            found[name] = [value.dtype.kind, value.shape, text]

    with h5py.File(path) as file:
        file.visititems(take)
    return _of(found)


def of_onnx(path: Path) -> str:
    """The graph alone."""
    return hashlib.sha256(onnx.load(path).graph.SerializeToString(deterministic=True)).hexdigest()


def of_folder(folder: Path) -> str:
    """The integers of a C folder; its text changes when the C is improved, its structure with new fields."""
    (file,) = folder.glob("*.npz")
    with np.load(file, allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files if name != "structure"}
    return _of({name: [a.dtype.kind, a.shape, a.tolist()] for name, a in arrays.items() if a.dtype.kind in "iu"})


def _of(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
