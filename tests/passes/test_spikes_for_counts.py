"""Counts of at most 1 are spikes, in every bit and at the edge of each threshold; max pools take maxima of spikes."""

from __future__ import annotations

import numpy as np
import pytest

from stl_deploy.graph.program import MaxPool, Neuron, Operand, Program
from stl_deploy.graph.run import run
from stl_deploy.passes.spikes_for_counts import spikes_for_counts
from tests.energy.nets import conv, f32, program, start


def counting(rounding: str, theta: np.ndarray, cap: int = 1) -> Neuron:
    own = {"decay": None, "multi_spike": True, "cap": cap, "rounding": rounding}
    return Neuron(name="n", shape=(len(theta),), operands=(Operand("in"),), threshold=theta, **own)


@pytest.mark.parametrize("rounding", ["down", "half_up", "half_even"])
def test_floats_around_each_threshold_fire_as_they_count(rounding: str) -> None:
    theta = np.random.default_rng(0).uniform(1e-3, 9, 500).astype(np.float32)
    net = program(start((500,)), counting(rounding, theta))
    spiking = spikes_for_counts(net)
    (neuron,) = spiking.spiking
    assert neuron.binary
    x = theta if rounding == "down" else theta / 2
    steps = [x]
    for _ in range(8):
        steps = [np.nextafter(steps[0], f32(0)), *steps, np.nextafter(steps[-1], f32(99))]
    y = run(net, np.stack(steps)[:, None]).y
    assert 0 < y.mean() < 1
    assert np.array_equal(y, run(spiking, np.stack(steps)[:, None]).y)


def test_a_count_of_more_stays() -> None:
    net = program(start((1,)), counting("half_up", f32([1]), cap=2))
    assert spikes_for_counts(net) is net


def test_a_max_pool_takes_maxima_of_spikes() -> None:
    pool = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "input_shape": (3, 4, 4)}
    count = {"decay": None, "multi_spike": True, "cap": 1, "rounding": "half_up"}
    theta = f32([[[0.4]], [[0.9]], [[1.6]]])
    net: Program = program(
        start((2, 4, 4)),
        conv("c", "in", np.random.default_rng(0).normal(0, 1, (3, 2, 1, 1)), (2, 4, 4)),
        MaxPool(name="m", shape=(3, 2, 2), operands=(Operand("c"),), **pool),
        Neuron(name="n", shape=(3, 2, 2), operands=(Operand("m"),), threshold=theta, **count),
        conv("d", "n", np.ones((1, 3, 1, 1)), (3, 2, 2)),
    )
    spiking = spikes_for_counts(net)
    assert [node.name for node in spiking.readers["n"]] == ["m"]
    x = np.random.default_rng(1).normal(0, 1, (1, 50, 2, 4, 4)).astype(np.float32)
    y = run(net, x).y
    assert y.any()
    assert np.array_equal(y, run(spiking, x).y)
