"""Rules of the integer model that quantised graphs alone do not show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stl_deploy.errors import UnsupportedError
from stl_deploy.graph.program import Operand
from stl_deploy.integers.bounds import bounds
from stl_deploy.integers.graph import (
    DenseNode,
    IntegerGraph,
    IntegerInput,
    IntegerLIF,
    IntegerOutput,
)
from stl_deploy.integers.net import IntegerNeuron
from stl_deploy.integers.simulate import simulate, values_of
from stl_deploy.integers.store import NAME, About, write_integers


def _neuron(threshold: int, v_decay: int = 2048) -> IntegerNeuron:
    return IntegerNeuron(v_decay=v_decay, threshold=np.array(threshold, np.int32))


def _dense(weight: list[list[int]], **fields: object) -> DenseNode:
    array = np.array(weight, np.int32)
    return DenseNode(name="w", shape=(len(array),), operands=(Operand("in"),), weight=array, bias=None, **fields)  # type: ignore[arg-type]


def _graph(dense: DenseNode, *populations: IntegerLIF, low: int = 0, high: int = 1) -> IntegerGraph:
    entry = IntegerInput(name="in", shape=dense.weight.shape[1:], operands=(), low=low, high=high, scale=1.0)
    leave = IntegerOutput(name="out", shape=dense.shape, operands=(Operand(populations[-1].name),), unit=1.0)
    return IntegerGraph((entry, dense, *populations, leave))


def _population(name: str, threshold: int, delay: int = 0) -> IntegerLIF:
    sources = (Operand("w"), Operand("a", 1)) if delay else (Operand("w"),)
    return IntegerLIF(name=name, shape=(2,), operands=sources, neuron=_neuron(threshold), bias=None)


def _x(*steps: list[int]) -> NDArray[np.int32]:
    return np.array(steps, np.int32)[:, None]


def test_populations_that_read_the_same_sums_both_get_them() -> None:
    graph = _graph(_dense([[3], [9]]), _population("a", 4), _population("b", 4))
    run = simulate(graph, _x([1], [1], [0], [1]), record=True)
    assert run.spikes["a"].reshape(-1, 2).tolist() == [[0, 1], [1, 1], [0, 0], [0, 1]]
    np.testing.assert_array_equal(run.spikes["b"], run.spikes["a"])


def test_sums_that_are_kept_are_not_overwritten() -> None:
    graph = _graph(_dense([[3], [9]]), _population("a", 4))
    found = values_of(graph, _x([1], [0]), ["w", "a"])
    assert found["w"].reshape(-1, 2).tolist() == [[3, 9], [0, 0]]


@pytest.mark.parametrize("looped", [False, True])
def test_a_synapse_with_a_delay_adds_its_part_later_and_each_part_is_rounded_down(looped: bool) -> None:
    """[-255·x[t], 3·x[t-2]] over 2, each rounded down: a graph with a loop goes step by step."""
    dense = _dense([[-255, 3], [0, 3]], delay=np.array([[0, 2], [0, 2]], np.int32), shift=1)
    graph = _graph(dense, _population("a", 100), *([_population("b", 100, delay=1)] if looped else []), low=-1)
    found = values_of(graph, _x([1, 1], [-1, 0], [1, 0], [0, -1], [0, 0], [0, 0]), ["w"])["w"]
    assert found.reshape(-1, 2).tolist() == [[-128, 0], [127, 0], [-127, 1], [0, 0], [0, 0], [-2, -2]]


def test_bounds_of_shifted_sums_hold_every_sum_of_parts() -> None:
    weight = [[-1, -1], [3, 5]]
    together, apart = (
        bounds(_graph(_dense(weight, shift=1, delay=delay), _population("a", 1)))["w"].values
        for delay in (None, np.array([[0, 1], [0, 1]], np.int32))
    )
    assert (together, apart) == ((-1, 4), (-2, 4))


def test_shifted_sums_are_not_kept_where_nobody_would_compute_them(tmp_path: Path) -> None:
    graph = _graph(_dense([[-1], [3]], shift=1), _population("a", 1))
    with pytest.raises(UnsupportedError, match="only netx files hold") as error:
        write_integers(graph, About(), tmp_path / NAME)
    assert (error.value.node, list(tmp_path.iterdir())) == ("w", [])
