"""A decay written as NIR time constants comes back as the very same float32."""

import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.errors import InputError
from stl_deploy.fold.time import time_constants
from stl_deploy.graph.lower import lower
from stl_deploy.graph.program import Neuron


@given(st.floats(0, 0.9999))
def test_round_trip_through_nir(beta: float) -> None:
    constants = time_constants(beta)
    assert abs(float(constants.decay) - beta) <= 2e-6 * max(beta, 1 - beta)
    n = np.ones(3, np.float32)
    node = nir.LIF(tau=n * constants.tau, r=n * constants.r, v_leak=n * 0, v_threshold=n, v_reset=n * 0)
    shape = np.array([3])
    graph = nir.NIRGraph(
        {"input": nir.Input({"input": shape}), "lif": node, "output": nir.Output({"output": shape})},
        [("input", "lif"), ("lif", "output")],
    )
    (neuron,) = lower(graph).of(Neuron)
    assert neuron.gain is None
    assert neuron.offset is None
    assert neuron.decay is not None
    assert neuron.decay == constants.decay


def test_a_half_is_exact() -> None:
    constants = time_constants(0.5)
    assert (constants.tau, constants.r, constants.decay) == (np.float32(2e-4), 2, 0.5)


@pytest.mark.parametrize("beta", [-0.1, 1.0, 1.5, float("nan")])
def test_no_time_constant(beta: float) -> None:
    with pytest.raises(
        InputError, match=r"expected a decay from 0 to below 1, which a time constant can express; found "
    ):
        time_constants(beta)
