"""Prove the Cells of a capture: each computes the module's values, of what arrives at it in the module.

A Cell whose operations are exact has the module's bits on the module's currents. The graph's currents are compared up
to rounding, so the proof reports spikes that the rounding of sums moves, with the nearest comparison or rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stl_deploy.graph.by_layer import arriving_at_cell, by_name, cell_run
from stl_deploy.graph.cell import Cell, sequence
from stl_deploy.graph.program import Floats, Program
from stl_deploy.graph.run import NetworkInput
from stl_deploy.tracing.proof.layers_and_ends import MAX_ROUNDING, LayerProof, require_near
from stl_deploy.tracing.recording.source_lines import Place


def prove_cells(
    program: Program,
    spikes: Mapping[str, Floats],
    x: NetworkInput,
    places: Mapping[str, Place],
    currents: Mapping[str, Floats],
) -> tuple[LayerProof, ...]:
    """Run each Cell of the folded graph on the module's own currents, and on the graph's of the layers before it.

    places: of layers, in the user's code. currents: see `stl_deploy.tracing.proof.module_values`.
    Raises CaptureError for a Cell of exact operations that computes other values, and for other currents.
    """
    given = {**spikes, **by_name(program, x)}
    cells = [node for node in program.of(Cell) if node.name in spikes]
    return tuple(_prove(program, node, given, places, currents[node.name]) for node in cells)


def _prove(
    program: Program,
    cell: Cell,
    given: Mapping[str, Floats],
    places: Mapping[str, Place],
    currents: Floats,
) -> LayerProof:
    expected = given[cell.name].reshape(*currents.shape[:2], -1)
    inexact = tuple(dict.fromkeys(operation.op for operation in cell.inexact))
    line = places[cell.name].line if cell.name in places else None
    if not inexact:
        what = f"Cell '{cell.name}' of the module's currents"
        made = sequence(cell, currents).reshape(expected.shape)
        require_near(what, cell.name, made, expected, 0, line=line)
    arriving = arriving_at_cell(program, cell, given)
    require_near(f"what arrives at '{cell.name}'", cell.name, arriving, currents, MAX_ROUNDING, line=line)
    spikes = expected[..., cell.fires]
    own = cell_run(cell, arriving, spikes, np.flatnonzero(cell.fires))
    rate = np.count_nonzero(spikes) / spikes.size if spikes.size else 0.0
    return LayerProof(cell.name, spikes.size, own.differing, own.nearest, own.farthest, rate, inexact)
