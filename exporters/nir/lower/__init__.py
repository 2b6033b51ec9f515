"""Lower a NIR graph and a dialect to a Program. This is the only place that knows τ and dt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np

from stl_deploy._util.remedies import did_you_mean
from stl_deploy.errors import GraphError, InputError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.file import ForeignNode
from stl_deploy.exporters.nir.kinds import NEURONS
from stl_deploy.exporters.nir.lower._fields import SHAPE_CONVENTIONS, ShapeConvention, bad_shape
from stl_deploy.exporters.nir.lower.faults import faults, shape_despite
from stl_deploy.exporters.nir.lower.layers import (
    lower_conv,
    lower_delay,
    lower_flatten,
    lower_linear,
    lower_pool,
    lower_scale,
)
from stl_deploy.exporters.nir.lower.neurons import lower_neuron
from stl_deploy.exporters.nir.lower.wiring import Wiring, place_delays, wire
from stl_deploy.graph.program import Input, Node, Operand, Origin, Output, Program, Reshape, Shape

METADATA_KEY = "stl_deploy"
"""The graph's metadata under this key is ours: dialect, input coding, grids, versions."""


@dataclass(frozen=True)
class Lowering:
    """Result of lowering a graph: the lowered nodes, and the errors of the others.

    ``unreached``: nodes whose input's shape is unknown because of an error before them. ``arriving``: the shape that
    arrives at each other node.
    """

    nodes: Mapping[str, Node]
    arriving: Mapping[str, Shape]
    errors: tuple[GraphError, ...]
    unreached: tuple[str, ...]
    wiring: Wiring
    reading: ShapeConvention
    dialect: Dialect
    metadata: Mapping[str, Any]
    graph: nir.NIRGraph

    @property
    def program(self) -> Program:
        """The Program; raises the first error if there is one."""
        if self.errors:
            raise self.errors[0]
        nodes = place_delays(self.nodes, self.dialect)
        return Program(nodes, self.dialect.dt, self.metadata, Origin(self.graph, self.dialect, nodes))


def lower(graph: nir.NIRGraph, dialect: Dialect | None = None) -> Program:
    """Lower a NIR graph to a Program.

    dialect: how the graph is meant; default: the graph's own metadata, else the ``spec`` preset.
    Raises GraphError naming the node where the graph cannot be read as a network.
    """
    return try_lower(graph, dialect).program


def try_lower(graph: nir.NIRGraph, dialect: Dialect | None = None) -> Lowering:
    """Lower what can be lowered and collect the errors; see `lower`.

    Raises InputError only if no dialect is given and the graph's metadata holds a wrong one, or the dialect names a
    node that is not there.
    """
    metadata = own_metadata(graph)
    dialect = dialect or metadata_dialect(metadata)
    wiring = wire(graph, into_neurons=dialect.loop_input == "neuron")
    _require_named(wiring, dialect)
    # As NIR says first: another convention is tried only where sizes disagree, which is all that it can mend.
    best = _lower_as(graph, wiring, SHAPE_CONVENTIONS[0], dialect, metadata)
    for reading in SHAPE_CONVENTIONS[1:]:
        if not any(error.slug == "bad-shape" for error in best.errors):
            break
        other = _lower_as(graph, wiring, reading, dialect, metadata)
        best = other if len(other.errors) < len(best.errors) else best
    return best


def all_errors(lowering: Lowering) -> list[GraphError]:
    """Return the errors of a lowering and, for each node that could not be lowered, those of its other fields."""
    errors = {str(error): error for error in lowering.errors}
    for name in dict.fromkeys([*(error.node for error in lowering.errors), *lowering.unreached]):
        if name in lowering.wiring.nodes and name not in lowering.nodes:
            node, shape = lowering.wiring.nodes[name], lowering.arriving.get(name)
            looped = name in lowering.wiring.looped
            for error in faults(name, node, shape, lowering.reading, lowering.dialect, looped):
                errors.setdefault(str(error), error)
    return list(errors.values())


def _require_named(wiring: Wiring, dialect: Dialect) -> None:
    """Raise InputError if the dialect names a missing node or, in v_min, one without a potential."""
    spiking = [name for name, node in wiring.nodes.items() if isinstance(node, nir.IF | nir.LIF | nir.CubaLIF)]
    bounded = dialect.v_min if isinstance(dialect.v_min, Mapping) else {}
    for key, what, named, known in (
        ("v_min", "spiking neurons", bounded, spiking),
        ("nodes", "nodes", dialect.nodes, list(wiring.nodes)),
    ):
        for name in named:
            if name not in known:
                raise InputError(
                    f"dialect key '{key}': expected {what} of the graph ({', '.join(known[:20]) or 'none'}); "
                    f"found '{name}'{did_you_mean(name, known)}"
                )


def _lower_as(
    graph: nir.NIRGraph, wiring: Wiring, reading: ShapeConvention, dialect: Dialect, metadata: Mapping[str, Any]
) -> Lowering:
    nodes: dict[str, Node] = {}
    shapes: dict[str, Shape] = {}
    arriving: dict[str, Shape] = {}
    errors = list(wiring.errors)
    failed = {error.node for error in errors}
    unreached = []
    for name, node in wiring.nodes.items():
        sources = wiring.sources[name]
        known = [(source, shapes[source.node]) for source in sources if source.node in shapes]
        if len({shape for _, shape in known}) == 1:
            arriving[name] = known[0][1]
        if name not in failed and sources and not known and any(not source.delay for source in sources):
            unreached.append(name)
        elif name not in failed:
            try:
                nodes[name] = _lower_node(name, node, known, sources, reading, dialect, wiring)
            except GraphError as error:
                errors.append(error)
        shape = nodes[name].shape if name in nodes else shape_despite(name, node, arriving.get(name))
        if shape is not None:
            shapes[name] = shape
    errors += _returning_edges(nodes)
    return Lowering(nodes, arriving, tuple(errors), tuple(unreached), wiring, reading, dialect, metadata, graph)


