"""A scale of a sum goes into the weights of every term, and stays where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from stl_deploy.graph.program import Concat, Input, Linear, Neuron, Node, Operand, Output, Program, Scale
from stl_deploy.graph.run import run
from stl_deploy.passes import FOREIGN, apply, fold_scales
from stl_deploy.passes.base import with_nodes


def _linear(name: str, source: Operand, weight: list[list[float]], bias: list[float] | None = None) -> Linear:
    made = np.array(weight, np.float32)
    return Linear(
        name=name,
        shape=(len(made),),
        operands=(source,),
        weight=made,
        bias=None if bias is None else np.array(bias, np.float32),
        input_shape=(made.shape[1],),
    )


def _recurrent() -> Program:
    """(1 - α)·(W·x + b + V·s) into two neurons, whose spikes return a step later."""
    return Program(
        (
            Input(name="in", shape=(2,), operands=()),
            _linear("w", Operand("in"), [[1, 2], [3, 4]], [0.5, -0.5]),
            _linear("v", Operand("lif", 1), [[0, -1], [2, 0]]),
            Scale(
                name="scale", shape=(2,), operands=(Operand("w"), Operand("v")), scale=np.array([0.5, 0.25], np.float32)
            ),
            Neuron(
                name="lif",
                shape=(2,),
                operands=(Operand("scale"),),
                decay=np.float32(0.5),
                threshold=np.asarray(1, np.float32),
            ),
            Output(name="out", shape=(2,), operands=(Operand("lif"),)),
        ),
        1.0,
        {},
    )


def test_a_scale_goes_into_every_term_of_a_sum() -> None:
    before = _recurrent()
    after = apply(before, FOREIGN)
    nodes = after.program.by_name
    assert after.removed == ("scale",)
    assert nodes["lif"].operands == (Operand("w"), Operand("v"))
    w, v = nodes["w"], nodes["v"]
    assert isinstance(w, Linear)
    assert isinstance(v, Linear)
    assert w.weight.tolist() == [[0.5, 1], [0.75, 1]]
    assert w.bias is not None
    assert w.bias.tolist() == [0.25, -0.125]
    assert v.weight.tolist() == [[0, -0.5], [0.5, 0]]
    x = (np.random.default_rng(0).random((30, 8, 2)) < 0.4).astype(np.float32)
    y = run(before, x).y
    assert 0 < y.mean() < 1
    np.testing.assert_array_equal(run(after.program, x).y, y)


def _changed(program: Program, *nodes: Node) -> Program:
    return with_nodes(program, {**program.by_name, **{node.name: node for node in nodes}})


def _read_twice() -> Program:
    whole = _recurrent()
    return _changed(whole, replace(whole.by_name["out"], operands=(Operand("lif"), Operand("w"))))


def _late() -> Program:
    whole = _recurrent()
    return _changed(whole, replace(whole.by_name["scale"], operands=(Operand("w", 1), Operand("v"))))


def _joined() -> Program:
    whole = _recurrent()
    both = Concat(name="both", shape=(4,), operands=(Operand("scale"), Operand("lif")), sizes=(2, 2))
    return _changed(whole, both, replace(whole.by_name["out"], shape=(4,), operands=(Operand("both"),)))


def _bare() -> Program:
    whole = _recurrent()
    return _changed(whole, replace(whole.by_name["scale"], operands=(Operand("w"), Operand("in"))))


def _twice() -> Program:
    whole = _recurrent()
    inner = Scale(name="inner", shape=(2,), operands=(Operand("in"),), scale=np.array([2, 3], np.float32))
    return _changed(whole, inner, replace(whole.by_name["scale"], operands=(Operand("w"), Operand("inner"))))


@pytest.mark.parametrize("made", [_read_twice, _late, _joined])
def test_a_scale_stays_where_a_term_cannot_take_it(made: Callable[[], Program]) -> None:
    program = made()
    assert fold_scales.OF_SUMS.run(program).program is program


def test_a_term_without_weights_stays_under_the_scale() -> None:
    """(1 - β)·(W·x + z): C and Verilog refused the sum of a weighted value and a spike, "of different scales"."""
    before = _bare()
    after = fold_scales.OF_SUMS.run(before)
    nodes = after.program.by_name
    assert after.removed == ()
    assert nodes["lif"].operands == (Operand("w"), Operand("scale"))
    assert nodes["scale"].operands == (Operand("in"),)
    w = nodes["w"]
    assert isinstance(w, Linear)
    assert w.weight.tolist() == [[0.5, 1], [0.75, 1]]
    x = (np.random.default_rng(0).random((30, 8, 2)) < 0.4).astype(np.float32)
    np.testing.assert_array_equal(run(after.program, x).y, run(before, x).y)
    assert fold_scales.OF_SUMS.run(after.program).program is after.program


def test_a_term_that_is_scaled_takes_the_factors() -> None:
    """(1 - β)·(W·x + s·z): the terms had different scales under one, which C and Verilog refused."""
    before = _twice()
    after = fold_scales.OF_SUMS.run(before)
    nodes = after.program.by_name
    assert after.removed == ("scale",)
    assert nodes["lif"].operands == (Operand("w"), Operand("inner"))
    w, inner = nodes["w"], nodes["inner"]
    assert isinstance(w, Linear)
    assert isinstance(inner, Scale)
    assert (w.weight.tolist(), inner.scale.tolist()) == ([[0.5, 1], [0.75, 1]], [1, 0.75])
    x = (np.random.default_rng(0).random((30, 8, 2)) < 0.4).astype(np.float32)
    np.testing.assert_array_equal(run(after.program, x).y, run(before, x).y)


@pytest.mark.parametrize("delays", [(0, 0), (1, 0), (0, 1)])
def test_a_shift_is_not_added_for_each_time_that_a_layer_is_read(delays: tuple[int, int]) -> None:
    whole = _recurrent()
    norm = _linear("scale", Operand("w"), [[2, 0], [0, 4]], [1, 8])
    before = _changed(whole, replace(norm, operands=tuple(Operand("w", delay) for delay in delays)))
    x = (np.random.default_rng(0).random((5, 8, 2)) < 0.4).astype(np.float32)
    before = _changed(before, replace(before.by_name["out"], operands=(Operand("scale"),)))
    np.testing.assert_array_equal(run(fold_scales.OF_SUMS.run(before).program, x).y, run(before, x).y)
