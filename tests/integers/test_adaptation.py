"""Adapting thresholds in integers against the Program's equations, where no rounding separates the two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.graph import program as ir
from stl_deploy.graph.run import run
from stl_deploy.integers.fan_in import fixed_thresholds_only, refusals
from stl_deploy.integers.graph import DenseNode, IntegerGraph, IntegerInput, IntegerLIF, IntegerOutput
from stl_deploy.integers.net import DECAY_ONE, RAISED_TOP, WIDE, IntegerAdaptation, IntegerNeuron
from stl_deploy.integers.quantise import quantise
from stl_deploy.integers.ranges import ranges
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import About, read_integers, write_integers

STEPS = 6
"""A 64th is halved at most as often: the decays are 1/2, so that nothing is rounded."""


def network(
    reset: Any, subtracts: Any, decay: float = 0.5, rho: float = 0.5, jump: float = 2.0, start: float = 0.0
) -> ir.Program:
    """start: of the potential; the thresholds' adaptation starts at twice and three times as much."""

    def f(*values: float) -> Any:
        return np.array(values, np.float32)

    neuron = ir.Neuron(
        name="a",
        shape=(2,),
        operands=(ir.Operand("fc"),),
        decay=f(decay)[0],
        threshold=f(5, 9),
        reset=reset,
        v_start=f(start, -start),
        adaptation=ir.Adaptation(f(rho)[0], f(jump, 3 * jump), subtracts, f(2 * start, 3 * start)),
    )
    weight = f(3, -2, 1, 4, 0, 2).reshape(2, 3)
    return ir.Program(
        nodes=(
            ir.Input(name="in", shape=(3,), operands=()),
            ir.Linear(
                name="fc", shape=(2,), operands=(ir.Operand("in"),), weight=weight, bias=f(1, 1), input_shape=(3,)
            ),
            neuron,
            ir.Output(name="out", shape=(2,), operands=(ir.Operand("a"),)),
        ),
        dt=1e-4,
    )


def in_integers(program: ir.Program) -> IntegerGraph:
    _, linear, neuron, _ = program.nodes
    assert isinstance(linear, ir.Linear)
    assert isinstance(neuron, ir.Neuron)
    assert neuron.adaptation is not None
    assert neuron.threshold is not None
    assert neuron.decay is not None
    assert linear.bias is not None
    assert neuron.v_start is not None
    assert neuron.adaptation.start is not None
    theta = neuron.threshold.astype(np.int32)
    made = IntegerNeuron(
        v_decay=round(DECAY_ONE * (1 - float(neuron.decay))),
        threshold=theta,
        reset=neuron.reset,
        drop=theta if neuron.reset.startswith("subtract") else None,
        adaptation=IntegerAdaptation(
            decay=round(DECAY_ONE * (1 - float(neuron.adaptation.decay))),
            jump=neuron.adaptation.jump.astype(np.int32),
            subtracts=neuron.adaptation.subtracts,
            start=np.int32(np.float32(64) * neuron.adaptation.decay * neuron.adaptation.start),
        ),
        v_start=np.int32(64 * neuron.v_start),
    )
    fc = DenseNode(
        name="fc",
        shape=(2,),
        operands=(ir.Operand("in"),),
        weight=linear.weight.astype(np.int32),
        bias=linear.bias.astype(np.int32),
    )
    nodes = (
        IntegerInput(name="in", shape=(3,), operands=(), low=0, high=9, scale=1.0),
        fc,
        IntegerLIF(name="a", shape=(2,), operands=(ir.Operand("fc"),), neuron=made, bias=None),
        IntegerOutput(name="out", shape=(2,), operands=(ir.Operand("a"),), unit=1.0),
    )
    return IntegerGraph(nodes, WIDE)


