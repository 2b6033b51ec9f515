"""The proof of exact sums in graphs with loops and with edges that point back."""

import numpy as np
import pytest

from stl_deploy.errors import InputError
from stl_deploy.graph.exact import held_to_grid, prove_exact
from stl_deploy.graph.program import Input, Linear, Neuron, Operand, Output, Program

F = np.float32


def _loop(threshold, back=0.25, multi_spike=False):
    """input -> lif -> output, and lif -> back -> lif a step later; the matrix comes after the neuron that reads it."""
    lif = Neuron(
        name="lif",
        shape=(1,),
        operands=(Operand("input"), Operand("back", 1)),
        decay=F(0.5),
        threshold=threshold,
        multi_spike=multi_spike,
    )
    nodes = (
        Input(name="input", shape=(1,), operands=()),
        lif,
        Linear(
            name="back",
            shape=(1,),
            operands=(Operand("lif"),),
            weight=np.full((1, 1), back, F),
            bias=None,
            input_shape=(1,),
        ),
        Output(name="output", shape=(1,), operands=(Operand("lif"),)),
    )
    return Program(nodes, 1.0, {"input": {"fraction_bits": 0, "max": 1}})


def test_spikes_that_come_back_through_weights_on_a_grid_are_proved():
    proofs = {proof.node: proof for proof in prove_exact(_loop(F(1)))}
    assert {name: proof.exact for name, proof in proofs.items()} == {"lif": True, "back": True}
    # 1 + 1/4 in quarters is 5: log2 5
    assert proofs["lif"].bits == pytest.approx(np.log2(5))


def test_a_weight_too_fine_for_the_sum_breaks_it():
    proofs = {proof.node: proof.exact for proof in prove_exact(_loop(F(1), back=2.0**-24))}
    assert proofs == {"lif": False, "back": True}


@pytest.mark.parametrize("program", [_loop(None), _loop(F(1), multi_spike=True)], ids=["potentials", "several spikes"])
def test_a_loop_of_unbounded_values_is_not_proved(program):
    assert not any(proof.exact for proof in prove_exact(program))


def _dense(weight, fraction_bits=0, bound=1.0):
    weight = np.array(weight, F)
    nodes = (
        Input(name="input", shape=(weight.shape[1],), operands=()),
        Linear(
            name="w",
            shape=(weight.shape[0],),
            operands=(Operand("input"),),
            weight=weight,
            bias=None,
            input_shape=(weight.shape[1],),
        ),
        Output(name="output", shape=(weight.shape[0],), operands=(Operand("w"),)),
    )
    return Program(nodes, 1.0, {"input": {"fraction_bits": fraction_bits, "max": bound}})


def test_products_that_underflow_are_not_proved():
    """2^-149 is float32's least number: a product of 2^-140 and 2^-10 is 0 or twice as large, one of 2^-9 is exact."""
    (fine,) = prove_exact(_dense([[2.0**-140]], 10, 2.0**-10))
    assert not fine.exact
    assert fine.reason == "terms are multiples of 2^-150, and float32 has none below 2^-149"
    assert F(2.0**-140) * F(2.0**-10) * F(2**10) != F(2.0**-140)
    (held,) = prove_exact(_dense([[2.0**-140]], 9, 2.0**-9))
    assert held.exact


def test_sums_that_overflow_are_not_proved():
    (proof,) = prove_exact(_dense([[2.0**127, 2.0**127]]))
    assert not proof.exact
    assert "beyond float32" in proof.reason
    (held,) = prove_exact(_dense([[2.0**127, 2.0**126]]))
    assert held.exact


@pytest.mark.parametrize("x", [[2.0, 0.0], [1.2, 0.0], [np.nan, 0.0], [np.inf, 0.0]])
def test_input_beyond_the_declared_grid_is_refused(x):
    with pytest.raises(InputError, match=r"not on the grid .*, multiples of 2\^-2 up to 1,"):
        held_to_grid(_dense([[1, 1]], 2), np.array([[x]], F))
    with pytest.raises(InputError, match=r"declares, integers up to 1, the only grid"):
        held_to_grid(_dense([[1, 1]], 0), np.array([[x]], F))


def test_real_input_goes_to_the_nearest_multiples_of_the_declared_grid():
    """Halves go to the even multiple; a value beyond the bound by less than half a step is the bound."""
    given = np.array([[[0.3, 0.375, 0.625, -0.9, 1.12, 0.0]]], F)
    np.testing.assert_array_equal(held_to_grid(_dense([[1] * 6], 2), given), [[[0.25, 0.5, 0.5, -1, 1, 0]]])
    whole = np.array([[[0.25, 0.75]]], F)
    assert held_to_grid(_dense([[1, 1]], 2), whole) is whole


def test_fractions_are_no_spikes():
    with pytest.raises(InputError, match="the input is not on the grid that the graph declares, integers up to 1"):
        held_to_grid(_dense([[1, 1]], 0), np.array([[[0.3, 0.5]]], F))


@pytest.mark.parametrize("bound", [np.nan, np.inf, 0, -1, True, "1"])
@pytest.mark.parametrize("bits", [0, 3])
def test_a_bound_that_is_none_proves_nothing(bound, bits):
    """Nothing is greater than NaN, so a stranger's NaN would have proved every sum."""
    with pytest.raises(InputError, match=r"metadata 'input': expected fraction_bits 0…24 and max > 0; found"):
        prove_exact(_dense([[1, 2]], bits, bound))


@pytest.mark.parametrize("bits", [-1, 25, True, 1.5, None])
def test_bits_that_are_none_prove_nothing(bits):
    with pytest.raises(InputError, match=r"metadata 'input': expected fraction_bits 0…24 and max > 0; found"):
        prove_exact(_dense([[1, 2]], bits))
