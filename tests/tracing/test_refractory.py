"""Refractory counters that gate the input are captured; others are refused by their line, with that as the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import UnsupportedError
from tests.tracing.held import require_cell

N = 3
Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def ignores_input(current: Tensor, v: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rest = torch.clamp(rest - 1, min=0)
    v = 0.9 * v + current * (rest == 0).float()
    spikes = (v > 1).float()
    return spikes, v * (1 - spikes), torch.where(spikes > 0, torch.full_like(rest, N), rest)


def fires_only_at_rest(current: Tensor, v: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = 0.9 * v + current
    spikes = ((v > 1) & (rest <= 0)).float()
    return spikes, v - spikes, torch.where(spikes.bool(), torch.tensor(float(N)), (rest - 1).clamp(min=0))


def is_held_at_zero(current: Tensor, v: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = (0.9 * v + current) * (rest == 0).float()
    spikes = (v > 1).float()
    return spikes, v * (1 - spikes), torch.relu(rest - 1) + N * spikes


def as_norse_does(current: Tensor, v: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mask = rest > 0
    moved = 0.9 * v + current
    fired = (moved > 1).float()
    v = torch.where(mask, v, (1 - fired) * moved)
    spikes = torch.where(mask, torch.zeros_like(fired), fired)
    return spikes, v, (1 - spikes) * torch.relu(rest - mask.float()) + spikes * N


def counts_since_the_spike(current: Tensor, v: Tensor, since: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    since = since + 1
    v = 0.9 * v + current
    spikes = ((v > 1) & (since > N)).float()
    return spikes, v * (1 - spikes), since * (1 - spikes)


def multiplies_a_gate(current: Tensor, v: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gate = (rest < 0.5).float()
    v = 0.9 * v + current
    spikes = (v > 1).float() * gate
    return spikes, v - spikes, torch.clamp(rest - 1, min=0) + N * spikes


def gates_its_input(current: Tensor, v: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The remedy."""
    rest = (rest - 1).clamp(min=0)
    v = 0.9 * v + current * (rest <= 0)
    spikes = (v > 1).float()
    return spikes, v * (1 - spikes), rest + N * spikes


def raises_its_threshold(current: Tensor, v: Tensor, raised: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The other one: a relative refractory time."""
    v = 0.9 * v + current
    spikes = (v > 1 + 0.8 * raised).float()
    return spikes, v * (1 - spikes), 0.7 * raised + spikes


class Net(nn.Module):
    def __init__(self, step: Step) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.step = nn.Linear(5, 8), step

    def forward(self, x: Tensor) -> Tensor:
        currents = self.fc(x)
        v, state, spikes = torch.zeros_like(currents[0]), torch.zeros_like(currents[0]), []
        for current in currents:
            fired, v, state = self.step(current, v, state)
            spikes.append(fired)
        return torch.stack(spikes)


X = torch.rand(8, 3, 5, generator=torch.Generator().manual_seed(0)) * 6
FORMS = [
    fires_only_at_rest,
    as_norse_does,
    counts_since_the_spike,
    multiplies_a_gate,
]


@pytest.mark.parametrize("step", [*FORMS, ignores_input, is_held_at_zero])
def test_a_counter_of_another_form_is_a_cell(step: Step) -> None:
    require_cell(Net(step), X, torch.rand(30, 4, 5, generator=torch.Generator().manual_seed(1)) * 9 - 2)


@pytest.mark.parametrize("step", [gates_its_input, raises_its_threshold])
def test_the_remedies_are_captured(step: Step) -> None:
    model = Net(step)
    net = stl.capture(model, X)
    assert net.proof is not None
    assert net.proof.end_to_end["differing"] == 0
    fresh = torch.rand(30, 4, 5, generator=torch.Generator().manual_seed(1)) * 9 - 2
    expected = model(fresh).detach().numpy()
    np.testing.assert_array_equal(net.simulate(fresh).y, expected)
    assert expected.any()


def test_a_neuron_rests_for_as_many_steps_as_its_counter_says(tmp_path: Path) -> None:
    """Driven in every step, it fires, loses N - 1 steps of input to the counter, and fires again."""
    model = Net(gates_its_input)
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.fill_(2.0)
    net = stl.capture(model, X)
    assert net.simulate(X).y[:, 0, 0].tolist() == [1, 0, 0, 1, 0, 0, 1, 0]
    for form in ("sequence", "step"):
        done = net.export(tmp_path / f"{form}.onnx", form=form)
        assert [run["differing"] for run in done["verified"]["runs"]] == [0]
    with pytest.raises(UnsupportedError, match="node 'product1': nir takes no product of two signals"):
        net.export(tmp_path / "net.nir")