@pytest.mark.hypothesis
@given(
    st.sampled_from(["value", "value_delayed", "subtract", "subtract_delayed"]),
    st.sampled_from(["baseline", "adapted"]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([0.0, 1.0, 2.0, 7.0]),
    st.sampled_from([0.0, 1.0, -1.0, 4.0, -4.0]),
    st.integers(0, 2**32 - 1),
)
def test_integers_are_the_reference_where_nothing_is_rounded(
    reset: str, subtracts: str, decay: float, rho: float, jump: float, start: float, seed: int
) -> None:
    program = network(reset, subtracts, decay, rho, jump, start)
    x = np.random.default_rng(seed).integers(0, 4, (STEPS, 5, 3))
    expected = run(program, x.astype(np.float32)).outputs["out"]
    np.testing.assert_array_equal(simulate(in_integers(program), x).y, expected)


def test_integers_are_chosen_that_agree() -> None:
    """The jump is scaled with weights and threshold; without it, spikes differ."""
    program = network("value", "baseline")
    x = np.random.default_rng(0).integers(0, 4, (STEPS, 50, 3))
    model = quantise(program, x)
    assert [fit.spikes_differing for fit in model.fits] == [0]
    (population,) = model.graph.populations
    adaptation = population.neuron.adaptation
    assert adaptation is not None
    np.testing.assert_array_equal(adaptation.jump * 5 // population.neuron.threshold.flat[0] >= 1, True)
    assert not np.array_equal(simulate(model.graph, x).y, run(network("value", "baseline", jump=0.0), x).outputs["out"])
    assert all(layer.holds for layer in ranges(model.graph, x))


def test_starts_are_scaled_with_weights_and_thresholds() -> None:
    program = network("subtract", "adapted", start=-1.0)
    x = np.random.default_rng(0).integers(0, 4, (STEPS, 50, 3))
    model = quantise(program, x)
    assert [fit.spikes_differing for fit in model.fits] == [0]
    (population,) = model.graph.populations
    neuron, adapts = population.neuron, population.neuron.adaptation
    assert neuron.drop is not None
    scale = neuron.drop / np.array([5, 9])
    np.testing.assert_allclose(neuron.v_start, [-64, 64] * scale, rtol=0.02)
    np.testing.assert_allclose(adapts.start, [-64, -96] * scale, rtol=0.02)  # type: ignore[union-attr]  # half of -2, -3
    assert not np.array_equal(simulate(model.graph, x).y, run(network("subtract", "adapted"), x).outputs["out"])


def test_a_start_beside_which_no_weight_is_left_is_refused() -> None:
    x = np.random.default_rng(0).integers(0, 4, (STEPS, 50, 3))
    with pytest.raises(
        UnsupportedError, match="node 'a': its state starts so far from 0 that every weight rounds to 0"
    ):
        quantise(network("value", "baseline", start=1e7), x)


def test_a_slow_adaptation_is_refused_by_node_and_within_its_range_otherwise() -> None:
    (error,) = refusals(network("value", "baseline", rho=0.99999))
    assert "its threshold adapts and its decay, 0.99999, is 1 in the 12 bits of integers" in str(error)
    slow = quantise(network("value", "baseline", rho=0.9998, jump=90.0), np.ones((4, 3, 3), np.int32))
    (population,) = slow.graph.populations
    assert population.neuron.adaptation is not None
    assert 0 < population.neuron.adaptation.top <= RAISED_TOP
    (error,) = fixed_thresholds_only(network("value", "baseline"), "the engine")
    assert error.node == "a"


def test_stored_adaptations_come_back_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    graph, path = in_integers(network("subtract", "adapted", start=3.0)), tmp_path / "integers.npz"
    write_integers(graph, About(), path)
    read, _ = read_integers(path)
    x = np.random.default_rng(0).integers(0, 4, (STEPS, 5, 3))
    np.testing.assert_array_equal(simulate(read, x).y, simulate(graph, x).y)
    assert not np.array_equal(simulate(read, x).y, simulate(in_integers(network("subtract", "adapted")), x).y)
    damages = [(b'"decay": 2048', b'"decay": 0   '), (b'"adapted"', b'"other"  ')]
    damages += [(b'"v_start": {"array"', b'"v_start": {"arrey"'), (b'2.neuron.v_start"', b'1.weight"        ')]
    for old, new in damages:
        with np.load(path) as arrays:
            kept = dict(arrays)
        text = kept["structure"].tobytes()
        assert old in text
        damaged = tmp_path / "damaged.npz"
        np.savez(damaged, **(kept | {"structure": np.frombuffer(text.replace(old, new), np.uint8)}))
        with pytest.raises(InputError, match=r"damaged\.npz"):
            read_integers(damaged)
