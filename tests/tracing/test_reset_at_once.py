"""snnTorch's ``reset_delay=False``: the potential that is carried on is what the reset leaves, compared once more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.graph.program import Neuron, Program, Reset
from stl_deploy.graph.run import run
from tests.tracing.held import require_cell
from tests.tracing.stand_ins import Leaky
from tests.tracing.test_capture import Loop, neuron, require_proved


def with_reset(program: Program, reset: Reset) -> Program:
    return replace(program, nodes=tuple(replace(n, reset=reset) if isinstance(n, Neuron) else n for n in program.nodes))


def two_layers(reset: str) -> Loop:
    betas, thresholds = torch.tensor([0.5, 0.75, 0.9]), torch.linspace(0.1, 0.4, 3)
    return Loop(Leaky(0.9, 0.3, reset, delay=False), Leaky(betas, thresholds, reset, delay=False))


@pytest.mark.parametrize(("reset", "found"), [("subtract", "snntorch_subtract_now"), ("zero", "value")])
def test_a_loop_with_state_by_hand(reset: str, found: str) -> None:
    torch.manual_seed(1)
    x = torch.rand(12, 3, 6) * 6
    net = stl.capture(two_layers(reset), x)
    require_proved(net)
    assert [n.reset for n in net.program.spiking] == [found] * 2
    assert float(neuron(net.program, "lif1").decay) == np.float32(0.9)
    assert neuron(net.program, "lif2").threshold.tolist() == np.linspace(0.1, 0.4, 3, dtype=np.float32).tolist()


class One(nn.Module):
    """One neuron that the input arrives at as it is: β = 1/2, θ = 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lif = Leaky(0.5, 1.0, delay=False)

    def forward(self, x: Tensor) -> Tensor:
        mem, found = torch.zeros(x.shape[1:]), []
        for step in x:
            out, mem = self.lif(step, mem)
            found.append(out)
        return torch.stack(found)


@pytest.mark.parametrize(
    ("reset", "spikes"),
    [
        # h = 4, 1, 0, 0.5, 3.25 leaves P = 3, 2, 1, 0.5, 2.25; θ is taken off h where P was above it.
        ("snntorch_subtract_now", [1, 0, 0, 0, 1]),
        ("subtract", [1, 1, 0, 0, 1]),
        ("subtract_delayed", [1, 1, 0, 0, 1]),
    ],
)
def test_it_is_no_other_reset(reset: Reset, spikes: list[int]) -> None:
    x = torch.tensor([4, 0.5, 0, 0, 3]).reshape(5, 1, 1)
    program = stl.capture(One(), x).program
    assert neuron(program, "lif").reset == "snntorch_subtract_now"
    assert run(with_reset(program, reset), x.numpy()).y.ravel().tolist() == spikes


class Synaptic(nn.Module):
    """snnTorch's Synaptic, or with ``back`` its RLeaky."""

    def __init__(self, reset: str, recurrent: bool) -> None:
        super().__init__()
        self.fc, self.back = nn.Linear(6, 8), nn.Linear(8, 8) if recurrent else None
        self.lif = Leaky(0.8, 0.4, reset, alpha=None if recurrent else 0.5, delay=False)

    def forward(self, x: Tensor) -> Tensor:
        mem = syn = out = torch.zeros(x.shape[1], 8)
        found = []
        for step in x:
            if self.back is None:
                out, mem, syn = self.lif(self.fc(step), mem, syn)
            else:
                out, mem = self.lif(self.fc(step) + self.back(out), mem)
            found.append(out)
        return torch.stack(found)


@pytest.mark.parametrize(("reset", "found"), [("subtract", "snntorch_subtract_now"), ("zero", "value")])
@pytest.mark.parametrize("recurrent", [False, True])
def test_a_synapse_and_a_loop(reset: str, found: str, recurrent: bool) -> None:
    torch.manual_seed(5)
    net = stl.capture(Synaptic(reset, recurrent), torch.rand(10, 3, 6) * 4)
    require_proved(net)
    (lif,) = net.program.spiking
    assert (lif.reset, lif.synapse is not None) == (found, not recurrent)


class Own(nn.Module):
    """A reset at once of one's own, which compares again what it leaves."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.fc = kind, nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        v, found = torch.full((x.shape[1], 8), 0.75 if self.kind == "starts above" else 0.0), []
        for step in x:
            late = (v > (0.25 if self.kind == "another threshold" else 0.5)).float()
            if self.kind == "at least":
                late = (v >= 0.5).float()
            h = 0.5 * v + self.fc(step) - late * (0.25 if self.kind == "half, late" else 0.5)
            out = (h >= 0.5 if self.kind == "at least" else h > 0.5).float()
            fallen = {"half": 0.25, "to a value that fires": h - 0.75, "squared": h * h}.get(self.kind, 0.5)
            if self.kind == "as much as arrives":
                fallen = self.fc(step)
            v = h - (out - late) * fallen
            found.append(out)
        return torch.stack(found)


@pytest.mark.parametrize(
    "kind",
    [
        "half",
        "half, late",
        "at least",
        "to a value that fires",
        "squared",
        "as much as arrives",
        "another threshold",
        "starts above",
    ],
)
def test_resets_that_no_neuron_has_are_cells(kind: str) -> None:
    torch.manual_seed(3)
    require_cell(Own(kind), torch.rand(8, 3, 6) * 4, torch.rand(9, 2, 6) * 2)


class ChargedTwice(nn.Module):
    """Compares its potential behind each of two charges of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.fc2 = nn.Linear(6, 8), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        v, found = torch.zeros(x.shape[1], 8), []
        for step in x:
            v = 0.5 * v + self.fc(step)
            early = (v > 0.5).float()
            v = v + self.fc2(step)
            out = (v > 0.5).float()
            v = v - 0.5 * out
            found.append(early + out)
        return torch.stack(found)


def test_two_comparisons_of_which_neither_follows_the_other() -> None:
    require_cell(ChargedTwice(), torch.rand(8, 3, 6) * 4)


def test_the_same_code_with_the_threshold_subtracted() -> None:
    torch.manual_seed(3)
    net = stl.capture(Own("subtract"), torch.rand(8, 3, 6) * 4)
    require_proved(net)
    assert [n.reset for n in net.program.spiking] == ["snntorch_subtract_now"]
