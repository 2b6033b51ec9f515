"""Fold a NIR graph that came without a torch network: pools and thresholds into weights, weights onto exact grids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import nir

from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.edit import with_metadata
from stl_deploy.exporters.nir.lower import lower, own_metadata
from stl_deploy.exporters.nir.patch import write_back
from stl_deploy.graph.exact import input_grid as declared_grid
from stl_deploy.graph.program import Pool, Program
from stl_deploy.passes import FOREIGN, apply
from stl_deploy.passes.base import FoldOptions, Rewritten, Thresholds


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
    metadata = _declared(own_metadata(graph), input_grid)
    if input_grid is not None:
        graph = with_metadata(graph, metadata)
    before = lower(graph, dialect)
    options = FoldOptions(thresholds=thresholds, exact_grid=exact_grid, merge_pools=merge_pools)
    folded = apply(before, FOREIGN, options)
    made = write_back(graph, dialect, before, folded.program)
    metadata |= _done(folded, options)
    metadata["dialect"] = made.dialect.written()
    merged = tuple(name for name in folded.removed if isinstance(before.by_name[name], Pool))
    return FoldedGraph(with_metadata(made.graph, metadata), made.dialect, made.program, merged, made.restated)


def fold_program(program: Program, *, input_grid: int | None = None, **options: Any) -> Program:
    """The same for a Program that NIR cannot hold; options: of `FoldOptions`. Raises as `fold_graph`."""
    chosen = FoldOptions(**options)
    folded = apply(replace(program, metadata=_declared(program.metadata, input_grid)), FOREIGN, chosen)
    return replace(folded.program, metadata={**folded.program.metadata, **_done(folded, chosen)})


def _declared(metadata: Mapping[str, Any], input_grid: int | None) -> dict[str, Any]:
    """Metadata that declare the input's grid, if there is one; raises InputError for one that is none."""
    kept = dict(metadata)
    if input_grid is not None:
        coding = "spikes" if input_grid == 0 else "analog"
        kept["input"] = {"coding": coding} | kept.get("input", {}) | {"fraction_bits": input_grid, "max": 1.0}
        declared_grid(kept)
    return kept


def _done(folded: Rewritten, options: FoldOptions) -> dict[str, Any]:
    """What metadata say of a fold."""
    done: dict[str, Any] = {"thresholds": "weights"} if options.thresholds == "weights" else {}
    if folded.grids:
        done["grid"] = {grid.node: grid.fraction_bits for grid in folded.grids}
    return done
