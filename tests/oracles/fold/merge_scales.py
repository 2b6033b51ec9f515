"""A scale of each output, into the weights right before it: s·(W·x + b) = (s·W)·x + s·b in real arithmetic."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np

from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Conv, Doubles, Linear, Program, Scale
from tests.oracles.fold.graph_nodes import find, with_fields, without_nodes


def merge_scales(graph: nir.NIRGraph, dialect: Dialect) -> nir.NIRGraph:
    """The graph without the scales that stand alone behind weights of their own; others stay."""
    program = lower(graph, dialect)
    changes, gone = dict[str, dict[str, Any]](), set[str]()
    for scale in program.of(Scale):
        factors = _rows(program, scale)
        if factors is None or scale.name not in graph.nodes:
            continue
        before = scale.operands[0].node
        held = find(graph, before)
        fields = {field: getattr(held, field, None) for field in ("weight", "bias")}
        changes[before] = {field: _times(factors, value) for field, value in fields.items() if value is not None}
        gone.add(scale.name)
    return without_nodes(with_fields(graph, changes), gone)


def _times(factors: Doubles, value: Any) -> Any:
    return (np.asarray(value, np.float64) * factors.reshape(-1, *(1,) * (np.ndim(value) - 1))).astype(np.float32)


def _rows(program: Program, scale: Scale) -> Doubles | None:
    """One factor for each row of the weights before a scale; None where it cannot go into them."""
    if len(scale.operands) != 1 or scale.operands[0].delay:
        return None
    before = program.by_name[scale.operands[0].node]
    if not isinstance(before, Linear | Conv) or len(program.readers[before.name]) != 1:
        return None
    if any(
        source.node == scale.name and source.delay
        for reader in program.readers[scale.name]
        for source in reader.operands
    ):
        return None
    whole = np.broadcast_to(np.asarray(scale.scale, np.float64), scale.shape)
    if isinstance(before, Linear):
        return whole.copy() if len(scale.shape) == 1 else None
    flat = whole.reshape(scale.shape[0], -1)
    return flat[:, 0] if (flat == flat[:, :1]).all() else None
