"""Write a Program as a NIR graph: patch the graph that it was read from, or write its nodes anew.

A patch keeps foreign metadata, nested graphs, time constants and the dialect. Where nodes or edges changed beyond what
the graph's own nodes hold, the graph is written anew. Nodes are found and replaced by their Program's names.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower, with_metadata
from stl_deploy.exporters.nir.write import Written, node_of, write_anew
from stl_deploy.graph.program import Conv, Linear, Neuron, Node, Origin, Program
from stl_deploy.passes.base import bypassed
from stl_deploy.passes.equivalence import require_equivalent
from stl_deploy.passes.fold_thresholds import divisor_of

_ROUNDING = 2.0**-20
"""Tolerance of a patched graph's numbers, relative to the largest value of the field."""


class _NotHeldError(Exception):
    """Raised if the graph's own nodes cannot hold the change."""


def to_graph(program: Program) -> Written:
    """Return the NIR graph of a Program, its dialect, and the Program that they read back as.

    Raises UnsupportedError for a node that NIR has none for, CaptureError for a number or an edge that it cannot hold,
    ParityError if what is read back does not spike as ``program`` does.
    """
    if program.origin is None:
        return write_anew(program)
    origin = program.origin
    given: nir.NIRGraph = origin.graph
    try:
        made = _patched(origin, program)
        own = {**program.metadata, "dialect": origin.dialect.written()}
        if made is given:
            return Written(with_metadata(given, own), origin.dialect, program, "as read")
        written = Written(with_metadata(made, own), origin.dialect, program, "patched")
        read = lower(written.graph, written.dialect)
        if not _is_same_network(read, program):
            raise _NotHeldError
    except _NotHeldError:
        anew = write_anew(program)
        metadata = {**given.metadata, **anew.graph.metadata}
        graph = nir.NIRGraph(anew.graph.nodes, anew.graph.edges, metadata=metadata, type_check=False)
        written = Written(graph, anew.dialect, program, "restated")
        read = lower(written.graph, written.dialect)
    require_equivalent(program, read, by="to_graph")
    return written._replace(program=read)


def _patched(origin: Origin, after: Program) -> nir.NIRGraph:
    """Return the graph with the changes in its nodes; the very graph if nothing changed."""
    before = {node.name: node for node in origin.nodes}
    graph: nir.NIRGraph = origin.graph
    dialect: Dialect = origin.dialect
    gone = before.keys() - after.by_name.keys()
    alone = all(len(before[name].operands) == 1 for name in gone)
    if after.dt != dialect.dt or after.by_name.keys() - before.keys() or not gone <= graph.nodes.keys() or not alone:
        raise _NotHeldError
    expected = bypassed(before, gone)
    changes: dict[str, Mapping[str, Any]] = {}
    replaced: dict[str, nir.NIRNode] = {}
    for name, node in after.by_name.items():
        if sorted(map(repr, node.operands)) != sorted(map(repr, expected[name].operands)):
            raise _NotHeldError
        changed = _changed(before[name], node)
        if not changed:
            continue
        if "v_min" in changed and dialect.v_min != "-threshold":
            raise _NotHeldError
        patch = _patch(find(graph, name), before[name], node, changed)
        if patch is not None:
            changes[name] = patch
        elif name in graph.nodes:
            replaced[name] = node_of(node)
        else:
            raise _NotHeldError
    if not (gone or changes or replaced):
        return graph
    made = without_nodes(with_fields(graph, changes), gone)
    for name, new in replaced.items():
        made = with_node(made, name, new)
    return made


def _is_same_network(read: Program, program: Program) -> bool:
    """Return whether all fields of all nodes are equal but for rounding."""
    if read.by_name.keys() != program.by_name.keys():
        return False
    return all(_is_near(node, read.by_name[name]) for name, node in program.by_name.items())


def _is_near(a: Any, b: Any, neutral: float = 0.0) -> bool:
    if is_dataclass(a) and type(a) is type(b):
        values: dict[str, tuple[Any, Any]] = {
            field.name: (getattr(a, field.name), getattr(b, field.name)) for field in fields(a)
        }
        if "operands" in values:
            before, after = values["operands"]
            values["operands"] = sorted(map(repr, before)), sorted(map(repr, after))
        return all(_is_near(*pair, neutral=float(name == "gain")) for name, pair in values.items())
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        left, right = (np.asarray(neutral if x is None else x, np.float64) for x in (a, b))
        scale = max(np.abs(left).max(initial=0), np.abs(right).max(initial=0))
        return bool((np.abs(left - right) <= _ROUNDING * scale).all()) if _fit(left, right) else False
    return bool(a == b)


def _fit(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.ndim == 0 or b.ndim == 0 or a.shape == b.shape or a.size == 1 or b.size == 1


def _changed(before: Node, after: Node) -> set[str]:
    if type(before) is not type(after):
        raise _NotHeldError
    names = (field.name for field in fields(after) if field.name not in ("operands", "synapse"))
    return {name for name in names if not _same(getattr(before, name), getattr(after, name))}


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return np.shape(a) == np.shape(b) and bool(np.array_equal(a, b))


def _patch(held: Any, before: Node, after: Node, changed: set[str]) -> dict[str, Any] | None:
    """Return the changed fields of the graph's node; None if it needs another node."""
    if isinstance(after, Linear | Conv) and changed <= {"weight", "bias"}:
        return _weights(held, after)
    if isinstance(before, Neuron) and isinstance(after, Neuron) and "threshold" in changed:
        return _thresholds(held, before, after)
    return None


def _weights(held: Any, node: Linear | Conv) -> dict[str, Any] | None:
    """Return the weights in the graph's own shapes."""
    if np.size(held.weight) != node.weight.size:
        return None
    fields = {"weight": node.weight.reshape(np.shape(held.weight))}
    if node.bias is not None:
        if isinstance(held, nir.Linear):
            return None
        given = getattr(held, "bias", None)
        fields["bias"] = node.bias if given is None else node.bias.reshape(np.shape(given))
    return fields


def _thresholds(held: Any, before: Neuron, after: Neuron) -> dict[str, Any]:
    """Return the fields for folded thresholds: all potentials that they are compared with or set to."""
    assert after.threshold is not None
    field = "threshold" if isinstance(held, nir.Threshold) else "v_threshold"
    fields_changed: dict[str, Any] = {field: np.full(np.shape(getattr(held, field)), after.threshold, np.float32)}
    for name in ("v_leak", "v_reset"):
        value = getattr(held, name, None)
        if value is not None and np.any(value):
            fields_changed[name] = (np.asarray(value, np.float64) / divisor_of(before)[0]).astype(np.float32)
    return fields_changed


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
