"""Fold in memory: a NIR graph that came without a torch network, or the Program of a captured module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import nir

from stl_deploy.config.options import FoldOptions
from stl_deploy.errors import CaptureError, UnsupportedError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.edit import with_metadata
from stl_deploy.exporters.nir.lower import lower, own_metadata
from stl_deploy.exporters.nir.patch import write_back
from stl_deploy.exporters.nir.write import to_graph
from stl_deploy.graph.exact import input_grid as declared_grid
from stl_deploy.graph.program import Pool, Program
from stl_deploy.passes import CAPTURED, FOREIGN, apply
from stl_deploy.passes.narrow import NotFiniteError
from stl_deploy.passes.permutations import Permutations


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


def fold_graph(graph: nir.NIRGraph, dialect: Dialect, options: FoldOptions) -> FoldedGraph:
    """A new graph of the same spikes but for rounding: pools and thresholds into weights, weights onto exact grids.

    options: exact_grid (None: yes) rounds weights and biases where the grid of what arrives is known. input_grid: the
    input is multiples of 2^-input_grid up to 1; default: as the graph's metadata declare.
    Raises UnsupportedError where a pool or threshold cannot go into weights, InputError for a wrong grid, ParityError
    where the new graph spikes otherwise than rounding explains.
    """
    metadata: dict[str, Any] = dict(own_metadata(graph))
    input_grid = options.input_grid
    if input_grid is not None:
        coding = "spikes" if input_grid == 0 else "analog"
        metadata["input"] = {"coding": coding} | metadata.get("input", {}) | {"fraction_bits": input_grid, "max": 1.0}
        declared_grid(metadata)
        graph = with_metadata(graph, metadata)
    before = lower(graph, dialect)
    folded = apply(before, FOREIGN, options)
    made = write_back(graph, dialect, before, folded.program)
    if options.thresholds == "weights":
        metadata["thresholds"] = "weights"
    if folded.grids:
        metadata["grid"] = {grid.node: grid.fraction_bits for grid in folded.grids}
    metadata["dialect"] = made.dialect.written()
    merged = tuple(name for name in folded.removed if isinstance(before.by_name[name], Pool))
    return FoldedGraph(with_metadata(made.graph, metadata), made.dialect, made.program, merged, made.restated)


class FoldedLayers(NamedTuple):
    """A NIR graph, its dialect, and the Program that they are read back as.

    arranged: for each neuron and input whose values stand in another order than the module's, the module's flat place
    of each value.
    """

    graph: nir.NIRGraph
    dialect: Dialect
    program: Program
    arranged: Permutations


def fold_layers(layers: Program) -> FoldedLayers:
    """The NIR graph of a captured module's layers, and what it is read back as.

    Raises CaptureError for a layer that NIR has no node for; ParityError where a pass changes what it must not.
    """
    try:
        folded = apply(layers, CAPTURED)
    except UnsupportedError as error:
        raise CaptureError(f"layer '{error.node}' {error.reason}; {error.remedy}", layer=error.node) from None
    except NotFiniteError as error:
        raise CaptureError(str(error), layer=error.node) from None
    return FoldedLayers(*to_graph(folded.program), folded.places)
