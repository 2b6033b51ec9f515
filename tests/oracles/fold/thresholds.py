"""Thresholds into the weights before them, so that every threshold is 1.

For a neuron with v ← β·v + W·s + b, a spike where v >= θ and a reset to 0 or by θ, dividing by θ > 0 gives v' = v/θ
with v' ← β·v' + (W/θ)·s + b/θ, a spike where v' >= 1 and a reset to 0 or by 1: the same spikes in real arithmetic. In
floats it is exact for powers of two; otherwise a tie can move.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from stl_deploy.errors import InputError

if TYPE_CHECKING:  # torch, which a graph is folded without
    from tests.oracles.fold.stages import Population, Stages

Thresholds = Literal["keep", "weights"]
"""One per neuron in the graph, or absorbed into weights, so that each is 1."""


def are_absorbed(thresholds: object) -> bool:
    """Whether thresholds go into weights; raises InputError for what is none of `Thresholds`."""
    if thresholds not in get_args(Thresholds):
        raise InputError(f"expected thresholds {' or '.join(get_args(Thresholds))}; found {thresholds!r}")
    return thresholds == "weights"


def absorb_thresholds(stages: Stages) -> None:
    """Divide each synapse by the thresholds of the population that reads it, and set them to 1.

    Exact per neuron behind a linear layer, per channel behind a convolution. Raises InputError for thresholds per
    pixel behind a convolution, whose kernel all pixels share, and for a population without a synapse of its own.
    """
    for name, population in stages.populations.items():
        if population.synapse is None:
            raise InputError(f"layer '{name}': no conv or linear right before it to take its thresholds")
        synapse, back = stages.synapses[population.synapse], population.recurrent
        theta = _per_output(name, population, synapse.weight.ndim == 4, len(synapse.weight))
        synapse.weight = synapse.weight / theta.reshape(-1, *(1,) * (synapse.weight.ndim - 1))
        synapse.bias = synapse.bias / theta
        if back is not None:
            stages.synapses[back].weight = stages.synapses[back].weight / theta[:, None]
        population.threshold = np.ones((), np.float32)


def _per_output(
    name: str, population: Population, behind_conv: bool, outputs: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    theta = population.threshold.astype(np.float64)
    if behind_conv and theta.ndim == 3:
        flat = theta.reshape(outputs, -1)
        if (flat != flat[:, :1]).any():
            raise InputError(
                f"layer '{name}': {theta.size} thresholds, one per pixel, behind the convolution "
                f"'{population.synapse}' whose {outputs} kernels all pixels share, so they cannot go into the weights. "
                "Three ways out: train with conv_granularity 'channel'; keep the thresholds as they are "
                "(--thresholds keep) for a target that takes one per neuron; or unroll the convolution into a linear "
                "layer"
            )
        theta = flat[:, 0]
    return np.broadcast_to(theta.reshape(-1), (outputs,)).copy()
