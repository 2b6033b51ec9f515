"""Both frontiers over seeds: means, and ranges over images and seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import energy_seeds
from benchmarks.energy_seeds import Network, main, ratio
from stl_deploy.energy.models.frontier import Point


def at(name: str, kind: Any, right: int, joules: float, batched: float | None = None) -> Point:
    return Point(name, kind, "", 2, right / 1000, joules, None, batched, right=np.arange(1000) < right)


def test_means_over_seeds_are_compared() -> None:
    """With the first seed alone the half-width ANN would be equal."""
    snn = Network([at("snn", "SNN", 970, 4.0, 1.0), at("snn", "SNN", 980, 4.0, 2.0)])
    half = Network([at("half", "ANN", 970, 2.0), at("half", "ANN", 978, 2.0)])
    full = Network([at("full", "ANN", 985, 6.0), at("full", "ANN", 985, 6.0)])
    streaming = ratio(snn, [half, full], "streaming")
    assert (streaming["ann"], streaming["ratio"], streaming["as_accurate"]) == ("full", 4 / 6, True)
    batched = ratio(snn, [half, full], "layer_by_layer")
    assert batched["ratio"] == pytest.approx(1.5 / 6)
    low, high = batched["interval"]
    assert low == pytest.approx(1.5 / 6)  # the SNN's two seeds, and of the half-width ANN the first one alone
    assert high == pytest.approx(1.5 / 2)  # and of that ANN the second one alone, which is equal
    behind = ratio(snn, [half], "streaming")
    assert (behind["ann"], behind["ratio"], behind["as_accurate"]) == ("half", 2.0, False)


def test_every_network_is_measured_with_every_seed_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def measured(base: Any, trial: Any, seed: int, folder: Path, *, counts: bool) -> list[Point]:
        asked.append((trial.name, seed, folder.relative_to(tmp_path).as_posix(), counts))
        kind, right = ("ANN", 990) if trial.mode == "ann" else ("SNN", 980 + seed)
        points = [at(trial.name, kind, right, 2.0 * trial.width)]
        exits = [at(f"{trial.name}, exit", kind, right, trial.width)] if seed else []
        return points + exits + ([at("counts at T = 1", "counts", 980, 1.0)] if counts else [])

    monkeypatch.setattr(energy_seeds, "measured", measured)
    main(["digits", str(tmp_path), "--seeds", "2", "--ann", "1", "0.5", "--snn", "2:0.5", "--counts", "0.5"])
    assert asked[:3] == [
        ("ANN, full width", 0, "ANN, full width/0", False),
        ("ANN, half width", 0, "ANN, half width/0", True),
        ("trained for T = 2, half width", 0, "trained for T = 2, half width/0", False),
    ]
    assert [seed for _, seed, _, _ in asked] == [0, 0, 0, 1, 1, 1]
    rows = json.loads((tmp_path / "seeds.json").read_text())
    (snn,) = rows["SNN"]  # the exit was measured with one seed only
    assert snn["accuracies"] == [0.98, 0.981]
    assert [each["ratio"] for each in snn["ratios"]] == [1.0, 1.0]
    assert [row["name"] for row in rows["counts"]] == ["counts at T = 1"]
    assert "98.05% (98.00% to 98.10%)" in capsys.readouterr().out
