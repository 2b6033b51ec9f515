"""The ANN frontier: narrower twins, trained once, and the cheapest that is as accurate as the SNN."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy._util.console import Console
from stl_deploy.config.schema import RunConfig
from stl_deploy.energy.models.frontier import WIDTHS, Frontier, FrontierPoint
from stl_deploy.energy.paired import compare
from stl_deploy.runs.frontier import folder_of, is_kept, keep_frontier, narrowed, structure_of
from stl_deploy.training.model_file import load_network
from stl_deploy.verbs.energy_of import energy
from stl_deploy.verbs.whole_way import RunResult
from tests.energy.test_verbs import spikes, write


def test_hidden_layers_are_narrowed_and_the_last_stays(tiny: RunConfig) -> None:
    half = narrowed(tiny, 0.5)
    sizes = [getattr(layer, "channels", getattr(layer, "features", None)) for layer in half.network]
    assert [size for size in sizes if size is not None] == [2, 20]
    assert half.train == tiny.train
    wide, thin = (structure_of(config, (1, 8, 8), 10) for config in (tiny, half))
    assert [node.name for node in wide.nodes] == [node.name for node in thin.nodes]


def test_a_run_compares_with_narrower_anns(small_run: RunResult) -> None:
    folder = small_run.run_dir
    assert is_kept(folder)
    data = json.loads((folder / "energy.json").read_text())
    points = data["frontier"]["points"]
    assert [p["width"] for p in points] == list(WIDTHS)
    assert points[0]["accuracy"] == data["ann_twin"]["accuracy"]
    assert points[0]["int8_J"] == pytest.approx(data["quoted"]["ann_J"])
    joules = [p["int8_J"] for p in points]
    assert joules == sorted(joules, reverse=True)
    assert all(p["int4_J"] < p["int8_J"] for p in points)
    assert data["frontier"]["text"] in data["verdict"]
    again = energy(folder, None)
    assert again.frontier is not None
    assert again.frontier.text == data["frontier"]["text"]
    assert 'id="frontier-table"' in (folder / "report.html").read_text()


def test_kept_anns_are_not_trained_again(small_run: RunResult) -> None:
    files = [folder_of(small_run.run_dir, width) / "model.safetensors" for width in WIDTHS if width < 1]
    before = [file.stat().st_mtime_ns for file in files]
    _, config = load_network(small_run.run_dir)
    keep_frontier(config, small_run.run_dir, Console(quiet=True))
    assert [file.stat().st_mtime_ns for file in files] == before


def test_a_foreign_graph_has_no_training_data_and_that_is_said(tmp_path: Path, cli: Callable[..., Any]) -> None:
    net, x = write(tmp_path, spikes(), y=np.zeros(5, np.int64))
    done = cli("energy", net, "-i", x, "--frontier")
    assert done.code == 0
    assert "No narrower ANNs are compared: they are trained on a run's data" in done.err


def test_a_margin_needs_labels(tmp_path: Path, cli: Callable[..., Any]) -> None:
    net, x = write(tmp_path, spikes())
    assert cli("energy", net, "-i", x, "--margin", "1").code == 2
    for bad in ("-1", "101"):
        done = cli("energy", net, "-i", x, "--margin", bad)
        assert done.code == 2
        assert "margin: expected 0 to 100 percentage points" in done.err


def decided(right: int, samples: int = 10_000) -> np.ndarray:
    return np.arange(samples) < right


def point(width: float, joules: float, right: int, snn: int = 9800) -> FrontierPoint:
    return FrontierPoint(width, right / 10_000, 100, joules, joules / 2, compare(decided(snn), decided(right), 0.005))


def test_the_cheapest_of_equal_accuracy_by_hand() -> None:
    twin, half, quarter = point(1.0, 4e-9, 9850), point(0.5, 1e-9, 9790), point(0.25, 0.5e-9, 9000)
    found = Frontier((twin, half, quarter), 8e-9, 2e-9)
    assert found.cheapest == half
    assert found.text == (
        "The cheapest ANN of equal accuracy (half width, 97.90 % against 98.00 %) costs 1 nJ: the SNN costs 8.0 times "
        "that streaming, 2.0 layer by layer."
    )
    assert len(found.text.split()) <= 32
    unsure = replace(half, paired=compare(np.ones(20, bool), np.ones(20, bool), 0.005), accuracy=1.0)
    assert not unsure.is_equal
    assert "of no lower measured accuracy" in Frontier((replace(unsure, width=1.0), unsure), 8e-9, 2e-9).text
    worse = Frontier((point(1.0, 4e-9, 9000),), 8e-9, 2e-9)
    assert worse.cheapest is None
    assert worse.text.startswith("No ANN of its topology is as accurate as the SNN (90.00 % against 98.00 %)")