def own_metadata(graph: nir.NIRGraph) -> dict[str, Any]:
    """Return stl-deploy's metadata of the graph, in plain Python values; empty for a foreign graph."""
    metadata = graph.metadata.get(METADATA_KEY, {}) if isinstance(graph.metadata, Mapping) else {}
    return _plain(metadata) if isinstance(metadata, Mapping) else {}


def with_metadata(graph: nir.NIRGraph, own: Mapping[str, Any]) -> nir.NIRGraph:
    """Return the same graph with our metadata replaced; nodes are shared."""
    metadata = {**graph.metadata, METADATA_KEY: dict(own)}
    return nir.NIRGraph(graph.nodes, graph.edges, metadata=metadata, type_check=False)


def metadata_dialect(metadata: Mapping[str, Any]) -> Dialect:
    """Return the dialect in the graph's metadata, or the spec preset."""
    written = metadata.get("dialect")
    return Dialect.from_mapping(written, where="graph metadata") if isinstance(written, Mapping) else Dialect()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _lower_node(
    name: str,
    node: nir.NIRNode,
    known: Sequence[tuple[Operand, Shape]],
    sources: tuple[Operand, ...],
    reading: ShapeConvention,
    dialect: Dialect,
    wiring: Wiring,
) -> Node:
    ports = wiring.ports
    if isinstance(node, nir.Input) and name not in ports:
        return Input(name=name, shape=_declared_shape(name, node, reading), operands=())
    shape = _arriving_shape(name, known)
    match node:
        case nir.Input() | nir.Output() if name in ports:
            return Reshape(name=name, shape=shape, operands=sources, input_shape=shape)
        case nir.Output():
            return Output(name=name, shape=shape, operands=sources)
        case nir.Linear() | nir.Affine():
            return lower_linear(name, node, shape, sources, reading)
        case nir.Conv1d() | nir.Conv2d():
            return lower_conv(name, node, shape, sources)
        case nir.SumPool2d() | nir.AvgPool2d():
            return lower_pool(name, node, shape, sources)
        case nir.Flatten():
            return lower_flatten(name, node, shape, sources, reading)
        case nir.Scale():
            return lower_scale(name, node, shape, sources, reading)
        case nir.Delay():
            return lower_delay(name, node, shape, sources, reading, dialect.dt)
        case _ if isinstance(node, NEURONS):
            return lower_neuron(name, node, shape, sources, reading, dialect.of_node(name), name in wiring.looped)
        case ForeignNode():
            raise GraphError(node.reason, node=name, slug=node.slug)
    raise GraphError(f"type {type(node).__name__} is not known", node=name, slug="unknown-type")


def _arriving_shape(name: str, known: Sequence[tuple[Operand, Shape]]) -> Shape:
    """Return the shape of a node's input: that of its lowered sources, which must agree."""
    shapes = {shape for _, shape in known}
    if len(shapes) > 1:
        raise bad_shape(
            name,
            "expected inputs of one shape to add up; found "
            + ", ".join(f"{source.node} {list(shape)}" for source, shape in known),
        )
    if not shapes:
        raise GraphError(
            "only loops lead to it, so its shape is unknown; feed the loop from an input", node=name, slug="no-source"
        )
    return shapes.pop()


def _declared_shape(name: str, node: nir.Input, reading: ShapeConvention) -> Shape:
    """Return the sample's shape of an Input node."""
    declared = (node.input_type or {}).get("input")
    if declared is None:
        raise GraphError("expected a shape; found none", node=name, slug="no-shape")
    array = np.asarray(declared).reshape(-1)
    if array.dtype.kind not in "fiu" or array.size > 8 or not ((array >= 1) & (array < 2**31)).all():
        raise GraphError(
            f"expected a shape of up to 8 sizes of 1 or more; found {array[:9].tolist()}", node=name, slug="bad-input"
        )
    shape = tuple(int(size) for size in array)
    if (array != shape).any() or math.prod(shape) >= 2**31:
        raise GraphError(
            f"expected a shape of whole sizes with a product below 2^31; found {array.tolist()}",
            node=name,
            slug="bad-input",
        )
    if reading.leading and len(shape) <= reading.leading:
        raise bad_shape(name, f"expected a shape with a batch axis; found {list(shape)}")
    return shape[reading.leading :]


def _returning_edges(nodes: Mapping[str, Node]) -> Iterator[GraphError]:
    """Yield errors of edges that close loops: their sources were not lowered when their target was."""
    for node in nodes.values():
        for source in node.operands:
            expected = getattr(node, "input_shape", node.shape)
            if source.node in nodes and nodes[source.node].shape != expected:
                yield GraphError(
                    f"expected shape {list(expected)}; found {list(nodes[source.node].shape)} from '{source.node}'",
                    node=node.name,
                    slug="bad-shape",
                )
