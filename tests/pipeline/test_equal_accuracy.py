"""The twin that a run keeps, and the comparison at equal accuracy."""

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
from stl_deploy.config.schema import RunConfig
from stl_deploy.errors import InputError
from stl_deploy.pipeline.ann_twin import keep_twin
from stl_deploy.pipeline.energy import energy
from stl_deploy.pipeline.equal_accuracy import at_its_accuracy, iso_accuracy
from stl_deploy.pipeline.run import RunResult, run
from stl_deploy.pipeline.tradeoff import MOST_STEPS, numbers_of_steps, read_tradeoff, tradeoff
from stl_deploy.report.pareto import Point
from stl_deploy.training.loop import train
from stl_deploy.training.model_file import load_network
from stl_deploy.training.pretrained.unpacking import unpack
from stl_deploy.training.run_folder import TWIN


def snn(steps: int, accuracy: float, joules: float) -> Point:
    return Point("n", "SNN", "stl", steps, None, accuracy, joules, (joules, joules))


ANN = Point("t", "ANN", "ann", 1, None, 0.98, 2.0, (2.0, 2.0))


def test_the_fewest_steps_that_are_as_accurate_are_compared() -> None:
    found = iso_accuracy([snn(1, 0.80, 1.0), snn(2, 0.97, 3.0), snn(4, 0.99, 6.0), ANN], 359)
    assert found is not None
    # 97 against 98 % of 359: the standard error of the difference is 1.2 %
    assert (found.reached, found.steps, found.ratio) == (True, 2, 1.5)
    assert found.text == (
        "At T = 2 the SNN is within sampling error of its ANN twin's accuracy (97.00 % against 98.00 % on 359 samples, "
        "measured) and costs "
        "1.5 times as much (modelled)."
    )
    sharper = iso_accuracy([snn(1, 0.80, 1.0), snn(2, 0.97, 3.0), snn(4, 0.99, 6.0), ANN], 10000)
    assert sharper is not None
    assert sharper.steps == 4


def test_an_snn_that_never_gets_there_is_said_not_to() -> None:
    found = iso_accuracy([snn(1, 0.5, 1.0), snn(2, 0.6, 3.0), ANN], 1000)
    assert found is not None
    assert not found.reached
    assert found.text.startswith("The SNN does not reach its ANN twin's accuracy (60.00 % against 98.00 %")
    assert iso_accuracy([snn(1, 0.5, 1.0)], 1000) is None
    assert at_its_accuracy("It costs.", found) == "Not at equal accuracy (60.00 %, the ANN twin 98.00 %). It costs."
    equal = iso_accuracy([snn(1, 0.99, 1.0), ANN], 1000)
    assert at_its_accuracy("It costs.", equal) == at_its_accuracy("It costs.", None) == "It costs."


@pytest.mark.parametrize("most", [1, 4, 8, 9, 100, 500])
def test_time_is_looked_at_from_one_step_to_all(most: int) -> None:
    found = numbers_of_steps(most)
    assert (found[0], found[-1]) == (1, most)
    assert found == sorted(set(found))
    assert len(found) <= MOST_STEPS
    assert most > MOST_STEPS or found == list(range(1, most + 1))


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
    assert weighed["iso_accuracy"]["text"] in unescape((folder / "report.html").read_text())
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
    assert before["iso_accuracy"]["text"] in done.err
    assert read_tradeoff(folder / "tradeoff.json") == before
    assert cli("report", folder).code == 0
    assert before["iso_accuracy"]["text"] in unescape((folder / "report.html").read_text())
    other = tmp_path / "other"
    shutil.copytree(folder / TWIN, other)
    named = tradeoff([folder], over_steps=True, ann=other).as_dict()
    assert [p["name"] for p in named["points"] if p["kind"] == "ANN"] == ["other"]
    assert named["iso_accuracy"] == before["iso_accuracy"]


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


def test_the_hurried_leave_the_twin_out(small_run: RunResult, tmp_path: Path) -> None:
    _, config = load_network(small_run.run_dir)
    run(config, tmp_path / "run", lava=False, twin=False)
    assert not (tmp_path / "run" / TWIN).exists()
    assert json.loads((tmp_path / "run" / "energy.json").read_text())["ann_twin"]["label"] == "unmeasured"
    assert "iso_accuracy" not in read_tradeoff(tmp_path / "run" / "tradeoff.json")
