"""Folding any NIR graph: thresholds into weights, and weights onto grids where float32 sums are exact.

The twin of `tests.oracles.fold.fold` for graphs that come without a torch network. The passes: `merge_affine`,
`merge_scales` and `graph_thresholds`, then `graph_grids`. Each returns a new graph, and what it returns is run against
what it was given.
"""

from __future__ import annotations

from typing import Any

import nir

from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower, own_metadata
from stl_deploy.graph.exact import input_grid as declared_grid
from tests.oracles.fold.check_graph import check_graph
from tests.oracles.fold.graph_grids import round_graph
from tests.oracles.fold.graph_nodes import with_metadata
from tests.oracles.fold.graph_thresholds import absorb
from tests.oracles.fold.merge_affine import merge_affine
from tests.oracles.fold.merge_scales import merge_scales
from tests.oracles.fold.thresholds import Thresholds, are_absorbed


def fold_graph(
    graph: nir.NIRGraph,
    dialect: Dialect,
    *,
    thresholds: Thresholds = "keep",
    exact_grid: bool = True,
    input_grid: int | None = None,
) -> nir.NIRGraph:
    """A new graph of the same spikes but for rounding.

    thresholds: ``weights`` puts each into the weights before it (see `graph_thresholds`). exact_grid: round weights
    and biases where the grid of what arrives is known. input_grid: the input is multiples of 2^-input_grid up to 1;
    default: as the graph's metadata declare.
    Raises UnsupportedError where thresholds cannot go into weights, InputError for a wrong grid, ParityError where the
    new graph spikes otherwise than rounding explains.
    """
    metadata: dict[str, Any] = dict(own_metadata(graph))
    if input_grid is not None:
        coding = "spikes" if input_grid == 0 else "analog"
        metadata["input"] = {"coding": coding} | metadata.get("input", {}) | {"fraction_bits": input_grid, "max": 1.0}
        declared_grid(metadata)
        graph = with_metadata(graph, metadata)
    absorbed, given = are_absorbed(thresholds), graph
    graph = merge_affine(given, dialect)
    if graph is not given:
        check_graph(lower(given, dialect), lower(graph, dialect))
        given = graph
    if absorbed:
        graph = absorb(merge_scales(graph, dialect), dialect)
        check_graph(lower(given, dialect), lower(graph, dialect))
        metadata["thresholds"] = "weights"
    if exact_grid:
        given = with_metadata(graph, metadata)
        graph, grids = round_graph(given, dialect)
        if grids:
            check_graph(lower(given, dialect), lower(graph, dialect), grids)
            metadata["grid"] = {grid.node: grid.fraction_bits for grid in grids}
    return with_metadata(graph, metadata)
