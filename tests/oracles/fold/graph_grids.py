"""Weights and biases of a NIR graph onto the grids of `tests.oracles.fold.grid`.

In the Program's order: where the grid of what arrives at a synapse is known, its weights and biases are rounded to the
finest grid on which every partial float32 sum is exact. Spikes are a grid by themselves; input is one if the graph's
metadata declare it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np

from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.exact import SPIKES, Grid, output_grid, sum_grids
from stl_deploy.graph.program import Conv, Linear
from tests.oracles.fold.graph_nodes import find, with_fields
from tests.oracles.fold.grid import LayerGrid, choose


def round_graph(graph: nir.NIRGraph, dialect: Dialect) -> tuple[nir.NIRGraph, tuple[LayerGrid, ...]]:
    """The rounded graph, and the grid chosen for each synapse that a known grid reaches, in order.

    A synapse right behind another one is given the grid of the first's rounded sums. Raises InputError where a layer's
    sums fit on no grid.
    """
    program = lower(graph, dialect)
    known: dict[str, Grid | None] = {node.name: SPIKES for node in program.spiking if not node.multi_spike}
    chosen: list[LayerGrid] = []
    changes: dict[str, dict[str, Any]] = {}
    for node in program.nodes:
        if node.name in known:
            continue
        arriving = sum_grids([known.get(source.node) for source in node.operands])
        if isinstance(node, Linear | Conv) and arriving is not None:
            node, grid = _rounded(node, arriving)
            chosen.append(grid)
            held, numbers = find(graph, node.name), {"weight": node.weight, "bias": node.bias}
            changes[node.name] = {  # in the shapes that the graph holds them in
                field: array.reshape(np.shape(getattr(held, field)))
                for field, array in numbers.items()
                if array is not None
            }
        known[node.name] = output_grid(node, arriving, program.metadata)
    return with_fields(graph, changes), tuple(chosen)


def _rounded(node: Linear | Conv, arriving: Grid) -> tuple[Linear | Conv, LayerGrid]:
    bias = np.zeros(len(node.weight)) if node.bias is None else node.bias.astype(np.float64)
    weight, rounded, grid = choose(node.name, node.weight.astype(np.float64), bias, arriving)
    return replace(node, weight=weight, bias=None if node.bias is None else rounded), grid
