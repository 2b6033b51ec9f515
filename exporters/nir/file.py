"""Read untrusted NIR files (HDF5), and write NIR files.

Reading does not use nir's type check. The layout is nir's own: ``version`` and
``node/{type, edges, metadata, nodes/<name>/<field>}``. `read_nir` takes files of every nir release from 1.0 on, and
graphs that nir refuses to build (batch sizes in shapes, scalar neuron parameters beside arrays). `lower` decides
whether the graph makes sense.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

from stl_deploy._util.hdf5.guard import Group, open_hdf5, whole_hdf5
from stl_deploy._util.hdf5.scan import MAX_MEMBERS
from stl_deploy._util.npz import is_plain_name
from stl_deploy.errors import GraphError, InputError
from stl_deploy.exporters.nir.kinds import KINDS

MAX_NODES = MAX_MEMBERS
"""Most nodes in one graph with those in it; a layer is a node, so real networks have hundreds."""

MAX_DEPTH = 32
"""Most levels of graphs in graphs."""

_COMPRESSED_BYTES = 1024
"""Smaller arrays are written as they are: compressed ones take at least two kilobytes."""

_LARGE_BYTES = 2**20
_LARGE = {"shuffle": True, "compression_opts": 2}
"""Compression of larger arrays: bytes of one significance side by side. Random weights on the exact grid take six
sevenths of the space and two fifths of the time of HDF5's default, gzip at level 4.
"""


@dataclass(eq=False)
class ForeignNode(nir.NIRNode):  # type: ignore[misc]
    """A node in the file that NIR 1.0.8 does not define; ``reason`` and ``slug`` say why."""

    reason: str
    slug: str


def read_nir(path: Path) -> nir.NIRGraph:
    """Read a NIR file.

    Nodes that cannot be understood come back as `ForeignNode`, so that a check can report all of them;
    `lower` refuses them. Metadata comes back in plain Python values.
    Raises InputError for a file that is missing, damaged, too large for its own size, or no NIR file;
    GraphError where the graph's skeleton (names, nodes, edges) cannot be read.
    """
    with open_hdf5(path, "a NIR file") as (_, contents):
        root = contents.group("node")
        if root is None:
            raise InputError(f"{path}: no group 'node' in it, so it is not a NIR file; write one with nir.write")
        kind = root.text("type")
        if kind != "NIRGraph":
            raise InputError(f"{path}: holds {_shown(kind)}, not a NIRGraph; wrap a single node in a graph")
        return _Reader().graph(root, "", 0)


class _Reader:
    """Build nodes from groups of a file; ``count`` nodes so far."""

    def __init__(self) -> None:
        self.count = 0

    def graph(self, group: Group, where: str, depth: int) -> nir.NIRGraph:
        if depth > MAX_DEPTH:
            raise GraphError(f"graphs are nested more than {MAX_DEPTH} deep", node=where[:-1], slug="too-deep")
        members = group.group("nodes")
        if members is None:
            raise GraphError("has no group 'nodes'", node=where[:-1] or None, slug="no-nodes")
        self.count += len(members.names)
        if self.count > MAX_NODES:
            raise GraphError(f"the graph has more than {MAX_NODES} nodes", slug="too-many-nodes")
        nodes = {name: self._node(members, name, where, depth) for name in members.names}
        graph = nir.NIRGraph(nodes, self._edges(group, where), type_check=False)
        graph.metadata = self._metadata(group)
        return graph

    def _node(self, members: Group, name: str, where: str, depth: int) -> nir.NIRNode:
        full = where + name
        if len(name) > 255:
            raise GraphError(f"node name {name[:60]!a}... is longer than 255 characters", slug="odd-name")
        if not name.isprintable():
            raise GraphError(f"node name {name[:60]!a} has characters that cannot be printed", slug="odd-name")
        if not is_plain_name(name):  # it becomes the name of an array in an npz
            raise GraphError(f"node name {name[:60]!a} is a path: expected no backslash; rename it", slug="odd-name")
        group = members.group(name)
        if group is None:
            return ForeignNode("is not a group of fields", "unknown-type")
        kind = group.text("type")
        if kind == "NIRGraph":
            return self.graph(group, full + ".", depth + 1)
        if kind not in KINDS:
            known = ", ".join(sorted(KINDS))
            return ForeignNode(f"type is {_shown(kind)}, which is not known; known: {known}", "unknown-type")
        return self._build(KINDS[kind], group)

    def _build(self, kind: type[nir.NIRNode], group: Group) -> nir.NIRNode:
        end = {nir.Input: "input", nir.Output: "output"}.get(kind)
        known = {"shape"} if end else {f.name for f in fields(kind)}
        given = [key for key in group.names if key not in ("type", "metadata")]
        strange = [_shown(key) for key in given if key not in known | {"input_type", "output_type"}]
        if strange:
            what = f"a field {strange[0]}" if len(strange) == 1 else f"fields {', '.join(strange[:20])}"
            return ForeignNode(f"has {what}, which {kind.__name__} does not have in NIR", "unknown-field")
        values: dict[str, Any] = {key: group.value(key) for key in given}
        if end:
            values = {f"{end}_type": {end: values.get("shape")}}
        elif kind is nir.Flatten:
            values["input_type"] = {"input": values.get("input_type")}
        return _bare(kind, values, self._metadata(group))

    def _edges(self, group: Group, where: str) -> list[tuple[str, str]]:
        edges = group.value("edges")
        array = np.asarray(edges if edges is not None else [])
        if array.size == 0:
            return []
        if array.ndim != 2 or array.shape[1] != 2 or not all(isinstance(end, str) for end in array.flat):
            raise GraphError(
                f"expected edges as pairs of node names [n, 2]; found {array.dtype} {list(array.shape)}",
                node=where[:-1] or None,
                slug="bad-edges",
            )
        return [(str(source), str(target)) for source, target in array]

    def _metadata(self, group: Group) -> dict[str, Any]:
        metadata = group.group("metadata")
        return {} if metadata is None else metadata.tree()


def _bare(kind: type[nir.NIRNode], values: dict[str, Any], metadata: dict[str, Any]) -> nir.NIRNode:
    """Return a node with its fields set; nir's own shapes if nir accepts the fields, else undefined shapes."""
    node: nir.NIRNode = object.__new__(kind)
    node.input_type, node.output_type, node.metadata = {"input": None}, {"output": None}, metadata
    for key, value in values.items():
        setattr(node, key, value)
    try:
        with np.errstate(all="ignore"):  # nir divides by the stride before anyone has looked at it
            node.__post_init__()
    except Exception:
        node.input_type = getattr(node, "input_type", None) or {"input": None}
    return node


