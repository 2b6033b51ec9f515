"""Fold the Program of a captured module, into a NIR graph where NIR can hold it."""

from __future__ import annotations

from typing import NamedTuple

import nir

from stl_deploy.errors import CaptureError, UnsupportedError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.write import to_graph
from stl_deploy.graph.program import Neuron, Program
from stl_deploy.graph.takes import NIR_NODES, refused
from stl_deploy.passes import CAPTURED, apply
from stl_deploy.passes.narrow import NotFiniteError
from stl_deploy.passes.permutations import Permutations


class FoldedLayers(NamedTuple):
    """A NIR graph, its dialect, and the Program that they are read back as; of what NIR cannot hold the Program alone.

    arranged: for each neuron and input whose values stand in another order than the module's, the module's flat place
    of each value.
    """

    graph: nir.NIRGraph | None
    dialect: Dialect | None
    program: Program
    arranged: Permutations

    @property
    def network(self) -> nir.NIRGraph | Program:
        """The graph, or the Program where there is none."""
        return self.program if self.graph is None else self.graph


def fold_layers(layers: Program) -> FoldedLayers:
    """The NIR graph of a captured module's layers, and what it is read back as.

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
    """Whether a neuron counts spikes as no dialect of NIR does."""
    return neuron.many and (neuron.rounding != "down" or neuron.decay is None)
