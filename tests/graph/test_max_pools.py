"""What is taken for max pooling of spikes computes the maximum, and no more than what other neurons compute."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stl_deploy.graph.program import Neuron, Operand, Synapse, is_spike_max_pool
from stl_deploy.graph.run import run
from tests.energy.nets import f32, lif, pool, program, start

X = np.random.default_rng(0).integers(0, 2, (6, 3, 2, 4, 4)).astype(np.float32)


def pooled(**changes: Any) -> tuple[Neuron, Any]:
    """Neurons behind the sum pool of other neurons' spikes, and their program."""
    first = lif("first", "in", (2, 4, 4), decay=None)
    neuron = replace(lif("n", "pool", (2, 2, 2), 0.5, decay=None), **changes)
    return neuron, program(start((2, 4, 4)), first, pool("pool", "first", (2, 4, 4)), neuron)


@pytest.mark.parametrize(
    ("changes", "maximum"),
    [
        ({}, True),
        ({"threshold": f32(1)}, True),
        ({"threshold": f32(1.5)}, False),
        ({"threshold": f32([0.5, 1.5]).reshape(2, 1, 1)}, False),
        ({"gain": f32(0.25)}, False),
        ({"offset": f32(0.5)}, False),
        ({"synapse": Synapse("euler", f32(0.9), None)}, False),
        ({"operands": (Operand("pool"), Operand("pool", 1))}, False),
    ],
)
def test_neurons_behind_a_sum_pool_are_a_max_pool_where_they_put_out_the_maximum(
    changes: dict[str, Any], maximum: bool
) -> None:
    neuron, net = pooled(**changes)
    largest = X.reshape(6, 3, 2, 2, 2, 2, 2).max((4, 6))
    assert is_spike_max_pool(net, neuron) is maximum
    assert (run(net, X).y == largest).all() == maximum
