"""Write a folded Program back into its NIR graph, changing as little as possible.

Foreign metadata, nested graphs, time constants and the dialect are unchanged. If nodes or edges changed beyond what the
graph's own nodes hold, the graph is restated canonically.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import nir
import numpy as np

from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.edit import find, with_fields, with_node, without_nodes
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.nir.write import node_of, to_graph
from stl_deploy.graph.program import Conv, Linear, Neuron, Node, Program
from stl_deploy.passes.base import bypassed
from stl_deploy.passes.equivalence import require_equivalent
from stl_deploy.passes.fold_thresholds import divisor_of


class Rewrote(NamedTuple):
    """A NIR graph, its dialect, the Program that it reads back as, and whether it was restated."""

    graph: nir.NIRGraph
    dialect: Dialect
    program: Program
    restated: bool


class _NotHeldError(Exception):
    """Raised if the graph's own nodes cannot hold the change."""


def write_back(graph: nir.NIRGraph, dialect: Dialect, before: Program, after: Program) -> Rewrote:
    """Return the graph of ``after``, made by passes from ``before``, which was read from ``graph``.

    Raises ParityError if what is read back does not spike as ``after`` does, CaptureError where a graph that must be
    restated holds what NIR cannot.
    """
    try:
        made, meant, restated = _patched(graph, dialect, before, after), dialect, False
    except _NotHeldError:
        written = to_graph(after)
        metadata = {**graph.metadata, **written.graph.metadata}
        made = nir.NIRGraph(written.graph.nodes, written.graph.edges, metadata=metadata, type_check=False)
        meant, restated = written.dialect, True
    read = lower(made, meant)
    require_equivalent(after, read, by="write_back")
    return Rewrote(made, meant, read, restated)


def _patched(graph: nir.NIRGraph, dialect: Dialect, before: Program, after: Program) -> nir.NIRGraph:
    gone = before.by_name.keys() - after.by_name.keys()
    alone = all(len(before.by_name[name].sources) == 1 for name in gone)
    if after.by_name.keys() - before.by_name.keys() or not gone <= graph.nodes.keys() or not alone:
        raise _NotHeldError
    expected = bypassed(before.by_name, gone)
    changes: dict[str, Mapping[str, Any]] = {}
    replaced: dict[str, nir.NIRNode] = {}
    for name, node in after.by_name.items():
        if sorted(map(repr, node.sources)) != sorted(map(repr, expected[name].sources)):
            raise _NotHeldError
        changed = _changed(before.by_name[name], node)
        if not changed:
            continue
        if "v_min" in changed and dialect.v_min != "-threshold":
            raise _NotHeldError
        patch = _patch(find(graph, name), before.by_name[name], node, changed)
        if patch is not None:
            changes[name] = patch
        elif name in graph.nodes:
            replaced[name] = node_of(node)
        else:
            raise _NotHeldError
    made = without_nodes(with_fields(graph, changes), gone)
    for name, new in replaced.items():
        made = with_node(made, name, new)
    return made


def _changed(before: Node, after: Node) -> set[str]:
    if type(before) is not type(after):
        raise _NotHeldError
    names = (field.name for field in fields(after) if field.name not in ("sources", "synapse"))
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
    found: dict[str, Any] = {field: np.full(np.shape(getattr(held, field)), after.threshold, np.float32)}
    for name in ("v_leak", "v_reset"):
        value = getattr(held, name, None)
        if value is not None and np.any(value):
            found[name] = (np.asarray(value, np.float64) / divisor_of(before)[0]).astype(np.float32)
    return found
