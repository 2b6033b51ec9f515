"""The grid makes sums exact in any order, and the proof fails when the grid is broken."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.errors import InputError
from stl_deploy.graph.exact import (
    SPIKES,
    Grid,
    fraction_bits,
    largest_difference,
    largest_sum,
    on_grid,
    prove_exact,
    round_to_grid,
    sum_grids,
    synaptic,
)
from stl_deploy.graph.program import Floats, Input, Linear, Neuron, Node, Operand, Output, Program
from stl_deploy.passes.exact_grids import PASS, NoGridError, finest_exact_grid
from tests.drawn import examples
from tests.exporters.netx.programs import Builder


def _program(weight: Floats, bias: Floats | None, grid: Grid) -> Program:
    n, m = weight.shape[1], weight.shape[0]
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(n,), operands=()),
        Linear(name="fc", shape=(m,), operands=(Operand("input"),), weight=weight, bias=bias, input_shape=(n,)),
        Output(name="output", shape=(m,), operands=(Operand("fc"),)),
    )
    declared = {"coding": "analog", "fraction_bits": grid.fraction_bits, "max": grid.bound}
    return Program(nodes, 1e-4, {"input": declared})


@examples(60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 300),
    scale=st.floats(1e-6, 1e4),
    arriving=st.sampled_from([Grid(0, 1.0), Grid(4, 1.0), Grid(8, 1.0), Grid(0, 9.0)]),
)
def test_every_order_of_summation_gives_the_same_bits(seed: int, n: int, scale: float, arriving: Grid) -> None:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(0, scale, (3, n)), rng.normal(0, scale, 3)
    w, b, grid = finest_exact_grid("fc", weight, bias, arriving)
    assert grid.bits <= 24
    x = round_to_grid(rng.uniform(0, arriving.bound, n), arriving.fraction_bits)
    assert on_grid(x, arriving)
    terms = np.concatenate([w * x, b[:, None]], axis=1)
    exact = terms.astype(np.float64).sum(axis=1)
    for order in (np.arange(n + 1), np.arange(n + 1)[::-1], rng.permutation(n + 1)):
        total = np.zeros(3, np.float32)
        for i in order:
            total = total + terms[:, i]
        np.testing.assert_array_equal(total, exact)
    np.testing.assert_array_equal(w @ x + b, exact)
    (proof,) = prove_exact(_program(w, b, arriving))
    assert proof.exact
    assert proof.bits is not None
    assert proof.bits <= 24


@pytest.mark.parametrize("shape", [(3,), (2, 70_000), (300, 700), (70_000, 2), (4, 3, 130, 130)])
def test_arrays_of_any_size_are_rounded_and_added_up_as_a_whole(shape: tuple[int, ...]) -> None:
    """Part by part, as a processor's cache holds them, and the same to the last bit."""
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=shape), rng.normal(size=shape[0])
    rounded = round_to_grid(weight, 5)
    assert rounded.dtype == np.float32
    np.testing.assert_array_equal(rounded, np.round(weight * 32) / 32)
    assert largest_difference(rounded, weight) == np.abs(rounded - weight).max()
    rounded.flat[-1] = np.nan  # in the last of the parts that are looked at one after the other
    assert np.isnan(largest_difference(rounded, weight))
    sums = np.abs(weight.reshape(shape[0], -1)).sum(axis=1) * 3
    assert largest_sum(weight, None, Grid(0, 3.0)) == sums.max()
    assert largest_sum(weight, bias, Grid(0, 3.0)) == (sums + np.abs(bias)).max()


def test_the_grid_is_the_finest_that_holds() -> None:
    w, b, grid = finest_exact_grid("fc", np.array([[0.3, 0.3, 0.3]]), np.zeros(1), Grid(0, 1.0))
    assert grid.fraction_bits == 24
    assert grid.largest_change <= 2.0**-25
    np.testing.assert_array_equal(w, round_to_grid(np.array([[0.3, 0.3, 0.3]]), 24))
    assert not b.any()


def test_one_weight_off_the_grid_breaks_the_proof() -> None:
    w, b, _ = finest_exact_grid("fc", np.full((2, 64), 0.7), np.zeros(2), Grid(0, 1.0))
    broken = w.copy()
    broken[1, 5] = np.float32(1 / 3)
    (proof,) = prove_exact(_program(broken, b, Grid(0, 1.0)))
    assert not proof.exact
    assert "bits, float32 holds 24" in proof.reason


def test_no_declared_input_grid_no_proof() -> None:
    w, b, _ = finest_exact_grid("fc", np.full((2, 4), 0.7), np.zeros(2), Grid(0, 1.0))
    program = _program(w, b, Grid(0, 1.0))
    (proof,) = prove_exact(Program(program.nodes, program.dt, {}))
    assert (proof.exact, proof.reason) == (False, "what arrives has no declared grid")


def test_fraction_bits_by_hand() -> None:
    assert fraction_bits(np.array([0.5, 0.25, 3.0])) == 2
    assert fraction_bits(np.array([0.0])) == 0
    assert fraction_bits(np.array([8.0, 24.0])) == -3
    assert fraction_bits(np.float32([0.1])) == 27


@pytest.mark.parametrize(
    ("weights", "reason"),
    [([np.inf], "weights add up to inf; no grid holds them"), ([1e30, 1 / 3], r"sums of 1e\+30 fit on no grid")],
)
def test_weights_too_large_for_any_grid_are_refused(weights: list[float], reason: str) -> None:
    with pytest.raises(InputError, match=rf"layer 'fc': {reason}"):
        finest_exact_grid("fc", np.array([weights]), np.zeros(1), Grid(0, 1.0))


