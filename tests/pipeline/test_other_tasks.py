"""Tasks beside classification: the user's metric, and no accuracy of what decides nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stl_deploy as stl
from stl_deploy.errors import InputError

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
