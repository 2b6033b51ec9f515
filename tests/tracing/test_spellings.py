"""One neuron, or one gate, in other spellings: captured with the same spikes on ties, or refused by a true sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import stl_deploy as stl
from stl_deploy.errors import CaptureError
from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import Cell
from stl_deploy.tracing.recording import decomposed
from tests.tracing.held import require_cell

Step = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Spikes of a potential, and what they leave of it."""
POWERS = torch.tensor([1.0, 2, 4, 8, 0.5, 0.25, 1, 2])


def grid(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(-2, 6, shape, generator=torch.Generator().manual_seed(seed)).float() / 2


class Net(nn.Module):
    """6 inputs, 8 neurons, whose spikes are the output; potentials are on a grid, so that they meet thresholds."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.enter, self.step, self.potentials = nn.Linear(6, 8, bias=False), step, list[Tensor]()
        with torch.no_grad():
            self.enter.weight.copy_(grid(8, 6, seed=2) / 4)

    def forward(self, x: Tensor) -> Tensor:
        v, spikes = torch.zeros(x.shape[1], 8), []
        for current in self.enter(x):
            v = 0.5 * v + current
            self.potentials = [*self.potentials, v]
            s, v = self.step(v)
            spikes.append(s)
        return torch.stack(spikes)


def require_same(model: nn.Module, x: Tensor, *unseen: Tensor) -> stl.SpikingGraph:
    net = stl.capture(model, x)
    for given in (x, *unseen):
        with torch.no_grad():
            np.testing.assert_array_equal(net.simulate(given.numpy()).y, model(given).numpy())
    return net


def subtracting(count: Callable[[Tensor], Tensor], theta: Tensor | float) -> Step:
    def step(v: Tensor) -> tuple[Tensor, Tensor]:
        s = count(v)
        return s, v - s * theta

    return step


COUNTS: dict[str, tuple[Step, float | Tensor, str]] = {
    "round(4v)": (subtracting(lambda v: torch.round(torch.clamp(v * 4, 0, 4)), 0.25), 0.25, "half_even"),
    "clamp(round(4v))": (subtracting(lambda v: torch.clamp(torch.round(4 * v), 0, 4), 0.25), 0.25, "half_even"),
    "floor(2v)": (subtracting(lambda v: torch.floor(torch.clamp(v * 2, 0, 3)), 0.5), 0.5, "down"),
    "trunc(v/2)": (subtracting(lambda v: torch.clamp(torch.trunc(v * 0.5), 0, 2), 2), 2.0, "down"),
    "floor(4v+.5)": (subtracting(lambda v: torch.floor(torch.clamp(v * 4, 0, 4) + 0.5), 0.25), 0.25, "half_up"),
    "4 clamp(v)": (subtracting(lambda v: torch.round(torch.clamp(v, 0, 0.75) * 4), 0.25), 0.25, "half_even"),
    "clamp(v) / θ": (subtracting(lambda v: torch.floor(torch.clamp(v, 0, 1.5) / 0.5), 0.5), 0.5, "down"),
    "powers": (subtracting(lambda v: torch.round(torch.clamp(v * POWERS, 0, 4)), 1 / POWERS), 1 / POWERS, "half_even"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_a_potential_times_a_power_of_2(name: str) -> None:
    step, theta, rounding = COUNTS[name]
    model = Net(step)
    (neuron,) = require_same(model, grid(6, 4, 6), grid(9, 3, 6, seed=3), 4 * grid(5, 2, 6, seed=4)).program.spiking
    assert neuron.multi_spike
    assert neuron.rounding == rounding
    np.testing.assert_array_equal(neuron.threshold, np.asarray(theta, np.float32))
    halves = torch.cat(model.potentials) / theta % 1
    assert bool((halves == (0.5 if "half" in rounding else 0)).any())


@pytest.mark.parametrize(
    "scaled",
    [
        lambda v: v * 3,
        lambda v: v * torch.tensor([*POWERS[:-1], 3]),
        lambda v: v * -4,
        lambda v: (v - 0.1) / 0.25,
    ],
)
def test_counts_of_another_number_are_a_cell(scaled: Callable[[Tensor], Tensor]) -> None:
    require_cell(Net(subtracting(lambda v: torch.round(torch.clamp(scaled(v), 0, 4)), 1 / 3)), grid(6, 4, 6))


def test_counts_by_the_division_that_the_refusal_names_are_captured() -> None:
    theta = 1 / 3
    model = Net(subtracting(lambda v: torch.round(torch.clamp(v / theta, 0, 4)), theta))
    net, unseen = stl.capture(model, grid(6, 4, 6)), torch.rand(9, 3, 6)
    np.testing.assert_array_equal(net.simulate(unseen.numpy()).y, model(unseen).detach().numpy())


ONE, ZERO, INFINITE, LEVELS = torch.ones(()), torch.zeros(()), float("inf"), torch.full((8,), 0.25)


def masked(v: Tensor) -> Tensor:
    z = torch.zeros_like(v)
    z[v > 0.25] = 1
    return z


def steep(v: Tensor) -> Tensor:
    """As MPBN's surrogate: from 0 to 1, but for rounding."""
    return (torch.tanh(3 * (v.clamp(0, 0.5) - 0.25)) + np.tanh(0.75)) / (2 * np.tanh(0.75))  # type: ignore[no-any-return]


def through(s: Tensor, b: Tensor) -> Tensor:
    """Spikes with the gradient of a surrogate."""
    return (s.float() - b).detach() + b


SPELLINGS: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {
    "gt": {
        "v > θ": lambda v: (v > 0.25).float(),
        "torch.gt(v, θ)": lambda v: torch.gt(v, 0.25).to(v),
        "v.greater(θ) * 1": lambda v: v.greater(LEVELS) * 1.0,
        "θ < v": lambda v: torch.lt(LEVELS, v).long().float(),
        "v - θ > 0": lambda v: (v - 0.25 > 0).float(),
        "v - [θ] > 0": lambda v: (v - LEVELS > torch.zeros(1)).float(),
        "θ - v < 0": lambda v: (0.25 - v < 0).float(),
        "-v < -θ": lambda v: (-v < -0.25).float(),
        "relu(v) > θ": lambda v: (functional.relu(v) > 0.25).float(),
        "gt(out=)": lambda v: torch.gt(v, 0.25, out=torch.empty_like(v)),
        "gt_": lambda v: v.clone().gt_(0.25),
        "where(v > θ, 1, 0)": lambda v: torch.where(v > 0.25, 1.0, 0.0),
        "where(v <= θ, 0, 1)": lambda v: torch.where(v <= 0.25, torch.zeros_like(v), torch.ones_like(v)),
        "1 - where(v > θ, 0, 1)": lambda v: 1 - torch.where(v > 0.25, 0.0, 1.0),
        "zeros, masked": lambda v: torch.zeros_like(v).masked_fill(v > 0.25, 1),
        "ones, masked": lambda v: torch.ones_like(v).masked_fill_(v <= 0.25, 0),
        "z[v > θ] = 1": masked,
        "heaviside(v - θ, 0)": lambda v: torch.heaviside(v - 0.25, ZERO),
        "relu(sign)": lambda v: functional.relu(torch.sign(v - 0.25)),
        "clamp(sign, 0, 1)": lambda v: torch.sign(v - 0.25).clamp(0, 1),
        "max(sign, 0)": lambda v: torch.maximum(torch.sign(v - 0.25), ZERO),
        "hardtanh(sign, 0, 1)": lambda v: functional.hardtanh(torch.sign(v - 0.25), 0, 1),
        "sign > 0": lambda v: (torch.sign(v - 0.25) > 0).float(),
        "sign == 1": lambda v: (torch.sign(v - 0.25) == 1).float(),
        "floor((sign + 1) / 2)": lambda v: torch.floor((torch.sign(v - 0.25) + 1) / 2),
        "~(v - θ <= 0)": lambda v: (~(v - 0.25 <= 0)).float(),
        "(v > θ) != 0": lambda v: ((v > 0.25) != 0).float(),
        "s > 0.5": lambda v: ((v > 0.25).float() > 0.5).float(),
        "s ** 2": lambda v: (v > 0.25).float() ** 2,
        "|s|": lambda v: (v > 0.25).float().abs(),
        "s and true": lambda v: torch.logical_and(v > 0.25, torch.ones_like(v, dtype=torch.bool)).float(),
        "1 - (1 - s)": lambda v: 1 - (1 - (v > 0.25).float()),
        "1 - r": lambda v: -(v <= 0.25).float() + 1,
        "(s - clamp) + clamp": lambda v: through(v > 0.25, (v + 0.25).clamp(0, 1)),
        "s - σ + σ": lambda v: (v > 0.25).float().detach() - torch.sigmoid(v).detach() + torch.sigmoid(v),
        "steep + (s - steep)": lambda v: steep(v) + ((v > 0.25).float() - steep(v)).detach(),
        "σ - (σ - s)": lambda v: torch.sigmoid(v) - (torch.sigmoid(v) - (v > 0.25).float()).detach(),
    },
    "ge": {
        "v >= θ": lambda v: (v >= 0.25).float(),
        "v.ge(θ)": lambda v: v.ge(0.25).type_as(v),
        "v >= [θ]": lambda v: torch.ge(v, LEVELS) + 0.0,
        "v - θ >= 0": lambda v: (v - 0.25 >= 0).float(),
        "-v <= [-θ]": lambda v: (-v <= -LEVELS).float(),
        "where(v < θ, 0, 1)": lambda v: torch.where(v < 0.25, 0.0, 1.0),
        "where(θ > v, 0, 1)": lambda v: torch.where(torch.tensor(0.25) > v, ZERO, ONE),
        "heaviside(v - θ, 1)": lambda v: torch.heaviside(v - 0.25, torch.ones(8)),
        "ceil((sign + 1) / 2)": lambda v: torch.ceil((torch.sign(v - 0.25) + 1) / 2),
        "1 - (v < θ)": lambda v: 1 - (v < 0.25).float(),
        "1 - (v < θ), integers": lambda v: (1 - (v < 0.25).int()).float(),
        "1 - (v - θ < 0)": lambda v: 1.0 - (v - 0.25 < 0) * 1.0,
        "~(v < θ)": lambda v: (~(v < 0.25)).float(),
        "~(-v > -θ)": lambda v: torch.bitwise_not(-v > -0.25).float(),
        "not v < θ": lambda v: torch.logical_not(v < 0.25).float(),
        "(v < θ) == 0": lambda v: ((v < 0.25) == 0).float(),
        "r == 0": lambda v: ((v < 0.25).float() == 0).float(),
        "(v < θ) ^ true": lambda v: ((v < 0.25) ^ True).float(),
        "v > θ or v == θ": lambda v: ((v > 0.25) | (v == 0.25)).float(),
        "(s - tanh) + tanh": lambda v: through(v - 0.25 >= 0, torch.tanh(v - 0.25)),
        "(2 s - 2 σ) + 2 σ": lambda v: 0.5 * through(2.0 * (v >= 0.25), 2 * torch.sigmoid(v - 0.25)),
    },
}
CASES = [(compare, name) for compare, spellings in SPELLINGS.items() for name in spellings]
RESETS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "subtract": lambda v, s: v - s * 0.25,
    "value": lambda v, s: torch.where(s.bool(), 0.0, v),
}


