"""Find inputs and labels that leave nothing to compare: networks that decide nothing, and twins that do not either."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.reachable import reachable
from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.counts.record import Counts, populations
from stl_deploy.energy.models.conventions import first_layer
from stl_deploy.energy.models.verdict import Idle
from stl_deploy.energy.paired import accuracy_interval, percent
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.program import Program

EACH_STEP = "No ratio to an ANN: labels are per step, and an ANN twin of one pass decides once."


def without_ann(labels: NDArray[Any] | None, twin: AnnTwin | None) -> str:
    """Return why there is no ANN to compare with, in one sentence; "" if there is one.

    A twin that is not shown to decide better than the commonest label is at chance, if so many samples could show it.
    """
    if labels is None:
        return ""
    if labels.ndim == 2:
        return EACH_STEP
    if twin is None or twin.right is None or len(twin.right) != len(labels):
        return ""
    samples, right = len(labels), int(twin.right.sum())
    commonest = int(np.unique(labels, return_counts=True)[1].max())
    # of too few samples not even a twin without errors would be above chance
    could_show = accuracy_interval(samples, samples)[0] > commonest / samples
    if not could_show or accuracy_interval(right, samples)[0] > commonest / samples:
        return ""
    return (
        f"There is no ANN to compare with: the twin decides {percent(right / samples)} right, no better than chance "
        f"(commonest class: {percent(commonest / samples)} of {samples:,} samples; 95 %)."
    )


def idle(program: Program, counts: Counts) -> Idle | None:
    """Return why the network decides nothing on its input (see `Idle`); None if it may decide."""
    spiking = [node.name for node in populations(program) if np.any(node.fires)]
    if not spiking:
        return None if any(program.of(Cell)) else "no neuron"
    if not any(counts.neurons[name].events for name in spiking):
        return "silent"
    fed = first_layer(program, counts)
    if fed and not any(counts.weighted[name].in_nonzero for name in fed):
        return "no input"
    last = [counts.neurons[name] for name in spiking if not _behind(program, name) & {*spiking}]
    if last and not any(counted.events for counted in last):
        return "output silent"
    if counts.batch > 1 and last and all(counted.events == counted.neuron_updates for counted in last):
        return "output saturated"
    alive = {*program.by_name} - {*dead(program, counts)}
    lead_on = {name: [reader.name for reader in program.readers[name] if reader.name in alive] for name in alive}
    reached = {*reachable([node.name for node in program.inputs], lead_on.__getitem__)}
    if program.outputs and not any(node.name in reached for node in program.outputs):
        return "cut off"
    return None


def dead(program: Program, counts: Counts) -> dict[str, Literal["silent", "saturated"]]:
    """Return the spiking layers that never fire, or, of several samples, all of whose neurons fire at every step."""
    layers = [(node.name, counts.neurons[node.name]) for node in populations(program) if np.any(node.fires)]
    silent = {name for name, counted in layers if not counted.events}
    full = {name for name, counted in layers if counts.batch > 1 and counted.events == counted.neuron_updates}
    return {name: "silent" if name in silent else "saturated" for name, _ in layers if name in silent | full}


def _behind(program: Program, name: str) -> set[str]:
    """Return the names of all nodes that a node's output reaches, without the node itself."""
    return {*reachable([name], lambda at: (reader.name for reader in program.readers[at]))} - {name}
