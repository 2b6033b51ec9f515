"""verify: results stand under their artifact's path, and what must agree is a property of what ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stl_deploy as stl
from stl_deploy import verbs
from stl_deploy._util.console import Console
from stl_deploy.cli import main
from stl_deploy.errors import InputError, ParityError
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.onnx import export_onnx
from stl_deploy.exporters.targets import registry
from stl_deploy.graph.compare import Divergence, rate_warnings
from stl_deploy.verbs.artifacts import verify


@pytest.fixture
def twins(run_dir: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A file that has a weight changed, and a good one of the same name."""
    bad, good = tmp_path / "a" / "net.onnx", tmp_path / "b" / "net.onnx"
    graph = read_nir(run_dir / "net.nir")
    export_onnx(lower(graph), good)
    graph.nodes["conv1"].weight[0, 0, 1, 1] += np.float32(0.5)
    export_onnx(lower(graph), bad)
    return bad, good


def test_a_bad_file_does_not_hide_behind_a_good_one_of_its_name(
    run_dir: Path, twins: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(run_dir), "--against", *map(str, twins), "--json"])
    assert stop.value.code == 1
    said = capsys.readouterr()
    bad, good = json.loads(said.out)["runs"]
    assert [bad["artifact"], good["artifact"]] == [bad["run"], good["run"]] == [*map(str, twins)]
    assert (bad["exact"], good["exact"]) == (False, True)
    assert bad["differing"] > 0 == good["differing"]
    assert f"stl-deploy: error: {twins[0]}: " in said.err
    rows = [line.split("  ")[0] for line in said.err.splitlines() if " lif1 " in line]
    assert rows == [*map(str, twins)]


def test_names_that_differ_are_told_by_name_and_a_path_given_twice_counts_once(run_dir: Path) -> None:
    report = verify(run_dir, [run_dir / "net.onnx", run_dir / "net.nir", run_dir / "net.onnx"])
    assert [run.run for run in report.runs] == ["net.onnx", "net.nir"]
    assert [run.artifact for run in report.runs] == [str(run_dir / "net.onnx"), str(run_dir / "net.nir")]


def test_labels_of_the_input_give_every_run_its_accuracy(run_dir: Path, tmp_path: Path) -> None:
    own = verify(run_dir, ["onnx", run_dir / "net.nir"])
    assert own.accuracy is not None
    assert [run.accuracy for run in own.runs] == [own.accuracy] * 2
    with np.load(run_dir / "test.npz") as test:
        np.savez(tmp_path / "x.npz", x=test["x"])
    assert verify(run_dir, ["onnx"], input_file=tmp_path / "x.npz").accuracy is None


