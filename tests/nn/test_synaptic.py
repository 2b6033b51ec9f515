"""Neurons with a synaptic current, several spikes a step, and decays held on 1 - 2^-k."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import stl_deploy as stl
from stl_deploy.errors import InputError
from stl_deploy.nn import fused
from stl_deploy.nn.neuron import RLIF
from stl_deploy.nn.population import nearest_shift, shift_decay
from stl_deploy.nn.synaptic_scan import Rule, rest, staircase, step, synaptic_scan

RULES = [
    Rule(31),
    Rule(3, detach_reset=True),
    Rule(1),
    Rule(1, soft_reset=False),
    Rule(1, soft_reset=False, detach_reset=True),
    Rule(spiking=False),
]


def given(synapse: bool, dtype: torch.dtype = torch.float64) -> list[Tensor | None]:
    torch.manual_seed(0)
    rows = [
        torch.rand(5, dtype=dtype) + 0.4,
        torch.rand(5, dtype=dtype),
        torch.rand(5, dtype=dtype) if synapse else None,
    ]
    return [torch.randn(12, 3, 5, dtype=dtype) * 2 + 0.3, *rows]


def gradients(values: list[Tensor | None], rule: Rule) -> tuple[Tensor, list[Tensor]]:
    leaves = [None if one is None else one.clone().requires_grad_() for one in values]
    y = synaptic_scan(*leaves, rule)  # type: ignore[arg-type]
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
    theta_counts = rule.spiking
    return y, [one.grad for place, one in enumerate(leaves) if one is not None and (place != 1 or theta_counts)]


@pytest.mark.push(4)
@pytest.mark.parametrize(("rule", "synapse"), list(itertools.product(RULES, (True, False))))
def test_compiled_and_torch_agree(rule: Rule, synapse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fused.installed():
        pytest.skip("numba is not installed")
    for dtype, near in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        values = given(synapse, dtype)
        monkeypatch.setenv(fused.SWITCH, "1")
        y, found = gradients(values, rule)
        monkeypatch.setenv(fused.SWITCH, "0")
        expected_y, expected = gradients(values, rule)
        assert torch.equal(y, expected_y)
        assert y.any()
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=near, atol=near)


@pytest.mark.parametrize("synapse", [True, False])
@pytest.mark.parametrize("switch", ["1", "0"])
def test_gradients_by_finite_differences(synapse: bool, switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of membranes, where the function is smooth: every input's gradient is the difference quotient."""
    monkeypatch.setenv(fused.SWITCH, switch)
    values = [None if one is None else one.requires_grad_() for one in given(synapse)]
    rule = Rule(spiking=False)
    assert torch.autograd.gradcheck(
        lambda *leaves: synaptic_scan(*leaves, *[None] * (not synapse), rule), [v for v in values if v is not None]
    )


