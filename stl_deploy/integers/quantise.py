"""Quantise any Program after training: layer by layer, by spike agreement with the reference.

Each population sees the integer network's own spikes, so it makes up for errors before it; a loop's edge carries the
reference's spikes while integers are chosen. Rows are as large as 8 bits hold, thresholds stay each neuron's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.working import stage
from stl_deploy.config.options import ThresholdForm
from stl_deploy.graph.exact import input_grid
from stl_deploy.graph.program import Conv, Doubles, Input, Linear, Neuron, Node, Operand, Output, Program
from stl_deploy.graph.run import run
from stl_deploy.integers.bounds import require_sums
from stl_deploy.integers.building import Hardware, LayerFidelity, LayerwiseQuantiser
from stl_deploy.integers.fan_in import values
from stl_deploy.integers.graph import IntegerGraph, IntegerOutput
from stl_deploy.integers.net import WIDE, Accumulator
from stl_deploy.integers.ranges import WEIGHT_TOPS, first_that_holds
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.scales import WEIGHT_TOP


@dataclass(frozen=True, eq=False)
class IntegerModel:
    """The integers of a Program, and the result for each population.

    Attributes:
        graph: The network in integers.
        fits: One for each population, in order.
        row_scales: By population, the factor on each row's weights, bias and threshold before rounding.
        host: Nodes behind the last spikes that the host computes in float32; empty if integers hold them.
    """

    graph: IntegerGraph
    fits: tuple[LayerFidelity, ...]
    row_scales: Mapping[str, Doubles]
    host: tuple[Node, ...] = ()


def quantise(
    program: Program,
    calibration: NDArray[Any],
    *,
    input_scale: float = 1.0,
    largest: float | None = None,
    hardware: Hardware | None = None,
    host: bool = False,
    reference: Program | None = None,
) -> IntegerModel:
    """Choose the integers of each population in turn, by spike agreement with the Program.

    Args:
        program: The network to quantise.
        calibration: Real input ``[T, B, *shape]`` on the grid of 1/input_scale; some hundred samples are enough.
        input_scale: Factor from real input to integers.
        largest: Upper bound of the input's magnitude (None: calibration's, at least 1/input_scale).
        hardware: Target hardware (default: a threshold per neuron, sums that do not wrap).
        host: Leave nodes behind the last spikes to the host (`split_host`).
        reference: Network with the same populations whose spikes are the goal (default: ``program``).

    Raises:
        UnsupportedError: For nodes that integers cannot represent.
        InputError: For input off the grid.
    """
    hardware, reference = hardware or Hardware(), reference or program
    program, readout = split_host(program) if host else (program, ())
    known = values(program, input_scale)
    x = np.asarray(to_integers(calibration, input_scale), np.int32)
    recorded = run(reference, calibration, record=[node.name for node in program.spiking]).recorded
    aim = {n.name: recorded[n.name].astype(np.uint8).reshape(*x.shape[:2], *n.shape) for n in program.spiking}
    build = LayerwiseQuantiser(program, known, aim, hardware)
    build.input(x, input_scale, largest)
    for number, node in enumerate(program.nodes, 1):
        stage(f"choosing integers up to {hardware.weight_top}: layer", number, len(program.nodes))
        if not isinstance(node, Input):
            build.add(node)
    graph = IntegerGraph(_in_order(build.nodes), hardware.accumulator)
    if not hardware.accumulator.wraps:
        require_sums(graph)
    return IntegerModel(graph, tuple(build.fits), build.scales, readout)


def split_host(program: Program) -> tuple[Program, tuple[Node, ...]]:
    """Cut a chain behind its last spikes: the part up to them, and the nodes between them and the output."""
    last = max(i for i, node in enumerate(program.nodes) if isinstance(node, Neuron))
    spikes, after = program.nodes[last], program.nodes[last + 1 :]
    ends = tuple(
        replace(node, shape=spikes.shape, operands=(Operand(spikes.name),))
        for node in after
        if isinstance(node, Output)
    )
    kept = replace(program, nodes=(*program.nodes[: last + 1], *ends))
    return kept, tuple(node for node in after if not isinstance(node, Output))


def choose(
    program: Program,
    x: NDArray[Any],
    thresholds: ThresholdForm = "per-neuron",
    accumulator: Accumulator = WIDE,
    weight_top: int = WEIGHT_TOP,
) -> IntegerModel:
    """Choose integers for a Program by calibration input ``x`` ``[T, B, *shape]``, on the declared grid.

    Where sums that do not wrap overflow, weights are chosen smaller; integers that were trained stay.
    """
    grid = input_grid(program.metadata)
    input_scale, largest = (1.0, None) if grid is None else (2.0**grid.fraction_bits, grid.bound)

    def made(weight_top: int) -> IntegerModel:
        hardware = Hardware(thresholds, accumulator=accumulator, weight_top=weight_top)
        return quantise(program, x, input_scale=input_scale, largest=largest, hardware=hardware)

    if accumulator.wraps or weight_top < WEIGHT_TOP or in_integers(program):
        return made(weight_top)
    return first_that_holds(made, WEIGHT_TOPS)


def in_integers(program: Program) -> bool:
    """Whether a layer's weights are integers, as training in integers leaves those of neurons."""
    layers = (node for node in program.nodes if isinstance(node, Linear | Conv))
    return any(np.array_equal(node.weight, np.trunc(node.weight)) for node in layers)


def _in_order(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Return every node behind its undelayed sources, the output last."""
    waiting, done = list(nodes), dict[str, Node]()
    while waiting:
        later = []
        for node in waiting:
            if all(source.delay or source.node in done for source in node.operands):
                done[node.name] = node
            else:
                later.append(node)
        assert len(later) < len(waiting)
        waiting = later
    return tuple(sorted(done.values(), key=lambda node: isinstance(node, IntegerOutput)))
