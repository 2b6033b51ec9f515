"""Cells: their numpy step by hand, stream and loops, types and shapes that do not fit, and what their outputs are."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.errors import GraphError
from stl_deploy.graph.cell import Operation, fused, sequence
from stl_deploy.graph.check import NIR_NODES, refused
from stl_deploy.graph.margins import cell_margins
from stl_deploy.graph.program import is_binary
from stl_deploy.graph.run import Stream, run
from stl_deploy.graph.show import table
from tests.graph.cells import F, adaptive, by_hand, cell, drive, feed_forward, recurrent


def test_a_cell_steps_as_its_operations_say():
    net = feed_forward()
    x = drive()
    expected = by_hand(x @ net.by_name["w_in"].weight.T)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(run(net, x).y, expected)


def test_a_recurrent_cell_with_two_outputs_in_a_loop():
    net, x = recurrent(), drive()
    got = run(net, x, record=["cell", "spikes"]).recorded
    weights = {name: net.by_name[name].weight for name in ("w_in", "w_back")}
    v, s = np.zeros((4, 3), F), np.zeros((4, 3), F)
    for t in range(len(x)):
        drives = x[t] @ weights["w_in"].T + s @ weights["w_back"].T
        v1 = v * F(0.5) + (drives if t == 0 else drives * F(0.5))
        s = (v1 >= F(0.5)).astype(F)
        v = v1 - s
        np.testing.assert_array_equal(got["cell"][t], np.concatenate([s, v1], axis=1))
    assert 0 < got["spikes"].sum() < got["spikes"].size


@pytest.mark.parametrize("net", [feed_forward(), recurrent()], ids=["feed-forward", "recurrent"])
def test_a_stream_gives_the_bits_of_the_whole_run(net):
    x = drive()
    session = Stream(net)
    whole = run(net, x).y
    for _ in range(2):
        np.testing.assert_array_equal(np.stack([session.step(x_t) for x_t in x]), whole)
        session.reset()


def test_outputs_are_spikes_and_binary_by_their_operations():
    net = recurrent()
    assert [node.name for node in net.compared] == ["spikes"]
    assert is_binary(net, "spikes")
    assert not is_binary(net, "potential")
    assert [node.name for node in feed_forward().compared] == ["cell"]
    ternary = cell(
        "cell",
        [("x", None, (3,))],
        ["up:bool = gt x one", "down:bool = lt x less", "u = cast up", "d = cast down", "s = sub u d", "n = floor x"],
        constants=(("one", F(1)), ("less", F(-1))),
        outputs=("s", "n", "x"),
    )
    assert ternary.fires.tolist() == [True] * 6 + [False] * 3
    assert not ternary.binary.any()
    assert ternary.ternary.tolist() == [True] * 3 + [False] * 6


def test_amplitudes_are_spikes_and_traces_are_none():
    made = cell(
        "cell",
        [("x", None, (3,))],
        ["f:bool = gt x size", "s = cast f", "y = mul s size", "less = mul t size", "t1 = add less s", "z = mul s x"],
        states=(("t", "t1", np.zeros(3, F)),),
        constants=(("size", np.array([0.7, 0.2, 1.5], F)),),
        outputs=("y", "t1", "z"),
    )
    assert made.fires.tolist() == [True] * 3 + [False] * 6
    assert not made.ternary.any()


CLIP = ["over = max x less", "b = min over one"]
SIZED = ["u = cast f", "s = mul u size", "over = max x less", "w = min over one", "b = mul w size"]
GRADIENTS = {
    "ternary": (["size = abs x", "out:bool = lt size half", "up = sign x", "s = where out zero up", *CLIP], True),
    "a bound that turns the sign": ([*CLIP, "f:bool = gt x least", "s = cast f"], False),
    "from 0 to 1": (["f:bool = gt x half", "s = cast f", "over = max x zero", "b = min over one"], True),
    "steep": (["f:bool = gt x half", "s = cast f", "k = mul x five", "b = tanh k"], True),
    "from 0 to a half": (["f:bool = gt x zero", "u = cast f", "s = mul half u", *CLIP[:1], "b = min over half"], True),
    "sized": (["f:bool = gt x half", *SIZED], True),
    "sized, from 0": (["f:bool = gt x zero", *SIZED], False),
    "its sign": (["s = sign x", "k = mul x five", "b = tanh k"], True),
    "rounded": (["b = mul x five", "s = round b"], True),
    "rounded down": (["b = mul x five", "s = floor b"], True),
    "rounded up": (["b = mul x five", "s = ceil b"], True),
    "counts of another": (["b = mul x five", "s = round x"], False),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_gradient_is_its_spikes_in_every_bit_or_no_spikes(name):
    lines, proved = GRADIENTS[name]
    numbers = {"zero": 0, "one": 1, "less": -1, "half": 0.5, "least": -0.5, "five": 5, "size": 0.7}
    made = cell(
        "cell",
        [("x", None, (2**16,))],
        [*lines, "e = sub s b", "y = add b e"],
        constants=tuple((key, F(value)) for key, value in numbers.items()),
        outputs=("y", "s"),
    )
    assert (made.gradients.get("y") == "s") is proved
    rng = np.random.default_rng(0)
    x = (rng.choice([-1, 1], 2**16) * np.exp2(rng.uniform(-30, 4, 2**16))).astype(F)
    x[:8] = np.array([0.5, -0.5, 1, -1, 0, -0.0, 1 + 2**-23, 0.5 - 2**-25])
    y, spikes = np.split(sequence(made, x[None, None])[0, 0], 2)
    assert (y == spikes).all() or not proved


def test_a_target_without_cells_names_the_node_and_the_operation_in_the_way():
    (error,) = refused(feed_forward(), NIR_NODES, "nir")
    assert error.node == "cell"
    assert error.slug == "kind-not-taken"
    bent = adaptive(line="model.py:7")
    bent = replace(bent, operations=(*bent.operations, Operation("e", "exp", ("v",), "float32", "model.py:9")))
    net = feed_forward()
    (error,) = refused(replace(net, nodes=(*net.nodes[:2], bent, net.nodes[3])), NIR_NODES, "nir")
    assert "'exp'" in error.reason
    assert "model.py:9" in error.reason


def test_the_layer_table_shows_states_and_operations():
    (row,) = [row for row in table(feed_forward()) if row.node == "cell"]
    assert row.kind == "Cell"
    assert "3 states" in row.constants
    assert "mul×4" in row.constants


WRONG = {
    "unknown argument": {"lines": ["s = add x nothing"]},
    "unknown operation": {"lines": ["s = eval x"]},
    "number of arguments": {"lines": ["s = add x"]},
    "bools are not added": {"lines": ["f:bool = gt x one", "s:bool = add f f"]},
    "mixed types": {"lines": ["s = add x whole"]},
    "a comparison makes bools": {"lines": ["s = gt x one"]},
    "shapes": {"lines": ["s = add x four"]},
    "a name twice": {"lines": ["s = add x one", "s = add x x"]},
    "an output of another type": {"lines": ["s:bool = gt x one"]},
    "a state without a next value": {"lines": ["s = add x one"], "states": (("v", "nothing", np.zeros(3, F)),)},
    "a state of another type": {"lines": ["s = add x one"], "states": (("v", "s", np.zeros(3, np.int64)),)},
    "a state of other axes": {"lines": ["s = add x one"], "states": (("v", "s", np.zeros((1, 3), F)),)},
    "float64": {"lines": ["s = add x one", "t:float64 = cast s"]},
    "too many values": {"lines": ["a = add x long", "s = add a x"]},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_operations_that_do_not_fit_are_refused(wrong):
    constants = (
        ("one", F(1)),
        ("whole", np.int64(1)),
        ("four", np.ones(4, F)),
        ("long", np.broadcast_to(F(1), (2**28, 3))),
    )
    given_ = {"states": ()} | WRONG[wrong]
    made = cell(
        "cell", [("x", None, (3,))], given_["lines"], constants=constants, states=given_["states"], outputs=("s",)
    )
    with pytest.raises(GraphError, match="node 'cell'"):
        _ = made.values


def test_a_state_that_leaves_float32_is_told():
    growing = cell(
        "cell",
        [("x", None, (3,))],
        ["vv = mul v v", "v1 = add vv x"],
        states=(("v", "v1", np.full(3, 1e30, F)),),
        outputs=("x",),
    )
    net = feed_forward()
    net = replace(net, nodes=(*net.nodes[:2], replace(growing, operands=net.nodes[2].operands), net.nodes[3]))
    with pytest.raises(GraphError, match="diverges"):
        run(net, drive())


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 3), min_size=1, max_size=40))
def test_a_fused_product_and_sum_is_rounded_once(numbers):
    a, b, c = np.array(numbers, F).T
    for got, *parts in zip(fused(a, b, c), a, b, c, strict=True):
        x, y, z = (Fraction(float(part)) for part in parts)
        exact = x * y + z
        neighbours = [np.nextafter(got, F(-np.inf)), np.nextafter(got, F(np.inf))]
        error = abs(Fraction(float(got)) - exact)
        assert all(error <= abs(Fraction(float(other)) - exact) for other in neighbours)


def test_a_tie_that_float64_only_seems_to_have_is_decided_by_its_rest():
    assert fused(F(1), F(2**24), F(1)) == 2**24  # a tie: halves to even
    a, b, c = F((1 + 2**-23) / 2**12), F((1 - 2**-23) / 2**12), F(1 + 2**-23)  # a·b is 2^-70 less than half of 2^-23
    assert F(np.float64(a) * np.float64(b) + np.float64(c)) == F(1 + 2**-22)  # float64 loses the 2^-70
    assert fused(a, b, c) == c
    assert fused(-a, b, -c) == -c


def test_the_margin_of_a_cell_is_its_nearest_comparison_or_rounding():
    made = cell(
        "cell",
        [("x", None, (2,))],
        [
            "far:bool = gt x two",
            "left = sub x two",
            "near:bool = gt left zero",
            "n = round x",
            "a = cast far",
            "s = add a n",
        ],
        constants=(("two", F(2)), ("zero", F(0))),
        outputs=("s",),
    )
    x = np.array([[[2.0 + 2**-21, 7.25]]], F)
    (ulps,) = cell_margins(made, x)
    assert ulps[0, 0] == 2  # of 2, also where the difference is compared with 0
    assert ulps[0, 1] == pytest.approx(0.25 / np.spacing(F(7.25)))


def test_a_cell_without_comparisons_has_no_margin():
    made = cell("cell", [("x", None, (2,))], ["y = add x x"], outputs=("y",))
    assert np.isinf(next(cell_margins(made, np.ones((1, 1, 2), F)))).all()


def test_states_are_bounded_by_what_they_become():
    made = cell(
        "cell",
        [("x", None, (2,))],
        ["f:bool = gt x one", "s = cast f", "n1 = add n s", "v1 = add v x"],
        states=(("last", "s", np.zeros(2, F)), ("n", "n1", np.zeros(2, F)), ("v", "v1", np.zeros(2, F))),
        constants=(("one", F(1)),),
        outputs=("n1",),
    )
    assert made.ranges["last"][:3] == (0, 1, True)
    assert made.ranges["n"].whole
    assert made.ranges["n"].high == np.inf
    assert not made.ranges["v"].whole
