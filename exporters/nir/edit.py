"""Edit NIR graphs: find nodes by their Program's names, and replace them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import nir

from stl_deploy.exporters.nir.lower import METADATA_KEY


def with_metadata(graph: nir.NIRGraph, own: Mapping[str, Any]) -> nir.NIRGraph:
    """Return the same graph with our metadata replaced; nodes are shared."""
    metadata = {**graph.metadata, METADATA_KEY: dict(own)}
    return nir.NIRGraph(graph.nodes, graph.edges, metadata=metadata, type_check=False)


def with_fields(graph: nir.NIRGraph, changes: Mapping[str, Mapping[str, Any]]) -> nir.NIRGraph:
    """Return a graph with other fields in the named nodes (``inner.node`` inside graphs); the rest is shared."""
    nodes = {}
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            below = {key.removeprefix(f"{name}."): v for key, v in changes.items() if key.startswith(f"{name}.")}
            nodes[name] = with_fields(node, below) if below else node
        elif name in changes:
            nodes[name] = copy.copy(node)
            for field, value in changes[name].items():
                setattr(nodes[name], field, value)
        else:
            nodes[name] = node
    return nir.NIRGraph(nodes, graph.edges, metadata=dict(graph.metadata), type_check=False)


def with_node(graph: nir.NIRGraph, name: str, node: nir.NIRNode) -> nir.NIRGraph:
    """Return the graph with one of its nodes replaced."""
    return nir.NIRGraph({**graph.nodes, name: node}, graph.edges, metadata=graph.metadata, type_check=False)


def without_nodes(graph: nir.NIRGraph, names: Collection[str]) -> nir.NIRGraph:
    """Return the graph without these nodes, each of one source; their readers read that source."""
    before = {end: start for start, end in graph.edges if end in names}

    def source(name: str) -> str:
        while name in before:
            name = before[name]
        return name

    nodes = {name: node for name, node in graph.nodes.items() if name not in names}
    edges = [(source(start), end) for start, end in graph.edges if end not in names]
    return nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False)


def find(graph: nir.NIRGraph, name: str) -> nir.NIRNode:
    """Return the node of that name, ``inner.node`` inside graphs."""
    if name in graph.nodes:
        return graph.nodes[name]
    parts = (key for key, node in graph.nodes.items() if isinstance(node, nir.NIRGraph))
    outer = next(key for key in parts if name.startswith(f"{key}."))
    return find(graph.nodes[outer], name.removeprefix(f"{outer}."))
