"""Tasks beside classification: the user's metric, and no accuracy of what decides nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn

import stl_deploy as stl
from stl_deploy.config.options import EnergyOptions
from stl_deploy.energy import AnnTwin, energy_schema
from stl_deploy.errors import InputError
from stl_deploy.pipeline.energy import energy
from tests.energy.test_verbs import main

X = (torch.rand(6, 20, 8, generator=torch.Generator().manual_seed(1)) < 0.4).float()


def net(outputs: int) -> stl.SpikingGraph:
    torch.manual_seed(0)
    return stl.capture(nn.Sequential(nn.Linear(8, 16), stl.LIF((16,), threshold=0.3), nn.Linear(16, outputs)), X)


def squared_error(scores: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> float:
    return float(((scores - targets) ** 2).mean())


def test_one_value_has_no_accuracy() -> None:
    """Labels that are all 0 made it 100 %, and broke the search for a cheaper change."""
    labels = np.zeros(20, np.int64)
    with pytest.raises(InputError, match=r"two classes or more.*metric"):
        net(1).evaluate([(X, labels)])
    report = net(1).energy(X, labels=labels).report
    assert (report.right, report.accuracy, report.advice, report.tried) == (None, None, None, ())
    assert net(1).evaluate([(X, labels[:, None])], metric=squared_error).score > 0


def test_a_metric_sees_the_readout_and_targets_of_all_samples() -> None:
    graph, targets = net(2), torch.rand(20, 2, generator=torch.Generator().manual_seed(2))
    found = graph.evaluate([(X[:, :12], targets[:12]), (X[:, 12:], targets[12:])], metric=squared_error, backend="onnx")
    scores = graph.simulate(X).y.sum(axis=0, dtype=np.float64)
    expected = squared_error(scores, targets.numpy())
    assert found.score == pytest.approx(expected)
    assert found.module_score == pytest.approx(expected)
    assert found.backends["onnx"].score == pytest.approx(expected)
    data = found.as_dict()
    assert (data["metric"], data["score"]) == ("squared_error", found.score)
    assert "accuracy" not in {*data, *data["backends"]["onnx"]}
    assert "squared_error" in str(found)
    for read in (lambda: found.accuracy, lambda: found.interval, lambda: found.module_accuracy):
        with pytest.raises(InputError, match="squared_error"):
            read()


def test_other_targets_than_labels_take_a_metric() -> None:
    with pytest.raises(InputError, match="expected integer labels"):
        net(2).evaluate([(X, torch.rand(20, 2))])


def test_energy_takes_the_metric_instead_of_accuracy() -> None:
    targets = torch.rand(20, 2, generator=torch.Generator().manual_seed(2)).numpy()
    report = net(2).energy(X, labels=targets, metric=squared_error).report
    scores = net(2).simulate(X).y.sum(axis=0, dtype=np.float64)
    data = report.as_dict()
    assert data["score"]["snn"] == pytest.approx(squared_error(scores, targets))
    assert (data["score"]["metric"], data["score"]["ann"], data["score"]["samples"]) == ("squared_error", None, 20)
    assert data["score"]["label"] == "measured"
    assert "'squared_error' of the SNN is" in report.verdict
    assert not {"accuracy", "advice", "frontier"} & {*data}
    jsonschema.validate(data, energy_schema())


def test_energy_s_metric_scores_the_twin_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line: FILE.py:NAME, on the targets of the input file, whatever they are."""
    graph = net(2)
    macs = graph.energy(X).report.counts.totals.ann_macs_exact
    targets = np.random.default_rng(3).random((20, 2))
    twin = AnnTwin(macs, macs, 20, "twin", scores=targets + 0.5)
    report = energy(graph.program, X.numpy(), EnergyOptions(), labels=targets, metric=squared_error, twin=twin)
    assert report.score is not None
    assert report.score.ann == pytest.approx(0.25)
    assert "of its ANN twin 0.25" in report.verdict
    graph.export(tmp_path / "net.nir")
    np.savez(tmp_path / "x.npz", x=X.numpy(), y=targets)
    code = "def off(scores, targets):\n    return abs(scores - targets).max()\n"
    (tmp_path / "mine.py").write_text(code + "def broken(scores, targets):\n    return scores.nothing\nNOT = 3\n")
    called = ["energy", str(tmp_path / "net.nir"), "-i", str(tmp_path / "x.npz"), "--json", "--metric"]
    assert main([*called, f"{tmp_path / 'mine.py'}:off"]) == 0
    scores = graph.simulate(X).y.sum(axis=0, dtype=np.float64)
    shown = json.loads(capsys.readouterr().out)["score"]
    assert shown["snn"] == pytest.approx(np.abs(scores - targets).max())
    for name in ("broken", "NOT", "missing"):
        assert main([*called, f"{tmp_path / 'mine.py'}:{name}"]) == 2
    with pytest.raises(InputError, match="metric"):
        graph.energy(X, labels=targets[:3], metric=squared_error)
    with pytest.raises(InputError, match="margin"):
        graph.energy(X, labels=targets, metric=squared_error, margin=1.0)
    with pytest.raises(InputError, match="finite"):
        graph.evaluate([(X, targets)], metric=lambda scores, targets: float("nan"))
