"""Post-training quantisation of any Program that integers hold: layer by layer, by spike agreement with the reference.

Each population sees the integer network's own spikes, so it makes up for errors before it; a loop's edge carries the
reference's spikes while integers are chosen. Rows are as large as 8 bits hold, thresholds stay each neuron's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.graph.exact import input_grid
from stl_deploy.graph.program import Doubles, Input, Node, Program
from stl_deploy.graph.run import run
from stl_deploy.integers.bounds import require_sums
from stl_deploy.integers.branches import values
from stl_deploy.integers.building import Build, Fit
from stl_deploy.integers.graph import IntegerGraph, IntegerOutput
from stl_deploy.integers.net import WIDE
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.scales import ThresholdForm


@dataclass(frozen=True, eq=False)
class Quantised:
    """The integers, and how each population came out.

    scales: by population, what each row's weights, bias and threshold were multiplied by before rounding.
    """

    graph: IntegerGraph
    fits: tuple[Fit, ...]
    scales: Mapping[str, Doubles]


def quantise(
    program: Program,
    calibration: NDArray[Any],
    *,
    input_scale: float = 1.0,
    largest: float | None = None,
    thresholds: ThresholdForm = "per-neuron",
) -> Quantised:
    """Choose integers. calibration: real input ``[T, B, *shape]`` on the grid of 1/input_scale; some hundred samples.

    largest: magnitude that the input never exceeds (None: what calibration shows, at least 1/input_scale).
    thresholds: ``per-neuron``, or ``folded``: one for each population.
    Sums are wide: nothing wraps (`stl_deploy.integers.net.WIDE`).
    Raises UnsupportedError for what integers cannot hold, InputError for input off the grid.
    """
    known = values(program, input_scale)
    x = to_integers(calibration, input_scale)
    recorded = run(program, calibration, record=[node.name for node in program.spiking]).recorded
    reference = {name: spikes.astype(np.uint8) for name, spikes in recorded.items()}
    build = Build(program, known, reference, thresholds)
    build.input(x, input_scale, largest)
    for node in program.nodes:
        if not isinstance(node, Input):
            build.add(node)
    graph = IntegerGraph(_in_order(build.nodes), WIDE)
    require_sums(graph)
    return Quantised(graph, tuple(build.fits), build.scales)


def choose(program: Program, x: NDArray[Any], thresholds: ThresholdForm = "per-neuron") -> Quantised:
    """Integers for a Program by calibration input ``x`` ``[T, B, *shape]``, on the grid that its metadata declare."""
    grid = input_grid(program.metadata)
    if grid is None:
        return quantise(program, x, thresholds=thresholds)
    scale = 2.0**grid.fraction_bits
    return quantise(program, x, input_scale=scale, largest=grid.bound, thresholds=thresholds)


def _in_order(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Every node behind its undelayed sources, the output last."""
    waiting, done = list(nodes), dict[str, Node]()
    while waiting:
        later = []
        for node in waiting:
            if all(source.delay or source.node in done for source in node.sources):
                done[node.name] = node
            else:
                later.append(node)
        assert len(later) < len(waiting)
        waiting = later
    return tuple(sorted(done.values(), key=lambda node: isinstance(node, IntegerOutput)))