def test_numbers_whose_sums_are_exact_stay_as_they_are() -> None:
    """Weights of 256 times 127 and odd biases need 2^-8·2^8 = 1 as their grid, not the 4 that 2^24 leaves to 2^-8·1."""
    weight, bias = np.array([[256.0 * 127, -256.0 * 3] * 5]), np.array([3703.0])
    w, b, grid = finest_exact_grid("conv", weight, bias, Grid(8, 1.0))
    assert (w.tolist(), b.tolist()) == (weight.tolist(), [3703.0])
    assert (grid.fraction_bits, grid.largest_change) == (0, 0)
    assert prove_exact(_program(w, b, Grid(8, 1.0)))[0].exact
    w, b, grid = finest_exact_grid("conv", weight + 1, bias, Grid(8, 1.0))
    assert grid.largest_change > 0


@pytest.mark.parametrize("back", [[[1.0, 0.0], [0.0, 1.0]], [[4.0, 4.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]])
def test_a_recurrent_population_whose_sums_are_exact_stays_as_it_is(back: list[list[float]]) -> None:
    """Whole weights, a bias finer than they: the bias alone sets the grid of the sum."""
    weight, bias, arriving = np.array([[3.0, 4.0], [1.0, 1.0]]), np.array([2.0**-20 + 0.5, 0.25]), Grid(8, 1.0)
    declared = {"coding": "analog", "fraction_bits": arriving.fraction_bits, "max": arriving.bound}
    lif = Neuron(
        name="lif",
        shape=(2,),
        operands=(Operand("fc"), Operand("back", 1)),
        decay=np.float32(0.5),
        threshold=np.float32(1),
    )
    dense: dict[str, Any] = {"shape": (2,), "input_shape": (2,)}
    nodes: tuple[Node, ...] = (
        Input(name="input", shape=(2,), operands=()),
        Linear(name="fc", operands=(Operand("input"),), weight=weight, bias=bias, **dense),
        lif,
        Linear(name="back", operands=(Operand("lif"),), weight=np.array(back), bias=None, **dense),
        Output(name="output", shape=(2,), operands=(Operand("lif"),)),
    )
    made = PASS.run(Program(nodes, 1e-4, {"input": declared}))
    (found,) = made.grids
    sums = sum_grids([synaptic(weight, bias, arriving), synaptic(np.array(back), None, SPIKES)])
    assert sums is not None
    assert sums.bits <= 24
    assert (found.bits, found.largest_change) == (sums.bits, 0)
    same = made.program.by_name["fc"]
    assert isinstance(same, Linear)
    np.testing.assert_array_equal(same.bias, bias)
    assert all(proof.exact for proof in prove_exact(made.program))


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_layers_without_a_neuron_between_keep_their_weights(heads: int) -> None:
    """Behind one exact layer no 24-bit grid is fine enough: the next stays as it is, and its values with it."""
    rng = np.random.default_rng(heads)
    builder = Builder((6,)).linear("a", rng.normal(size=(8, 6))).lif("lif", 1.0)
    for head in range(heads):
        builder = builder.linear(f"head{head}", rng.normal(size=(8, 8)) / 3)
    drawn = builder.program()
    nodes = [replace(n, weight=n.weight / 3.0) if isinstance(n, Linear) else n for n in drawn.nodes]
    wide = [replace(n, weight=n.weight.astype(np.float64)) if isinstance(n, Linear) else n for n in nodes]
    program = Program(tuple(wide), 1e-4, {"input": {"coding": "analog", "fraction_bits": 0, "max": 1.0}})
    made = PASS.run(program)
    assert {grid.node for grid in made.grids} == {"a", "head0"}
    for node in program.nodes:
        if isinstance(node, Linear):
            weight = made.program.by_name[node.name].weight
            np.testing.assert_allclose(weight, node.weight, atol=np.abs(node.weight).max() / 64)
    for head in range(1, heads):
        assert made.program.by_name[f"head{head}"] is program.by_name[f"head{head}"]


@pytest.mark.parametrize("spread", [1e-3, 1.0, 3e6])
def test_trained_float32_weights_round_as_their_doubles_do(spread: float) -> None:
    """To the last bit: the grid, the numbers on it, and how far they moved."""
    rng = np.random.default_rng(3)
    weight = (rng.normal(size=(7, 300)) * spread).astype(np.float32)
    bias = rng.normal(size=7)
    w, b, grid = finest_exact_grid("fc", weight, bias, Grid(4, 1.5))
    other_w, other_b, other = finest_exact_grid("fc", weight.astype(np.float64), bias, Grid(4, 1.5))
    np.testing.assert_array_equal(w, other_w)
    np.testing.assert_array_equal(b, other_b)
    assert grid == other
    assert grid.largest_change > 0


def test_a_layer_with_a_bias_in_float64_is_still_to_be_rounded() -> None:
    rng = np.random.default_rng(4)
    built = Builder((6,)).linear("a", rng.normal(size=(8, 6)) / 3, rng.normal(size=8)).lif("lif", 1.0).program()
    metadata = {"input": {"coding": "analog", "fraction_bits": 0, "max": 1.0}}
    narrow = Program(built.nodes, 1e-4, metadata)
    assert PASS.run(narrow).program is narrow
    nodes = [replace(n, bias=n.bias.astype(np.float64)) if isinstance(n, Linear) else n for n in built.nodes]  # type: ignore[union-attr]
    assert [grid.node for grid in PASS.run(Program(tuple(nodes), 1e-4, metadata)).grids] == ["a"]


def test_a_grid_coarser_than_8_bits_is_none() -> None:
    with pytest.raises(NoGridError, match="layer 'fc': sums of 3 fit on no grid"):
        finest_exact_grid("fc", np.array([[1.0, 1.0, 1 / 3 + 2 / 3 - 1e-9]]), np.zeros(1), Grid(20, 1.0))
