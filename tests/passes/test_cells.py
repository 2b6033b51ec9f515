"""Passes and Cells: what a pass moves into one is seen, and readers that keep their operands apart keep them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stl_deploy.errors import ParityError
from stl_deploy.graph.program import (
    Concat,
    Delay,
    Gather,
    Input,
    Linear,
    Node,
    Operand,
    Output,
    Product,
    Program,
    Scale,
)
from stl_deploy.graph.run import run
from stl_deploy.passes import CAPTURED, absorb_permutations, apply, merge_delays, split_concats
from stl_deploy.passes.equivalence import require_equivalent
from tests.graph.cells import F, adaptive, cell, drive, feed_forward, program, recurrent, weights


@pytest.mark.parametrize("net", [feed_forward(), recurrent()], ids=["feed-forward", "recurrent"])
def test_what_arrives_at_a_cell_is_compared(net: Program) -> None:
    w = net.by_name["w_in"]
    assert isinstance(w, Linear)
    other = replace(net, nodes=tuple(replace(w, weight=w.weight * F(1.01)) if n is w else n for n in net.nodes))
    require_equivalent(net, net, by="mine")
    with pytest.raises(ParityError, match="pass mine: what arrives at 'cell' at step"):
        require_equivalent(net, other, by="mine")


def test_a_pass_that_rewrites_a_cell_is_told() -> None:
    net = feed_forward()
    slower = adaptive(
        constants=tuple((c.name, c.value * (F(0.5) if c.name == "beta" else 1)) for c in adaptive().constants)
    )
    with pytest.raises(ParityError, match="Cell 'cell' was rewritten"):
        require_equivalent(
            net, replace(net, nodes=tuple(slower if n.name == "cell" else n for n in net.nodes)), by="mine"
        )


def test_a_cell_that_diverges_on_drawn_input_hides_nothing() -> None:
    growing = cell(
        "cell",
        [("x", Operand("w_in"), (3,))],
        ["vv = mul v v", "v1 = add vv x", "f:bool = gt v1 x", "s = cast f"],
        states=(("v", "v1", np.full(3, 1e30, F)),),
        outputs=("s",),
    )
    w = weights("w_in", "input", 3, 5, 1)
    net, other = (program(each, growing, last="cell") for each in (w, replace(w, weight=w.weight * F(1.01))))
    with pytest.raises(ParityError, match="what arrives at 'cell'"):
        require_equivalent(net, other, by="mine")


@pytest.mark.parametrize("net", [feed_forward(), recurrent()], ids=["feed-forward", "recurrent"])
def test_the_captured_recipe_leaves_cells_as_they_are(net: Program) -> None:
    made = apply(net, CAPTURED).program
    assert made.by_name["cell"] == net.by_name["cell"] or made.by_name["cell"].operands == net.by_name["cell"].operands
    np.testing.assert_array_equal(run(made, drive()).y, run(net, drive()).y)


def two_operands(reader: Node, *nodes: Node) -> Program:
    ends = (
        Input(name="input", shape=(4,), operands=()),
        Output(name="output", shape=reader.shape, operands=(Operand(reader.name),)),
    )
    return Program((ends[0], *nodes, reader, ends[1]), 1e-4)


def joined() -> tuple[Node, ...]:
    both = Concat(name="both", shape=(8,), operands=(Operand("input"), Operand("input", 1)), sizes=(4, 4))
    return both, weights("left", "both", 3, 8, 1), weights("right", "input", 3, 4, 2)


def product() -> Product:
    return Product(
        name="product",
        shape=(3,),
        operands=(Operand("left"), Operand("right")),
        operand_shapes=((3,), (3,)),
        matrices=False,
    )


def gated() -> Node:
    return cell(
        "gated",
        [("a", Operand("left"), (3,)), ("b", Operand("right"), (3,))],
        ["y = mul a b"],
        outputs=("y",),
    )


@pytest.mark.parametrize("reader", [product(), gated()], ids=["product", "cell"])
def test_a_concatenation_is_split_before_readers_that_do_not_add(reader: Node) -> None:
    net = two_operands(reader, *joined())
    made = apply(net, (split_concats.PASS,)).program
    assert not any(made.of(Concat))
    assert len(made.by_name[reader.name].operands) == 2
    x = drive(size=4)
    np.testing.assert_allclose(run(made, x).y, run(net, x).y, rtol=1e-5, atol=1e-6)


def test_a_concatenation_itself_is_read_as_one_operand() -> None:
    both = Concat(name="left", shape=(3,), operands=(Operand("one"), Operand("two")), sizes=(1, 2))
    parts = weights("one", "input", 1, 4, 1), weights("two", "input", 2, 4, 2)
    net = two_operands(gated(), *parts, both, weights("right", "input", 3, 4, 3))
    made = apply(net, (split_concats.PASS,)).program
    x = drive(size=4)
    np.testing.assert_allclose(run(made, x).y, run(net, x).y, rtol=1e-5, atol=1e-6)


def test_late_terms_of_a_concatenation_stay_apart() -> None:
    halves = (
        Scale(name="now", shape=(4,), operands=(Operand("input"),), scale=np.array([1, 0, 1, 0], F)),
        Scale(name="late", shape=(4,), operands=(Operand("input", 2),), scale=np.array([0, 1, 0, 1], F)),
    )
    both = Concat(name="both", shape=(8,), operands=(Operand("now"), Operand("late")), sizes=(4, 4))
    net = two_operands(both, *halves)
    made = apply(net, (merge_delays.PASS,)).program
    assert not any(made.of(Delay))
    x = drive(size=4)
    np.testing.assert_array_equal(run(made, x).y, run(net, x).y)


def test_a_sum_of_rearranged_values_is_one_operand_of_a_cell() -> None:
    same = np.arange(3)
    total = Gather(name="left", shape=(3,), operands=(Operand("one"), Operand("two")), indices=same, input_shape=(3,))
    parts = weights("one", "input", 3, 4, 1), weights("two", "input", 3, 4, 2)
    net = two_operands(gated(), *parts, total, weights("right", "input", 3, 4, 3))
    made = apply(net, (absorb_permutations.PASS,)).program
    x = drive(size=4)
    np.testing.assert_allclose(run(made, x).y, run(net, x).y, rtol=1e-6)
