"""Count the operations of one neuron update, from the equations of `stl_deploy.graph.program`.

A factor that is 1 everywhere (an integrator's decay, a unit gain) costs no multiply, and a term that
is 0 everywhere costs no add. A factor that is 2^-k everywhere is a shift on integers, 1 - 2^-k a shift and a
subtract; on floats both are multiplies. A comparison is priced as an add. A reset to a value is a write: it
costs no arithmetic; a reset by subtraction is one add for each spike. A threshold that adapts takes a multiply by its
decay and an add to the baseline in each update, and an add of the jump for each spike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stl_deploy._util.remembered import remembered
from stl_deploy.energy.counts.cell_ops import CellOps
from stl_deploy.energy.counts.factors import factor_of
from stl_deploy.energy.counts.record import NeuronCounts, Population
from stl_deploy.graph.program import Floats, Neuron

Numbers = Literal["integer", "float"]
_SUBTRACTING = ("subtract", "subtract_delayed", "snntorch_subtract_now")


@dataclass(frozen=True)
class NeuronOps:
    """Operations of one update of one neuron, or of one step of a whole Cell, and adds for each spike on top.

    shifts: factors that integers need no multiply for, the decays' and the gains'; shift_adds: subtracts that go with
    them. leak_muls counts no shifts. divs: divisions by a signal. lookups: values of exp, tanh and the like. resets:
    whether spikes act on the state.
    """

    leak_muls: int = 0
    other_muls: int = 0
    leak_shifts: int = 0
    other_shifts: int = 0
    shift_adds: int = 0
    adds: int = 0
    compares: int = 0
    adds_per_spike: int = 0
    divs: int = 0
    lookups: int = 0
    resets: bool = False


@dataclass(frozen=True)
class UpdateOps:
    """Operations of counted updates: multiplies by decays and by others, shifts, adds and comparisons, and the rest."""

    leak_muls: float = 0
    other_muls: float = 0
    shifts: float = 0
    adds: float = 0
    divs: float = 0
    lookups: float = 0

    def __add__(self, other: UpdateOps) -> UpdateOps:
        return UpdateOps(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@remembered
def neuron_ops(node: Population) -> NeuronOps:
    """Return the operations of one update of a Neuron, or of one step of a Cell (see `stl_deploy.energy.counts`)."""
    if not isinstance(node, Neuron):
        reduced = CellOps(node)
        return NeuronOps(**reduced.counts, resets=reduced.resets)
    synapse = node.synapse
    stateful = node.decay is not None
    adapts = node.adaptation
    decays = [factor_of(node.decay), *([] if synapse is None else [factor_of(synapse.decay)])]
    decays += [] if adapts is None else [factor_of(adapts.decay)]
    gains = [factor_of(node.gain), *([] if synapse is None else [factor_of(synapse.gain)])]
    return NeuronOps(
        leak_muls=decays.count("multiply"),
        other_muls=gains.count("multiply") + node.multi_spike,
        leak_shifts=len(decays) - decays.count("none") - decays.count("multiply"),
        other_shifts=len(gains) - gains.count("none") - gains.count("multiply"),
        shift_adds=(decays + gains).count("shift and subtract"),
        adds=stateful
        + _term(node.offset)
        + (synapse is not None)
        + (adapts is not None)
        + (node.multi_spike and node.rounding != "down"),
        # snntorch_subtract_now looks at the threshold twice in a step: before its reset, and after
        compares=(node.v_min is not None) + node.spiking + (stateful and node.reset == "snntorch_subtract_now"),
        adds_per_spike=int(node.spiking and stateful and node.reset in _SUBTRACTING) + (adapts is not None),
        resets=node.spiking and stateful and node.reset != "none",
    )


def node_ops(node: Population, counted: NeuronCounts, numbers: Numbers = "integer") -> UpdateOps:
    """Return the operations of every update of a node, clock-driven: each neuron at each step.

    On floats a factor of 2^-k is a multiply like any other.
    """
    ops, on_floats = neuron_ops(node), numbers == "float"
    times = counted.neuron_updates if isinstance(node, Neuron) else counted.neuron_updates / counted.neurons
    shifts = ops.leak_shifts + ops.other_shifts
    adds = ops.adds + ops.compares + (0 if on_floats else ops.shift_adds)
    return UpdateOps(
        leak_muls=times * (ops.leak_muls + (shifts if on_floats else 0)),
        other_muls=times * ops.other_muls,
        shifts=0 if on_floats else times * shifts,
        adds=times * adds + ops.adds_per_spike * counted.spikes,
        divs=times * ops.divs,
        lookups=times * ops.lookups,
    )


def update_ops(
    nodes: Iterable[Population], counts: Mapping[str, NeuronCounts], numbers: Numbers = "integer"
) -> UpdateOps:
    """Return the operations of every update of all ``nodes``."""
    return sum((node_ops(node, counts[node.name], numbers) for node in nodes), UpdateOps())


@remembered
def leaks(node: Population) -> bool:
    """Return whether the state moves in a step without input, so that every update reads and writes it.

    A decay, a drive offset, a synaptic current, a reset that waits for the next step, or one that can leave the
    potential above the threshold, so that the next step spikes again; another integrator without input stays as it is.
    Of a Cell nothing is known, so its states move.
    """
    if not isinstance(node, Neuron):
        return bool(node.states)
    synapse = node.synapse is not None
    moves = node.delayed_reset or (node.spiking and not node.multi_spike and node.reset in _SUBTRACTING)
    moves = moves or node.adaptation is not None
    return node.decay is not None and (factor_of(node.decay) != "none" or bool(_term(node.offset)) or synapse or moves)


def layer_ops(node: Population, counted: NeuronCounts) -> dict[str, float]:
    """Return extra keys of a layer in the energy JSON: decay multiplies and shifts, comparisons, and resets.

    A reset is one for each output that is not 0; what keeps no potential has none to reset. A Cell
    has the other operations, too.
    """
    ops = neuron_ops(node)
    is_cell = not isinstance(node, Neuron)
    times = counted.neuron_updates // (counted.neurons if is_cell else 1)
    data = {
        "leak_muls": ops.leak_muls * times,
        "leak_shifts": ops.leak_shifts * times,
        "threshold_cmps": times * (node.spiking if isinstance(node, Neuron) else ops.compares),
        "resets": counted.events if ops.resets else 0,
    }
    if is_cell:
        done = node_ops(node, counted)
        data |= {key: int(getattr(done, key)) for key in ("other_muls", "adds", "divs", "lookups")}
    return data


def _term(value: Floats | None) -> int:
    return int(value is not None and bool(np.any(value != 0)))
