"""The search for less energy: what it tries, what it picks, and that it goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stl_deploy._util.console import Console
from stl_deploy.config.load import load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.data import load_dataset
from stl_deploy.energy.models.frontier import Point
from stl_deploy.errors import InputError
from stl_deploy.pipeline.tradeoff import TradeoffPoint, exit_margin
from stl_deploy.verbs import searching
from stl_deploy.verbs.quantising import quantise
from stl_deploy.verbs.searching import FOLDS, POINTS, Judged, Optimised, Trial, fold_of, plan, pooled, read_points
from stl_deploy.verbs.weighing import optimise
from stl_deploy.verbs.whole_way import RunResult
from tests.energy.nets import linear, program, start


def at(name: str, kind: Any, right: int, joules: float) -> Point:
    decided = np.arange(1000) < right
    return Point(name, kind, "", 1, right / 1000, joules, right=decided)


ANNS = (at("twin", "ANN", 980, 4.0), at("half", "ANN", 970, 1.0), at("quarter", "ANN", 900, 0.5))


def searched(*snns: Point, margin: float = 0.01, judged: Judged | None = None) -> Optimised:
    return Optimised(snns, ANNS, (), margin, "streaming", judged, ())


def test_a_network_is_best_only_if_it_is_proved_within_the_margin() -> None:
    """5 of 1000 behind is measured within a point of the twin; the interval's worse end, 1.2 points, is not."""
    measured, proved = at("measured", "SNN", 975, 0.8), at("proved", "SNN", 979, 3.0)
    found = searched(measured, proved)
    assert found.best["streaming"].snn is proved
    assert found.closest["streaming"].snn is measured
    undecided = searched(measured)
    assert not undecided.best
    assert not undecided.recommended
    assert undecided.text.startswith("Undecided: ")
    assert searched(at("far", "SNN", 900, 0.1)).text.startswith("None found: ")


@pytest.mark.parametrize(
    ("judged", "is_recommended"),
    [
        (Judged(0.975, 0.98, (0.7, 0.9)), True),
        (Judged(0.975, 0.98, (0.7, 1.5)), False),
        (Judged(0.965, 0.98, (0.7, 0.9)), False),
        (None, False),
    ],
)
def test_test_data_have_the_last_word(judged: Judged | None, is_recommended: bool) -> None:
    found = searched(at("proved", "SNN", 979, 3.0), judged=judged)
    assert found.best["streaming"].ratio == 0.75
    assert found.recommended == is_recommended
    assert found.text.startswith("Recommended: ") == is_recommended


def test_the_plan_has_every_lever_on_both_sides(tiny: RunConfig) -> None:
    trials = list(plan(tiny))
    assert len({trial.name for trial in trials}) == len(trials)
    anns, snns = ([t for t in trials if (t.mode == "ann") == is_ann] for is_ann in (True, False))
    assert (anns[0].width, anns[0].weight) == (1.0, 0.0)
    assert {t.steps for t in snns} == {1, 2, 3}
    for side in (anns, snns):
        assert {t.width for t in side} >= {1.0, 0.5, 0.25}
        assert {t.weight for t in side} == {0.0, 1.0}
    config = snns[-1].config(tiny, 2)
    assert (config.dataset.T, config.train.energy_weight, config.train.seed) == (3, 1.0, tiny.train.seed + 2)


def test_folds_part_the_training_and_validation_samples(tiny: RunConfig) -> None:
    data = load_dataset(tiny.dataset)
    pool = torch.cat([data.train.pixels, data.validation.pixels]).flatten(1)
    folds = [fold_of(data, fold) for fold in range(FOLDS)]
    held = torch.cat([fold.test.pixels for fold in folds]).flatten(1)
    assert sorted(map(tuple, held.tolist())) == sorted(map(tuple, pool.tolist()))
    for fold in folds:
        parts = (fold.train, fold.validation, fold.test)
        assert sum(map(len, parts)) == len(pool)
        assert all(len(part) for part in parts)
    assert fold_of(data, FOLDS) is data
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))
    assert torch.equal(folds[1].test.pixels.flatten(1), pool[order[1::FOLDS]])


