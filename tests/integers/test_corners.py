"""Corners of integers: potentials of several populations, bounds below what a reset leaves, damaged files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.graph import program as ir
from stl_deploy.graph.run import run
from stl_deploy.integers.graph import DenseNode, IntegerGraph, IntegerInput, IntegerLIF, IntegerOutput
from stl_deploy.integers.net import LOIHI, IntegerNeuron
from stl_deploy.integers.quantise import choose
from stl_deploy.integers.ranges import ranges
from stl_deploy.integers.simulate import entered_by, simulate
from stl_deploy.integers.store import About, read_integers, write_integers
from tests.energy.nets import lif, linear, program, start

RANDOM = np.random.default_rng(0)


def _filters(*read: str) -> ir.Program:
    """Spikes, and two filters of them whose weights differ by a factor of 100; the output reads ``read``."""
    layers: list[ir.Node] = [linear("fc", "in", RANDOM.integers(-4, 5, (16, 8))), lif("n", "fc", (16,), 1, None)]
    for name, factor in (("one", 1), ("other", 100)):
        layers.append(linear(f"to_{name}", "n", factor * RANDOM.integers(-4, 5, (3, 16))))
        layers.append(replace(lif(name, f"to_{name}", (3,)), threshold=None))
    net = program(start((8,)), *layers)
    output = replace(net.outputs[0], operands=tuple(map(ir.Operand, read)))
    return replace(net, nodes=(*net.nodes[:-1], output))


def _x() -> Any:
    return (RANDOM.random((6, 20, 8)) < 0.4).astype(np.float32)


@pytest.mark.parametrize("read", ["one", "other"])
def test_potentials_have_the_unit_of_their_own_population(read: str) -> None:
    net, x = _filters(read), _x()
    graph = choose(net, x).graph
    expected, found = run(net, x).y, simulate(graph, x).y * graph.output.unit
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("read", [("one", "other"), ("one", "to_other")])
def test_sums_of_potentials_and_others_are_refused(read: tuple[str, ...]) -> None:
    with pytest.raises(UnsupportedError) as refusal:
        choose(_filters(*read), _x())
    assert (refusal.value.slug, refusal.value.node) == ("potential", "out")


def _one_neuron(**fields: Any) -> IntegerGraph:
    neuron = IntegerNeuron(**{"v_decay": 0, "threshold": np.array(50, np.int32), **fields})
    one: dict[str, Any] = {"shape": (1,)}
    nodes = (
        IntegerInput(name="x", operands=(), low=-1, high=1, scale=1.0, **one),
        DenseNode(name="w", operands=(ir.Operand("x"),), weight=np.array([[100]], np.int32), bias=None, **one),
        IntegerLIF(name="n", operands=(ir.Operand("w"),), neuron=neuron, bias=None, **one),
        IntegerOutput(name="y", operands=(ir.Operand("n"),), unit=1.0, **one),
    )
    return IntegerGraph(nodes, LOIHI)


DROP = np.array(300, np.int32)


@pytest.mark.parametrize(
    "fields",
    [
        {"v_reset": np.array(-200, np.int32)},
        {"reset": "value_delayed", "v_reset": np.array(-200, np.int32)},
        {"reset": "subtract", "drop": DROP},
        {"reset": "subtract_delayed", "drop": DROP},
        {"reset": "subtract_delayed", "drop": DROP, "v_decay": 4096},
    ],
    ids=str,
)
def test_the_worst_case_goes_on_from_what_a_reset_leaves(fields: dict[str, Any]) -> None:
    (layer,) = ranges(_one_neuron(**fields), np.array([1, -1, -1]).reshape(3, 1, 1))
    assert layer.v_worst[0] <= layer.v_seen[0] < -200 * 64
    assert layer.v_seen[1] <= layer.v_worst[1]


def test_a_narrower_input_keeps_the_accumulator() -> None:
    graph = _one_neuron()
    assert entered_by(graph, np.ones((1, 1, 1))).accumulator is graph.accumulator


def test_the_least_integer_of_32_bits_is_beyond_every_limit(tmp_path: Path) -> None:
    file = tmp_path / "integers.npz"
    write_integers(_one_neuron(v_reset=np.array(-(2**31), np.int32)), About(), file)
    with pytest.raises(InputError, match="threshold of 'n' does not fit"):
        read_integers(file)


@pytest.mark.parametrize(("bias", "fits"), [(2**24 - 1, True), (2**24, False), (-(2**30), False)])
def test_a_stored_bias_fits_in_32_bits_in_64ths(bias: int, fits: bool, tmp_path: Path) -> None:
    graph = _one_neuron()
    biased = [replace(n, bias=np.array([bias], np.int32)) if isinstance(n, IntegerLIF) else n for n in graph.nodes]
    write_integers(replace(graph, nodes=tuple(biased)), About(), tmp_path / "integers.npz")
    if fits:
        read, _ = read_integers(tmp_path / "integers.npz")
        assert simulate(read, np.zeros((3, 1, 1), np.int32)).y.all()
    else:
        with pytest.raises(InputError, match=r"integers.npz: .*beyond the 16,777,216 that fit") as refused:
            read_integers(tmp_path / "integers.npz")
        assert refused.value.slug == "sums-too-large"