@pytest.fixture(scope="module")
def in_plain_words() -> dict[tuple[str, str], str]:
    nets = {
        (compare, reset): spelt(SPELLINGS[compare][f"v {sign} θ"], RESETS[reset])
        for compare, sign in (("gt", ">"), ("ge", ">="))
        for reset in RESETS
    }
    return {key: repr(stl.capture(model, grid(6, 4, 6)).program.nodes) for key, model in nets.items()}


def spelt(spikes: Callable[[Tensor], Tensor], leave: Callable[[Tensor, Tensor], Tensor]) -> Net:
    def step(v: Tensor) -> tuple[Tensor, Tensor]:
        s = spikes(v)
        return s, leave(v, s)

    return Net(step)


@pytest.mark.push(20)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize(("compare", "name"), CASES, ids=[name for _, name in CASES])
def test_each_spelling_of_a_comparison_is_one_program(
    compare: str, name: str, reset: str, in_plain_words: dict[tuple[str, str], str]
) -> None:
    model = spelt(SPELLINGS[compare][name], RESETS[reset])
    net = require_same(model, grid(6, 4, 6), grid(9, 3, 6, seed=3))
    assert repr(net.program.nodes) == in_plain_words[compare, reset]
    assert bool((torch.cat(model.potentials) == 0.25).any())


