"""Permuted axes, slices, reshapes: what NIR cannot say goes into parameters, weights and the order of the input."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import stl_deploy as stl
from stl_deploy.graph.program import Conv, Linear, Pool, Reshape


class Cell(nn.Module):
    """A neuron with a threshold for each entry of the last axis, which keeps its potential."""

    def __init__(self, size: int = 1, theta: float = 0.3) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.linspace(theta, 1.5 * theta, size))

    def reset(self) -> None:
        self.v: Any = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.v = 0.8 * self.v + x
        z = (self.v > self.theta).float()
        self.v = self.v * (1 - z)
        return z


class Net(nn.Module):
    """Steps over time; sub-classes do ``step``."""

    image = (2, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.cell, self.cell2, self.last = Cell(), Cell(), Cell(3, 0.02)
        self.fc = nn.Linear(144, 3)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.modules():
            if isinstance(module, Cell):
                module.reset()
        return torch.stack([self.step(one) for one in x])

    def step(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class FlattenedChannelsLast(Net):
    def step(self, x: Tensor) -> Tensor:
        return self.last(self.fc(self.cell(self.conv(x)).permute(0, 2, 3, 1).flatten(1)))


class NeuronsChannelsLast(Net):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.cell2 = Cell(4), Cell(4)

    def step(self, x: Tensor) -> Tensor:
        h = self.cell(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.last(self.fc(self.cell2(self.conv2(h).movedim(1, -1)).flatten(1)))


class ImageChannelsLast(Net):
    image = (6, 6, 2)

    def step(self, x: Tensor) -> Tensor:
        return self.last(self.fc(self.cell(self.conv(x.permute(0, 3, 1, 2))).flatten(1)))


class LineAsImage(Net):
    image = (72,)

    def step(self, x: Tensor) -> Tensor:
        return self.last(self.fc(self.cell(self.conv(x.view(-1, 2, 6, 6))).flatten(1)))


class Decoder(Net):
    image = (10,)

    def __init__(self) -> None:
        super().__init__()
        self.up, self.transposed = nn.Linear(10, 36), nn.ConvTranspose2d(4, 4, 2, stride=2)

    def step(self, x: Tensor) -> Tensor:
        h = self.cell(self.up(x)).unflatten(1, (4, 3, 3))
        return self.last(self.fc(self.cell2(self.transposed(h)).flatten(1)))


class Patches(Net):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.cell = nn.Linear(18, 16), nn.BatchNorm1d(16), Cell(16, 0.2)
        self.norm.running_mean.uniform_(-0.1, 0.1)
        self.fc = nn.Linear(64, 3)

    def step(self, x: Tensor) -> Tensor:
        p = x.reshape(-1, 2, 2, 3, 2, 3).permute(0, 2, 4, 1, 3, 5).reshape(-1, 18)
        return self.last(self.fc(self.cell(self.norm(self.embed(p)).reshape(-1, 4, 16)).flatten(1)))


class LinearOverChannels(Net):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def step(self, x: Tensor) -> Tensor:
        h = self.cell(self.mix(self.cell2(self.conv(x)).permute(0, 2, 3, 1)))
        return self.last(self.fc(h.flatten(1)))


class Shuffled(Net):
    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2)

    def step(self, x: Tensor) -> Tensor:
        z = self.cell(self.conv(x)).view(-1, 2, 2, 6, 6).transpose(1, 2).reshape(-1, 4, 6, 6)
        return self.last(self.fc(self.cell2(self.grouped(z)).flatten(1)))


class Split(Net):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Conv2d(2, 2, 3, padding=1)

    def step(self, x: Tensor) -> Tensor:
        a, b = self.cell(self.conv(x)).chunk(2, 1)
        return self.last(self.fc(self.cell2(torch.cat([self.part(a), b], 1)).flatten(1)))


class Inhibited(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.last.reset()
        z, out = torch.zeros(x.shape[1], 3), []
        for one in x:
            z = self.last(self.fc(self.conv(one).flatten(1)) - 0.2 * z.sum(1, keepdim=True))
            out.append(z)
        return torch.stack(out)


class Upsampled(Net):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 2, stride=2)

    def step(self, x: Tensor) -> Tensor:
        h = functional.interpolate(self.cell(self.conv(x)), scale_factor=2)
        return self.last(self.fc(self.cell2(self.conv2(h)).flatten(1)))


class Between(Net):
    """An operation between two convolutions."""

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation, self.conv2, self.fc = operation, nn.LazyConv2d(4, 3), nn.LazyLinear(3)

    def step(self, x: Tensor) -> Tensor:
        h = self.operation(self.cell(self.conv(x)))
        return self.last(self.fc(self.cell2(self.conv2(h)).flatten(1)))


class OverChannels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True)


def captured(kind: Callable[[], Net]) -> tuple[Net, Tensor, Any]:
    torch.manual_seed(0)
    model = kind()
    x = torch.rand(6, 3, *model.image) * 3
    model(x)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the model rearranges its input")
        net = stl.capture(model, x)
    assert net.proof.replay_differing == 0
    assert net.proof.end_to_end["differing"] == 0
    assert all(layer.differing == 0 and layer.rate > 0 for layer in net.proof.layers)
    np.testing.assert_array_equal(net.simulate(x).y, model.eval()(x).detach().numpy())
    return model, x, net


@pytest.mark.parametrize(
    "kind",
    [
        *(FlattenedChannelsLast, NeuronsChannelsLast, Decoder, Patches, LinearOverChannels),
        *(Shuffled, Split, Inhibited, Upsampled),
    ],
)
def test_other_orders_are_exact(kind: type[Net]) -> None:
    captured(kind)


@pytest.mark.parametrize(
    "operation",
    [
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(size=(13, 9), mode="bilinear", align_corners=True),
        nn.Upsample(size=(13, 9), mode="bicubic"),
        nn.AdaptiveAvgPool2d((5, 4)),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.ConvTranspose2d(4, 6, (4, 3), stride=(2, 3), padding=(1, 0), dilation=(1, 2)),
        OverChannels(),
    ],
)
def test_operations_too_large_for_a_matrix_are_weighted_places(
    operation: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stl_deploy.tracing.layers.weights.MAX_DENSE", 99)
    captured(lambda: Between(operation))


def test_a_permutation_before_a_linear_layer_is_in_its_weights() -> None:
    model, _, net = captured(FlattenedChannelsLast)
    assert [type(node) for node in net.program.nodes if isinstance(node, Conv | Linear | Reshape)] == [
        Conv,
        Reshape,
        Linear,
    ]
    expected = model.fc.weight.detach().reshape(3, 6, 6, 4).permute(0, 3, 1, 2).flatten(1)
    np.testing.assert_array_equal(net.program.by_name["fc"].weight, expected.numpy())


def test_neurons_with_channels_last_are_neurons_with_channels_first() -> None:
    model, _, net = captured(NeuronsChannelsLast)
    assert net.program.by_name["cell"].shape == (4, 6, 6)
    threshold = np.broadcast_to(net.program.by_name["cell"].threshold, (4, 6, 6))
    np.testing.assert_array_equal(threshold[:, 2, 3], model.cell.theta.detach().numpy())
    assert [type(node).__name__ for node in net.program.of(Conv)] == ["Conv", "Conv"]


def test_linear_layers_over_channels_are_convolutions_of_size_1() -> None:
    _, _, net = captured(LinearOverChannels)
    assert net.program.by_name["mix.linear1"].weight.shape == (4, 4, 1, 1)


@pytest.mark.parametrize("kind", [ImageChannelsLast, LineAsImage])
def test_the_input_of_the_graph_has_the_order_that_its_layers_need(kind: type[Net]) -> None:
    _, x, net = captured(kind)
    assert net.program.inputs[0].shape == (2, 6, 6)
    own = x.permute(0, 1, 4, 2, 3) if kind is ImageChannelsLast else x.unflatten(2, (2, 6, 6))
    np.testing.assert_array_equal(net.simulate(own).y, net.simulate(x).y)
    assert net.sample.shape == own.shape
    data = torch.utils.data.TensorDataset(x.swapaxes(0, 1), torch.zeros(3, dtype=torch.int64))
    found = net.evaluate(data)
    assert found.accuracy == found.module_accuracy
    assert not any(differing for _, differing in found.layers.values())


def test_a_cube_in_other_order_is_not_mistaken_for_one_in_order() -> None:
    """Where both orders have one shape, the input stays as it is, and weights do the work."""

    class Cube(Net):
        image = (2, 2, 2)

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(16, 3)

        def step(self, x: Tensor) -> Tensor:
            return self.last(self.fc(self.cell(self.conv(x.permute(0, 3, 1, 2))).flatten(1)))

    _, _, net = captured(Cube)
    assert "input" not in net.original.folded.places


def test_an_order_whose_matrix_would_be_too_large_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(Net):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.fc = nn.Linear(72, 2 * 6 * 6), nn.Linear(4 * 6 * 6, 3)

        def step(self, x: Tensor) -> Tensor:
            return self.fc(self.cell2(self.conv(self.cell(self.up(x.flatten(1))).unflatten(1, (2, 6, 6)))).flatten(1))

    monkeypatch.setattr("stl_deploy.passes.permutations.MAX_DENSE", 2 * 4 * 6**4 - 1)
    model, x = Large(), torch.rand(4, 2, 2, 6, 6)
    net = stl.capture(model, x)
    assert (2, 6, 6) in [node.shape for node in net.program.of(Reshape)]
    assert len(list(net.program.of(Conv))) == 1
    np.testing.assert_allclose(net.simulate(x.numpy()).y, model(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert {finding.slug for finding in net.check("nir").findings} == {"not-in-nir"}


@pytest.mark.parametrize("pool", [nn.AvgPool1d(2), nn.MaxPool1d(2), nn.AdaptiveAvgPool1d(4), nn.AdaptiveMaxPool1d(2)])
def test_pools_along_a_line_are_convolutions_of_each_channel(pool: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), Cell(), pool, nn.Flatten(), nn.LazyLinear(3), Cell(3, 0.02))
    x = torch.rand(6, 3, 2, 16) * 2
    model[1].reset()
    model[5].reset()
    model(x[0])
    net = stl.capture(model, x, time="step")
    assert net.proof.end_to_end["differing"] == 0
    assert not any(isinstance(node, Pool) for node in net.program.nodes)
    assert [node.groups for node in net.program.of(Conv)] == [1, 4]