@pytest.mark.parametrize("cap", [1, 4])
@pytest.mark.parametrize("switch", ["1", "0"])
def test_the_reset_passes_gradients(cap: int, switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With spikes, finite differences of a line in place of the staircase: u/θ has its slope inside the window."""
    monkeypatch.setenv(fused.SWITCH, switch)
    torch.manual_seed(1)
    # u/θ stays between 0.5 and cap + 0.5, so the gradient is that of s = u/θ - (a constant of each step)
    x = (torch.rand(6, 2, 3, dtype=torch.float64) * 0.5 + 1.0).requires_grad_()
    theta = torch.ones(3, dtype=torch.float64).requires_grad_()
    decay, synapse = (torch.full((3,), one, dtype=torch.float64).requires_grad_() for one in (0.3, 0.5))
    rule = Rule(max(cap, 2))
    y = synaptic_scan(x, theta, decay, synapse, rule)
    offsets, v, i = [], torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    for t in range(6):
        i = (i + x[t]) * synapse
        u = v * decay + i
        assert bool((u / theta > 0.3).all())
        offsets.append((staircase(u, theta, rule.cap) - u / theta).detach())
        v = u - theta * staircase(u, theta, rule.cap)

    def line(x: Tensor, theta: Tensor, decay: Tensor, synapse: Tensor) -> Tensor:
        v, i, found = torch.zeros(2, 3, dtype=x.dtype), torch.zeros(2, 3, dtype=x.dtype), []
        for t in range(6):
            i = (i + x[t]) * synapse
            u = v * decay + i
            s = u / theta + offsets[t]
            v = u - theta * s
            found.append(s)
        return torch.stack(found)

    leaves = (x, theta, decay, synapse)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    ours = torch.autograd.grad((y * weights).sum(), leaves)
    near = 1e-6
    for place, (leaf, grad) in enumerate(zip(leaves, ours, strict=True)):
        moved = leaf.detach().clone()
        at = (0,) * leaf.dim()
        quotient = 0.0
        for sign in (1, -1):
            moved[at] = leaf.detach()[at] + sign * near
            changed = [moved if k == place else other for k, other in enumerate(leaves)]
            quotient += sign * float((line(*changed) * weights).sum().detach()) / (2 * near)
        assert quotient == pytest.approx(float(grad[at]), rel=1e-5, abs=1e-8)


def test_a_neuron_by_hand() -> None:
    lif = stl.LIF((1,), threshold=2.0, decay=0.5, synapse_decay=0.5, multi_spike=3, reset="subtract")
    x = torch.tensor([16.0, 0, 0, 0]).reshape(4, 1, 1)
    # i 8, 4, 2, 1; u 8 (3 spikes of 4, 2 left), 5 (2, 1 left), 2.5 (1, 0.5 left), 1.25
    assert lif(x).ravel().tolist() == [3, 2, 1, 0]
    assert stl.LI((1,), decay=0.5, synapse_decay=0.5)(x).ravel().tolist() == [8, 8, 6, 4]


@pytest.mark.parametrize(
    "options",
    [
        {"synapse_decay": 0.6, "multi_spike": 5, "reset": "subtract"},
        {"synapse_decay": 0.6},
        {"multi_spike": 5, "reset": "subtract"},
        {"synapse_decay": 0.6, "decay_form": "shift", "learn_decay": True, "multi_spike": 31, "reset": "subtract"},
    ],
)
def test_steps_are_the_sequence(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    lif, x = stl.LIF((4,), threshold=0.7, **options), torch.rand(9, 2, 4) * 2
    state, steps = None, []
    for current in x:
        spikes, state = lif.step(current, state)
        steps.append(spikes)
    assert torch.equal(torch.stack(steps), lif(x))
    assert lif(x).max() > 1 or "multi_spike" not in options
    stateful = stl.LIF((4,), threshold=0.7, stateful=True, **options)
    assert torch.equal(torch.stack([stateful(current) for current in x]), lif(x))


def test_a_recurrent_population_with_a_synapse_hears_itself_a_step_late() -> None:
    torch.manual_seed(0)
    layer = RLIF((3,), synapse_decay=0.5, multi_spike=31, reset="subtract", threshold=0.4)
    x = torch.rand(6, 2, 3)
    back, state, found = torch.zeros(2, 3), rest(x[0], True), []
    for current in x:
        arriving = current + layer.recurrent(back)
        back, state = step(arriving, state, layer.threshold, layer.decay, layer.synapse_decay, layer._rule)
        found.append(back)
    torch.testing.assert_close(torch.stack(found), layer(x))
    assert torch.stack(found).max() > 1


@pytest.mark.parametrize(
    ("decay", "k"), [(0.0, 0), (0.5, 1), (0.75, 2), (0.9, 3), (0.95, 4), (1 - 2**-15, 15), (0.999999, 15)]
)
def test_nearest_shifts(decay: float, k: int) -> None:
    assert nearest_shift(decay) == k
    assert float(stl.LIF((2,), decay=decay, decay_form="shift").decay) == 1 - 2.0**-k


def test_learned_shifts_are_rounded_through() -> None:
    k = torch.tensor([-1.0, 0.4, 2.6, 15.4, 40.0], requires_grad=True)
    decay = shift_decay(k)
    assert decay.tolist() == [0.0, 0.0, 1 - 2.0**-3, 1 - 2.0**-15, 1 - 2.0**-15]
    decay.sum().backward()
    assert k.grad is not None
    assert bool((k.grad > 0).all())
    lif = stl.LIF((3,), decay=0.75, synapse_decay=0.5, decay_form="shift", learn_decay=True)
    assert lif.decay.tolist() == [0.75] * 3
    assert lif.synapse_decay is not None
    assert lif.synapse_decay.tolist() == [0.5] * 3
    lif(torch.rand(5, 2, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in lif.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"multi_spike": 0}, "integer from 1 as multi_spike; found 0"),
        ({"multi_spike": True}, "found True"),
        ({"multi_spike": 2}, "use reset 'subtract'"),
        ({"synapse_decay": 1.5}, "as synapse_decay; found 1.5"),
        ({"decay_form": "shifts"}, "decay_form: expected one of free, shift; found 'shifts'"),
        ({"decay": 1.0, "decay_form": "shift"}, "below 1"),
    ],
)
def test_refusals(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        stl.LIF((2,), **options)
    assert words in str(caught.value)
    with pytest.raises(InputError, match="expected a shape"):
        stl.LIF(decay_form="shift", learn_decay=True)
