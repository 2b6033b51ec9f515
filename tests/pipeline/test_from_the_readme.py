"""What new users try first with a network of their own, by the README's lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import stl_deploy as stl
from stl_deploy.pipeline.parity import run_rows


class Fires(nn.Module):
    """A neuron written by hand: a threshold for each channel, the potential set to 0 by a spike."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.linspace(0.5, 0.7, channels)[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        for now in x:
            v = 0.75 * v + now
            spike = (v > self.theta).float()
            v = v * (1 - spike)
            spikes.append(spike)
        return torch.stack(spikes)


class Residual(nn.Module):
    """Two blocks, BatchNorm written by hand, and a sum of currents and spikes: [T, B, 1, 6, 6] to [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1, self.lif1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), Fires(4)
        self.conv2, self.norm2, self.lif2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), Fires(4)
        self.conv3, self.norm3, self.lif3 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), Fires(4)
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.lif1(at_each_step(lambda y: self.norm1(self.conv1(y)), x))
        inner = self.lif2(at_each_step(lambda y: self.norm2(self.conv2(y)), first))
        last = self.lif3(at_each_step(lambda y: self.norm3(self.conv3(y)), inner) + first)
        return at_each_step(lambda y: self.head(self.pool(y).flatten(1)), last).mean(0)


def at_each_step(layer, x):
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@pytest.fixture(scope="module")
def residual() -> tuple[stl.SpikingGraph, torch.Tensor]:
    torch.manual_seed(0)
    model, x = Residual(), (torch.rand(6, 8, 1, 6, 6) < 0.4).float()
    for _ in range(3):
        model(x)  # running statistics
    return stl.capture(model.eval(), x), x


def test_a_residual_net_goes_the_readme_s_way(residual: tuple[stl.SpikingGraph, torch.Tensor], tmp_path: Path) -> None:
    """What cannot be folded stays, with the reason; every artifact and the report follow."""
    captured, x = residual
    with pytest.warns(UserWarning, match="keeps its thresholds") as warned:
        net = captured.fold(thresholds="weights")
    (kept,) = [str(one.message) for one in warned if "thresholds" in str(one.message)]
    assert kept == (
        "node 'lif3' keeps its thresholds: 'lif1' (Neuron) reaches it without weights that could take them; ONNX and "
        "energy take them as they are, and targets of integers that 'check' passes; netx (Loihi) holds chains only, "
        "no skips"
    )
    distinct = {node.name: np.unique(node.threshold).size for node in net.program.spiking}
    assert distinct == {"lif1": 1, "lif2": 1, "lif3": 4}
    assert net.program.metadata["thresholds_kept"] == ["lif3"]

    before, after = captured.simulate(x), net.simulate(x)
    differing = sum(int((before.spikes[name] != after.spikes[name]).sum()) for name in before.spikes)
    assert differing <= before.spikes["lif1"].size * 3 / 1000  # weights were rounded to a grid
    assert net.export(tmp_path / "net.onnx")["verified"]["runs"][0]["differing"] == 0
    net.export(tmp_path / "c", to="c")
    assert (tmp_path / "c" / "net.c").is_file()
    net.energy(x).to_html(tmp_path / "energy.html")
    assert (tmp_path / "energy.html").stat().st_size > 10_000


def test_a_net_in_which_nothing_can_be_folded_is_refused() -> None:
    net = stl.capture(stl.LIF((3,), threshold=0.5), torch.rand(4, 2, 3))
    with pytest.raises(stl.UnsupportedError, match=r"into weights: 'input'.*fold with thresholds 'keep', the default"):
        net.fold(thresholds="weights")
    assert net.fold(thresholds="keep").program.spiking[0].threshold == 0.5


def images() -> tuple[nn.Module, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """A network of pixels from 0 to 1, and 8-bit images of 6 steps."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 12), stl.LIF((12,), threshold=0.5), nn.Linear(12, 4), stl.LIF((4,), threshold=0.1)
    )
    return model, np.random.default_rng(0).integers(0, 256, (6, 4, 16)).astype(np.uint8)


def test_real_input_has_one_way(tmp_path: Path) -> None:
    """`fold(input_grid=8)` rounds the network's sample, so that export, check and energy go on from there."""
    model, pixels = images()
    net = stl.capture(model, torch.from_numpy(pixels / np.float32(255))).fold(input_grid=8)
    assert np.array_equal(net.sample * 256, np.round(net.sample * 256))
    net.export(tmp_path / "net.onnx")
    net.export(tmp_path / "c", to="c")
    assert net.energy().totals["spikes"] > 0
    assert net.check("onnx").targets == {"onnx": "faithful"}
    wide = stl.capture(model, torch.randn(6, 4, 16) * 3).fold(input_grid=4)
    assert wide.program.metadata["input"]["max"] == np.abs(wide.sample).max() > 1
    wide.export(tmp_path / "wide.onnx")


def test_8_bit_images_are_told_to_be_scaled() -> None:
    """And the advice, followed, gives the numbers of the network as it was captured."""
    model, pixels = images()
    x = torch.from_numpy(pixels / np.float32(255))
    net = stl.capture(model, x)
    with pytest.warns(UserWarning, match=r"x holds integers up to 255, as 8-bit images do, .* give x / 255"):
        net.simulate(pixels)
    np.testing.assert_array_equal(net.simulate(pixels / np.float32(255)).y, net.simulate(x).y)

    folded = net.fold(input_grid=8)
    for grid in (None, 8):
        for refused in (folded.energy, folded.simulate):  # without a warning of the same
            with pytest.raises(stl.InputError, match=r"give x / 255 with input_grid=8"):
                refused(pixels, input_grid=grid)
    assert folded.energy(pixels / 255, input_grid=8).totals == folded.energy().totals

    with pytest.warns(UserWarning, match="x holds integers from 0 to 255, as images do"):
        unscaled = stl.capture(model, torch.from_numpy(pixels))
    with pytest.raises(stl.InputError, match=r"integers up to 255, as 8-bit images hold; give input_grid=0"):
        unscaled.fold(input_grid=8)
    assert unscaled.fold(input_grid=0).program.metadata["input"]["max"] == 255


@pytest.mark.parametrize(("bias", "word"), [(-50.0, "silent"), (50.0, "saturated")])
def test_a_silent_or_saturated_network_says_so_beside_every_zero(bias: float, word: str, tmp_path: Path) -> None:
    """Proof, export, verification and energy: 0 differing spikes prove nothing there, and no ratio is quoted."""
    layer = nn.Linear(4, 3)
    nn.init.constant_(layer.bias, bias)
    x = (torch.rand(6, 4, 4) < 0.4).float()
    with pytest.warns(UserWarning, match=f"a {word} layer proves nothing"):
        net = stl.capture(nn.Sequential(layer, stl.LIF((3,))), x)
    assert f"a {word} layer proves nothing" in str(net.proof)
    assert f"a {word} layer proves nothing" in str(net.export(tmp_path / "net.onnx", allow_silent=True))
    verified = net.verify(tmp_path / "net.onnx", x)
    assert f"a {word} layer proves nothing" in str(verified)
    assert f"100.00 % ({word})" in str(verified)
    assert f"100.00 % ({word})" in run_rows(verified.report)[1]
    if word == "silent":
        verdict = net.energy(x).as_dict()["verdict"]
        assert "silent" in verdict
        assert "times" not in verdict