def test_layers_without_a_spike_are_named(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(run_dir, [run_dir / "net.onnx"], say=Console())
    assert "warning" not in capsys.readouterr().err
    graph = read_nir(run_dir / "net.nir")
    graph.nodes["lif2"].v_threshold *= np.float32(1000)
    write_nir(graph, tmp_path / "high.nir")
    export_onnx(lower(graph), tmp_path / "high.onnx")
    high = {"input_file": run_dir / "test.npz", "say": Console()}
    report = verify(tmp_path / "high.nir", [tmp_path / "high.onnx"], **high)
    (warning,) = report.as_dict()["warnings"]
    assert warning.startswith("no spike in lif2, pool2")
    assert warning.endswith(" on x: a silent layer proves nothing; give input that drives it")
    assert f"warning: {warning}" in " ".join(capsys.readouterr().err.split())


def test_what_must_agree_is_not_read_off_a_name(run_dir: Path, tmp_path: Path) -> None:
    """A float file must agree whatever it is called; integers need not."""
    graph = read_nir(run_dir / "net.nir")
    graph.nodes["conv1"].weight[0, 0, 1, 1] += np.float32(0.5)
    path = tmp_path / "net.net.nir"
    write_nir(graph, path)
    report = verify(run_dir, [path, run_dir / "net.net"], lava=False)
    assert [(run.run, run.required) for run in report.runs] == [("net.net.nir", True), ("net.net", False)]
    with pytest.raises(ParityError, match=r"^net\.net\.nir: "):
        report.require()


def test_backends_are_verified_by_name(run_dir: Path) -> None:
    report = verify(run_dir, ["onnx", "loihi"])
    assert [(run.run, run.backend, run.artifact, run.required) for run in report.runs] == [
        ("onnx", "onnx", None, True),
        ("loihi", "loihi", None, False),
    ]
    report.require()
    assert report.runs[1].differing > 0


def test_a_folder_that_is_no_artifact_does_not_hide_the_backend_of_its_name(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loihi").mkdir()
    assert [run.run for run in verify(run_dir.resolve(), ["loihi"]).runs] == ["loihi"]
    Path("notes").mkdir()
    with pytest.raises(InputError, match=r"notes: expected \.nir, .*; found another folder"):
        verify(run_dir.resolve(), ["notes"])


def test_what_is_neither_artifact_nor_backend_is_told_what_there_is(run_dir: Path, tmp_path: Path) -> None:
    wanted = r"gone\.onnx: expected \.nir, \.program, \.onnx, .* found no such file or folder"
    with pytest.raises(InputError, match=wanted):
        verify(run_dir, [tmp_path / "gone.onnx"])
    (tmp_path / "a.txt").touch()
    with pytest.raises(InputError, match=r"or a backend \(reference, onnx, loihi, lava.*\); found '\.txt'"):
        verify(run_dir, [tmp_path / "a.txt"])
    with pytest.raises(InputError, match=r"no such file or folder \(did you mean 'verilog'\?\)"):
        verify(run_dir, ["veriog"])


def test_a_backend_that_cannot_run_here_is_said(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(*_: Any) -> str:
        return "no such machine"

    monkeypatch.setattr(registry().runners["lava"], "available", classmethod(reason))
    with pytest.raises(Exception, match="lava cannot run here: no such machine"):
        verify(run_dir, ["lava"], say=Console(quiet=True))


@pytest.mark.parametrize(
    ("name", "target", "layers"),
    [
        (
            "net.net",
            "netx",
            [("layer0", "Input", [1, 8, 8]), ("lif1", "Conv", [8, 8, 8])],
        ),
        (
            "net.onnx",
            "onnx",
            [("input", "Input", [1, 8, 8]), ("output", "Output", [10])],
        ),
    ],
)
def test_artifacts_are_shown_and_checked(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, target: str, layers: list[Any]
) -> None:
    rows = verbs.show(run_dir / name)
    assert [(row["node"], row["kind"], list(row["shape"])) for row in rows[:2]] == layers
    report = verbs.check(run_dir / name)
    assert report.ok
    assert report.targets == {target: "faithful"}
    assert [(node.node, node.kind) for node in report.nodes[:2]] == [row[:2] for row in layers]
    damaged = tmp_path / name
    damaged.write_bytes((run_dir / name).read_bytes()[:-900])
    report = verbs.check(damaged)
    assert not report.ok
    assert report.targets == {target: "unsupported"}
    with pytest.raises(InputError, match=f"found an artifact of {target}; leave targets and its options out, or give"):
        verbs.check(run_dir / name, targets=["onnx"])
    with pytest.raises(InputError, match=f"to draw; found an artifact of {target}"):
        verbs.show(run_dir / name, drawing=tmp_path / "a.svg")


def test_the_synapses_of_integer_layers_are_counted(run_dir: Path) -> None:
    rows = {row["node"]: row for row in verbs.show(run_dir / "net.net")}
    assert (rows["lif1"]["parameters"], rows["lif1"]["synapses"]) == (8 * 9 + 8, 8 * 22**2)
    assert (rows["lif3"]["parameters"], rows["lif3"]["synapses"]) == (48 * 40, 48 * 40)


def test_a_warning_names_eight_layers_at_most() -> None:
    (silent,) = rate_warnings({f"lif{number}": 0.0 for number in range(1_500)})
    assert silent.startswith("no spike in lif0, lif1, lif2, lif3, lif4, lif5, lif6, lif7 and 1,492 more on x: ")
    (full,) = rate_warnings({f"lif{number}": 1.0 for number in range(8)})
    assert full.startswith("every neuron of lif0, lif1, lif2, lif3, lif4, lif5, lif6, lif7 spikes at every step")


@pytest.mark.parametrize(
    ("found", "digits"), [(1.0, "expected 0.1, found 1"), (0.1 + 2**-27, "expected 0.1, found 0.100000007")]
)
def test_values_that_differ_are_printed_so_that_they_do(found: float, digits: str) -> None:
    assert str(Divergence("v", 1, 2, (3,), 0.1, found)).endswith(digits)


@pytest.mark.push(2)
@pytest.mark.parametrize("other", [(12, 8), (16, 9)])
@pytest.mark.parametrize("name", ["net.onnx", "net.net", "net.nir"])
def test_an_artifact_of_another_network_is_called_so(tmp_path: Path, name: str, other: tuple[int, int]) -> None:
    """x is right: the graph takes it."""

    def captured(inputs: int, hidden: int) -> stl.SpikingGraph:
        torch.manual_seed(0)
        layers = nn.Linear(inputs, hidden), stl.LIF((hidden,), threshold=0.3), nn.Linear(hidden, 3), stl.LIF((3,))
        return stl.capture(nn.Sequential(*layers), (torch.rand(4, 3, inputs) < 0.5).float(), verify=False)

    captured(*other).export(tmp_path / name, verified=False)
    net = captured(16, 8)
    with pytest.raises(InputError, match=rf"{name}: expected an artifact of this network; found one of another"):
        net.verify(tmp_path / name)
    net.export(tmp_path / name, verified=False)
    assert net.verify(tmp_path / name).runs[0].exact
