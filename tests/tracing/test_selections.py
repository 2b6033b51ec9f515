"""Values selected by a mask of the input and written back; random masks that nothing reads; outputs with a start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError
from tests.tracing.test_unseen import require_same

Reset = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The potential after a step, of the potential, where it spiked, and the spikes."""
X = (torch.rand(9, 5, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()
OTHERS = (torch.zeros(7, 3, 6), 99.5 * X[:, :1], 3 * torch.rand(30, 2, 6))


class Selecting(nn.Module):
    def __init__(self, after: Reset) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.after = nn.Linear(6, 8), after

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 8), []
        for now in x:
            v = 0.9 * v + self.enter(now)
            over = v > 0.3
            spikes = over.float()
            out.append(spikes)
            v = self.after(v, over, spikes)
        return torch.stack(out)


def by_ones(v: Tensor, over: Tensor, spikes: Tensor) -> Tensor:
    reset = torch.zeros_like(v)
    reset[over] = torch.ones_like(v)[over]
    return v - 0.3 * reset


def subtracted(v: Tensor, over: Tensor, spikes: Tensor) -> Tensor:
    v = v.clone()
    v[over] -= 0.3
    return v


def computed(v: Tensor, over: Tensor, spikes: Tensor) -> Tensor:
    rest = torch.full_like(v, 0.1)
    rest[over] = torch.sqrt(v[over]) * 0.2 + v[over].clamp(max=0.5) * 0.1
    return torch.where(over, rest, v)


def of_before(v: Tensor, over: Tensor, spikes: Tensor) -> Tensor:
    """Write into the tensor selected from, and into the selection, before it is written back."""
    copied, less = v.clone(), torch.zeros_like(v)
    picked = copied[over]
    copied.mul_(2.0)
    picked.mul_(0.5)
    less[over] = picked
    return v - less


@pytest.mark.parametrize("reset", [by_ones, subtracted, computed, of_before])
def test_selected_values_that_are_written_back_are_captured(reset: Reset) -> None:
    require_same(Selecting(reset), X, *OTHERS)


class Refractory(nn.Module):
    """A LIF with a refractory time of two steps, counted down where it is above 0 (Perez-Nieves et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        v, left, out = torch.zeros(x.shape[1], 8), torch.zeros(x.shape[1], 8), []
        for now in x:
            over = v > 0.3
            less = torch.zeros_like(v)
            less[over] = torch.ones_like(v)[over]
            left[over] = 2.0 * torch.ones_like(v)[over]
            out.append(over.float())
            v = (0.9 * v + self.enter(now) - less * 0.3) * (left[:] < 1.0).float()
            left[left[:] > 0.0] -= 1.0
        return torch.stack(out)


def test_a_refractory_count_that_falls_where_it_is_above_0_is_captured() -> None:
    require_same(Refractory(), X, *OTHERS)


def into_other_places(v: Tensor, over: Tensor, spikes: Tensor) -> Tensor:
    moved, under = v.clone(), over.clone()
    picked = v[under]
    under.logical_not_()
    moved[under] = picked[:1].mean()
    return moved


def in_part(v: Tensor, over: Tensor, spikes: Tensor) -> Tensor:
    picked = v[over]
    picked[:1] = 5.0
    less = torch.zeros_like(v)
    less[over] = picked
    return v - less


REFUSED: dict[str, Reset] = {
    "mean": lambda v, over, spikes: v - v[over].mean().nan_to_num(),
    "other places": into_other_places,
    "written in part": in_part,
    "product by another": lambda v, over, spikes: v - torch.zeros_like(v).index_put((over,), v[over] * v[v > 0.5]),
    "number of values": lambda v, over, spikes: v * (1 - spikes) if v[over].numel() < 1000 else v,
    "length": lambda v, over, spikes: v * (1 - spikes) if len(v[over]) < 1000 else v,
    "size of a view": lambda v, over, spikes: v * (1 - spikes) if v[over].view(-1).size(0) < 1000 else v,
    "shape": lambda v, over, spikes: v * (1 - spikes) if v[over].shape[0] < 1000 else v,
}


@pytest.mark.parametrize("reset", REFUSED.values(), ids=REFUSED)
def test_selected_values_that_are_read_otherwise_are_refused(reset: Reset) -> None:
    with pytest.raises(CaptureError) as error:
        stl.capture(Selecting(reset), X)
    assert error.value.line is not None
    assert error.value.line.startswith("test_selections.py")


def test_an_output_of_selected_values_is_refused() -> None:
    class Picks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[x > 0.5]

    with pytest.raises(CaptureError):
        stl.capture(Picks(), X)


class Masked(nn.Module):
    """Dropout by a mask that forward draws each time and reads in training only (Kumar et al., snn-eeg)."""

    def __init__(self, *, reads: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.reads = nn.Linear(6, 8), reads

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.distributions.Bernoulli(torch.full((x.shape[1], 8), 0.7)).sample() / 0.7
        v, out = torch.zeros(x.shape[1], 8), []
        for now in x:
            current = self.enter(now)
            v = 0.9 * v + (current * mask if self.training or self.reads else current)
            spikes = (v > 0.3).float()
            v = v * (1 - spikes)
            out.append(spikes)
        return torch.stack(out)


def test_a_drawn_mask_that_nothing_reads_is_captured() -> None:
    require_same(Masked(reads=False), X, *OTHERS)


def test_a_drawn_mask_that_is_read_is_refused() -> None:
    with pytest.raises(CaptureError) as error:
        stl.capture(Masked(reads=True), X)
    assert error.value.slug == "random-numbers"


class Started(nn.Module):
    """Recurrent LIF and leaky outputs in buffers that begin with the start, with a softmax over classes (e-prop)."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.steps, self.enter, self.out = steps, nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False)
        self.back = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        v, z = (torch.zeros(self.steps, x.shape[1], 8) for _ in range(2))
        y = torch.zeros(self.steps, x.shape[1], 3)
        for t in range(self.steps - 1):
            v[t + 1] = 0.99 * v[t] + self.back(z[t]) + self.enter(x[t]) - z[t] * 0.6
            z[t + 1] = (v[t + 1] > 0.6).float()
            y[t + 1] = 0.95 * y[t] + self.out(z[t + 1])
        return torch.softmax(y, 2)


@pytest.mark.filterwarnings("ignore:the model makes 9 steps of any longer x")
def test_a_softmax_of_outputs_that_begin_with_the_start_is_a_readout() -> None:
    net: Any = stl.capture(Started(9), X)
    for given in (X, torch.zeros(9, 2, 6), 99.5 * X):
        expected = Started(9)(given).detach()
        assert torch.allclose(torch.from_numpy(net.readout(net.simulate(given).y)).float(), expected, atol=1e-6)
