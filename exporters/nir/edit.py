"""Nodes of a NIR graph by the names that its Program has, and graphs with other nodes in their place."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import nir

from stl_deploy.exporters.nir.lower import METADATA_KEY


def with_metadata(graph: nir.NIRGraph, own: Mapping[str, Any]) -> nir.NIRGraph:
    """The same graph with our metadata replaced; nodes are shared."""
    metadata = {**graph.metadata, METADATA_KEY: dict(own)}
    return nir.NIRGraph(graph.nodes, graph.edges, metadata=metadata, type_check=False)


def with_fields(graph: nir.NIRGraph, changes: Mapping[str, Mapping[str, Any]]) -> nir.NIRGraph:
    """A graph in which the nodes named (``inner.node`` inside graphs) have other fields; the rest is shared."""
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
    """The graph with another node in the place of one of its own."""
    return nir.NIRGraph({**graph.nodes, name: node}, graph.edges, metadata=graph.metadata, type_check=False)


def without_nodes(graph: nir.NIRGraph, names: Collection[str]) -> nir.NIRGraph:
    """The graph in which what read one of these nodes, each of one source, reads what that read."""
    before = {end: start for start, end in graph.edges if end in names}

    def source(name: str) -> str:
        while name in before:
            name = before[name]
        return name

    nodes = {name: node for name, node in graph.nodes.items() if name not in names}
    edges = [(source(start), end) for start, end in graph.edges if end not in names]
    return nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False)


def find(graph: nir.NIRGraph, name: str) -> nir.NIRNode:
    """The node of that name, ``inner.node`` inside graphs."""
    if name in graph.nodes:
        return graph.nodes[name]
    parts = (key for key, node in graph.nodes.items() if isinstance(node, nir.NIRGraph))
    outer = next(key for key in parts if name.startswith(f"{key}."))
    return find(graph.nodes[outer], name.removeprefix(f"{outer}."))
