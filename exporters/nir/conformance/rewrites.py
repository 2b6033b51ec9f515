"""Rewrite a NIR file into another legal form of the same graph, with h5py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def _nodes(path: Path, kind: str = "") -> Iterator[h5py.Group]:
    """Open the file and yield the groups of its nodes, or of those of one kind."""
    with h5py.File(path, "r+") as file:
        for group in file["node/nodes"].values():
            if kind in ("", group["type"].asstr()[()]):
                yield group


def _replace(group: h5py.Group, key: str, value: Any, **options: Any) -> None:
    del group[key]
    group.create_dataset(key, data=value, **options)


def double_precision(path: Path) -> None:
    """Store every float32 array as float64."""
    _retype(path, np.dtype(np.float64))


def big_endian(path: Path) -> None:
    """Store every float32 array as big-endian float32."""
    _retype(path, np.dtype(">f4"))


def _retype(path: Path, dtype: np.dtype[Any]) -> None:
    for group in _nodes(path):
        for key in [key for key, data in group.items() if getattr(data, "dtype", None) == np.float32]:
            _replace(group, key, group[key][()].astype(dtype))


def scalar_parameters(path: Path) -> None:
    """Store the parameters of LIF nodes as scalars, which NIR broadcasts to the node's shape."""
    for group in _nodes(path, "LIF"):
        for key in ("tau", "r", "v_leak", "v_threshold", "v_reset"):
            _replace(group, key, np.float32(group[key][()].flat[0]))


def without_v_reset(path: Path) -> None:
    """Leave out `v_reset`, as files of NIR before 1.0.5 do; it is 0 then."""
    for group in _nodes(path, "LIF"):
        del group["v_reset"]


def without_version(path: Path) -> None:
    """Leave out the version of the nir package."""
    with h5py.File(path, "r+") as file:
        del file["version"]


def shuffled_edges(path: Path) -> None:
    """Store the edges in reverse order."""
    with h5py.File(path, "r+") as file:
        edges = file["node/edges"][()]
        _replace(file["node"], "edges", edges[::-1], dtype=h5py.string_dtype())


def fixed_length_edges(path: Path) -> None:
    """Store edges as byte strings of fixed length."""
    with h5py.File(path, "r+") as file:
        _replace(file["node"], "edges", file["node/edges"][()].astype("S16"))


def compressed(path: Path) -> None:
    """Store weights in compressed chunks with shuffle and checksum filters."""
    for group in _nodes(path):
        if "weight" in group:
            options = {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True}
            _replace(group, "weight", group["weight"][()], **options)


def more_metadata(path: Path) -> None:
    """Add another tool's metadata to the graph and to a node."""
    neuron, *_ = [group.name for group in _nodes(path, "LIF")]
    with h5py.File(path, "r+") as file:
        for name in ("node", neuron):
            notes = file[name].require_group("metadata").create_group("somebody_elses_tool")
            notes.create_dataset("note", data="not for you", dtype=h5py.string_dtype())
            notes.create_dataset("numbers", data=np.arange(3))


def fixed_length_type(path: Path) -> None:
    """Store the nodes' types as byte strings of fixed length."""
    for group in _nodes(path):
        _replace(group, "type", np.bytes_(group["type"][()]))


def without_input_shape(path: Path) -> None:
    """Leave out `input_shape` of convolutions: it follows from the input."""
    for group in _nodes(path, "Conv2d"):
        if "input_shape" in group:
            del group["input_shape"]


ALL: tuple[tuple[str, str, Callable[[Path], None]], ...] = (
    ("double", "parameters in float64", double_precision),
    ("big-endian", "parameters in big-endian float32", big_endian),
    ("scalars", "scalar parameters of LIF", scalar_parameters),
    ("no-v_reset", "LIF without v_reset, as before NIR 1.0.5", without_v_reset),
    ("no-version", "no version", without_version),
    ("edges-reversed", "edges in reverse order", shuffled_edges),
    ("edges-fixed", "edges as strings of fixed length", fixed_length_edges),
    ("types-fixed", "node types as strings of fixed length", fixed_length_type),
    ("compressed", "weights compressed, shuffled, with checksums", compressed),
    ("metadata", "foreign metadata in the graph and a node", more_metadata),
)
"""Short name, line for the table, rewriting function."""
