"""Layers keep their size: matrices only where nothing else holds an order, and then the proof and energy say so."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.graph.program import Conv, Linear
from stl_deploy.tracing.initial_norms import drawn_statistics

IMAGES = (torch.rand(5, 3, 2, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()
TOKENS = (torch.rand(5, 3, 5, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()


class Flattened(nn.Module):
    """Neurons on flattened images, between two convolutions; ``own`` connects them with themselves."""

    def __init__(self, own: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.behind = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.own = nn.Linear(144, 144) if own else None
        self.decay = torch.linspace(0.3, 0.8, 144)
        self.lif = stl.LIF((4, 6, 6), threshold=0.2)

    def forward(self, x: Tensor) -> Tensor:
        v, s, out = torch.zeros(x.shape[1], 144), torch.zeros(x.shape[1], 144), []
        for now in x:
            v = self.decay * v + self.before(now).flatten(1)
            if self.own is not None:
                v = v + self.own(s)
            s = (v > 0.2).float()
            v = v * (1 - s)
            out.append(self.behind(s.reshape(-1, 4, 6, 6)))
        return self.lif(torch.stack(out))


class Tokens(nn.Module):
    """Norms of channels that lie along the last axis: ``[B, N, C]`` transposed for the norm, and back if ``back``."""

    def __init__(self, back: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.back = back
        self.layer, self.norm = nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8)
        self.lif, self.last = stl.LIF((5, 8) if back else (8, 5), threshold=0.2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.layer(x.flatten(0, 1)).transpose(1, 2))
        y = (y.transpose(1, 2) if self.back else y).unflatten(0, x.shape[:2])
        return self.last(self.lif(y) if self.back else self.lif(y).transpose(2, 3))


def _same(model: nn.Module, x: Tensor) -> stl.SpikingGraph:
    net = stl.capture(model, x)
    np.testing.assert_allclose(net.simulate(x).y, model(x).detach().numpy(), atol=1e-5)
    assert net.proof.end_to_end["differing"] == 0
    return net


def test_a_convolution_behind_flattened_neurons_stays_one() -> None:
    net = _same(Flattened(), IMAGES)
    assert not list(net.program.of(Linear))
    assert len(list(net.program.of(Conv))) == 2
    assert [node.shape for node in net.program.spiking] == [(4, 6, 6), (4, 6, 6)]
    assert net.check("c").ok


@pytest.mark.parametrize("back", [True, False])
def test_a_norm_over_transposed_tokens_goes_into_the_linear_layer(back: bool) -> None:
    model = Tokens(back).eval()
    with drawn_statistics(model):
        net = _same(model, TOKENS)
    assert [node.weight.shape for node in net.program.of(Linear)] == [(8, 6), (3, 8)]
    assert not net.proof.matrices


def test_a_matrix_that_stays_is_named_with_its_factor() -> None:
    net = _same(Flattened(own=True), IMAGES)
    (matrix,) = (node for node in net.program.of(Linear) if node.name == "behind")
    taps = 4 * 4 * (6 * 3 - 2) ** 2  # borders left out
    assert np.count_nonzero(matrix.weight) == taps
    factor = round(144 * 144 / taps, 1)
    assert net.proof.matrices == {"behind": factor}
    assert f"layer 'behind' is a matrix of {factor:g} times its MACs" in str(net.proof)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        notes = net.energy(IMAGES).as_dict()["assumptions"]
    assert any("'behind'" in note and f"{factor:g} times" in note for note in notes)