@pytest.mark.parametrize(
    "spikes",
    [
        lambda v: through(v > 0.25, v),
        lambda v: through(v > 0.25, torch.relu(v)),
        lambda v: through(v > 0.25, 1e8 * torch.tanh(v)),
        lambda v: through(v > -0.75, torch.tanh(v)),
        lambda v: (v > 0.25).float() + torch.sigmoid(v) - torch.sigmoid(v).detach(),
        lambda v: (v > 0.25).float() - torch.sigmoid(v).detach() + torch.sigmoid(1.5 * v),
        lambda v: through(0.7 * (v > 0.25), (v - 0.25).clamp(0, 0.7)),
    ],
)
def test_a_gradient_that_may_round_its_spikes_stays(spikes: Callable[[Tensor], Tensor]) -> None:
    """So does one of two surrogates."""
    require_cell(Net(subtracting(spikes, 0.25)), grid(6, 4, 6), grid(9, 3, 6, seed=3), 1000 * X)


def normed(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        assert values is not None
        values.add_(torch.rand(channels) / 4)
    return norm


class OfNormedPotentials(nn.Module):
    """Published MPBN nets: norms of currents and of potentials; the reset takes the potential as it is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.leave = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.Conv2d(4, 3, 3, bias=False)
        self.currents, self.potentials = normed(4), normed(4)
        with torch.no_grad():
            self.conv.weight.mul_(3)
            self.leave.weight.mul_(3)

    def forward(self, x: Tensor) -> Tensor:
        v, w, spikes = torch.zeros(1), torch.zeros(1), []
        for step in x:
            v = 0.25 * v + self.currents(self.conv(step))
            s = through(self.potentials(v) / 0.9 > 0.25, steep(self.potentials(v) / 0.9))
            v = v * (1 - s)
            w = 0.25 * w + self.leave(s)
            spikes.append(through(w > 0.25, steep(w)))
            w = w * (1 - spikes[-1])
        return torch.stack(spikes)


def test_norms_of_potentials_are_thresholds(tmp_path: Path) -> None:
    x = torch.randint(0, 2, (6, 4, 2, 6, 6)).float()
    model = OfNormedPotentials().eval()
    net = require_same(model, x, 2 * torch.rand(9, 3, 2, 6, 6))
    first = next(iter(net.program.spiking))
    assert isinstance(first, ir.Neuron)
    assert first.threshold is not None
    np.testing.assert_array_equal(first.threshold, first.threshold[:, :1, :1] + np.zeros((6, 6), np.float32))
    assert 0.1 < net.simulate(x.numpy()).y.mean() < 0.9
    for name, to in (("net.nir", "nir"), ("net.net", "netx"), ("c", "c")):
        net.export(tmp_path / name, to=to)
    again = stl.read(tmp_path / "net.nir").simulate(x.numpy()).y
    np.testing.assert_array_equal(again, model(x).detach().numpy())


def test_norms_of_potentials_that_turn_them_are_none() -> None:
    model = OfNormedPotentials().eval()
    with torch.no_grad():
        model.potentials.weight[1] *= -1
    require_cell(model, torch.rand(6, 4, 2, 6, 6))
    with torch.no_grad():
        model.potentials.weight.abs_()
        model.potentials.bias[2] = 3  # the potential at rest fires
    require_cell(model, torch.rand(6, 4, 2, 6, 6))


@pytest.mark.parametrize("scaled", [lambda v: v, lambda v: v - INFINITE, lambda v: (v - INFINITE) / 2])
def test_a_threshold_that_nothing_reaches_is_none(scaled: Callable[[Tensor], Tensor]) -> None:
    def step(v: Tensor) -> tuple[Tensor, Tensor]:
        return v, v * (1 - (scaled(v) >= INFINITE).float())

    net = require_same(Net(step), grid(6, 4, 6), grid(9, 3, 6, seed=3))
    assert not [*net.program.spiking]
    assert not any(net.program.of(Cell))


@pytest.mark.parametrize("kind", [torch.uint8, torch.bool, torch.int64, torch.float64])
def test_a_difference_compared_with_a_constant_of_another_type(kind: torch.dtype) -> None:
    """Bytes and bools have no negative."""
    model = Net(subtracting(lambda v: (1.25 - v < torch.ones(8, dtype=kind)).float(), 0.25))
    require_same(model, grid(6, 4, 6), grid(9, 3, 6, seed=3))
    assert bool((torch.cat(model.potentials) == 0.25).any())


def test_a_mask_of_what_did_not_spike_resets() -> None:
    def step(v: Tensor) -> tuple[Tensor, Tensor]:
        return (v > 0.25).float(), v * torch.where(v > 0.25, 0.0, 1.0)

    (neuron,) = require_same(Net(step), grid(6, 4, 6), grid(9, 3, 6, seed=3)).program.spiking
    assert neuron.reset == "value"


class Twice(Net):
    """SnnTorch's order: the reset compares the potential of the step before once more."""

    def __init__(self, theta: float, start: float, *, late: bool = False, masks: bool = False) -> None:
        super().__init__(lambda v: (v, v))
        self.theta, self.start, self.late, self.masks = theta, start, late, masks

    def forward(self, x: Tensor) -> Tensor:
        v, spikes, before = torch.full((x.shape[1], 8), self.start), list[Tensor](), torch.zeros(x.shape[1], 8)
        for current in self.enter(x):
            if self.masks:
                v = 0.5 * v.masked_fill(v > self.theta, 0) + current
            else:
                v = 0.5 * v + current - self.theta * (v > self.theta).float()
            self.potentials = [*self.potentials, v]
            s = (v - self.theta > 0).float()
            spikes.append(before if self.late else s)
            before = s
        return torch.stack(spikes)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(("theta", "start"), [(0.25, 0.0), (0.3, 0.0), (0.25, 0.5), (0.25, 0.25)])
def test_one_threshold_in_two_spellings_is_one(theta: float, start: float, masks: bool) -> None:
    """A potential that starts above its threshold is reset in the first step."""
    model = Twice(theta, start, masks=masks)
    (neuron,) = require_same(model, grid(6, 4, 6), grid(9, 3, 6, seed=3)).program.spiking
    assert neuron.reset == ("value" if masks else "subtract_delayed")
    assert theta != 0.25 or bool((torch.cat(model.potentials) == theta).any())


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_spikes_that_leave_late_start_from_zeros_where_a_reset_starts_from_ones(start: float) -> None:
    require_same(Twice(0.25, start, late=True), grid(6, 4, 6), grid(9, 3, 6, seed=3))


def test_thresholds_that_differ_on_ties_alone_are_two() -> None:
    def step(v: Tensor) -> tuple[Tensor, Tensor]:
        return (v - 0.25 > 0).float(), v - 0.25 * (v >= 0.25).float()

    require_cell(Net(step), grid(6, 4, 6))


@pytest.mark.parametrize("scale", [1.0, 2.0**-24])
@pytest.mark.parametrize(
    "spikes", [lambda v: (1 - v < 0.75).float(), lambda v: (torch.full((8,), 1.0) - v <= 0.75).float()]
)
def test_a_difference_compared_with_a_number_keeps_its_rounding(
    spikes: Callable[[Tensor], Tensor], scale: float
) -> None:
    """1 - v is 0.75 of some potentials beside 0.25, too."""
    unseen = 0.25 + grid(9, 3, 6, seed=3) * scale
    model = Net(lambda v: (spikes(v), 0 * v))
    with torch.no_grad():
        model.enter.weight.copy_(torch.eye(8, 6))
    require_same(model, grid(6, 4, 6), unseen)
    assert bool(((torch.cat(model.potentials) != 0.25) & (1 - torch.cat(model.potentials) == 0.75)).any()) == (
        scale < 1
    )


class Gates(nn.Module):
    """An operation of the spikes of two populations."""

    def __init__(self, gate: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = (Net(subtracting(lambda v: (v > 0.25).float(), 0.25)) for _ in range(2))
        self.gate = gate
        with torch.no_grad():
            self.second.enter.weight.copy_(grid(8, 6, seed=5) / 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.first(x), self.second(x)).float()


@pytest.mark.parametrize(
    "gate",
    [
        lambda a, b: a.bool() & ~b.bool(),
        lambda a, b: ~a.bool() & b.bool(),
        lambda a, b: torch.logical_and(a, torch.logical_not(b)),
        lambda a, b: (a > 0.5) & (b < 0.5),
        lambda a, b: a * (~b.bool()).float(),
        lambda a, b: a * torch.where(b > 0, 0.0, 1.0),
        lambda a, b: ~(a.bool() | b.bool()),
        lambda a, b: ~(a.bool() & b.bool()),
        lambda a, b: a * (1 - b) + b * (1 - a),
        lambda a, b: 1 - torch.maximum(a, b),
        lambda a, b: a * a * a * b,
        lambda a, b: a * b * b,
    ],
)
def test_gates_of_two_spikes(gate: Callable[[Tensor, Tensor], Tensor]) -> None:
    net = require_same(Gates(gate), grid(6, 4, 6), grid(9, 3, 6, seed=3))
    assert not any(isinstance(node, ir.Product) for node in net.program.nodes)  # which NIR has not
    assert 0 < net.simulate(grid(6, 4, 6).numpy()).y.mean() < 1


@pytest.mark.parametrize(
    "gate",
    [
        lambda a, b: a.bool() == b.bool(),
        lambda a, b: a.bool() != b.bool(),
        lambda a, b: a.bool() > b.bool(),
        lambda a, b: a.bool() <= b.bool(),
        lambda a, b: torch.maximum(a.bool(), b.bool()) ^ (a > 0),
        lambda a, b: torch.minimum(a.bool(), b.bool()) ^ (a > 0),
    ],
)
def test_gates_that_compare_bools_are_cells(gate: Callable[[Tensor, Tensor], Tensor]) -> None:
    require_cell(Gates(gate), grid(6, 4, 6), grid(9, 3, 6, seed=3))


@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    ("gate", "sentence"),
    [
        (lambda a, b: a.bool() ^ b.bool(), "a Cell"),
        (lambda a, b: ~a.bool() & ~b.bool(), "found two; write 1 - torch.maximum"),
        (lambda a, b: ~a.int() * b.int(), r"'bitwise_not' of integers is -1 - s; negate spikes by ~s.bool\(\)"),
        (lambda a, b: ~(a + b).bool() & b.bool(), "a cast to bool changes numbers that it cannot hold"),
    ],
)
def test_other_gates_name_what_is_captured(gate: Callable[[Tensor, Tensor], Tensor], sentence: str) -> None:
    with pytest.raises(CaptureError, match=rf"test_spellings\.py:\d+: .*{sentence}"):
        stl.capture(Gates(gate), grid(6, 4, 6))


class Written(nn.Module):
    """A net with a forward of its own, in a function."""

    def __init__(self, forward: Callable[[Written, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave, self.conv = nn.Linear(6, 8), nn.Linear(8, 4), nn.Conv2d(1, 2, 3)
        self.place = nn.Parameter(torch.randn(1, 2, 4, 4))
        self.own = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self, x)


def require_close(forward: Callable[[Written, Tensor], Tensor], x: Tensor, *unseen: Tensor) -> None:
    model = Written(forward)
    net = stl.capture(model, x)
    for given in (x, *unseen):
        expected = model(given).detach().numpy()
        np.testing.assert_allclose(net.simulate(given.numpy()).y, expected, rtol=1e-4, atol=1e-6)


def looped(currents: Tensor, added: Tensor | float = 0.0) -> Tensor:
    v, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        v = 0.8 * v + current + added
        spikes.append((v > 0.2).float())
        v = v - 0.2 * spikes[-1]
    return torch.stack(spikes)


X = torch.rand(6, 4, 6, generator=torch.Generator().manual_seed(1)) * 2
UNSEEN = torch.rand(9, 3, 6, generator=torch.Generator().manual_seed(2)) * 3


@pytest.mark.usefixtures("neurons_alone")
def test_a_constant_for_each_pixel_behind_a_convolution() -> None:
    def currents(net: Written, x: Tensor) -> Tensor:
        return net.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # type: ignore[no-any-return]

    images, unseen = torch.rand(6, 2, 1, 6, 6), torch.rand(8, 3, 1, 6, 6) * 2
    with pytest.raises(
        CaptureError, match=r"differs between pixels; add it in the neuron's update, v = beta \* v \+ x"
    ):
        stl.capture(Written(lambda net, x: looped(currents(net, x) + net.place)), images)
    require_close(lambda net, x: looped(currents(net, x), net.place), images, unseen)


def test_steps_beside_channels_in_one_axis() -> None:
    def beside(net: Written, x: Tensor) -> Tensor:
        return net.enter(x.permute(1, 0, 2)).reshape(x.shape[1], -1)  # type: ignore[no-any-return]

    def split(net: Written, x: Tensor) -> Tensor:
        return looped(torch.stack(beside(net, x).split(8, 1)))

    def followed(net: Written, x: Tensor) -> Tensor:
        return looped(torch.stack(beside(net, x).unflatten(1, (len(x), 8)).unbind(1)))

    for body in (split, followed):
        require_close(body, X, UNSEEN)
    with pytest.raises(CaptureError):
        stl.capture(Written(lambda net, x: looped(torch.stack([beside(net, x)[:, :8]] * len(x)))), X)


def late_synapses(net: Written, x: Tensor, *, current_first: bool = False, bias: bool = True) -> Tensor:
    """Potentials read their currents a step late, in the readout, too."""
    i = v = torch.zeros(x.shape[1], 8)
    y = j = torch.zeros(x.shape[1], 4)
    outputs = []
    for current in net.enter(x):
        v, i = 0.9 * v + 0.1 * i, 0.8 * i + current
        s = (v > 0.05).float()
        v = v * (1 - s)
        arriving = functional.linear(s, net.leave.weight, net.leave.bias if bias else None)
        late, j = j, 0.8 * j + arriving
        y = 0.9 * y + 0.1 * (j if current_first else late)
        outputs.append(y)
    return torch.stack(outputs)


def test_a_bias_in_a_current_that_is_read_late() -> None:
    x, unseen = torch.cat((X, X)), torch.cat((UNSEEN, UNSEEN))
    require_close(late_synapses, x, unseen)
    require_close(lambda net, x: late_synapses(net, x, bias=False), x, unseen)
    require_close(lambda net, x: late_synapses(net, x, current_first=True), x, unseen)


def adaptive_lif(net: Written, x: Tensor, coupling: float = 0.3) -> Tensor:
    """Bittar and Garner's AdLIF: the adaptation reads the potential, too."""
    u = w = s = torch.zeros(x.shape[1], 8)
    spikes = []
    for current in net.enter(x):
        w = 0.95 * w + 0.5 * s + (coupling * u if coupling else 0)
        u = 0.85 * (u - 0.2 * s) + 0.15 * (4 * current - w)
        s = (u > 0.2).float()
        spikes.append(s)
    return torch.stack(spikes)


def resonating(net: Written, x: Tensor) -> Tensor:
    u = w = torch.zeros(x.shape[1], 8)
    spikes = []
    for current in net.enter(x):
        u, w = 0.9 * u - 0.3 * w + current, 0.3 * u + 0.9 * w
        spikes.append((u > 0.2).float())
    return torch.stack(spikes)


@pytest.mark.parametrize("forward", [adaptive_lif, resonating])
def test_states_that_read_each_other_are_a_cell(forward: Callable[[Written, Tensor], Tensor]) -> None:
    require_cell(Written(forward), torch.cat((X, X)), UNSEEN)


def test_an_adaptation_that_reads_spikes_alone_is_captured() -> None:
    require_close(lambda net, x: adaptive_lif(net, x, 0.0), torch.cat((X, X)), UNSEEN)


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_the_sum_of_two_currents_reset_by_its_spikes_is_no_adapting_threshold(reset: str) -> None:
    """SnnTorch's Alpha."""

    def alpha(net: Written, x: Tensor) -> Tensor:
        v = excited = inhibited = torch.zeros(x.shape[1], 8)
        spikes = []
        for current in net.enter(x):
            before = (v > 0.2).float()
            excited, inhibited = 0.9 * excited + current, 0.8 * inhibited - current
            v = 2.1 * (excited + inhibited)
            v = v - before * (0.2 if reset == "subtract" else v)
            if reset == "zero":
                excited, inhibited = (1 - before) * excited, (1 - before) * inhibited
            spikes.append((v > 0.2).float())
        return torch.stack(spikes)

    require_cell(Written(alpha), torch.cat((X, X)), UNSEEN)


class Gated(nn.Module):
    """Spikes gated by those of other neurons of the step before. start: of these; turned: as they are kept."""

    def __init__(
        self, start: float, kept: Callable[[Tensor], Tensor], read: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.start, self.kept, self.read = nn.Linear(6, 8, bias=False), start, kept, read

    def forward(self, x: Tensor) -> Tensor:
        v = u = torch.zeros(x.shape[1], 8)
        past, found = torch.full((x.shape[1], 8), self.start), []
        for current in self.enter(x):
            v = 0.5 * v + current
            s = (v > 0.6).float()
            v = v - 0.6 * s
            u = 0.75 * u + current.flip(1)
            q = (u > 1).float()
            u = u - q
            found.append(self.read(s, past))
            past = self.kept(q)
        return torch.stack(found)


def _as_it_is(s: Tensor) -> Tensor:
    return s


@pytest.mark.push(3)
@pytest.mark.usefixtures("neurons_alone")
@pytest.mark.parametrize(
    ("kept", "read", "right"),
    [
        (_as_it_is, lambda s, p: s * p, 0.0),
        (_as_it_is, lambda s, p: s * (1 - p), 0.0),
        (_as_it_is, torch.maximum, 0.0),
        (_as_it_is, lambda s, p: (s.bool() & ~p.bool()).float(), 0.0),
        (lambda q: 1 - q, lambda s, p: s * p, 1.0),
        (lambda q: (~q.bool()).float(), lambda s, p: s * p, 1.0),
        (lambda q: 1 - q, lambda s, p: s * (1 - p), 1.0),
    ],
)
def test_spikes_of_the_step_before_that_gate_start_as_a_graphs_do(
    kept: Callable[[Tensor], Tensor], read: Callable[[Tensor, Tensor], Tensor], right: float
) -> None:
    """Nothing fires in the first step of x, so that x does not show how they start."""
    drawn = torch.Generator().manual_seed(1)
    x = (torch.rand(12, 4, 6, generator=drawn) > 0.5).float()
    unseen = 3 * (torch.rand(12, 4, 6, generator=drawn) > 0.5).float()
    x[0] = 0
    require_same(Gated(right, kept, read), torch.cat((x, unseen), 1), x, unseen)
    with pytest.raises(CaptureError, match=r"spikes of earlier steps that start at 0|a Cell"):
        stl.capture(Gated(1 - right, kept, read), x)


@pytest.mark.parametrize(
    ("kept", "read", "start"),
    [
        (_as_it_is, lambda s, p: s * p, 1.0),
        (lambda q: 1 - q, lambda s, p: s * p, 0.0),
        (lambda q: 1 - q, lambda s, p: s * (1 - p), 0.0),
    ],
)
def test_spikes_that_start_otherwise_than_a_graphs_are_captured_with_cells(
    kept: Callable[[Tensor], Tensor], read: Callable[[Tensor, Tensor], Tensor], start: float
) -> None:
    drawn = torch.Generator().manual_seed(1)
    x = 3 * (torch.rand(7, 5, 6, generator=drawn) > 0.5).float()
    unseen = 3 * (torch.rand(12, 4, 6, generator=drawn) > 0.5).float()
    x[0] = 0
    require_same(Gated(start, kept, read), x, unseen)


@pytest.mark.parametrize("read", [lambda v: 3 * v, lambda v: v - 0.1, lambda v: 0.5 - v])
def test_counts_of_a_potential_that_they_do_not_reset(read: Callable[[Tensor], Tensor]) -> None:
    """They are spikes of another neuron, which reads the potential; only what resets it must be its own count."""

    def step(v: Tensor) -> tuple[Tensor, Tensor]:
        return torch.round(torch.clamp(read(v), 0, 4)), v

    require_same(Net(step), grid(12, 4, 6), grid(7, 3, 6, seed=5))


def test_a_threshold_moved_by_the_last_spike_alone_is_a_cell() -> None:
    class Last(Net):
        def forward(self, x: Tensor) -> Tensor:
            v = last = torch.zeros(x.shape[1], 8)
            spikes = []
            for current in self.enter(x):
                v = 0.5 * v + current
                last = (v - 0.5 * last > 0.4).float()
                spikes.append(last)
            return torch.stack(spikes)

    require_cell(Last(lambda v: (v, v)), grid(12, 4, 6))


class Bounded(Net):
    """A leak behind the bound of what a spike leaves: max(v / 2, -1/4) is max(v, -1/2) / 2."""

    def forward(self, x: Tensor) -> Tensor:
        left, spikes = torch.zeros(x.shape[1], 8), []
        for current in self.enter(x):
            v = left + current
            self.potentials = [*self.potentials, v]
            s = (v > 1).float()
            spikes.append(s)
            left = torch.clamp(0.5 * (v - torch.clamp(s, -3, 5)), min=-0.25)
        return torch.stack(spikes)


def test_a_bound_behind_a_leak_is_one_of_the_potential_and_one_beyond_reach_is_none() -> None:
    model = Bounded(lambda v: (v, v))
    net = require_same(model, grid(6, 4, 6), grid(9, 3, 6, seed=3), 4 * grid(5, 2, 6, seed=4))
    (neuron,) = net.program.spiking
    assert (float(neuron.v_min), float(neuron.decay), neuron.reset) == (-0.5, 0.5, "subtract")  # type: ignore[arg-type]
    assert bool((torch.cat(model.potentials) < -0.5).any())


class SumPooled(nn.Module):
    """A convolution and neurons of a written update; their spikes are pooled."""

    def __init__(self, update: Callable[[Tensor, Tensor], Tensor], start: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.enter, self.update, self.start = nn.Conv2d(1, 4, 3, bias=False), update, start

    def forward(self, x: Tensor) -> Tensor:
        currents = self.enter(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        v, pooled = self.start(currents[0]), []
        for current in currents:
            v = self.update(v, current)
            s = (v >= 0.25).float()
            v = v * (1 - s)
            pooled.append(functional.lp_pool2d(s, 1, 2))
        return torch.stack(pooled)


@pytest.mark.parametrize("start", [torch.zeros_like, lambda v: 0.0, lambda v: 0.125 + torch.zeros_like(v)])
@pytest.mark.parametrize(
    "update",
    [lambda v, x: v - (v - x) / 2.5, lambda v, x: v - (0.25 * v - x), lambda v, x: v - (0.125 - x)],
)
def test_a_leak_that_is_subtracted_is_a_neuron_and_a_sum_pool_of_spikes_a_pool(
    update: Callable[[Tensor, Tensor], Tensor], start: Callable[[Tensor], Tensor]
) -> None:
    """At its start v is a constant, from which a leak or a current is subtracted, as from a threshold."""
    x = grid(8, 3, 1, 6, 6)
    net = require_same(SumPooled(update, start), x, grid(5, 2, 1, 6, 6, seed=6))
    assert not any(net.program.of(Cell))
    assert len([*net.program.spiking]) == len([*net.program.of(ir.Pool)]) == 1


WEIGHT, BIAS = torch.linspace(0.5, 2, 8), torch.linspace(-0.5, 0.5, 8)


def into(operation: Callable[..., Tensor], v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return what an operation writes into a tensor of its result's shape, allocated before."""
    out = torch.zeros(operation(v, *args, **kwargs).shape)
    operation(v, *args, **kwargs, out=out)
    return out


LOOKS = torch.tensor([[0.5, -torch.inf], [-0.2, 0.1]])
attend = functional.scaled_dot_product_attention  # as those import it who do not call it by its module
HEADS, CAUSAL = nn.MultiheadAttention(4, 2, batch_first=True).eval(), torch.ones(2, 2, dtype=torch.bool).triu(1)


def heads(x: Tensor, **options: Tensor) -> Tensor:
    """Return what heads make of tokens, and how much each looks at the others."""
    made, weights = HEADS(x, x, x, **options)
    return torch.cat([made, weights.repeat(1, 1, 2)], 1).view(-1, 2, 8)[:, 0]


COMPOSITES: dict[str, Callable[[Tensor], Tensor]] = {
    "native_layer_norm": lambda v: functional.layer_norm(v, (8,), WEIGHT, BIAS),
    "native_group_norm": lambda v: functional.group_norm(v, 2, WEIGHT, BIAS),
    "linalg_vector_norm": lambda v: functional.normalize(v, dim=-1) + v / (v.norm(p=3, dim=-1, keepdim=True) + 0.1),
    "std": lambda v: (v - v.mean(-1, keepdim=True)) / (v.std(-1, keepdim=True) + 0.1),
    "var": lambda v: v / (1 + v.var(-1, keepdim=True, unbiased=False)),
    "var_mean": lambda v: v - sum(torch.var_mean(v, -1, keepdim=True)),
    "logsumexp": lambda v: v - v.logsumexp(-1, keepdim=True) + 0.1 * into(torch.logsumexp, v, (1,), keepdim=True),
    "_softmax": lambda v: v.softmax(-1) + v.view(-1, 2, 4).softmax(1).flatten(1) + into(torch.softmax, v, -1),
    "_log_softmax": lambda v: v.log_softmax(-1),
    "_safe_softmax": lambda v: attend(*[v.view(-1, 2, 4)] * 3).flatten(1),
    "_scaled_dot_product_flash_attention_for_cpu": lambda v: attend(*[v.view(-1, 2, 2, 2).transpose(1, 2)] * 3).flatten(
        1
    ),
    "baddbmm": lambda v: torch.baddbmm(v[..., None], v[..., None], torch.sigmoid(v[:, :1, None])).flatten(1),
    "multi_head_attention_forward": lambda v: heads(v.view(-1, 2, 4)) + heads(v.view(-1, 2, 4), attn_mask=CAUSAL),
    "scaled_dot_product_attention": lambda v: sum(
        functional.scaled_dot_product_attention(*[v.view(-1, 2, 4)] * 3, **options).flatten(1)
        for options in ({}, {"is_causal": True, "scale": 0.3}, {"attn_mask": ~CAUSAL}, {"attn_mask": LOOKS})
    ),
    "instance_norm": lambda v: (
        functional.instance_norm(v.view(-1, 2, 4), None, None, WEIGHT[:2], BIAS[:2]).flatten(1)
        + functional.instance_norm(v.view(-1, 2, 4), BIAS[:2], WEIGHT[:2], use_input_stats=False).flatten(1)
    ),
    "glu": lambda v: functional.glu(v, -1).repeat(1, 2),
    "gelu": lambda v: functional.gelu(v) + functional.gelu(v, approximate="tanh") + torch.ops.aten.gelu_(1 * v),
    "elu": lambda v: functional.elu(v) + functional.selu(v) + functional.elu(1 * v, 0.5, inplace=True),
    "celu": lambda v: functional.celu(v, 2.0),
    "hardswish": lambda v: functional.hardswish(v) + functional.hardswish(1 * v, inplace=True),
    "hardsigmoid": lambda v: functional.hardsigmoid(v) + functional.hardsigmoid(1 * v, inplace=True),
    "mish": lambda v: functional.mish(v) + functional.mish(1 * v, inplace=True),
    "_prelu_kernel": lambda v: functional.prelu(v, WEIGHT),
    "log_sigmoid_forward": functional.logsigmoid,
    "softshrink": lambda v: functional.softshrink(v) + functional.hardshrink(v),
    "threshold": lambda v: functional.threshold(v, 0.2, 0.0) + functional.threshold(1 * v, 0.1, 0.0, inplace=True),
    "nan_to_num": torch.nan_to_num,
    "logaddexp": lambda v: torch.logaddexp(v, BIAS),
}
"""Operations that torch's own table spells out, by one of their names."""


class Composed(nn.Module):
    """A composite operation of a state, and between two spiking layers."""

    def __init__(self, composite: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.enter, self.between = nn.Linear(6, 8), nn.Linear(8, 8)
        level = composite(0.5 * torch.randn(64, 8)).mean().item()
        self.composite = lambda v: composite(v) - level

    def forward(self, x: Tensor) -> Tensor:
        v, w, spikes = torch.zeros(x.shape[1], 8), torch.zeros(x.shape[1], 8), []
        for current in self.enter(x):
            v = 0.8 * v + current + 0.2 * self.composite(v)
            s = (v > 0.3).float()
            v = v - 0.3 * s
            w = 0.7 * w + self.composite(self.between(s) + 0.1)
            spikes.append((w > 0.2).float())
            w = w * (1 - spikes[-1])
        return torch.stack(spikes)


@pytest.mark.parametrize("name", COMPOSITES)
def test_composite_operations_are_captured_as_torch_spells_them_out(name: str) -> None:
    net = require_same(Composed(COMPOSITES[name]), grid(6, 4, 6) + 0.1, grid(9, 3, 6, seed=3) - 0.1)
    assert net.proof is not None
    assert name in net.proof.decomposed
    assert max(net.proof.decomposed.values()) < 1e-5
    assert f"'{name}'" in repr(net.proof)


@pytest.mark.parametrize(
    "mask", [lambda v, least: v.masked_fill(CAUSAL, least), lambda v, least: v + torch.where(CAUSAL, least, 0.0)]
)
def test_a_mask_of_infinity_is_refused_by_one_that_is_captured(mask: Callable[[Tensor, float], Tensor]) -> None:
    def masked(least: float) -> Composed:
        return Composed(
            lambda v: (mask(v.view(-1, 2, 4) @ v.view(-1, 2, 4).mT, least).softmax(-1).repeat(1, 1, 2)).flatten(1)
        )

    with pytest.raises(
        CaptureError, match="reads a constant of infinity, and a graph holds none; for a mask take -1e9"
    ):
        stl.capture(masked(-torch.inf), grid(6, 4, 6))
    net = require_same(masked(-1e9), grid(6, 4, 6), grid(9, 3, 6, seed=3))
    np.testing.assert_allclose(net.simulate(grid(6, 4, 6).numpy()).y, masked(-torch.inf)(grid(6, 4, 6)), atol=1e-5)


class Block(nn.Module):
    """A transformer's block in each step, of samples ``[4 tokens, 6]``: norms, heads with softmax, and GELU."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(2))
        self.qkv, self.out, self.up = (nn.Linear(6, count) for count in (18, 6, 12))
        self.down, self.leave, self.then = nn.Linear(12, 6), nn.Linear(24, 3), then

    def forward(self, x: Tensor) -> Tensor:
        v, made = torch.zeros(x.shape[1], 4, 6), []
        for current in x:
            q, k, value = self.qkv(self.norms[0](v)).view(-1, 4, 3, 2, 3).permute(2, 0, 3, 1, 4)
            v = v + self.out(functional.scaled_dot_product_attention(q, k, value).transpose(1, 2).flatten(2))
            v = 0.8 * (v + self.down(functional.gelu(self.up(self.norms[1](v))))) + current
            s = (v > 0.5).float()
            v = v - 0.5 * s
            made.append(self.leave(s.flatten(1)))
        return self.then(torch.stack(made))


def test_a_transformers_block_in_a_step_is_captured() -> None:
    require_cell(Block(lambda y: y), torch.rand(6, 3, 4, 6), torch.rand(9, 2, 4, 6))


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block(lambda y: y)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.expand(5, *x.shape)).mean(0)


def test_a_transformers_block_in_a_loop_inside_is_captured() -> None:
    model, x = Loop().eval(), torch.rand(3, 4, 6)
    net = stl.capture(model, x, time="inside")
    np.testing.assert_allclose(net.simulate(x).readout, model(x).detach(), atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "readout"), [(lambda s: s, "softmax"), (lambda s: functional.layer_norm(s, (8,)), "softmax")]
)
def test_a_softmax_at_the_end_stays_the_readout(norm: Callable[[Tensor], Tensor], readout: str) -> None:
    model = nn.Sequential(Composed(norm), nn.Linear(8, 3), nn.Softmax(-1))
    net = stl.capture(model, grid(6, 4, 6))
    assert net.readout.then == readout
    assert net.proof is not None
    assert ("native_layer_norm" in net.proof.decomposed) == (norm(WEIGHT) is not WEIGHT)
    assert "_softmax" not in net.proof.decomposed


def test_a_table_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: Callable[..., Tensor] = lambda x, approximate="none": x * torch.sigmoid(1.702 * x)  # noqa: E731
    monkeypatch.setitem(decomposed.decomposition_table, torch.ops.aten.gelu.default, wrong)
    decomposed._spelled.cache_clear()
    try:
        with pytest.raises(CaptureError, match="'gelu' is not what torch's decomposition of it computes"):
            stl.capture(Composed(functional.gelu), grid(6, 4, 6))
    finally:
        decomposed._spelled.cache_clear()
