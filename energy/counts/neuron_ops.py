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
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remembered import remembered
from stl_deploy.energy.counts.record import NeuronCounts
from stl_deploy.graph.program import Floats, Neuron

Numbers = Literal["integer", "float"]
Factor = Literal["none", "shift", "shift and subtract", "multiply"]
_SUBTRACTING = ("subtract", "subtract_delayed", "snntorch_subtract_now")


@dataclass(frozen=True)
class NeuronOps:
    """Operations of one update of one neuron, and adds for each spike on top.

    shifts: factors that integers need no multiply for, the decays' and the gains'; shift_adds: subtracts that go with
    them. leak_muls counts no shifts.
    """

    leak_muls: int
    other_muls: int
    leak_shifts: int
    other_shifts: int
    shift_adds: int
    adds: int
    compares: int
    adds_per_spike: int


@dataclass(frozen=True)
class UpdateOps:
    """Operations of all counted neuron updates: multiplies by decays and by others, shifts, adds and comparisons."""

    leak_muls: float
    other_muls: float
    shifts: float
    adds: float


@remembered
def neuron_ops(node: Neuron) -> NeuronOps:
    """Return the operations of one update of ``node``."""
    synapse = node.synapse
    stateful = node.decay is not None
    adapts = node.adaptation
    decays = [_factor(node.decay), *([] if synapse is None else [_factor(synapse.decay)])]
    decays += [] if adapts is None else [_factor(adapts.decay)]
    gains = [_factor(node.gain), *([] if synapse is None else [_factor(synapse.gain)])]
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
        compares=(node.v_min is not None) + node.spiking + (stateful and node.reset == "snntorch_subtract_now"),
        adds_per_spike=int(node.spiking and stateful and node.reset in _SUBTRACTING) + (adapts is not None),
    )


def update_ops(nodes: Iterable[Neuron], counts: Mapping[str, NeuronCounts], numbers: Numbers = "integer") -> UpdateOps:
    """Return the operations of every update of ``nodes``, clock-driven: each neuron at each step.

    On floats a factor of 2^-k is a multiply like any other.
    """
    leak_muls: float = 0
    other_muls: float = 0
    shifts: float = 0
    adds: float = 0
    for node in nodes:
        ops, counted = neuron_ops(node), counts[node.name]
        leak_muls += ops.leak_muls * counted.neuron_updates
        other_muls += ops.other_muls * counted.neuron_updates
        shifted = (ops.leak_shifts + ops.other_shifts) * counted.neuron_updates
        adds += (ops.adds + ops.compares) * counted.neuron_updates + ops.adds_per_spike * counted.spikes
        if numbers == "float":
            leak_muls += shifted
        else:
            shifts += shifted
            adds += ops.shift_adds * counted.neuron_updates
    return UpdateOps(leak_muls, other_muls, shifts, adds)


@remembered
def leaks(node: Neuron) -> bool:
    """Return whether the state moves in a step without input, so that every update reads and writes it.

    A decay, a drive offset, a synaptic current, a reset that waits for the next step, or one that can leave the
    potential above the threshold, so that the next step spikes again; another integrator without input stays as it is.
    """
    synapse = node.synapse is not None
    moves = node.delayed_reset or (node.spiking and not node.multi_spike and node.reset in _SUBTRACTING)
    moves = moves or node.adaptation is not None
    return node.decay is not None and (_factor(node.decay) != "none" or bool(_term(node.offset)) or synapse or moves)


def layer_ops(node: Neuron, counted: NeuronCounts) -> dict[str, float]:
    """Return extra keys of a layer in the energy JSON: decay multiplies and shifts, comparisons, and resets.

    A reset is one for each output that is not 0; what keeps no potential has none to reset.
    """
    ops = neuron_ops(node)
    return {
        "leak_muls": ops.leak_muls * counted.neuron_updates,
        "leak_shifts": ops.leak_shifts * counted.neuron_updates,
        "threshold_cmps": node.spiking * counted.neuron_updates,
        "resets": counted.events if node.spiking and node.decay is not None and node.reset != "none" else 0,
    }


def _factor(value: Floats | None) -> Factor:
    """Return the integer operations of a multiplication by ``value``."""
    if value is None or bool(np.all(value == 1)):
        return "none"
    if _powers_of_two(value):
        return "shift"
    return "shift and subtract" if _powers_of_two(1 - np.asarray(value, np.float64)) else "multiply"


def _powers_of_two(value: NDArray[Any]) -> bool:
    """Return whether every element is 2^-k for some k >= 1 (or 1, beside others)."""
    mantissa, exponent = np.frexp(value)
    return bool(np.all((mantissa == 0.5) & (exponent <= 1)))


def _term(value: Floats | None) -> int:
    return int(value is not None and bool(np.any(value != 0)))
