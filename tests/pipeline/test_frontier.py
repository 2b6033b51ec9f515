"""The ANN frontier: narrower twins, trained once, and the cheapest two: proved, and measured, no less accurate."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy._util.console import Console
from stl_deploy.config.schema import RunConfig
from stl_deploy.energy.models.frontier import WIDTHS, Against, Frontier, FrontierPoint
from stl_deploy.energy.models.verdict import MOST_WORDS
from stl_deploy.energy.paired import compare
from stl_deploy.runs.frontier import folder_of, is_kept, keep_frontier, narrowed, structure_of
from stl_deploy.training import pretrained
from stl_deploy.training.checkpoint import load_network
from stl_deploy.verbs.energy_of import energy
from stl_deploy.verbs.listings import AGAINST_ANNS, against_anns
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
    assert data["accuracy"]["text"] in data["verdict"]
    again = energy(folder, None)
    assert again.frontier is not None
    assert again.frontier.text == data["frontier"]["text"]
    table = (folder / "report.html").read_text().partition('id="frontier-table"')[2].partition("</table>")[0]
    kinds = ["proved" if p["is_proved"] else "measured, not proved" if p["measured_no_less"] else "no" for p in points]
    assert re.findall(r"<td>(proved|measured, not proved|no)</td>", table) == kinds


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
    return FrontierPoint(width, 100, joules, joules / 2, compare(decided(snn), decided(right), 0.005))


def unproved(width: float, joules: float) -> FrontierPoint:
    """Measured equal, 18 right of 20 each, which shows nothing within half a point."""
    return replace(point(width, joules, 9000), paired=compare(decided(18, 20), decided(18, 20), 0.005))


def test_the_two_cheapest_anns_by_hand() -> None:
    """Half width is proved (10 of 10,000 behind, margin 50) but measured less; the twin measured more."""
    twin, half, quarter = point(1.0, 4e-9, 9850), point(0.5, 1e-9, 9790), point(0.25, 0.5e-9, 9000)
    frontier = Frontier((twin, half, quarter), 8e-9, 2e-9)
    assert [(p.is_proved, p.measured_no_less) for p in frontier.points] == [(True, True), (True, False), (False, False)]
    assert frontier.proved == Against(half, pytest.approx(8), pytest.approx(2))
    assert frontier.measured == Against(twin, pytest.approx(2), pytest.approx(0.5))
    assert frontier.text == (
        "Against the cheapest ANN proved no less accurate (half width, 97.90 % against 98.00 %) the SNN costs 8.0 "
        "times streaming, 2.0 layer by layer."
    )
    found = frontier.as_dict()
    assert (found["proved"]["width"], found["measured"]["width"], found["samples"]) == (0.5, 1.0, 10_000)


def test_an_unproved_ann_is_never_named_as_proved() -> None:
    only_measured = Frontier((unproved(1.0, 4e-9), unproved(0.5, 1e-9)), 8e-9, 2e-9)
    assert only_measured.proved is None
    assert only_measured.as_dict()["proved"] is None
    assert only_measured.text == (
        "No ANN is proved no less accurate; against the cheapest that measured so (half width, 90.00 % against "
        "90.00 %) the SNN costs 8.0 times streaming, 2.0 layer by layer."
    )
    both = Frontier((point(1.0, 4e-9, 9850), unproved(0.5, 1e-9)), 8e-9, 2e-9)
    assert both.proved is not None
    assert (both.proved.ann.width, both.proved.streaming) == (1.0, pytest.approx(2))
    assert both.measured is not None
    assert (both.measured.ann.width, both.measured.streaming) == (0.5, pytest.approx(8))
    assert both.text == (
        "Against the cheapest ANN proved no less accurate (full width) the SNN costs 2.0 times streaming, 0.50 layer "
        "by layer; against the cheapest that only measured so (half width): 8.0 and 2.0."
    )
    for each in (only_measured, both):
        assert len(each.text.split()) <= MOST_WORDS


def test_an_ann_that_measured_less_and_is_not_proved_is_neither() -> None:
    worse = Frontier((point(1.0, 4e-9, 9000),), 8e-9, 2e-9)
    assert (worse.proved, worse.measured) == (None, None)
    assert worse.text == "No ANN of its topology measured as accurate as the SNN (90.00 % against 98.00 %)."


def test_tables_keep_the_two_kinds_in_their_columns() -> None:
    """A ready-made model's row and a paper's row: each kind in its own column, none in the other's place."""
    energy = pretrained.card("digits").energy
    cheap, dear = (pretrained.CheapestAnn(w, 0.9, 1e-9, 10 * w, w) for w in (0.5, 1.0))
    cells = against_anns(replace(energy, proved_ann=dear, measured_ann=cheap))
    assert cells == (
        "10 times streaming, 1.00 layer by layer (full width, 90.00 %)",
        "5.0 times streaming, 0.50 layer by layer (half width, 90.00 %)",
    )
    assert against_anns(replace(energy, proved_ann=None, measured_ann=cheap)) == ("none", cells[1])
    assert against_anns(replace(energy, narrower_anns=0)) == ("not trained", "not trained")
    assert len(cells) == len(AGAINST_ANNS)


def test_accuracies_are_compared_on_the_whole_test_split(small_run: RunResult, tmp_path: Path) -> None:
    """A run that counted few of its test samples decides on all of them; another input decides on itself."""
    run_dir = tmp_path / "run"
    shutil.copytree(small_run.run_dir, run_dir)
    kept = dict(np.load(run_dir / "test.npz"))
    zeros = np.flatnonzero(kept["y"] == 0)[:7]  # of the first class alone, as in data that are sorted by class
    few = {"x": kept["x"][:, zeros], "y": kept["y"][zeros]}
    np.savez(tmp_path / "few.npz", **few)
    alone = energy(run_dir, tmp_path / "few.npz")
    assert alone.frontier is not None
    assert [point.paired.samples for point in alone.frontier.points] == [len(zeros)] * len(WIDTHS)
    (run_dir / "manifest.json").unlink()  # it has the hash of test.npz
    np.savez(run_dir / "test.npz", **few)
    whole, before = energy(run_dir, None), energy(small_run.run_dir, None)
    assert whole.frontier is not None
    assert before.frontier is not None
    assert whole.counts.batch == len(zeros)
    assert [point.paired for point in whole.frontier.points] == [point.paired for point in before.frontier.points]
    assert whole.accuracy == before.accuracy
    assert whole.frontier.points[0].joules == pytest.approx(alone.frontier.points[0].joules)
