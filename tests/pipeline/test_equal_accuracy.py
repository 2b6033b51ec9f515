"""The twin that a run keeps, and the comparison at equal accuracy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy._util.console import Console
from stl_deploy.config.load import apply_overrides, load_config
from stl_deploy.config.options import TradeoffOptions
from stl_deploy.config.schema import RunConfig
from stl_deploy.errors import InputError
from stl_deploy.pipeline.tradeoff import MOST_STEPS, Point, iso_accuracy, numbers_of_steps
from stl_deploy.runs.ann_twin import keep_twin
from stl_deploy.runs.candidates import read_tradeoff
from stl_deploy.training.checkpoint import load_network
from stl_deploy.training.loop import train
from stl_deploy.training.pretrained.unpacking import unpack
from stl_deploy.training.run_folder import TWIN
from stl_deploy.verbs.energy_of import energy
from stl_deploy.verbs.weighing import tradeoff
from stl_deploy.verbs.whole_way import RunResult, run


def decided(right: int, samples: int = 10_000) -> np.ndarray:
    return np.arange(samples) < right


def snn(steps: int, right: int, joules: float) -> Point:
    found = decided(right)
    return Point(
        "n", "SNN", "stl", steps, None, found.mean(), joules, (joules, joules), layer_by_layer_J=1.0, right=found
    )


ANN = Point("t", "ANN", "ann", 1, None, 0.98, 2.0, (2.0, 2.0), layer_by_layer_J=2.0, right=decided(9800))


def test_the_fewest_steps_that_are_as_accurate_are_compared() -> None:
    found = iso_accuracy([snn(1, 8000, 1.0), snn(2, 9790, 3.0), snn(4, 9900, 6.0), ANN], 0.005)
    assert found is not None
    assert (found.reached, found.steps, found.ratio, found.layer_by_layer_ratio) == (True, 2, 1.5, 0.5)
    assert found.text == (
        "The SNN is as accurate as its ANN twin: at most 0.19 points behind (95 %; 97.90 % against 98.00 %, 10,000 "
        "samples, measured). At T = 2 the SNN costs 1.5 times its ANN twin streaming, 0.50 layer by layer (modelled)."
    )
    stricter = iso_accuracy([snn(1, 8000, 1.0), snn(2, 9790, 3.0), snn(4, 9900, 6.0), ANN], 0.001)
    assert stricter is not None
    assert (stricter.reached, stricter.steps) == (True, 4)


def test_a_gap_in_the_sequence_ends_it() -> None:
    """From the most steps down to the first that is not equal: more steps tried do not make one equal by chance."""
    found = iso_accuracy([snn(1, 9800, 1.0), snn(2, 8000, 3.0), snn(4, 9900, 6.0), ANN], 0.005)
    assert found is not None
    assert found.steps == 4


def test_an_snn_that_never_gets_there_is_said_not_to() -> None:
    found = iso_accuracy([snn(1, 5000, 1.0), snn(2, 6000, 3.0), ANN], 0.005)
    assert found is not None
    assert (found.reached, found.steps) == (False, 2)
    assert found.text.startswith("The SNN is less accurate than its ANN twin by 37 to 39 points (95 %; 60.00 % against")
    assert iso_accuracy([snn(1, 5000, 1.0)], 0.005) is None


def test_few_samples_do_not_make_networks_equal() -> None:
    """20 images, 85 against 90 %: the difference is not significant, which is not "equal"."""
    few = [replace(point, right=point.right[-20:]) for point in (snn(4, 9997, 6.0), ANN)]  # type: ignore[index]
    twin = replace(few[1], right=np.arange(20) > 1)
    found = iso_accuracy([replace(few[0], right=np.arange(20) > 2), twin], 0.005)
    assert found is not None
    assert not found.reached
    assert "is undecided with 20 samples" in found.text


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
    named = tradeoff([folder], ann=other, points_at=TradeoffOptions(over_steps=True)).as_dict()
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
