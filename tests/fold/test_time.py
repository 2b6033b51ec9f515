"""A decay written as NIR time constants comes back as the very same float32."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.config.load import config_of
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Neuron
from stl_deploy.nn.network import Network
from stl_deploy.nn.neuron import LI, LIF
from stl_deploy.passes.representable_decays import TimeConstants, representable_decay, time_constants
from stl_deploy.pipeline.fold_network import fold


def _read_back(constants: TimeConstants) -> Neuron:
    n = np.ones(3, np.float32)
    node = nir.LIF(tau=n * constants.tau, r=n * constants.r, v_leak=n * 0, v_threshold=n, v_reset=n * 0)
    shape = np.array([3])
    graph = nir.NIRGraph(
        {"input": nir.Input({"input": shape}), "lif": node, "output": nir.Output({"output": shape})},
        [("input", "lif"), ("lif", "output")],
    )
    (neuron,) = lower(graph).of(Neuron)
    return neuron


@given(st.floats(0, 0.9999))
def test_round_trip_through_nir(beta: float) -> None:
    decay = representable_decay(beta)
    assert abs(decay - beta) <= 3e-6 * max(beta, 1 - beta)
    constants = time_constants(decay)
    assert constants.tau.dtype == np.float32
    neuron = _read_back(constants)
    assert (neuron.gain, neuron.offset) == (None, None)
    assert neuron.decay == np.float32(decay)


@given(st.floats(2.0**-24, 1, exclude_max=True, width=32))
def test_every_float32_decay_has_time_constants(decay: float) -> None:
    """float64 ones, where no float32 ones give it back (below 2^-24 nothing is left of it in 1 - k)."""
    neuron = _read_back(time_constants(decay))
    assert neuron.gain is None
    assert neuron.decay == np.float32(decay)


@pytest.mark.parametrize("seed", range(2))
def test_the_folded_network_has_the_decays_of_its_graph(seed: int) -> None:
    """A decay that is written as it is held: a second search for time constants would move one in eight."""
    pairs: list[dict[str, Any]] = [{"kind": "linear", "features": 2}, {"kind": "lif"}] * 60
    layers = [{"kind": "flatten"}, *pairs, {"kind": "linear", "features": 10}, {"kind": "li"}]
    network = Network(config_of({"dataset": {"name": "digits", "T": 2}, "network": layers}), (1, 8, 8), 10).eval()
    rng = np.random.default_rng(seed)
    for layer in network.layers.values():
        if isinstance(layer, LIF | LI):
            layer.get_buffer("_fixed_decay").fill_(float(rng.random(dtype=np.float32)))
    folded = fold(network, coding="analog", fraction_bits=4)
    neurons = list(lower(folded.graph).of(Neuron))
    assert len(neurons) == 61
    for neuron in neurons:
        layer = folded.network.layers[neuron.name]
        torch.testing.assert_close(layer.decay, torch.tensor(neuron.decay), rtol=0, atol=0)


def test_a_half_is_exact() -> None:
    assert representable_decay(0.5) == 0.5
    assert time_constants(0.5) == (np.float32(2e-4), 2)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan")])
def test_no_time_constant(decay: float) -> None:
    with pytest.raises(
        InputError, match=r"expected a decay from 0 to below 1, which a time constant can express; found "
    ):
        time_constants(decay)


@pytest.mark.parametrize("beta", [-0.1, 1.5, float("nan")])
def test_no_decay(beta: float) -> None:
    with pytest.raises(InputError, match=r"expected a decay from 0 to 1; found "):
        representable_decay(beta)
