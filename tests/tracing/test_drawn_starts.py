"""SHD's baselines, whose states start from drawn numbers (Bittar and Garner 2022), each written anew from the paper."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import CaptureError

SIZES, CLASSES = (14, 12, 12), 5
X = (torch.rand(4, 24, 14, generator=torch.Generator().manual_seed(2)) < 0.3).float()


class Spiking(nn.Module):
    """A layer of LIF or adLIF, with recurrent weights that have no diagonal if asked, after a batch norm."""

    def __init__(self, before: int, after: int, *, adapts: bool, recurrent: bool, draws: Callable[..., Tensor]) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(before, after, bias=False), nn.BatchNorm1d(after, momentum=0.05)
        self.alpha = nn.Parameter(torch.rand(after) * 0.15 + 0.82)
        self.beta = nn.Parameter(torch.rand(after) * 0.02 + 0.97) if adapts else None
        self.a, self.b = nn.Parameter(torch.rand(after) * 2 - 1), nn.Parameter(torch.rand(after) * 2)
        self.back = nn.Parameter(torch.empty(after, after)) if recurrent else None
        if self.back is not None:
            nn.init.orthogonal_(self.back)
        self.draws = draws

    def forward(self, x: Tensor) -> Tensor:
        current = self.enter(x)
        current = self.norm(current.flatten(0, 1)).unflatten(0, x.shape[:2])
        shape, spikes = (len(x), current.shape[2]), []
        u, w, s = self.draws(*shape), self.draws(*shape), self.draws(*shape)
        alpha = self.alpha.clamp(0.82, 0.97)
        back = None if self.back is None else self.back.clone().fill_diagonal_(0)
        for t in range(current.shape[1]):
            given = current[:, t] if back is None else current[:, t] + torch.matmul(s, back)
            if self.beta is not None:
                w = self.beta.clamp(0.97, 0.99) * w + self.a.clamp(-1, 1) * u + self.b.clamp(0, 2) * s
                given = given - w
            u = alpha * (u - s) + (1 - alpha) * given
            s = (u - 1 > 0).float()
            spikes.append(s)
        return torch.stack(spikes, 1)


class Baseline(nn.Module):
    """Spiking layers ``[B, T, 14]``, and a leaky readout whose softmax is summed over time."""

    def __init__(self, *, adapts: bool, recurrent: bool, draws: Callable[..., Tensor] = torch.rand) -> None:
        super().__init__()
        torch.manual_seed(0)
        options = {"adapts": adapts, "recurrent": recurrent, "draws": draws}
        self.layers = nn.ModuleList(Spiking(*pair, **options) for pair in pairwise(SIZES))  # type: ignore[arg-type]
        self.out, self.draws = nn.Linear(SIZES[-1], CLASSES), draws
        self.alpha = nn.Parameter(torch.rand(CLASSES) * 0.15 + 0.82)
        for layer in self.layers:
            nn.init.uniform_(layer.norm.bias, 0.5, 3.0)
            layer.norm.running_var.uniform_(0.1, 0.3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        current = self.out(x)
        u, scores = self.draws(len(x), CLASSES), torch.zeros(len(x), CLASSES)
        alpha = self.alpha.clamp(0.82, 0.97)
        for t in range(current.shape[1]):
            u = alpha * u + (1 - alpha) * current[:, t]
            scores = scores + torch.softmax(u, 1)
        return scores


@pytest.mark.push(1)
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("adapts", [False, True])
def test_a_baseline_of_spoken_digits(adapts: bool, recurrent: bool) -> None:
    model = Baseline(adapts=adapts, recurrent=recurrent)
    net = stl.capture(model, X, time="second", start="zeros", progress=False)
    assert net.proof is not None
    assert net.proof.replay_differing == net.proof.end_to_end["differing"] == 0
    assert all(0 < layer.rate < 1 for layer in net.proof.layers if layer.compared)
    at_rest = Baseline(adapts=adapts, recurrent=recurrent, draws=torch.zeros)
    expected = at_rest(X).detach().numpy()
    np.testing.assert_allclose(net.readout(net.simulate(X).y), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(CaptureError) as refused:
        stl.capture(model, X, time="second", progress=False)
    assert refused.value.slug == "random-numbers"


def _in_place(*shape: int) -> Tensor:
    return torch.empty(shape).uniform_()


def _from_weights(*shape: int) -> Tensor:
    return torch.ones(1).new(*shape).normal_().mul(0.1)


def test_states_drawn_in_place_name_the_remedy() -> None:
    for draws in (_in_place, _from_weights, lambda *shape: torch.zeros(shape).random_(2)):
        model = Baseline(adapts=False, recurrent=False, draws=draws)
        with pytest.raises(CaptureError, match="give start='zeros'"):
            stl.capture(model, X, time="second", progress=False)
    assert stl.capture(model, X, time="second", start="zeros", progress=False).proof is not None


def test_refusals_name_their_lines_where_starts_are_zeros() -> None:
    class Ordered(Baseline):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.cumsum(2))

    with pytest.raises(CaptureError, match=r"test_drawn_starts\.py:\d+: 'cumsum' has no form"):
        stl.capture(Ordered(adapts=False, recurrent=False), X, time="second", start="zeros", progress=False)


class Noisy(Baseline):
    """A baseline whose input gets noise, one number for each value, or one for each step."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__(adapts=False, recurrent=False)
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.rand_like(x) if self.whole else torch.stack([torch.randn(len(x), 14) for _ in x[0]], 1)
        return super().forward(x + 0.1 * noise)


@pytest.mark.parametrize("whole", [False, True])
def test_noise_of_every_step_is_no_start(whole: bool) -> None:
    with pytest.raises(CaptureError, match="every step"):
        stl.capture(Noisy(whole=whole), X, time="second", start="zeros", progress=False)


def test_spikes_drawn_from_rates_are_no_start() -> None:
    class Rates(Baseline):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.bernoulli(0.5 * x))

    with pytest.raises(CaptureError) as refused:
        stl.capture(Rates(adapts=False, recurrent=False), X, time="second", start="zeros", progress=False)
    assert refused.value.slug == "random-numbers"
