"""The whole way: every file of a run folder, spikes that agree by proof, and numbers that agree with each other."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import yaml

from stl_deploy._util.console import Console
from stl_deploy._util.files import read_input, sha256
from stl_deploy.cli import main
from stl_deploy.config.schema import RunConfig
from stl_deploy.errors import InputError, ParityError, ToolError
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.lava import target as lava_target
from stl_deploy.exporters.netx.convert import run_file
from stl_deploy.exporters.netx.file import read_netx
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.onnx.model import OnnxModel
from stl_deploy.graph.run import Result
from stl_deploy.graph.run import run as run_reference
from stl_deploy.integers.simulate import IntegerRun
from stl_deploy.pipeline.artifacts import ParityBench
from stl_deploy.report.run_report import report
from stl_deploy.report.text.run_summary import LINES
from stl_deploy.runs.configure import configure
from stl_deploy.training.loop import train
from stl_deploy.verbs import whole_way as run_module
from stl_deploy.verbs.whole_way import RunResult, run
from tests.pipeline.conftest import SMALL

FILES = [
    "config.yaml",
    "metrics.jsonl",
    "model.safetensors",
    "net.nir",
    "net.onnx",
    "net.net",
    "manifest.json",
    "verify.json",
    "energy.json",
    "report.html",
    "report.json",
]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_run_folder_has_every_file(run_dir: Path) -> None:
    assert {path.name for path in run_dir.iterdir()} >= set(FILES)
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["dataset"]["name"] == "digits"
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 4


def test_float_backends_agree_on_every_spike_of_every_layer(small_run: RunResult) -> None:
    found = {entry.run: entry for entry in small_run.parity.report.runs}
    for name in ("torch, folded", "ONNX Runtime"):
        assert found[name].exact
        assert found[name].differing == 0
        assert {node.node for node in found[name].nodes} == {"lif1", "pool1", "lif2", "pool2", "lif3"}
    assert found["ONNX Runtime"].compared == 4 * small_run.parity.samples * (8 * 64 + 8 * 16 + 12 * 16 + 12 * 4 + 40)
    assert small_run.parity.samples > 350
    assert all(proof.exact for proof in small_run.parity.proofs)
    small_run.parity.report.require()


def test_it_learned_something(small_run: RunResult) -> None:
    accuracy = small_run.parity.report.accuracy
    assert accuracy is not None
    assert accuracy > 0.8


def test_integers_are_measured_not_assumed(small_run: RunResult) -> None:
    (integers,) = (r for r in small_run.parity.report.runs if r.run == run_module.INTEGERS)
    assert 0 < integers.differing < 0.1 * integers.compared
    assert integers.accuracy is not None
    assert integers.first is not None


def test_manifest_names_every_artifact_by_its_hash(run_dir: Path) -> None:
    manifest = _json(run_dir / "manifest.json")
    for name in ("net.nir", "net.onnx", "net.net", "model.safetensors"):
        assert manifest["files"][name]["sha256"] == sha256(run_dir / name)
    assert manifest["input"] == {"coding": "analog", "fraction_bits": 4, "max": 1.0}
    assert manifest["dialect"]["compare"] == "gt"
    assert set(manifest["grid"]) == {"conv1", "conv2", "linear1"}
    assert manifest["exact"] is True


def test_report_shows_the_numbers_of_the_files(run_dir: Path) -> None:
    twin, verified, energy = (_json(run_dir / name) for name in ("report.json", "verify.json", "energy.json"))
    assert twin["parity"] == verified["rows"]["parity"]
    assert twin["energy"] == energy
    assert energy["totals"]["spikes"] > 0
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<svg" in page


def test_energy_counts_what_the_reference_did(run_dir: Path) -> None:
    x, _ = read_input(run_dir / "test.npz")
    program = lower(read_nir(run_dir / "net.nir"))
    spiking = [node.name for node in program.spiking]
    recorded = run_reference(program, x, record=spiking).recorded
    layers = _json(run_dir / "energy.json")["layers"]
    for name in spiking:
        assert layers[name]["spikes"] == int(recorded[name].sum())
    assert layers["conv1"]["op"] == "MAC"
    assert layers["conv2"]["op"] == layers["linear1"]["op"] == "AC"
    assert layers["linear1"]["synops"] == int(recorded["pool2"].sum()) * 40


def test_energy_is_priced_by_the_lists_that_a_run_promises(run_dir: Path) -> None:
    priced = {entry["price"] for entry in _json(run_dir / "energy.json")["energy"]}
    assert {"horowitz45_fp32", "horowitz45_int8", "loihi1_davies2018", "loihi1_sanafe"} <= priced


def test_the_written_graph_is_nir_that_nir_itself_reads(run_dir: Path) -> None:
    graph = nir.read(run_dir / "net.nir")
    assert isinstance(graph.nodes["lif3"], nir.LIF)
    assert np.unique(graph.nodes["lif3"].v_threshold).size > 1


def test_resume_does_not_train_again(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)

    def never(*_args: object, **_options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(run_module, "fit", never)
    again = run(configure("digits", SMALL), copy, resume=True, lava=False)
    assert sha256(copy / "net.nir") == sha256(run_dir / "net.nir")
    assert again.parity.as_dict()["rows"] == _json(run_dir / "verify.json")["rows"]


def test_resume_restores_the_metrics_that_the_report_needs(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").unlink()

    def cut_off(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "fold_run", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_it_says_what_simulated_and_ends_with_commands_to_paste(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, said = tmp_path / "a run ü", io.StringIO()
    shutil.copytree(run_dir, copy)
    run(configure("digits", SMALL), copy, resume=True, lava=False, say=Console(verbose=True, stream=said))
    text = said.getvalue()
    assert "simulated on our integer model of Lava, not on Lava itself (left out as asked)" in text
    told = " ".join(" ".join(text.splitlines()[-LINES:]).split())
    verdict = _json(copy / "energy.json")["verdict"]
    for number in re.findall(r"([\d.,]+) times (?:its ANN twin streaming|layer by layer)", verdict):
        assert f"{number} times " in told
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("  stl-deploy ")]
    pasted = [words[1:] for words in commands]
    assert [words[0] for words in pasted] == ["check", "verify", "simulate", "energy", "energy", "report"]
    monkeypatch.chdir(tmp_path)
    for words in pasted:
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert not stop.value.code, capsys.readouterr().err
    weighed = _json(copy / "report.json")["tradeoff"]
    *spiking, twin = weighed["points"]
    assert [p["steps"] for p in spiking] == list(range(1, spiking[-1]["steps"] + 1))
    assert twin["kind"] == "ANN"
    assert "Accuracy against energy: every point" in (copy / "report.html").read_text()
    run(configure("digits", SMALL), copy, resume=True, lava=False)
    assert _json(copy / "report.json")["tradeoff"]["points"][-1] == twin


def test_a_changed_weight_breaks_the_parity(run_dir: Path, tmp_path: Path) -> None:
    x, _ = read_input(run_dir / "test.npz")
    graph = read_nir(run_dir / "net.nir")
    graph.nodes["conv1"].weight[0, 0, 1, 1] += np.float32(0.5)
    write_nir(graph, tmp_path / "other.nir")
    changed = lower(read_nir(tmp_path / "other.nir"))
    names = [node.name for node in changed.spiking]
    one = run_reference(changed, x, record=names).recorded["lif1"]
    other = OnnxModel.load(run_dir / "net.onnx").run(x, record=names).recorded["lif1"]
    assert (one != other).any()


def test_report_refuses_an_unfinished_folder(run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    (copy / "verify.json").unlink()
    with pytest.raises(
        InputError, match=r"expected a folder that stl_deploy\.verbs\.run has finished; found no verify\.json"
    ):
        report(copy)


def test_an_ann_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an ANN has no spikes to deploy"):
        run(configure("digits", ["train.mode=ann"]), tmp_path / "ann", say=Console(quiet=True))
    assert not (tmp_path / "ann").exists()


def test_a_spike_that_differs_under_proof_is_a_failure(small_run: RunResult) -> None:
    program = lower(read_nir(small_run.run_dir / "net.nir"))
    x, labels = read_input(small_run.run_dir / "test.npz")
    bench = ParityBench(program, x, labels)
    spikes = bench.expected.recorded["lif2"].copy()
    spikes[2, 5, 3, 1, 1] = 1 - spikes[2, 5, 3, 1, 1]
    bench.add("torch", Result(bench.expected.outputs, {**bench.expected.recorded, "lif2": spikes}))
    with pytest.raises(
        ParityError, match=r"torch: 1 of .* spikes differ .*'lif2', step 2, sample 5, neuron \[3, 1, 1\]"
    ):
        bench.report.require()


def _with_lava(monkeypatch: pytest.MonkeyPatch, answer: Callable[[IntegerRun], IntegerRun]) -> None:
    """Pretend that Lava is there and answers ``answer`` of what the integer model gives."""
    ready = dataclasses.replace(environment.status(), ready=True, reason=None)
    monkeypatch.setattr(environment, "status", lambda: ready)

    def pretend(path: Path, x: Any, **_options: Any) -> IntegerRun:
        return answer(run_file(read_netx(path), x, record=True))

    monkeypatch.setattr(lava_target, "run_lava", pretend)


def test_a_lava_that_fails_ends_the_run_as_failed_with_the_folder_whole(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    (copy / "report.html").unlink()

    def fail(_found: IntegerRun) -> IntegerRun:
        raise ToolError("Lava ended without a word")

    _with_lava(monkeypatch, fail)
    with pytest.raises(ToolError, match="Lava ended without a word"):
        run(configure("digits", SMALL), copy, resume=True)
    assert (copy / "report.html").is_file()


def test_a_lava_that_spikes_otherwise_ends_the_run_as_failed(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)

    def flip(found: IntegerRun) -> IntegerRun:
        last = list(found.spikes)[-1]
        spikes = found.spikes[last].copy()
        spikes[1, 2, 3] = 1 - spikes[1, 2, 3]
        return IntegerRun(spikes, {**found.spikes, last: spikes})

    _with_lava(monkeypatch, flip)
    with pytest.raises(ParityError, match=r"^Lava \(CPU simulation\) \(against Loihi int.*: 1 of .* spikes differ"):
        run(configure("digits", SMALL), copy, resume=True)
    rows = {row["artifact"]: row for row in _json(copy / "verify.json")["rows"]["parity"]}
    assert rows[f"{run_module.LAVA} (against {run_module.INTEGERS})"]["differing"] == 1


def test_simulators_beside_lava_are_left_out_of_large_networks(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, stream = tmp_path / "copy", io.StringIO()
    shutil.copytree(run_dir, copy)
    (copy / "report.html").unlink()

    _with_lava(monkeypatch, lambda found: found)
    monkeypatch.setattr(ParityBench, "witnesses", lambda *_arguments, **_options: pytest.fail("ran"))
    monkeypatch.setattr(run_module, "_CONNECTIONS", 0)
    done = run(configure("digits", SMALL), copy, resume=True, say=Console(verbose=True, stream=stream))
    assert "simulators besides Lava are left to " in " ".join(stream.getvalue().split())
    assert {entry.run for entry in done.parity.report.runs} >= {run_module.INTEGERS}
    assert (copy / "report.html").is_file()


def test_a_damaged_line_of_the_metrics_is_named_when_the_run_goes_on(run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    metrics = copy / "metrics.jsonl"
    metrics.write_text(metrics.read_text(encoding="utf-8") + '{"epoch": \n', encoding="utf-8")
    with pytest.raises(InputError, match=r"metrics\.jsonl: line 5 is not JSON; train again or remove the line"):
        run(configure("digits", SMALL), copy, resume=True, lava=False)


def test_a_network_that_loihi_cannot_hold_goes_the_rest_of_the_way(tmp_path: Path) -> None:
    network = (
        'network=[{"kind": "conv", "channels": 4, "kernel": 3, "padding": 1}, {"kind": "lif"}, {"kind": "flatten"}, '
        '{"kind": "linear", "features": 10}, {"kind": "li"}]'
    )
    stream = io.StringIO()
    config = configure("digits", ["train.epochs=1", network])
    done = run(config, tmp_path / "li", lava=False, frontier=False, say=Console(stream=stream))
    assert {path.name for path in done.run_dir.iterdir()} >= {*FILES} - {"net.net"}
    assert not (done.run_dir / "net.net").exists()
    netx = _json(done.run_dir / "manifest.json")["netx"]
    assert netx["node"] == "li"
    assert f"net.net was not written, since Loihi cannot hold this network: node '{netx['node']}'" in stream.getvalue()
    assert {entry.run for entry in done.parity.report.runs if entry.exact} >= {"torch, folded", "ONNX Runtime"}
