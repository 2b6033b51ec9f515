"""Pools as torch has them: what a graph can hold is captured, spike for spike, and the rest refused by its reason."""

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
from stl_deploy.exporters.c.compiler import find_compiler
from stl_deploy.graph.program import MaxPool


class Pooled(nn.Module):
    """A convolution's spikes through a pool into a layer of neurons."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pool = pool
        self.conv, self.lif = nn.Conv2d(1, 3, 3, padding=1), stl.LIF((3, 8, 8), threshold=0.3)
        features = pool(torch.zeros(1, 3, 8, 8)).flatten(1).shape[1]
        self.fc, self.out = nn.Linear(features, 4), stl.LIF((4,), threshold=0.2)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch = x.shape[:2]
        spikes = self.lif(self.conv(x.flatten(0, 1)).unflatten(0, (steps, batch)))
        pooled = self.pool(spikes.flatten(0, 1)).flatten(1).unflatten(0, (steps, batch))
        return self.out(self.fc(pooled))


X = torch.rand(5, 3, 1, 8, 8) * 2
HELD: dict[str, Callable[[Tensor], Tensor]] = {
    "adaptive of the same size": lambda h: functional.adaptive_avg_pool2d(h, (8, 8)),
    "adaptive": lambda h: functional.adaptive_avg_pool2d(h, (2, 4)),
    "adaptive, windows of several sizes": lambda h: functional.adaptive_avg_pool2d(h, (3, 3)),
    "adaptive maximum": lambda h: functional.adaptive_max_pool2d(h, (4, 4)),
    "mean over both axes": lambda h: h.mean((2, 3)),
    "mean over one axis": lambda h: h.mean(2),
    "maximum over both axes": lambda h: h.amax((2, 3)),
    "mean over channels and rows, behind an axis of 1": lambda h: h.unsqueeze(0).mean((2, 3))[0],
    "maximum over channels and rows, behind an axis of 1": lambda h: (0.3 * h).unsqueeze(0).amax((2, 3))[0],
    "maximum over one axis": lambda h: h.amax(2),
    "maximum of graded values": lambda h: (0.3 * h).amax(2),
    "maximum of graded values over channels": lambda h: (0.3 * h).amax((1, 3), keepdim=True),
    "minimum of graded values": lambda h: (1 - 0.3 * h).amin(1),
    "image without channels": lambda h: functional.avg_pool2d(h.flatten(1, 2), (3, 2), padding=(1, 0)),
    "image without channels, each row": lambda h: functional.avg_pool2d(h.flatten(1, 2), (1, 2)),
    "image without channels, adaptive": lambda h: functional.adaptive_avg_pool2d(h.flatten(1, 2), (6, 2)),
    "image without channels, maximum": lambda h: functional.max_pool2d(h.flatten(1, 2), 2),
    "image without channels, adaptive maximum": lambda h: functional.adaptive_max_pool2d(h.flatten(1, 2), (6, 2)),
    "images in depth": lambda h: functional.avg_pool3d(h.unflatten(2, (2, 4)), (1, 2, 2)),
    "images in depth, adaptive": lambda h: functional.adaptive_avg_pool3d(h.unflatten(2, (2, 4)), (None, 2, 4)),
    "images in depth, adaptive maximum": lambda h: functional.adaptive_max_pool3d(h.unflatten(2, (2, 4)), (None, 2, 4)),
    "largest of images in depth": lambda h: functional.adaptive_max_pool3d(0.3 * h.unflatten(2, (2, 4)), 1),
    "largest of all depth by window": lambda h: functional.adaptive_max_pool3d(h.unflatten(2, (2, 4)), (1, 2, 4)),
    "images in depth, maximum": lambda h: functional.max_pool3d(0.3 * h.unflatten(2, (2, 4)), (1, 2, 4)),
    "sum": lambda h: functional.avg_pool2d(h, 2, divisor_override=1),
    "maximum with ceil_mode": lambda h: functional.max_pool2d(h, 3, ceil_mode=True),
    "maximum with ceil_mode, padded": lambda h: functional.max_pool2d(h, (3, 2), (4, 3), (1, 0), ceil_mode=True),
    "average with ceil_mode, without a partial window": lambda h: functional.avg_pool2d(h, 2, 2, 1, ceil_mode=True),
}
REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "dilated maximum": (lambda h: functional.max_pool2d(h, 2, dilation=2), "expected max pooling without dilation"),
    "adaptive maximum": (lambda h: functional.adaptive_max_pool2d(h, (3, 3)), "expected windows of one size"),
}


@pytest.mark.push(7)
@pytest.mark.parametrize("pool", HELD.values(), ids=HELD)
def test_a_pool_is_captured_spike_for_spike(pool: Callable[[Tensor], Tensor]) -> None:
    net = stl.capture(Pooled(pool), X)
    assert net.proof is not None
    assert net.proof.end_to_end["differing"] == 0
    assert net.proof.replay_differing == 0


class Bare(nn.Module):
    """Spikes where the input is above 1/2, or the input itself, through a pool into currents."""

    def __init__(self, pool: Callable[[Tensor], Tensor], *, spikes: bool) -> None:
        super().__init__()
        self.pool, self.spikes = pool, spikes

    def forward(self, x: Tensor) -> Tensor:
        h = (x > 0.5).float() if self.spikes else x
        return (self.pool(h.flatten(0, 1)).unflatten(0, x.shape[:2]) > 0.25).float()


IMAGE = [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]


@pytest.mark.parametrize("spikes", [True, False])
def test_the_last_window_of_ceil_mode_reaches_beyond_the_image(spikes: bool) -> None:
    """Windows of 2 every 2 over 5: the third has one row or column inside."""
    x = torch.zeros(4, 2, 1, 5, 5)
    x[:, 0, 0] = torch.tensor(IMAGE)
    x[:, 1, 0, 4, 4] = 1
    expected = [[[1, 0, 1], [0, 1, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 1]]]
    net = stl.capture(Bare(lambda h: functional.max_pool2d(h, 2, ceil_mode=True), spikes=spikes), x)
    np.testing.assert_array_equal(net.simulate(x.numpy()).y[0, :, 0], expected)
    assert any(net.program.of(MaxPool)) is not spikes


def test_an_average_with_ceil_mode_counts_padding_but_not_beyond_it() -> None:
    """Of a window of 2 x 2 at the lower right corner one place is inside: its average is that value, not a quarter."""
    x = torch.zeros(4, 1, 1, 3, 3)
    x[:, 0, 0, 0, 0] = x[:, 0, 0, 2, 2] = 1
    net = stl.capture(Bare(lambda h: functional.avg_pool2d(h, 2, ceil_mode=True), spikes=True), x)
    np.testing.assert_array_equal(net.simulate(x.numpy()).y[0, 0, 0], [[0, 0], [0, 1]])


@pytest.mark.parametrize("counts", [True, False])
def test_averages_too_large_for_a_matrix_are_sums_scaled_by_place(
    counts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stl_deploy.tracing.layers.weights.MAX_DENSE", 0)
    net = stl.capture(Pooled(lambda h: functional.avg_pool2d(h, 3, 2, 1, ceil_mode=True, count_include_pad=counts)), X)
    assert [type(node).__name__ for node in net.program.nodes][3:6] == ["Conv", "Scale", "Reshape"]
    assert net.proof is not None
    assert net.proof.end_to_end["differing"] == 0
    for name in ("net.nir", "net.onnx"):
        assert [run["differing"] for run in net.export(tmp_path / name)["verified"]["runs"]] == [0]


def test_a_max_pool_of_spikes_with_ceil_mode_enters_nir_and_c(tmp_path: Path) -> None:
    net = stl.capture(Pooled(lambda h: functional.max_pool2d(h, 3, 3, 0, ceil_mode=True)), X)
    for name in ("net.nir", "net.onnx"):
        assert [run["differing"] for run in net.export(tmp_path / name)["verified"]["runs"]] == [0]
    if find_compiler() is not None:
        runs = net.export(tmp_path / "c", to="c", input_grid=4)["verified"]["runs"]
        assert [run["differing"] for run in runs if "against" in run["run"]] == [0]


class Lines(nn.Module):
    """The spikes of a convolution over one axis through a pool over two."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.lif, self.pool = nn.Conv1d(2, 3, 3, padding=1), stl.LIF((3, 8), threshold=0.3), pool

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])).flatten(0, 1)
        return self.pool(spikes.unsqueeze(2)).flatten(1).unflatten(0, x.shape[:2])


