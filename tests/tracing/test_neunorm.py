"""NeuNorm (Wu et al. 2019): out = s - w·e with e = k·e + (1 - k)/C²·Σ_channels s, of vectors and of maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl

T, B, K = 6, 3, 0.9


class NeuNorm(nn.Module):
    """Subtracts a leaky sum over channels, weighted for each pixel, from spikes ``[B, C, H, W]``."""

    def __init__(self, channels: int, height: int, width: int, shared: bool = False) -> None:
        super().__init__()
        self.share = (1 - K) / channels**2
        self.weight = nn.Parameter(torch.rand(1 if shared else channels, height, width) * 3)
        self.sums: Tensor | float = 0.0

    def reset(self) -> None:
        self.sums = 0.0

    def forward(self, spikes: Tensor) -> Tensor:
        self.sums = K * self.sums + self.share * spikes.sum(1, keepdim=True)
        return spikes - self.weight * self.sums


class Spikes(nn.Module):
    """Integrates and fires above 1, with a reset to 0."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Tensor | float = 0.0

    def reset(self) -> None:
        self.v = 0.0

    def forward(self, x: Tensor) -> Tensor:
        v = self.v + x
        spikes = (v >= 1).float()
        self.v = v * (1 - spikes)
        return spikes


class Net(nn.Module):
    """``norm`` behind spikes; it is the output, or a weighted layer of spikes reads it."""

    def __init__(self, maps: bool, last: bool, shared: bool = False) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first: nn.Module = nn.Conv2d(2, 3, 3, padding=1) if maps else nn.Linear(6, 5)
        self.lif1, self.norm = Spikes(), NeuNorm(3, 4, 4, shared) if maps else NeuNorm(5, 1, 1, shared)
        self.second: nn.Module = nn.Conv2d(3, 2, 3) if maps else nn.Linear(5, 4)
        self.lif2, self.maps, self.last = Spikes(), maps, last

    def reset(self) -> None:
        for module in (self.lif1, self.lif2, self.norm):
            module.reset()

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif1(2 * self.first(x))
        y: Tensor = self.norm(spikes if self.maps else spikes[..., None, None])
        y = y if self.maps else y.flatten(1)
        return y if self.last else self.lif2(9 * self.second(y))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("maps", [False, True])
def test_neunorm_is_captured_within_the_network_and_as_its_output(maps: bool, last: bool, shared: bool) -> None:
    model, shape = Net(maps, last, shared).eval(), (2, 4, 4) if maps else (6,)
    x = (torch.rand(T, B, *shape, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    graph = stl.capture(model, x, time="step", reset=model.reset)
    unseen = torch.randn(T + 3, B + 2, *shape, generator=torch.Generator().manual_seed(2))
    model.reset()
    with torch.no_grad():
        expected = torch.stack([model(step) for step in unseen]).numpy()
    y = graph.simulate(unseen.numpy()).y
    if last:  # the sums are added in another order
        assert len(np.unique(expected)) > 20
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)
    else:
        assert 0 < expected.mean() < 1
        np.testing.assert_array_equal(y, expected)
