"""Prices that both sides pay, and counts that delays and constant input leave whole."""

import numpy as np
import pytest

from stl_deploy.energy import measure_energy
from stl_deploy.energy.counts.reads import lateness
from stl_deploy.graph import program as ir


def _linear(name: str, source: ir.Operand, size: int) -> ir.Linear:
    weight = np.random.default_rng(0).random((size, size)).astype(np.float32) - 0.3
    return ir.Linear(name=name, shape=(size,), operands=(source,), weight=weight, bias=None, input_shape=(size,))


def _lif(name: str, *sources: ir.Operand, **fields: object) -> ir.Neuron:
    usual = {"decay": np.asarray(0.9, np.float32), "threshold": np.asarray(0.5, np.float32)} | fields
    return ir.Neuron(name=name, shape=(6,), operands=sources, **usual)


def _net(*nodes: ir.Node, last: str) -> ir.Program:
    entry = ir.Input(name="in", shape=(6,), operands=())
    return ir.Program((entry, *nodes, ir.Output(name="out", shape=(6,), operands=(ir.Operand(last),))), 1e-4)


def test_only_steps_around_a_loop_are_unread() -> None:
    delayed = _net(_linear("w", ir.Operand("in"), 6), _lif("n", ir.Operand("w", 2)), last="n")
    assert set(lateness(delayed).values()) == {0}
    back = _linear("back", ir.Operand("n"), 6)
    looped = _net(_linear("w", ir.Operand("in"), 6), _lif("n", ir.Operand("w"), ir.Operand("back", 1)), back, last="n")
    assert {name for name, steps in lateness(looped).items() if steps} == {"back"}


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_a_steady_layer_before_a_delay_is_computed_once(delay: int) -> None:
    net = _net(_linear("w", ir.Operand("in"), 6), _lif("n", ir.Operand("w", delay)), last="n")
    x = np.ones((4, 2, 6), np.float32)
    counts = measure_energy(net, x).counts
    assert counts.at_one_step().weighted["w"].synops == 6 * 6 * 2


def test_a_count_costs_its_neuron_a_multiply_of_the_sum_s_width() -> None:
    count = {"decay": None, "multi_spike": True, "cap": 4, "rounding": "half_up"}
    net = _net(_linear("w", ir.Operand("in"), 6), _lif("n", ir.Operand("w"), **count), last="n")
    data = measure_energy(net, np.ones((1, 2, 6), np.float32)).as_dict()
    terms = {item["term"] for item in data["itemised"]["streaming"]["snn"]}
    assert "other multiplies" in terms
    assert "leak multiplies" not in terms
