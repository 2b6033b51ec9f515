"""Batch norms that have seen no data: checks draw statistics for them, as a mean of 0 hides constants."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy import verbs
from stl_deploy.errors import CaptureError
from stl_deploy.tracing.initial_norms import drawn_statistics

X = (torch.rand(5, 3, 2, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()


class Padded(nn.Module):
    """RepConv's order: 1x1 convolution, norm, padding with what the norm makes of 0, 3x3 convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.norm = nn.Conv2d(2, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.three, self.lif = nn.Conv2d(4, 4, 3, bias=False), stl.LIF((4, 6, 6), threshold=0.2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(self.norm(self.one(x.flatten(0, 1))), (1, 1, 1, 1))
        edge = self.edge().reshape(1, -1, 1, 1)
        y[:, :, :1], y[:, :, -1:], y[:, :, :, :1], y[:, :, :, -1:] = edge, edge, edge, edge
        return self.lif(self.three(y).unflatten(0, x.shape[:2]))

    def edge(self) -> Tensor:
        return self.norm.bias - self.norm.running_mean * self.norm.weight / (self.norm.running_var + 1e-5).sqrt()


class Framed(Padded):
    """Padding with another number, which is 0 before training."""

    def edge(self) -> Tensor:
        return self.norm.bias + self.norm.running_mean


class Sorts(Padded):
    """An order of values that no graph has, where means are not 0."""

    def edge(self) -> Tensor:
        return self.norm.bias

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.sort(-1).values if bool(self.norm.running_mean.any()) else x)


class Plain(nn.Module):
    """A convolution, a norm, a neuron."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.lif = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), stl.LIF((4, 4, 4), threshold=0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.norm(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2]))


@pytest.mark.parametrize("trained", [False, True])
def test_padding_with_what_a_norm_makes_of_zeros_is_padding_before_it(trained: bool) -> None:
    model = Padded().eval()
    with drawn_statistics(model) if trained else nullcontext():
        net = stl.capture(model, X)
        assert net.proof is not None
        assert net.proof.end_to_end["differing"] == 0
        assert 0 < max(layer.rate for layer in net.proof.layers) < 1
        fresh = torch.rand(4, 2, 2, 6, 6)
        np.testing.assert_array_equal(net.simulate(fresh.numpy()).y, model(fresh).detach().numpy())
        assert net.check("onnx").ok


def test_norms_that_forward_does_not_call_are_not_counted() -> None:
    model = Padded()
    model.left = nn.BatchNorm2d(3)
    net = stl.capture(model.eval(), X)
    assert net.proof is not None
    assert net.proof.initial_norms == 1


def test_check_decides_as_after_training() -> None:
    framed = stl.capture(Framed(), X)
    assert framed.graph is not None
    assert framed.check("onnx").ok
    assert not framed.check("nir").ok  # a sum with the number has no node
    model = Sorts()
    net = stl.capture(model, X)
    assert "1 batch norm without statistics yet" in str(net.proof)
    with pytest.raises(CaptureError, match="once its batch norms have statistics"):
        net.check("onnx")
    with drawn_statistics(model), pytest.raises(CaptureError):
        stl.capture(model, X)


def test_check_of_a_file_decides_as_after_training(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X.numpy())
    (tmp_path / "own.py").write_text("from tests.tracing.test_norms_without_data import Framed, Plain, Sorts\n")
    with pytest.raises(CaptureError):
        verbs.check(Path(f"{tmp_path / 'own.py'}:Sorts"), input_file=tmp_path / "x.npz", targets=["onnx"])
    for name in ("Plain", "Framed"):  # NIR does not hold the second
        assert verbs.check(Path(f"{tmp_path / 'own.py'}:{name}"), input_file=tmp_path / "x.npz", targets=["onnx"]).ok


def test_a_module_is_left_as_it_was() -> None:
    model = Plain()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    net = stl.capture(model, X)
    assert net.check("onnx").ok
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_norms_with_data_keep_their_statistics() -> None:
    model = Plain()
    model.norm.running_mean.fill_(0.5)
    with drawn_statistics(model) as drawn:
        assert not drawn
        assert bool((model.norm.running_mean == 0.5).all())
    assert "without statistics" not in str(stl.capture(model, X).proof)
