"""Neurons at the corners of their forms: small units, counts, starts and bounds; equal on input far from x, too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.graph.program import Neuron

State = tuple[Tensor, Tensor]
Step = Callable[[int, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Output, potential and second state of step number, current, potential and second state."""


class Net(nn.Module):
    def __init__(self, step: Step, second: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.step, self.second = nn.Linear(4, 5), step, second

    def forward(self, x: Tensor) -> Tensor:
        v, other, out = torch.zeros(x.shape[1], 5), torch.full((x.shape[1], 5), self.second), []
        for t, now in enumerate(x):
            y, v, other = self.step(t, self.enter(now), v, other)
            out.append(y)
        return torch.stack(out)


def spikes(v: Tensor, theta: float) -> Tensor:
    return (v > theta).float()


def subtracts_half(t: int, i: Tensor, v: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = 0.9 * v + 0.1 * i
    v = v - 0.5 * spikes(v, 1)
    return v, v, k


def starts_below_its_rest(t: int, i: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = 0.5 * v + 0.1 * i - 0.25
    k = (v >= b).float()
    return k, torch.relu(v * (1 - k)), 0.75 * b + 0.25 + 0.5 * k


def rounds_to_the_nearest(t: int, i: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = 0.9 * v + 0.02 * i
    k = torch.round(v.clamp(0, 4))
    return k, torch.relu(v - k), b


def two_spikes_pass_the_bound(t: int, i: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = 0.9 * v + 0.01 * i
    k = torch.floor(v.clamp(0, 4))
    return k, torch.clamp(v - 1.5 * k, min=-0.5), b


def loses_its_input(t: int, i: Tensor, v: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = (0.9 * v + 1e-9 * i) * (1 - k)
    k = spikes(v, 5e-9)
    return k, v, k


def small_bound(t: int, i: Tensor, v: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = 0.9 * v + 1e-9 * i
    k = (v > 1e-9 + a).float()
    return k, v * (1 - k), (0.9 * a + 1e-10 * k).clamp(max=3e-10)


def small_bound_of_spikes(t: int, i: Tensor, v: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = 0.9 * v + 1e-9 * i - (k * 2e-9).clamp(max=1.5e-9)
    k = spikes(v, 5e-9)
    return k, v, k


def small_multiple_of_spikes(t: int, i: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = 0.9 * v + 0.01 * i
    k = spikes(v, 1)
    return k, torch.where(k * 2e-10 > 0, v - 1, v), b


def another_first_threshold(t: int, i: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = 0.9 * v + 0.01 * i
    k = spikes(v, 1 if t else 2)
    return k, v - k, b


def first_step_bounded(t: int, i: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = 0.9 * v + i if t else i.clamp(max=64)
    k = spikes(v, 1)
    return k, v - k, b


def gated_at_the_start(t: int, i: Tensor, v: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = torch.clamp((0.9 * v + 0.01 * i) * (1 - k), min=0.5)
    k = spikes(v, 1)
    return k, v, k


CORNERS: dict[Step, float] = {
    **dict.fromkeys((subtracts_half, starts_below_its_rest, rounds_to_the_nearest, two_spikes_pass_the_bound), 0.0),
    **dict.fromkeys((loses_its_input, small_bound, small_bound_of_spikes, small_multiple_of_spikes), 0.0),
    **dict.fromkeys((another_first_threshold, first_step_bounded), 0.0),
    gated_at_the_start: 1.0,
}
"""Steps, and what their second state starts from."""


@pytest.mark.push(4)
@pytest.mark.parametrize("step", CORNERS)
@pytest.mark.filterwarnings("ignore")
def test_far_input_spikes_as_in_the_module(step: Step) -> None:
    model = Net(step, CORNERS[step]).eval()
    generator = torch.Generator().manual_seed(1)
    net = stl.capture(model, torch.rand(8, 3, 4, generator=generator) * 0.5, progress=False)
    unseen = torch.rand(20, 8, 4, generator=generator)
    for factor in (0, 1, 10, -5, 100, -300, 1000):
        with torch.no_grad():
            expected = model(unseen * factor)
        apart = (expected - torch.from_numpy(net.simulate((unseen * factor).numpy()).y)).abs()
        assert float(apart.max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


def test_a_potential_of_thresholds_with_an_axis_of_samples_is_read() -> None:
    theta = nn.Parameter(torch.ones(1, 5))

    def step(t: int, i: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v = 0.9 * v + i
        v = v - (v > theta).float() * theta
        return v, v, b

    net = stl.capture(Net(step).eval(), torch.rand(8, 3, 4), progress=False)
    assert net.program.of(Neuron)


def test_the_potential_of_a_count_is_read() -> None:
    def step(t: int, i: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v = 0.9 * v + i
        v = v - torch.floor(v.clamp(0, 4))
        return v, v, b

    net = stl.capture(Net(step).eval(), torch.rand(8, 3, 4) * 4, progress=False)
    assert any(neuron.multi_spike for neuron in net.program.of(Neuron))
