"""What one neuron update computes, read off the equations of `stl_deploy.graph.program`, not off any code.

A factor that is 1 everywhere (an integrator's decay, a unit gain) costs no multiply, and a term that
is 0 everywhere costs no add. A comparison is priced as an add. A reset to a value is a write: it
costs no arithmetic; a reset by subtraction is one add for each spike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from stl_deploy.energy.counts.record import NeuronCounts
from stl_deploy.graph.program import Floats, Neuron


@dataclass(frozen=True)
class NeuronOps:
    """Operations of one update of one neuron, and adds for each spike on top."""

    leak_muls: int
    other_muls: int
    adds: int
    compares: int
    adds_per_spike: int


@dataclass(frozen=True)
class UpdateOps:
    """Operations of all neuron updates counted: multiplies, and adds with the comparisons among them."""

    muls: int
    adds: int


def neuron_ops(node: Neuron) -> NeuronOps:
    """The operations of one update of ``node``."""
    synapse = node.synapse
    stateful = node.decay is not None
    return NeuronOps(
        leak_muls=_factor(node.decay) + (0 if synapse is None else _factor(synapse.decay)),
        other_muls=_factor(node.gain) + (0 if synapse is None else _factor(synapse.gain)) + node.many,
        adds=stateful + _term(node.leak) + (synapse is not None),
        compares=(node.v_min is not None) + node.spiking,
        adds_per_spike=int(node.spiking and stateful and node.reset in ("subtract", "subtract_delayed")),
    )


def update_ops(nodes: Iterable[Neuron], counts: Mapping[str, NeuronCounts]) -> UpdateOps:
    """Operations of every update of ``nodes``, clock-driven: each neuron at each step."""
    muls = adds = 0
    for node in nodes:
        ops, counted = neuron_ops(node), counts[node.name]
        muls += (ops.leak_muls + ops.other_muls) * counted.neuron_updates
        adds += (ops.adds + ops.compares) * counted.neuron_updates + ops.adds_per_spike * counted.spikes
    return UpdateOps(muls, adds)


def layer_ops(node: Neuron, counted: NeuronCounts) -> dict[str, int]:
    """Extra keys of the energy JSON's layer: multiplies by decays, compares with thresholds, and resets.

    A reset is one for each output that is not 0; what keeps no potential has none to reset.
    """
    return {
        "leak_muls": neuron_ops(node).leak_muls * counted.neuron_updates,
        "threshold_cmps": node.spiking * counted.neuron_updates,
        "resets": counted.events if node.spiking and node.decay is not None else 0,
    }


def _factor(value: Floats | None) -> int:
    return int(value is not None and bool(np.any(value != 1)))


def _term(value: Floats | None) -> int:
    return int(value is not None and bool(np.any(value != 0)))
