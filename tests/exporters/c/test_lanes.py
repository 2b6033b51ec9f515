"""Neurons in vectors of 512 bits: every form that they take against the integer model."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from stl_deploy.exporters.c import populations
from stl_deploy.exporters.c.compiler import find_compiler, why_none
from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.graph.program import Node, Operand
from stl_deploy.integers.graph import ConvNode, IntegerGraph, IntegerInput, IntegerLIF, IntegerOutput, SumPoolNode
from stl_deploy.integers.net import INT16, WIDE, Accumulator, IntegerNeuron
from stl_deploy.integers.simulate import simulate
from tests.exporters.c.test_graphs import NATIVE, SANITIZED, differing, program

pytestmark = pytest.mark.skipif(find_compiler() is None, reason=why_none())


@pytest.fixture(autouse=True)
def row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions take turns with their neurons, however few these are."""
    monkeypatch.setattr(populations, "FEW_NEURONS", 0)


def chain(outs: int, window: int, accumulator: Accumulator, *, scale: int = 1, **fields: Any) -> IntegerGraph:
    """A convolution of 4 x 6 pixels, neurons, and the largest of each window unless that is 1.

    Weights and thresholds are drawn, and times ``scale``; a threshold is 0.
    """
    rng = np.random.default_rng(outs)
    drawn = {
        "threshold": scale * rng.integers(0, 120, (outs, 1, 1)),
        "drop": scale * rng.integers(1, 90, (outs, 1, 1)) if fields.get("reset") == "subtract" else None,
    }
    drawn["threshold"][0] = 0
    arrays = {name: None if values is None else values.astype(np.int32) for name, values in drawn.items()}
    neuron = IntegerNeuron(**fields | arrays)
    weight = rng.integers(-60, 64, (outs, 3, 3, 3)).astype(np.int32)
    places: dict[str, Any] = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    shape = (outs, 4, 6)
    nodes: list[Node] = [
        IntegerInput(name="in", shape=(3, 4, 6), operands=(), low=0, high=scale, scale=1.0),
        ConvNode(
            name="c", shape=shape, operands=(Operand("in"),), weight=weight, bias=None, input_shape=(3, 4, 6), **places
        ),
        IntegerLIF(name="a", shape=shape, operands=(Operand("c"),), neuron=neuron, bias=None),
    ]
    if window > 1:
        shape = (outs, 4 // window, 6 // window)
        size: dict[str, Any] = {"kernel": (window, window), "stride": (window, window), "padding": ((0, 0), (0, 0))}
        fires = IntegerNeuron(v_decay=4096, threshold=np.zeros((), np.int32))
        nodes += [
            SumPoolNode(name="p", shape=shape, operands=(Operand("a"),), input_shape=(outs, 4, 6), **size),
            IntegerLIF(name="o", shape=shape, operands=(Operand("p"),), neuron=fires, bias=None),
        ]
    nodes.append(IntegerOutput(name="out", shape=shape, operands=(Operand(nodes[-1].name),), unit=1.0))
    return IntegerGraph(tuple(nodes), accumulator)


@pytest.mark.push(3)
@pytest.mark.parametrize(
    ("graph", "v", "sums", "clips"),
    [
        (chain(32, 2, WIDE, v_decay=2048, reset="value"), "int32_t", "int16_t", ""),
        (chain(64, 1, WIDE, v_decay=1000, reset="value"), "int32_t", "int16_t", ""),
        (chain(96, 2, WIDE, v_decay=3072, reset="value", scale=150), "int32_t", "int32_t", ""),
        (chain(32, 1, INT16, v_decay=0, reset="value"), "int16_t", "int16_t", "clip_low_int16"),
        (chain(64, 2, INT16, v_decay=500, reset="subtract"), "int16_t", "int16_t", "clip_int16"),
        (chain(32, 1, INT16, v_decay=3072, reset="subtract"), "int16_t", "int16_t", "clip_int16"),
    ],
)
def test_lanes_are_the_integer_model(graph: IntegerGraph, v: str, sums: str, clips: str) -> None:
    rule = next(rule for rule in make_plan(graph).rules if rule.in_lanes)
    assert (rule.v, rule.sums, rule.clips) == (v, sums, clips)
    rng = np.random.default_rng(1)
    x = (rng.random((12, 3, 3, 4, 6)) < np.array([0.1, 0.5, 1]).reshape(3, 1, 1, 1)) * graph.input.high
    expected = simulate(graph, x.astype(np.int32)).y
    assert 0.02 < expected.mean() < 0.98
    assert differing(graph, x.astype(np.int32), NATIVE) == 0
    assert differing(graph, x.astype(np.int32), (*SANITIZED, *NATIVE[1:])) == 0
    assert np.array_equal(program(graph).run(x.astype(np.int32), options=NATIVE).y, expected)  # nothing recorded


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_another_compiler_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it find a function that no neuron in vectors calls."""
    monkeypatch.setenv("CC", "clang")
    for graph in (chain(32, 2, WIDE, v_decay=2048, reset="value"), chain(64, 1, INT16, v_decay=500, reset="subtract")):
        x = (np.random.default_rng(2).random((6, 2, 3, 4, 6)) < 0.4).astype(np.int32)
        assert differing(graph, x, NATIVE) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"v_decay": 4096, "reset": "value"},
        {"v_decay": 2048, "reset": "value_delayed"},
        {"v_decay": 2048, "i_decay": 2048},
        {"v_decay": 1000, "reset": "subtract"},  # v may reach its limit
    ],
)
def test_other_neurons_take_no_lanes(fields: dict[str, Any]) -> None:
    assert not any(rule.in_lanes for rule in make_plan(chain(32, 1, WIDE, **fields)).rules)
    assert not any(rule.in_lanes for rule in make_plan(chain(20, 1, WIDE, v_decay=2048)).rules)
