"""Run each layer on spikes that another run recorded: which of its spikes differ, and how near to a threshold.

Where sums round, one spike that moves moves later ones, so two runs of a network part for good. On the same spikes a
layer differs at its thresholds alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.reachable import reachable
from stl_deploy.graph.cell import Cell, sequence
from stl_deploy.graph.margins import cell_margins, nearest_level
from stl_deploy.graph.neurons import NeuronState
from stl_deploy.graph.program import DT, Floats, Gather, Input, Neuron, Node, Operand, Output, Program, Shape
from stl_deploy.graph.run import NetworkInput, run
from stl_deploy.graph.segments import ordered

MAX_ULP = 64
"""Largest distance of a potential from its threshold where rounding moves a spike, in units in the last place."""


@dataclass(frozen=True)
class LayerRun:
    """A layer's run on given spikes, compared with the spikes given for it.

    nearest: the least distance of any potential from the threshold, in units in the threshold's last place (in the
    largest current's where the threshold is 0). farthest: the greatest where a neuron's first spike differs, at
    ``step`` and ``at`` (sample, then neuron); the first beyond `MAX_ULP` ends the run.
    """

    differing: int
    nearest: float
    farthest: float | None = None
    step: int = 0
    at: tuple[int, ...] = ()


def moves_by_rounding(program: Program, spikes: Mapping[str, Floats], x: NetworkInput) -> bool:
    """Return whether each layer spikes as in ``spikes`` on these very spikes, but within `MAX_ULP` of its threshold.

    spikes: ``[T, B, *shape]`` of every node of ``program.compared``, by name.
    """
    given = {**spikes, **by_name(program, x)}
    farthest = (_run_of(program, layer, given).farthest for layer in program.compared)
    return all(distance is None or distance <= MAX_ULP for distance in farthest)


def _run_of(program: Program, layer: Node, given: Mapping[str, Floats]) -> LayerRun:
    """Run a layer that is compared: neurons, a Cell, or the spikes that a Gather takes of a Cell's outputs."""
    if isinstance(layer, Neuron):
        return neuron_run(program, layer, given)
    expected = given[layer.name]
    if isinstance(layer, Gather):
        (source,) = layer.operands
        cell, places = program.by_name[source.node], layer.indices.reshape(-1)
        if source.delay or (places < 0).any():
            return LayerRun(expected.size, np.inf, np.inf)  # not known, so no rounding
    else:
        cell, places = layer, np.arange(expected[0, 0].size)
    assert isinstance(cell, Cell)
    spikes = expected.reshape(*expected.shape[:2], -1)
    return cell_run(cell, arriving_at_cell(program, cell, given), spikes, places)


def neuron_run(program: Program, layer: Neuron, given: Mapping[str, Floats]) -> LayerRun:
    """Run neurons on what arrives at them when the layers before spike as given."""
    arriving, expected = arriving_at(program, layer, given), given[layer.name]
    state = NeuronState(layer, expected.shape[1])
    out = np.empty(expected.shape[1:], np.float32)
    assert layer.threshold is not None
    largest = np.abs(arriving).max(initial=np.finfo(np.float32).tiny)
    unit = np.spacing(np.where(layer.threshold == 0, largest, np.abs(layer.threshold)))
    parted = np.zeros(expected.shape[1:], bool)
    done = LayerRun(0, np.inf)
    for t in range(len(expected)):
        state.charge(arriving[t])
        level = nearest_level(state)
        distance = np.abs(state.v - level) / np.maximum(unit, np.spacing(np.abs(level)))
        state.release(out)
        unequal = out != expected[t]
        nearest = min(done.nearest, float(distance[~parted].min(initial=np.inf)))
        done = replace(done, nearest=nearest, differing=done.differing + int(unequal.sum()))
        # A neuron that parted has another potential from then on, whatever its input.
        first = np.where(unequal & ~parted, distance, -1)
        at = tuple(int(i) for i in np.unravel_index(int(first.argmax()), first.shape))
        if first[at] > (-1 if done.farthest is None else done.farthest):
            done = replace(done, farthest=float(first[at]), step=t, at=at)
            if first[at] > MAX_ULP:
                break
        parted |= unequal
    return done


def cell_run(cell: Cell, arriving: Floats, spikes: Floats, places: NDArray[Any]) -> LayerRun:
    """Run a Cell on flat operands ``[T, B, values]``; spikes: ``[T, B, places]``, of these places of its output."""
    unequal = sequence(cell, arriving).reshape(*arriving.shape[:2], -1)[..., places] != spikes
    margins = np.stack([step.reshape(len(step), -1) for step in cell_margins(cell, arriving)])
    nearest = np.fmin.accumulate(margins, axis=0)[..., places]
    farthest = float(nearest[unequal].max()) if unequal.any() else None
    return LayerRun(int(unequal.sum()), float(margins.min(initial=np.inf)), farthest)


def by_name(program: Program, x: NetworkInput) -> Mapping[str, Floats]:
    """Return the input's arrays by the names of its nodes."""
    return x if isinstance(x, Mapping) else {program.inputs[0].name: x}


def arriving_at_cell(program: Program, cell: Cell, given: Mapping[str, Floats]) -> Floats:
    """Return a Cell's operands ``[T, B, values]``, flat, when every spiking layer before it spikes as ``given``."""
    parts = [
        arriving_at(program, Output(name="arriving", shape=shape, operands=(operand,)), given)
        for operand, shape in zip(cell.operands, cell.operand_shapes, strict=True)
    ]
    return np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2)


def arriving_at(program: Program, layer: Node, given: Mapping[str, Floats]) -> Floats:
    """Return a layer's input when every spiking layer before it spikes as ``given``."""
    part = sum_behind(program.by_name, layer.operands, layer.shape, given.__contains__)
    return run(part, {node.name: given[node.name] for node in part.inputs}).y


def sum_behind(
    nodes: Mapping[str, Node], operands: Sequence[Operand], shape: Shape, is_given: Callable[[str], bool]
) -> Program:
    """Return the Program of a sum of operands alone, up to nodes whose values are given, which become its inputs."""

    def cut(name: str) -> Node:
        node = nodes[name]
        return Input(name=name, shape=node.shape, operands=()) if is_given(name) else node

    starts = (source.node for source in operands)
    needed = {name: cut(name) for name in reachable(starts, lambda name: (s.node for s in cut(name).operands))}
    end = Output(name="", shape=shape, operands=tuple(operands))  # no node has this name
    return Program((*ordered(needed), end), DT)
