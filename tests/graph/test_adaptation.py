"""Adapting thresholds: worked out by hand, in the reference, as a torch module, in `stl.ALIF`, folded and priced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import stl_deploy as stl
from stl_deploy.config.options import FoldOptions
from stl_deploy.errors import InputError
from stl_deploy.graph.program import DT, Adaptation, Input, Linear, Neuron, Operand, Output, Program
from stl_deploy.graph.run import run
from stl_deploy.nn.program_module import ProgramModule
from stl_deploy.passes import apply, fold_thresholds

F = np.float32
# Each with decay 0.5, θ 1, ρ 0.5 and a jump of 1.
CASES: list[tuple[dict[str, Any], str, list[float], list[int]]] = [
    # v 2 fires | a 1, v 1.5 under 2 | a .5, v .75 + 1.5 fires | a 1.25, v 1.5 under 2.25
    ({"reset": "value"}, "baseline", [2, 1.5, 1.5, 1.5], [1, 0, 1, 0]),
    # v 3 fires -> 2 | θ 2, v 2 no (gt) | θ 1.5, v 1 + 2 fires -> 2 | θ 2.25, v 1
    ({"reset": "subtract"}, "baseline", [3, 1, 2, 0], [1, 0, 1, 0]),
    # v 3 fires -> 2 | θ 2, v 2 fires -> 1 | θ 2.5, v .5 + 2 fires -> 1.5 | θ 2.75, v .75
    ({"reset": "subtract", "compare": "ge"}, "baseline", [3, 1, 2, 0], [1, 1, 1, 0]),
    # v 3 fires -> 2 | θ 2, v 3 fires -> 1 | θ 2.5, v 2.5 no | θ 1.75, v 3.25 fires
    ({"reset": "subtract"}, "adapted", [3, 2, 2, 2], [1, 1, 0, 1]),
    # v 3 fires | θ 2, v 1.5 + 2 - 2 no | θ 1.5, v .75 + 2 fires | θ 2.25, v 1.375 + 4 - 2.25 fires
    ({"reset": "subtract_delayed"}, "adapted", [3, 2, 2, 4], [1, 0, 1, 1]),
    # From a = 4: θ 3, v 3 no | θ 2, v 1.5 + 1 fires -> .5 | θ 2.5, v .25 + 2 no | θ 1.75, v 1.125 + 1 fires
    ({"reset": "subtract", "start": 4}, "adapted", [3, 1, 2, 1], [0, 1, 0, 1]),
    # From a = -4: θ -1, v -.5 fires -> -.5 + 1 | θ 1, v .25 + .5 no | θ 1, v .375 + .75 fires -> 0
    ({"reset": "subtract", "start": -4}, "adapted", [-0.5, 0.5, 0.75], [1, 0, 1]),
]


def _program(fields: dict[str, Any], subtracts: Any, theta: float = 1.0) -> Program:
    fields = dict(fields)
    start = np.asarray(theta * fields.pop("start"), F) if "start" in fields else None
    weights = Linear(
        name="fc",
        shape=(1,),
        operands=(Operand("input"),),
        weight=np.full((1, 1), theta, F),
        bias=None,
        input_shape=(1,),
    )
    neuron = Neuron(
        name="lif",
        shape=(1,),
        operands=(Operand("fc"),),
        decay=np.asarray(0.5, F),
        threshold=np.asarray(theta, F),
        adaptation=Adaptation(np.asarray(0.5, F), np.asarray(theta, F), subtracts, start),
        **fields,
    )
    ends = Input(name="input", shape=(1,), operands=()), Output(name="output", shape=(1,), operands=(Operand("lif"),))
    return Program((ends[0], weights, neuron, ends[1]), DT)


@pytest.mark.parametrize(("fields", "subtracts", "x", "expected"), CASES)
def test_spikes_by_hand(fields: dict[str, Any], subtracts: str, x: list[float], expected: list[int]) -> None:
    given = np.array(x, F).reshape(-1, 1, 1)
    for theta in (1.0, 4.0):
        program = _program(fields, subtracts, theta)
        assert run(program, given).y.flatten().tolist() == expected
        module = ProgramModule(program).eval()
        assert module(torch.from_numpy(given)).flatten().tolist() == expected
        folded = apply(program, (fold_thresholds.PASS,), FoldOptions(thresholds="weights")).program
        (neuron,) = folded.of(Neuron)
        assert float(neuron.threshold) == 1.0  # type: ignore[arg-type]
        assert run(folded, given).y.flatten().tolist() == expected


def test_thresholds_that_adapt_from_0_go_into_weights() -> None:
    """θ 0.4 + 0.9 a with a from -0.4 / 0.9 is 0 up to rounding at the first step: no unit for potentials."""
    program = _program({"compare": "gt"}, "baseline", 0.4)
    neuron = program.by_name["lif"]
    assert isinstance(neuron, Neuron)
    adapts = Adaptation(np.asarray(0.9, F), np.asarray(0.2, F), "baseline", np.asarray(-0.4 / 0.9, F))
    nodes = tuple(replace(neuron, adaptation=adapts) if node is neuron else node for node in program.nodes)
    folded = apply(replace(program, nodes=nodes), (fold_thresholds.PASS,), FoldOptions(thresholds="weights")).program
    x = np.array([-0.1, 0.5, 0.2, 1, 0.1], F).reshape(-1, 1, 1)
    assert run(folded, x).y.flatten().tolist() == run(replace(program, nodes=nodes), x).y.flatten().tolist()


@pytest.mark.parametrize(
    ("reset", "subtracts"), [("zero", "baseline"), ("subtract", "baseline"), ("subtract", "adapted")]
)
def test_alif_is_captured_as_it_computes(reset: str, subtracts: Any) -> None:
    torch.manual_seed(0)
    alif = stl.ALIF(
        (5,),
        threshold=0.5,
        decay=0.75,
        adaptation_decay=0.9,
        jump=0.25,
        reset=reset,
        subtracts=subtracts,  # type: ignore[arg-type]
    )
    module = torch.nn.Sequential(torch.nn.Linear(4, 5), alif)
    x = torch.rand(12, 3, 4) * 3
    net = stl.capture(module, x)
    (neuron,) = net.program.spiking
    assert neuron.adaptation is not None
    assert neuron.adaptation.subtracts == subtracts
    assert float(neuron.adaptation.jump) == 0.25
    expected = module(x).detach().numpy()
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_array_equal(net.simulate(x.numpy()).y, expected)


def test_gradients_pass_through_the_adaptation() -> None:
    """Step 1 of one neuron: u - θ - a, with a = jump·s[0], so that ∂s₁/∂x₀ has a part -jump·g₀·g₁ beside β·…"""
    alif = stl.ALIF(
        (1,), threshold=1.0, decay=0.5, adaptation_decay=0.5, jump=2.0, reset="subtract", surrogate=torch.ones_like
    )
    x = torch.tensor([[[2.0]], [[0.0]]], requires_grad=True)
    spikes = alif(x)
    (grad,) = torch.autograd.grad(spikes[1].sum(), x)
    # u₁ = .5·(u₀ - s₀); with g = 1: ds₁ = du₁ - da₁ = .5·(1 - 1) - 2·1 = -2; x₁ gives 1
    assert grad.flatten().tolist() == [-2.0, 1.0]
    # ∂s₀/∂θ = -1, so ∂u₁ = .5·(-s₀ + 1) = 0 and ∂a₁ = -2: ∂s₁/∂θ = 0 + 2 - 1; θ = θ₀·exp(ρ) has ∂θ/∂ρ = 1
    (grad,) = torch.autograd.grad(alif(x)[1].sum(), alif.threshold_parameter)
    assert grad.tolist() == [1.0]


def test_one_step_goes_on_where_the_last_ended() -> None:
    alif = stl.ALIF((3,), threshold=0.5, jump=0.5, learn_threshold=False)
    x = torch.rand(6, 2, 3, generator=torch.Generator().manual_seed(0)) * 2
    state, found = None, []
    for current in x:
        spikes, state = alif.step(current, state)
        found.append(spikes)
    assert torch.equal(torch.stack(found), alif(x))
    with pytest.raises(InputError, match="one state goes with one batch"):
        alif.step(x[0], torch.zeros(2, 2, 3))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"adaptation_decay": 1.0},
            "from 0 to below 1; found 1.0, with which the threshold never falls back or diverg",
        ),
        ({"jump": -0.1}, "expected a jump of at least 0; found -0.1"),
        ({"subtracts": "all"}, "subtracts: expected one of baseline, adapted; found 'all'"),
        (
            {"multi_spike": 3, "reset": "subtract"},
            "takes one spike a step and no synapse: leave out multi_spike",
        ),
        ({"synapse_decay": 1}, "takes one spike a step and no synapse: leave out synapse_decay"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        stl.ALIF((2,), **options)
