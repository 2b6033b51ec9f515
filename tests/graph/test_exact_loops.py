"""The proof of exact sums in graphs with loops and with edges that point back."""

import numpy as np
import pytest

from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.program import Input, Linear, Neuron, Output, Program, Source

F = np.float32


def _loop(threshold, back=0.25, many=False):
    """input -> lif -> output, and lif -> back -> lif a step later; the matrix comes after the neuron that reads it."""
    lif = Neuron(
        name="lif",
        shape=(1,),
        sources=(Source("input"), Source("back", 1)),
        decay=F(0.5),
        threshold=threshold,
        many=many,
    )
    nodes = (
        Input(name="input", shape=(1,), sources=()),
        lif,
        Linear(
            name="back",
            shape=(1,),
            sources=(Source("lif"),),
            weight=np.full((1, 1), back, F),
            bias=None,
            input_shape=(1,),
        ),
        Output(name="output", shape=(1,), sources=(Source("lif"),)),
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


@pytest.mark.parametrize("program", [_loop(None), _loop(F(1), many=True)], ids=["potentials", "several spikes"])
def test_a_loop_of_unbounded_values_is_not_proved(program):
    assert not any(proof.exact for proof in prove_exact(program))