def test_folds_keep_groups_whole(tiny: RunConfig) -> None:
    """Windows of one recording in two folds made the accuracies of cross-validation too high."""
    data = load_dataset(tiny.dataset)
    numbers = {"train": torch.arange(len(data.train)) // 7, "validation": torch.arange(len(data.validation)) // 5}
    marked = {
        name: replace(split, labels=groups + 1000 * (name == "train"), groups=groups)
        for name, groups in numbers.items()
        for split in (getattr(data, name),)
    }
    data = replace(data, **marked)
    seen = []
    for fold in range(FOLDS):
        parts = fold_of(data, fold)
        groups = [set(part.labels.tolist()) for part in (parts.train, parts.validation, parts.test)]
        assert all(groups)
        assert sum(map(len, groups)) == len(set.union(*groups))
        seen.append(groups[2])
    assert (
        sum(map(len, seen))
        == len(set.union(*seen))
        == len({*numbers["train"].tolist()}) + len({*numbers["validation"].tolist()})
    )


def test_a_result_of_other_folds_settings_or_releases_is_not_read(
    tiny: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search found before folds kept groups whole was continued with results of folds that part them."""
    trial = Trial("stl", 2, 0.5, 0.0)

    def folder(fold: int = 0, base: RunConfig = tiny, of_fold: str = "a") -> Path:
        digests = [of_fold, *"bcd"]
        return searching._Team(tmp_path, base, digests, ThreadPoolExecutor(1), 1, 0.0, Console(quiet=True)).folder(
            trial, fold
        )

    data = load_dataset(tiny.dataset)
    digests = {searching._digest(each) for each in (data, *(fold_of(data, fold) for fold in range(FOLDS)))}
    assert len(digests) == FOLDS + 1
    assert folder() == folder()
    longer = tiny.with_values(train={"epochs": 77})
    assert len({folder(), folder(1), folder(base=longer), folder(of_fold="e")}) == 4
    assert folder(FOLDS).name != folder(FOLDS + 1).name
    before = folder()
    monkeypatch.setattr(searching, "__version__", "0")
    assert folder() != before


def test_folds_are_pooled_by_name() -> None:
    folds = [[at("a", "SNN", 900, 1.0), at("b", "SNN", 1, 1.0)], [at("a", "SNN", 800, 3.0)]]
    (found,) = pooled(folds)
    assert (found.name, found.accuracy, found.joules, len(found.decided)) == ("a", 0.85, 2.0, 2000)


def test_an_exit_is_as_early_as_the_loss_allows() -> None:
    """One class leads from the first step in half of the samples, and only from the second in the others."""
    net = program(start((2,)), linear("a", "in", np.eye(2)))
    x = np.array([[[2, 0], [2, 1]], [[2, 0], [0, 5]]], np.float32)
    candidate = TradeoffPoint("n", "", net, x, np.array([0, 1]))
    margin = exit_margin(candidate, 0.0)
    assert margin is not None
    assert 1 < margin <= 2
    loose = exit_margin(candidate, 0.5)
    assert loose is not None
    assert loose <= margin


def test_own_sequences_keep_their_steps(tiny: RunConfig) -> None:
    """They are not binned anew: a network trained for half of them would see them all."""
    sequences = tiny.dataset.model_copy(update={"name": "npz", "path": "own.npz", "encoder": "sequence", "T": 64})
    trials = list(plan(tiny.model_copy(update={"dataset": sequences})))
    assert {trial.steps for trial in trials} == {1, 64}
    events = tiny.dataset.model_copy(update={"name": "n_mnist", "encoder": "counts", "T": 64})
    snns = [trial for trial in plan(tiny.model_copy(update={"dataset": events})) if trial.mode != "ann"]
    assert {trial.steps for trial in snns} == {1, 2, 3, 4, 64}


@pytest.mark.parametrize(
    ("own", "why"),
    [
        ({"y": np.zeros((20, 4), np.int64), "y_test": np.ones((20, 4), np.int64)}, "labels of each step, which no ANN"),
        ({"y": np.arange(20) % 2, "y_test": np.arange(20) % 2, "group": np.arange(20) // 10}, "found 2 groups"),
    ],
    ids=["labels of each step", "too few groups"],
)
def test_data_without_folds_are_refused_before_anything_is_trained(tmp_path: Path, own: Any, why: str) -> None:
    x = np.zeros((20, 4, 2), np.float32)
    np.savez(tmp_path / "own.npz", x=x, x_test=x, **own)
    (tmp_path / "config.yaml").write_text(
        f"dataset: {{name: npz, path: {tmp_path / 'own.npz'}, encoder: sequence, validation_fraction: 0.5}}\n"
        "network:\n  - {kind: linear, features: 2}\n  - {kind: lif}\n  - {kind: linear, features: 2}\n  - {kind: li}\n"
        "train: {epochs: 1, loss: ce}\n"
    )
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=why):
        optimise(tmp_path)
    assert not (tmp_path / "twin").exists()


@pytest.mark.nightly
def test_a_search_trains_both_sides_judges_once_and_goes_on_later(
    small_run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.yaml", "model.safetensors"):
        shutil.copy(small_run.run_dir / name, folder)
    with pytest.raises(InputError, match="no time for an ANN and an SNN with 3 folds each; give more minutes"):
        optimise(folder, minutes=0)
    few = [Trial("ann", 3, 1.0, 0.0), Trial("stl", 2, 1.0, 0.0)]
    monkeypatch.setattr(searching, "plan", lambda config: few)
    with ThreadPoolExecutor(1) as executor:
        found = optimise(folder, executor=executor, margin=100.0)
        again = optimise(folder, executor=executor, margin=100.0, minutes=0)
    assert again.as_dict() == found.as_dict()
    data = json.loads((folder / "optimise" / "optimise.json").read_text())
    assert data == found.as_dict()
    names = [p["name"] for p in data["points"]]
    assert {"ANN, full width", "trained for T = 2, full width", "counts at T = 1, full width"} <= set(names)
    whole = load_dataset(load_config(folder / "config.yaml").dataset)
    assert {len(p.decided) for p in found.listed} == {len(whole.train) + len(whole.validation)}
    assert found.judged is not None  # within 100 points, everything is
    best = found.best[found.leads]
    trained = folder / "optimise" / best.snn.name.partition(", e")[0]
    final = [read_points(next(trained.glob(f"{FOLDS + k}-*")) / POINTS) for k in range(3)]
    assert {len(point.decided) for points in final for point in points} == {len(whole.test)}
    right = np.mean([p.accuracy for points in final for p in points if p.name == best.snn.name])
    assert found.judged.snn_accuracy == pytest.approx(right)
    assert found.text in unescape((folder / "optimise" / "optimise.html").read_text())


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
