"""A trained network becomes a canonical NIR graph: all passes in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nir

from stl_deploy import __version__
from stl_deploy.fold.assemble import dialect_of, folded_network, to_nir
from stl_deploy.fold.check import check_fold
from stl_deploy.fold.rounding import round_stages
from stl_deploy.fold.stages import take_apart
from stl_deploy.fold.thresholds import Thresholds, absorb_thresholds, are_absorbed
from stl_deploy.graph.exact import Grid
from stl_deploy.graph.program import InputCoding
from stl_deploy.nn.network import Network
from stl_deploy.passes.base import LayerGrid


@dataclass(frozen=True, eq=False)
class Folded:
    """A folded network twice - in torch and as a NIR graph - and the grids its numbers were rounded to."""

    network: Network
    graph: nir.NIRGraph
    grids: tuple[LayerGrid, ...]


def fold(
    network: Network,
    *,
    coding: InputCoding,
    fraction_bits: int = 0,
    bound: float = 1.0,
    exact_grid: bool = True,
    thresholds: Thresholds = "keep",
) -> Folded:
    """Fold a trained network.

    coding, fraction_bits, bound: what the input will be: its kind, multiples of 2^-fraction_bits, and its largest
    magnitude. exact_grid: round weights and biases so that float32 sums are exact in any order.
    thresholds: ``keep`` one per neuron in the graph, or ``weights``: absorbed, so that each is 1.
    Raises InputError where the network cannot be folded, naming layer and neurons; ParityError, naming the first spike
    that differs, where its ``forward`` is not what its layers say.
    """
    stages = take_apart(network)
    if are_absorbed(thresholds):
        absorb_thresholds(stages)
    grids = round_stages(network, stages, Grid(fraction_bits, bound)) if exact_grid else ()
    folded = folded_network(network, stages)
    dialect = dialect_of(network).written()
    metadata: dict[str, Any] = {
        "version": __version__,
        "dialect": dialect,
        "input": {"coding": coding, "fraction_bits": fraction_bits, "max": bound},
        "thresholds": thresholds,
        "decision": network.decision,
    }
    if grids:
        metadata["grid"] = {grid.node: grid.fraction_bits for grid in grids}
    graph = to_nir(folded, metadata)
    check_fold(folded, graph)
    return Folded(folded, graph, grids)