@pytest.mark.parametrize("pool", [functional.avg_pool2d, functional.max_pool2d])
@pytest.mark.parametrize(("kernel", "padding"), [((2, 2), (1, 0)), ((3, 2), (1, 0)), ((1, 2), 0)])
def test_a_line_that_is_pooled_as_an_image(pool: Callable[..., Tensor], kernel: tuple[int, int], padding: Any) -> None:
    torch.manual_seed(0)
    model = Lines(lambda h: pool(h, kernel, stride=(1, 2), padding=padding)).eval()
    x = torch.rand(5, 3, 2, 8) * 2
    net = stl.capture(model, x)
    np.testing.assert_array_equal(net.simulate(x.numpy()).y, model(x).detach().numpy())


@pytest.mark.parametrize(("pool", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_pool_that_no_graph_holds_is_refused(pool: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(CaptureError, match=reason):
        stl.capture(Pooled(pool), X)


@pytest.mark.parametrize("time", ["first", "second"])
@pytest.mark.parametrize(
    "pool",
    [
        lambda h: functional.avg_pool1d(h, 2),
        lambda h: functional.max_pool1d(h, 3, 2),
        lambda h: functional.adaptive_avg_pool1d(h, 4),
        lambda h: functional.avg_pool2d(h.unflatten(2, (2, 4)), 2).flatten(2),
    ],
    ids=["average", "maximum", "adaptive", "images"],
)
def test_samples_in_the_place_of_channels_are_pooled_each_by_itself(
    pool: Callable[[Tensor], Tensor], time: str
) -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.enter, self.leave = nn.Linear(6, 8), nn.LazyLinear(3)

        def forward(self, x: Tensor) -> Tensor:
            v, found = torch.zeros(x.shape[1 - axis], 8), []
            for current in self.enter(x).unbind(axis):
                v = 0.9 * v + current
                found.append((v > 0.4).float())
                v = v - 0.4 * found[-1]
            return self.leave(pool(torch.stack(found, axis)))

    axis = ("first", "second").index(time)
    model, x = Rows(), torch.rand(5, 7, 6) * 2
    model(x)
    net = stl.capture(model, x, time=time)
    y = net.simulate(x.numpy()).y
    np.testing.assert_allclose(y, model(x).transpose(0, axis).detach(), rtol=1e-5, atol=1e-6)


def test_a_pool_over_time_is_refused_by_its_line() -> None:
    class OverTime(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.avg_pool1d(x.permute(1, 2, 0), 2).permute(2, 0, 1)

    with pytest.raises(CaptureError, match=r"test_pools\.py:\d+: .* mixes time steps or samples"):
        stl.capture(nn.Sequential(OverTime(), stl.LIF(threshold=0.3)), torch.rand(8, 3, 6))


class OverAxes(nn.Module):
    """Spikes of neurons without weights, added up or averaged."""

    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        v, steps = torch.zeros_like(x[0]), []
        for t in x:
            v = 0.5 * v + t
            spikes = (v > 0.4).float()
            v = v * (1 - spikes)
            steps.append(self.read(spikes))
        return torch.stack(steps)


@pytest.mark.parametrize(
    ("shape", "read", "kinds"),
    [
        ((24, 1), lambda s: s.sum(-1), "Neuron Reshape"),
        ((256, 256), lambda s: s.mean(-1), "Neuron Conv Reshape"),  # 65,536 unit vectors took all memory
        ((40, 20, 10), lambda s: s.mean((1, 3)), "Neuron Gather Conv Reshape"),
        ((8, 16, 64), lambda s: s.sum(-1), "Neuron Reshape Conv"),
        ((96, 10, 10), lambda s: s.flatten(2).mean(-1), "Neuron Pool Reshape"),  # integer C takes a pool, no Conv
    ],
)
def test_sums_and_means_over_axes_take_no_more_weights_than_they_read(
    shape: tuple[int, ...], read: Callable[[Tensor], Tensor], kinds: str
) -> None:
    model, x = OverAxes(read), torch.rand(4, 2, *shape, generator=torch.Generator().manual_seed(0))
    net = stl.capture(model, x)
    assert " ".join(type(node).__name__ for node in net.program.nodes[1:-1]) == kinds
    np.testing.assert_allclose(net.simulate(x.numpy()).y, model(x).numpy(), atol=1e-6)
