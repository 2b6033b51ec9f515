"""Lowering: a NIR graph and a dialect become a Program. This is the only place that knows τ and dt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nir
import numpy as np

from stl_deploy.errors import GraphError
from stl_deploy.graph.dialect import Dialect
from stl_deploy.graph.lower._fields import numbers
from stl_deploy.graph.lower.layers import (
    lower_conv,
    lower_delay,
    lower_flatten,
    lower_linear,
    lower_pool,
    lower_scale,
)
from stl_deploy.graph.lower.neurons import lower_neuron
from stl_deploy.graph.lower.wiring import Wiring, wire
from stl_deploy.graph.program import Input, Node, Output, Program, Reshape, Shape, Source

METADATA_KEY = "stl_deploy"
"""The graph's metadata under this key is ours: dialect, input coding, grids, versions."""


def lower(graph: nir.NIRGraph, dialect: Dialect | None = None) -> Program:
    """Lower a NIR graph to a Program.

    dialect: how the graph is meant; default: the graph's own metadata, else the ``spec`` preset.
    Raises GraphError naming the node where the graph cannot be read as a network.
    """
    metadata = own_metadata(graph)
    dialect = dialect or metadata_dialect(metadata)
    wiring = wire(graph)
    nodes: dict[str, Node] = {}
    for name, node in wiring.nodes.items():
        sources = wiring.sources[name]
        shape = _input_shape(name, node, sources, nodes, wiring)
        nodes[name] = _lower_node(name, node, shape, sources, dialect, wiring)
    _check_returning_edges(nodes)
    return Program(tuple(nodes.values()), dialect.dt, metadata)


def own_metadata(graph: nir.NIRGraph) -> dict[str, Any]:
    """What stl-deploy wrote beside the graph, in plain Python values; empty for a foreign graph."""
    found = graph.metadata.get(METADATA_KEY, {}) if isinstance(graph.metadata, Mapping) else {}
    return _plain(found) if isinstance(found, Mapping) else {}


def metadata_dialect(metadata: Mapping[str, Any]) -> Dialect:
    """The dialect written in the graph's metadata, or the spec preset."""
    written = metadata.get("dialect")
    return Dialect.from_mapping(written, where="graph metadata") if isinstance(written, Mapping) else Dialect()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _input_shape(
    name: str, node: nir.NIRNode, sources: tuple[Source, ...], nodes: Mapping[str, Node], wiring: Wiring
) -> Shape:
    """The shape that arrives at a node: that of its sources already lowered, which must agree."""
    if isinstance(node, nir.Input):
        return _declared_shape(name, node, wiring)
    shapes = {nodes[source.node].shape for source in sources if source.node in nodes}
    if len(shapes) > 1:
        raise GraphError(
            "adds up inputs of different shapes: "
            + ", ".join(f"{s.node} {list(nodes[s.node].shape)}" for s in sources if s.node in nodes),
            node=name,
            slug="bad-shape",
        )
    if not shapes:
        raise GraphError(
            "only loops lead to it, so its shape is unknown; feed the loop from an input", node=name, slug="no-source"
        )
    return shapes.pop()


def _declared_shape(name: str, node: nir.Input, wiring: Wiring) -> Shape:
    declared = (node.input_type or {}).get("input")
    if declared is None:
        raise GraphError("declares no shape", node=name, slug="no-shape")
    array = numbers(name, _Field(declared), "shape").reshape(-1)
    shape = tuple(int(size) for size in array)
    if any(size < 1 for size in shape) or (array != shape).any():
        raise GraphError(f"declares shape {array.tolist()}; positive sizes are accepted", node=name, slug="bad-shape")
    ranks = {
        rank
        for reader, sources in wiring.sources.items()
        if any(source.node == name for source in sources)
        for kind, rank in ((nir.Conv1d, 2), (nir.Conv2d, 3), (nir.SumPool2d, 3), (nir.AvgPool2d, 3))
        if isinstance(wiring.nodes[reader], kind)
    }
    has_batch = len(ranks) == 1 and len(shape) == ranks.pop() + 1
    return shape[1:] if has_batch else shape


class _Field:
    """A bare value as a node with one field, for `numbers`."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


def _lower_node(
    name: str, node: nir.NIRNode, shape: Shape, sources: tuple[Source, ...], dialect: Dialect, wiring: Wiring
) -> Node:
    match node:
        case nir.Input():
            # The input of a nested graph has sources: it passes on what arrives.
            return Input(name=name, shape=shape, sources=()) if not sources else _pass(name, shape, sources)
        case nir.Output():
            inner = any(s.node == name for others in wiring.sources.values() for s in others)
            return _pass(name, shape, sources) if inner else Output(name=name, shape=shape, sources=sources)
        case nir.Linear() | nir.Affine():
            return lower_linear(name, node, shape, sources)
        case nir.Conv1d() | nir.Conv2d():
            return lower_conv(name, node, shape, sources)
        case nir.SumPool2d() | nir.AvgPool2d():
            return lower_pool(name, node, shape, sources)
        case nir.Flatten():
            return lower_flatten(name, node, shape, sources)
        case nir.Scale():
            return lower_scale(name, node, shape, sources)
        case nir.Delay():
            return lower_delay(name, node, shape, sources, dialect.dt)
        case nir.I() | nir.IF() | nir.LI() | nir.LIF() | nir.CubaLI() | nir.CubaLIF() | nir.Threshold():
            return lower_neuron(name, node, shape, sources, dialect)
    raise GraphError(f"type {type(node).__name__} is not known", node=name, slug="unknown-type")


def _pass(name: str, shape: Shape, sources: tuple[Source, ...]) -> Node:
    return Reshape(name=name, shape=shape, sources=sources, input_shape=shape)


def _check_returning_edges(nodes: Mapping[str, Node]) -> None:
    """The edges that close loops were not there to agree with when their target was lowered."""
    for node in nodes.values():
        for source in node.sources:
            arrives = nodes[source.node].shape
            expected = getattr(node, "input_shape", node.shape)
            if arrives != expected:
                raise GraphError(
                    f"'{source.node}' brings shape {list(arrives)} but {list(expected)} is expected",
                    node=node.name,
                    slug="bad-shape",
                )


__all__ = ["METADATA_KEY", "lower", "metadata_dialect", "own_metadata"]
