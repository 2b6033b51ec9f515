"""Fold a NIR graph that came without a torch network: pools and thresholds into weights, weights onto exact grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nir

from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.edit import with_metadata
from stl_deploy.exporters.nir.lower import lower, own_metadata
from stl_deploy.exporters.nir.patch import write_back
from stl_deploy.graph.exact import input_grid as declared_grid
from stl_deploy.graph.program import Pool, Program
from stl_deploy.passes import FOREIGN, apply
from stl_deploy.passes.base import FoldOptions, Thresholds


@dataclass(frozen=True, eq=False)
class FoldedGraph:
    """A folded graph, the dialect it is meant in, and its Program.

    merged: the pools that went into weights. restated: whether its nodes had to be written anew, because those of the
    graph given could not hold the change.
    """

    graph: nir.NIRGraph
    dialect: Dialect
    program: Program
    merged: tuple[str, ...]
    restated: bool


def fold_graph(
    graph: nir.NIRGraph,
    dialect: Dialect,
    *,
    thresholds: Thresholds = "keep",
    exact_grid: bool = True,
    input_grid: int | None = None,
    merge_pools: bool = False,
) -> FoldedGraph:
    """A new graph of the same spikes but for rounding.

    thresholds: ``weights`` puts each into the weights before it. exact_grid: round weights and biases where the grid
    of what arrives is known. input_grid: the input is multiples of 2^-input_grid up to 1; default: as the graph's
    metadata declare. merge_pools: put average pools into the weights behind them.
    Raises UnsupportedError where a pool or threshold cannot go into weights, InputError for a wrong grid, ParityError
    where the new graph spikes otherwise than rounding explains.
    """
    metadata: dict[str, Any] = dict(own_metadata(graph))
    if input_grid is not None:
        coding = "spikes" if input_grid == 0 else "analog"
        metadata["input"] = {"coding": coding} | metadata.get("input", {}) | {"fraction_bits": input_grid, "max": 1.0}
        declared_grid(metadata)
        graph = with_metadata(graph, metadata)
    before = lower(graph, dialect)
    options = FoldOptions(thresholds=thresholds, exact_grid=exact_grid, merge_pools=merge_pools)
    folded = apply(before, FOREIGN, options)
    made = write_back(graph, dialect, before, folded.program)
    if thresholds == "weights":
        metadata["thresholds"] = "weights"
    if folded.grids:
        metadata["grid"] = {grid.node: grid.fraction_bits for grid in folded.grids}
    metadata["dialect"] = made.dialect.written()
    merged = tuple(name for name in folded.removed if isinstance(before.by_name[name], Pool))
    return FoldedGraph(with_metadata(made.graph, metadata), made.dialect, made.program, merged, made.restated)