def _shown(text: str | None) -> str:
    return "nothing" if text is None else ascii(text[:60])


def write_nir(graph: nir.NIRGraph, path: Path) -> None:
    """Write a NIR file as nir does (gzip, if it saves space), whole or not at all, without copying the arrays first.

    None values in metadata are left out, as HDF5 has none.
    Raises GraphError for names that HDF5 cannot hold and metadata that is no nested dict of numbers, strings, bools
    and lists of one kind; InputError if the file cannot be written.
    """
    with whole_hdf5(path) as file:
        file.create_dataset("version", data=nir.version, dtype=h5py.string_dtype())
        _write_node(file.create_group("node"), graph, None)


def _write_node(group: h5py.Group, node: nir.NIRNode, name: str | None) -> None:
    if isinstance(node, ForeignNode):
        raise GraphError(node.reason, node=name, slug=node.slug)
    group.create_dataset("type", data=type(node).__name__, dtype=h5py.string_dtype())
    if isinstance(node, nir.NIRGraph):
        members = group.create_group("nodes")
        for key, inner in node.nodes.items():
            _refuse_slash(key, "node name")
            if "\\" in key:
                raise GraphError(f"node name {key[:60]!a} is a path: expected no backslash; rename it", slug="odd-name")
            _write_node(members.create_group(key), inner, key if name is None else f"{name}.{key}")
        group.create_dataset("edges", data=np.array(node.edges, dtype=h5py.string_dtype()).reshape(-1, 2))
    else:
        for key, value in _fields(node).items():
            _write_value(group, key, value, name)
    if node.metadata:
        _write_tree(group.create_group("metadata"), node.metadata, name)


def _fields(node: nir.NIRNode) -> dict[str, Any]:
    if isinstance(node, nir.Input):
        return {"shape": node.input_type["input"]}
    if isinstance(node, nir.Output):
        return {"shape": node.output_type["output"]}
    values = {f.name: getattr(node, f.name, None) for f in fields(node) if not f.name.endswith("_type")}
    values.pop("metadata")
    if isinstance(node, nir.Flatten):
        values["input_type"] = node.input_type["input"]
    return {key: value for key, value in values.items() if value is not None}


def _write_tree(group: h5py.Group, tree: Mapping[str, Any], name: str | None) -> None:
    for key, value in tree.items():
        _refuse_slash(key, "metadata key")
        if isinstance(value, Mapping):
            _write_tree(group.create_group(key), value, name)
        elif value is not None:
            _write_value(group, key, value, name)


def _write_value(group: h5py.Group, key: str, value: Any, name: str | None) -> None:
    try:
        if isinstance(value, np.ndarray) and value.nbytes > _COMPRESSED_BYTES:
            group.create_dataset(key, data=value, compression="gzip", **(_LARGE if value.nbytes > _LARGE_BYTES else {}))
        elif isinstance(value, str):
            group.create_dataset(key, data=value, dtype=h5py.string_dtype())
        else:
            group.create_dataset(key, data=value)
    except (TypeError, ValueError) as error:
        raise GraphError(f"'{key}' holds what HDF5 cannot ({error})", node=name, slug="bad-metadata") from None


def _refuse_slash(key: Any, what: str) -> None:
    if not isinstance(key, str) or not key.isprintable() or "/" in key or key in ("", ".", ".."):
        raise GraphError(
            f"{what} {key!r} cannot stand in an HDF5 file; use printable text without '/'", slug="odd-name"
        )
