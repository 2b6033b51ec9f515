"""The twin that a run keeps, and accuracy against energy over time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from stl_deploy._util.console import Console
from stl_deploy.config.load import apply_overrides, load_config
from stl_deploy.config.options import TradeoffOptions
from stl_deploy.config.schema import RunConfig
from stl_deploy.errors import InputError
from stl_deploy.runs.ann_twin import keep_twin
from stl_deploy.runs.candidates import read_tradeoff
from stl_deploy.training.checkpoint import load_network
from stl_deploy.training.loop import train
from stl_deploy.training.pretrained.unpacking import unpack
from stl_deploy.training.run_folder import TWIN
from stl_deploy.verbs.energy_of import energy
from stl_deploy.verbs.weighing import tradeoff
from stl_deploy.verbs.whole_way import RunResult, run


def test_a_run_keeps_its_twin_and_weighs_it(small_run: RunResult) -> None:
    folder = small_run.run_dir
    network, config = load_network(folder / TWIN)
    assert config.train.mode == "ann"
    data = json.loads((folder / "energy.json").read_text())
    assert data["ann_twin"]["label"] == "measured"
    assert {c["ann_zeros"] for c in data["comparisons"]} == {"computed", "skipped"}
    assert data["quoted"]["ann_zeros"] == "skipped"
    weighed = read_tradeoff(folder / "tradeoff.json")
    kinds = [p["kind"] for p in weighed["points"]]
    assert kinds == ["SNN"] * (len(kinds) - 1) + ["ANN"]
    assert weighed["points"][-1]["accuracy"] == data["ann_twin"]["accuracy"]
    assert data["advice"]["text"] in unescape((folder / "report.html").read_text())
    assert next(network.parameters()).isfinite().all()


def test_a_kept_twin_is_not_trained_again(small_run: RunResult) -> None:
    _, config = load_network(small_run.run_dir)
    before = (small_run.run_dir / TWIN / "model.safetensors").stat().st_mtime_ns
    assert keep_twin(config, small_run.run_dir, Console(quiet=True)) == small_run.run_dir / TWIN
    assert (small_run.run_dir / TWIN / "model.safetensors").stat().st_mtime_ns == before


def test_a_ready_made_twin_is_kept_though_its_recipe_is_another(tmp_path: Path) -> None:
    unpack("fashion_mnist", tmp_path)
    config, twin = load_config(tmp_path / "config.yaml"), tmp_path / TWIN
    before = {path: path.read_bytes() for path in twin.iterdir()}
    assert keep_twin(config, tmp_path, Console(quiet=True)) == twin
    with pytest.raises(InputError, match=r"expected the ANN twin of this network, on its data; found another, without"):
        keep_twin(apply_overrides(config, ["dataset.seed=5"]), tmp_path, Console(quiet=True))
    assert {path: path.read_bytes() for path in twin.iterdir()} == before


def test_a_twin_s_training_that_was_cut_off_goes_on(tiny: RunConfig, tmp_path: Path) -> None:
    twin = tmp_path / TWIN
    train(apply_overrides(tiny, ["train.mode=ann"]), twin)
    before = {path: path.read_bytes() for path in twin.iterdir()}
    (twin / "model.safetensors").unlink()
    keep_twin(load_config(twin / "config.yaml"), tmp_path, Console(quiet=True))
    assert {path: path.read_bytes() for path in twin.iterdir()} == before  # its epochs' seconds among it


def test_energy_of_a_run_finds_the_kept_twin(small_run: RunResult) -> None:
    again = energy(small_run.run_dir, None)
    assert again.ann_twin["label"] == "measured"


def test_accuracy_against_energy_of_a_run_keeps_its_twin(
    small_run: RunResult, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    folder = tmp_path / small_run.run_dir.name
    shutil.copytree(small_run.run_dir, folder)
    before = read_tradeoff(folder / "tradeoff.json")
    done = cli("energy", folder, "--over-steps", "-o", folder)
    assert done.code == 0
    swept = read_tradeoff(folder / "tradeoff.json")
    at_steps = {p["steps"]: (p["accuracy"], p["joules"]) for p in swept["points"] if p["kind"] == "SNN"}
    kept = [p for p in before["points"] if p["margin"] is None]
    assert {p["steps"]: (p["accuracy"], p["joules"]) for p in kept if p["kind"] == "SNN"}.items() <= at_steps.items()
    assert swept["points"][-1] == before["points"][-1]
    other = tmp_path / "other"
    shutil.copytree(folder / TWIN, other)
    named = tradeoff([folder], ann=other, points_at=TradeoffOptions(over_steps=True)).as_dict()
    assert [p["name"] for p in named["points"] if p["kind"] == "ANN"] == ["other"]


def test_a_twin_whose_training_has_not_ended_is_not_measured_and_that_is_said(
    small_run: RunResult, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(small_run.run_dir, folder)
    (folder / TWIN / "model.safetensors").unlink()
    for more in ((), ("--over-steps",)):
        done = cli("energy", folder, *more, "-o", tmp_path / "energy")
        assert done.code == 0, done.err
        assert f"zeros of the kept ANN twin were not measured: its training has not ended ({folder / TWIN})" in done.err
        assert "counting what the ANN twin" not in done.err


@pytest.mark.nightly
def test_the_hurried_leave_the_twin_out(small_run: RunResult, tmp_path: Path) -> None:
    _, config = load_network(small_run.run_dir)
    run(config, tmp_path / "run", lava=False, twin=False)
    assert not (tmp_path / "run" / TWIN).exists()
    assert json.loads((tmp_path / "run" / "energy.json").read_text())["ann_twin"]["label"] == "unmeasured"
