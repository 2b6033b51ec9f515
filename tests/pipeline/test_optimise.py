"""The search for less energy: what it tries, what it picks, and that it goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy.config.schema import RunConfig
from stl_deploy.errors import InputError
from stl_deploy.pipeline.tradeoff import Point
from stl_deploy.verbs.quantising import quantise
from stl_deploy.verbs.searching import POINTS, Optimised, judged, pick, plan, pruned
from stl_deploy.verbs.weighing import optimise
from stl_deploy.verbs.whole_way import RunResult
from tests.energy.nets import lif, linear, program, start


def at(name: str, kind: Any, right: int, joules: float) -> Point:
    decided = np.arange(1000) < right
    return Point(name, kind, "", 1, None, right / 1000, joules, (joules, joules), right=decided)


ANNS = [at("twin", "ANN", 980, 4.0), at("half", "ANN", 970, 1.0), at("quarter", "ANN", 900, 0.5)]


def test_a_point_is_weighed_against_the_cheapest_ann_of_its_accuracy() -> None:
    assert judged(at("a", "SNN", 975, 2.0), ANNS, 0.005).ann.name == "twin"
    assert judged(at("a", "SNN", 970, 2.0), ANNS, 0.005).ann.name == "half"
    better = judged(at("a", "SNN", 990, 2.0), ANNS, 0.005)
    assert (better.ann.name, better.ratio) == ("twin", 0.5)
    assert better.gap == pytest.approx(-0.01)


def test_the_best_is_within_the_margin() -> None:
    cheap, good = at("cheap", "SNN", 960, 0.1), at("good", "SNN", 976, 3.0)
    best = pick([cheap, good], ANNS, 0.005)
    assert best is not None
    assert best.point is good
    loose = pick([cheap, good], ANNS, 0.02)
    assert loose is not None
    assert loose.point is cheap
    assert pick([cheap], ANNS, 0.005) is None


def test_the_plan_turns_every_knob(tiny: RunConfig) -> None:
    trials = list(plan(tiny, 1000.0))
    assert len({trial.name for trial in trials}) == len(trials)
    assert {trial.steps for trial in trials} == {1, 3}
    assert {trial.width for trial in trials} == {1.0, 0.5, 0.25}
    assert any(trial.budget == 500.0 for trial in trials)
    config = trials[-1].config(tiny)
    assert trials[-1].steps == config.dataset.T
    assert config.train.synop_budget == trials[-1].budget


def test_own_sequences_keep_their_steps(tiny: RunConfig) -> None:
    """They are not binned anew: a network trained for half of them would see them all."""
    sequences = tiny.dataset.model_copy(update={"name": "npz", "path": "own.npz", "encoder": "sequence", "T": 64})
    trials = list(plan(tiny.model_copy(update={"dataset": sequences}), 1000.0))
    assert {trial.steps for trial in trials} == {1, 64}
    events = tiny.dataset.model_copy(update={"name": "n_mnist", "encoder": "counts", "T": 64})
    assert {trial.steps for trial in plan(tiny.model_copy(update={"dataset": events}), 1000.0)} == {1, 32, 64}


def test_labels_of_each_step_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    x = np.zeros((20, 4, 2), np.float32)
    np.savez(tmp_path / "own.npz", x=x, y=np.zeros((20, 4), np.int64), x_test=x, y_test=np.ones((20, 4), np.int64))
    (tmp_path / "config.yaml").write_text(
        f"dataset: {{name: npz, path: {tmp_path / 'own.npz'}, encoder: sequence, validation_fraction: 0.2}}\n"
        "network:\n  - {kind: linear, features: 2}\n  - {kind: lif}\n  - {kind: linear, features: 2}\n  - {kind: li}\n"
        "train: {epochs: 1, loss: ce}\n"
    )
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="expected one label for each sample; found labels of each step, which no ANN"):
        optimise(tmp_path)
    assert not (tmp_path / "twin").exists()


def test_a_point_that_no_ann_reaches_is_said_to_be_more_accurate() -> None:
    best = judged(at("a", "SNN", 990, 8.0), ANNS, 0.005)
    assert Optimised((), (), 0.005, best, None, ()).text == (
        "None found; the closest: a at 1 steps (99.00 % on validation data) costs 2.0 times the most accurate ANN, "
        "which is less accurate (twin, 98.00 %) streaming (modelled)."
    )
    best = judged(at("a", "SNN", 975, 2.0), ANNS, 0.005)
    assert (
        "costs 0.50 times the cheapest ANN that measured no less (twin, 98.00 %)"
        in Optimised((), (), 0.005, best, None, ()).text
    )


def test_the_smallest_weights_are_pruned() -> None:
    net = program(start((2,)), linear("a", "in", [[1, -4], [2, 3]]), lif("n", "a", (2,)))
    assert pruned(net, 0.5).by_name["a"].weight.tolist() == [[0, -4], [0, 3]]  # type: ignore[attr-defined]


def test_a_search_without_time_measures_the_run_and_goes_on_later(
    small_run: RunResult, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(small_run.run_dir, folder)
    done = cli("optimise", folder, "--for", "energy", "--minutes", "0", "--json")
    assert done.code == 0, done.err
    data = json.loads(done.out)
    assert data == json.loads((folder / "optimise" / "optimise.json").read_text())
    assert data["missing"]
    names = {p["name"] for p in data["points"]}
    assert {"as it is", "as it is, 50% pruned", "as it is, 80% pruned", "ANN twin"} <= names
    assert data["recommended"] in (True, False)
    assert len({p["samples"] for p in data["points"]}) == 1  # one front for networks and ANNs
    assert data["text"].startswith("Recommended: ") or data["text"].startswith("None found")
    assert (folder / "optimise" / "optimise.html").is_file()
    before = (folder / "optimise" / "as-it-is" / POINTS).stat().st_mtime_ns
    again = optimise(folder, minutes=0)
    assert again.as_dict() == data
    assert (folder / "optimise" / "as-it-is" / POINTS).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"goal": "speed"}, "goal: expected energy; found 'speed'"),
        ({"margin": -1}, "margin: expected 0 to 100 percentage points"),
        ({"minutes": -1}, "minutes: expected a number from 0 up"),
        ({"processes": 0}, "processes: expected 1 or more; found 0"),
        ({}, "expected a run folder with a trained network"),
    ],
)
def test_a_search_is_asked_for_rightly(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        optimise(tmp_path, **options)


def test_a_wrong_keyword_names_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"optimise\(\) has no keyword 'minuts' \(did you mean 'minutes'\?\)"):
        optimise(tmp_path, minuts=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"quantise\(\) has no keyword 'epoch' \(did you mean 'epochs'\?\)"):
        quantise(tmp_path, tmp_path / "out", epoch=3)  # type: ignore[call-arg]
