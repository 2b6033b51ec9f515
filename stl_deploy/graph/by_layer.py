"""Run each layer on spikes that another run recorded: which of its spikes differ, and how near to a threshold.

Where sums round, one spike that moves moves later ones, so two runs of a network part for good. On the same spikes a
layer differs at its thresholds alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from stl_deploy._util.reachable import reachable
from stl_deploy.graph.cell import Cell, sequence
from stl_deploy.graph.margins import cell_margins, nearest_level
from stl_deploy.graph.neurons import NeuronState
from stl_deploy.graph.program import Floats, Input, Neuron, Node, Output, Program
from stl_deploy.graph.run import NetworkInput, run

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
    farthest = (_farthest(program, layer, given) for layer in program.compared)
    return all(distance <= MAX_ULP for distance in farthest)


def _farthest(program: Program, layer: Node, given: Mapping[str, Floats]) -> float:
    if isinstance(layer, Neuron):
        return neuron_run(program, layer, given).farthest or 0.0
    if not isinstance(layer, Cell):
        return 0.0
    return cell_run(layer, arriving_at_cell(program, layer, given), given[layer.name]).farthest or 0.0


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
        first = np.where(unequal & ~parted, distance, -1)
        at = tuple(int(i) for i in np.unravel_index(int(first.argmax()), first.shape))
        if first[at] > (-1 if done.farthest is None else done.farthest):
            done = replace(done, farthest=float(first[at]), step=t, at=at)
            if first[at] > MAX_ULP:
                break
        parted |= unequal
    return done


def cell_run(cell: Cell, arriving: Floats, expected: Floats) -> LayerRun:
    """Run a Cell on flat operands ``[T, B, values]``; of its outputs those that are integers are spikes."""
    flat = (*arriving.shape[:2], -1)
    unequal = (sequence(cell, arriving).reshape(flat) != expected.reshape(flat))[..., cell.fires]
    margins = np.stack([step.reshape(len(step), -1) for step in cell_margins(cell, arriving)])
    nearest = np.fmin.accumulate(margins, axis=0)[..., cell.fires]
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

    def cut(name: str) -> Node:
        node = program.by_name[name]
        return Input(name=name, shape=node.shape, operands=()) if name in given else node

    starts = (source.node for source in layer.operands)
    needed = {n: cut(n) for n in reachable(starts, lambda n: (source.node for source in cut(n).operands))}
    output = Output(name="arriving", shape=layer.shape, operands=layer.operands)
    while output.name in needed:
        output = replace(output, name=output.name + "_")
    order: list[Node] = [node for node in needed.values() if isinstance(node, Input)]
    order += [needed[node.name] for node in program.nodes if node.name in needed and node.name not in given]
    part = Program((*order, output), program.dt)
    return run(part, {node.name: given[node.name] for node in part.inputs}).y
