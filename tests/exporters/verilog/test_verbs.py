"""The verbs on Verilog: export, simulate, verify, check, show, synthesise, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import stl_deploy as stl
from stl_deploy._util.console import Console
from stl_deploy.exporters.verilog.simulator import MISSING, simulators
from stl_deploy.verbs import fpga
from tests.exporters.c.test_verbs import cli

__all__ = ["cli"]
needs_simulator = pytest.mark.skipif(not simulators(), reason=MISSING)


class Net(torch.nn.Module):
    """A convolution and a dense layer, each with neurons."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv, self.fc = torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.Linear(72, 5)
        self.a, self.b = stl.LIF((8, 6, 6), threshold=0.5), stl.LIF((5,), threshold=0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes = self.a(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        pooled = torch.nn.functional.max_pool2d(spikes.flatten(0, 1), 2)
        return self.b(self.fc(pooled.flatten(1)).unflatten(0, x.shape[:2]))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small convolutional network, captured, with its input beside it."""
    folder, x = tmp_path_factory.mktemp("net"), (torch.rand(4, 2, 1, 6, 6) < 0.5).float()
    stl.capture(Net(), x).export(folder / "net.nir")
    np.savez(folder / "x.npz", x=x.numpy())
    return folder / "net.nir"


@pytest.fixture
def few(net: Path) -> Path:
    """Its input."""
    return net.with_name("x.npz")


@needs_simulator
def test_a_network_goes_to_verilog_and_back(net: Path, few: Path, tmp_path: Path, cli: Any) -> None:
    done = cli("export", net, "--to", "verilog", "-o", tmp_path / "v", "-i", few, "--device", "ecp5-25f", "--json")
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "v.manifest.json").read_text())
    assert json.loads(done.stdout) == manifest
    assert manifest["accumulator"] == "wide"
    assert manifest["device"] == "ecp5-25f"
    (run,) = manifest["verified"]["runs"][-1:]
    assert run["required"]
    assert sum(node["differing"] for node in run["nodes"]) == 0
    ends = {}
    for backend in ("verilog", "loihi"):
        out = tmp_path / f"{backend}.npz"
        done = cli("simulate", tmp_path / "v", "-i", few, "--backend", backend, "-o", out, "--record")
        assert done.exit_code == 0, done.output
        ends[backend] = dict(np.load(out))
    assert ends["verilog"].keys() == ends["loihi"].keys()
    for name, values in ends["verilog"].items():
        np.testing.assert_array_equal(values, ends["loihi"][name])
    assert cli("show", tmp_path / "v").exit_code == 0
    assert cli("check", tmp_path / "v").exit_code == 0
    done = cli("verify", net, "--against", tmp_path / "v", "-i", few)
    assert done.exit_code == 0, done.output


def test_without_a_simulator_the_export_says_that_it_was_not_run(
    net: Path, few: Path, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = cli("export", net, "--to", "verilog", "-o", tmp_path / "v", "-i", few, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["verified"] is None
    assert "was written but not run: no Verilog simulator found" in done.output
    done = cli("simulate", tmp_path / "v", "-i", few, "--backend", "verilog", "-o", tmp_path / "y.npz")
    assert done.exit_code == 2, done.output
    assert "no Verilog simulator found; install one" in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--lanes", "3"], "--lanes: expected a power of two up to 64"),
        (["--device", "up9k"], "--device: expected one of up5k"),
    ],
)
def test_wrong_calls(options: list[str], said: str, net: Path, few: Path, tmp_path: Path, cli: Any) -> None:
    done = cli("export", net, "--to", "verilog", "-o", tmp_path / "v", "-i", few, *options)
    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "v").exists()


@needs_simulator
def test_an_export_simulates_the_samples_that_its_budget_allows(
    net: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    """Two samples as a rule; with a budget of no clock one, which it says; verify runs both."""
    call = ("export", net, "--to", "verilog", "-i", few, "-o")
    assert cli(*call, tmp_path / "all").exit_code == 0
    monkeypatch.setattr("stl_deploy.exporters.verilog.target.BUDGET", 0)
    done = cli(*call, tmp_path / "one")
    assert done.exit_code == 0
    assert "running the first 1 of 2 samples" in done.output
    made = [json.loads((tmp_path / f"{name}.manifest.json").read_text())["verified"] for name in ("all", "one")]
    assert [verified.get("samples") for verified in made] == [None, 1]
    compared = [sum(node["compared"] for node in verified["runs"][-1]["nodes"]) for verified in made]
    assert compared[0] == 2 * compared[1]


def test_check_tells_blocks_and_clocks(net: Path, few: Path, cli: Any) -> None:
    options = ["--target", "verilog", "--device", "ecp5-25f"]
    done = cli("check", net, *options, "--lanes", "4", "-i", few, "--json")
    assert done.exit_code == 0, done.output
    said = {one["slug"]: one["reason"] for one in json.loads(done.stdout)["findings"]}
    assert "of the 56 RAM blocks of Lattice ECP5 25F" in said["fpga-memory"]
    assert "clocks an inference" in said["fpga-clocks"]
    assert "with 4 lanes, computed from the spikes of 2 samples" in said["fpga-clocks"]
    done = cli("check", net, *options, "--json")
    assert "fpga-clocks" not in {one["slug"] for one in json.loads(done.stdout)["findings"]}


def test_latency_that_cannot_be_simulated_is_warned_of(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    routed = SimpleNamespace(clock_hz=1e6, used={}, available={}, seeds=(), bitstream=None, as_dict=dict)
    monkeypatch.setattr(fpga, "place_and_route", lambda *args, **options: routed)
    monkeypatch.setattr(fpga, "simulators", list)
    say = Console()
    assert fpga.synthesise(tmp_path / "v", "up5k", input_file=few, say=say)["latency_s"] is None
    assert f"no latency: {MISSING}" in " ".join(capsys.readouterr().err.split())
    assert fpga.synthesise(tmp_path / "v", "up5k", say=say)["latency_s"] is None
    assert "latency" not in capsys.readouterr().err
