"""Fold in memory: a NIR graph without a torch network, or the Program of a captured module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from stl_deploy.graph.program import Neuron, Pool, Program
from stl_deploy.graph.takes import NIR_NODES, refused
from stl_deploy.passes import CAPTURED, FOREIGN, apply
from stl_deploy.passes.base import Rewritten
from stl_deploy.passes.narrow import NotFiniteError
from stl_deploy.passes.permutations import Permutations


@dataclass(frozen=True, eq=False)
class FoldedGraph:
    """A folded graph, its dialect, and its Program.

    merged: the pools that went into weights. restated: whether its nodes had to be written anew, because those of the
    graph given could not hold the change. kept: why neurons keep their thresholds (see `Rewritten`).
    """

    graph: nir.NIRGraph
    dialect: Dialect
    program: Program
    merged: tuple[str, ...]
    restated: bool
    kept: Mapping[str, str]


def fold_graph(graph: nir.NIRGraph, dialect: Dialect, options: FoldOptions) -> FoldedGraph:
    """Fold into a new graph, equal up to rounding: pools and thresholds into weights, weights onto exact grids.

    options: exact_grid (None: yes) rounds weights and biases where the grid of what arrives is known. input_grid: the
    input is multiples of 2^-input_grid up to 1; default: as the graph's metadata declare.
    Raises UnsupportedError where a pool or threshold cannot go into weights, InputError for a wrong grid, ParityError
    where the new graph spikes otherwise than rounding explains.
    """
    metadata = _declared(own_metadata(graph), options.input_grid)
    if options.input_grid is not None:
        graph = with_metadata(graph, metadata)
    before = lower(graph, dialect)
    folded = apply(before, FOREIGN, options)
    made = write_back(graph, dialect, before, folded.program)
    metadata |= _done(folded, options)
    metadata["dialect"] = made.dialect.written()
    merged = tuple(name for name in folded.removed if isinstance(before.by_name[name], Pool))
    written = with_metadata(made.graph, metadata)
    return FoldedGraph(written, made.dialect, made.program, merged, made.restated, folded.kept)


def fold_program(program: Program, options: FoldOptions) -> Rewritten:
    """Fold a Program that NIR cannot hold. Raises as `fold_graph`."""
    declared = replace(program, metadata=_declared(program.metadata, options.input_grid))
    folded = apply(declared, FOREIGN, options)
    made = replace(folded.program, metadata={**folded.program.metadata, **_done(folded, options)})
    return replace(folded, program=made)


def _declared(metadata: Mapping[str, Any], input_grid: int | None) -> dict[str, Any]:
    """Return metadata that declare the input's grid, if there is one; raise InputError for an invalid one."""
    kept = dict(metadata)
    if input_grid is not None:
        coding = "spikes" if input_grid == 0 else "analog"
        kept["input"] = {"coding": coding} | kept.get("input", {}) | {"fraction_bits": input_grid, "max": 1.0}
        declared_grid(kept)
    return kept


def _done(folded: Rewritten, options: FoldOptions) -> dict[str, Any]:
    """Return the metadata of a fold."""
    done: dict[str, Any] = {"thresholds": "weights"} if options.thresholds == "weights" else {}
    if folded.kept:
        done["thresholds_kept"] = sorted(folded.kept)
    if folded.grids:
        done["grid"] = {grid.node: grid.fraction_bits for grid in folded.grids}
    return done


def kept_thresholds(kept: Mapping[str, str]) -> list[str]:
    """Return one sentence for each neuron that keeps its thresholds."""
    return [f"node '{name}' keeps its thresholds: {why.partition(': ')[2]}" for name, why in kept.items()]


class FoldedLayers(NamedTuple):
    """A NIR graph, its dialect, and the Program that they read back as; the Program alone if NIR cannot hold it.

    arranged: for each neuron and input whose values stand in another order than the module's, the module's flat place
    of each value.
    """

    graph: nir.NIRGraph | None
    dialect: Dialect | None
    program: Program
    arranged: Permutations

    @property
    def network(self) -> nir.NIRGraph | Program:
        """The graph, or the Program without one."""
        return self.program if self.graph is None else self.graph


def fold_layers(layers: Program) -> FoldedLayers:
    """Return the NIR graph of a captured module's layers, and the Program that it reads back as.

    Raises CaptureError for a layer that a pass cannot take apart, or numbers that NIR cannot hold; ParityError where a
    pass changes what it must not.
    """
    try:
        folded = apply(layers, CAPTURED)
    except UnsupportedError as error:
        raise CaptureError(f"layer '{error.node}' {error.reason}; {error.remedy}", layer=error.node) from None
    except NotFiniteError as error:
        raise CaptureError(str(error), layer=error.node) from None
    if any(refused(folded.program, NIR_NODES, "nir")):
        return FoldedLayers(None, None, folded.program, folded.places)
    try:
        return FoldedLayers(*to_graph(folded.program), folded.places)
    except CaptureError:
        if not any(_is_beyond_nir(neuron) for neuron in folded.program.of(Neuron)):
            raise
        return FoldedLayers(None, None, folded.program, folded.places)


def _is_beyond_nir(neuron: Neuron) -> bool:
    """Return whether a neuron counts spikes as no dialect of NIR does."""
    return neuron.many and (neuron.rounding != "down" or neuron.decay is None)
