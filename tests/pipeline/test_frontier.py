"""Both frontiers: fewer steps and exits of the SNN, narrower ANNs, and the ratio at equal accuracy."""

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
from stl_deploy.energy.models.frontier import WIDTHS, Frontier, Point, advise, against_equal_ann, width_name
from stl_deploy.energy.models.verdict import MOST_WORDS
from stl_deploy.graph.program import Conv, Linear
from stl_deploy.nn.network import Network
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
    wide, thin = (Network(config, (1, 8, 8), 10) for config in (tiny, half))
    assert [*wide.layers] == [*thin.layers]


def test_a_narrower_ann_is_priced_with_the_biases_that_it_learned(small_run: RunResult) -> None:
    """Its topology was priced with initial weights, whose norms fold to no bias: 0.3 to 0.6 % too cheap for digits."""
    folder = folder_of(small_run.run_dir, 0.5)
    norms = [m for m in load_network(folder)[0].modules() if hasattr(m, "running_mean")]
    nodes = [node for node in structure_of(folder).nodes if isinstance(node, Conv | Linear) and node.bias is not None]
    assert len(nodes) == len(norms) > 0
    assert all(np.count_nonzero(node.bias) == node.bias.size for node in nodes if node.bias is not None)


def test_a_run_compares_with_narrower_anns(small_run: RunResult) -> None:
    folder = small_run.run_dir
    assert is_kept(folder)
    data = json.loads((folder / "energy.json").read_text())
    frontier, points = data["frontier"], data["frontier"]["ann"]
    assert [p["name"] for p in points] == [width_name(width) for width in WIDTHS]
    assert points[0]["accuracy"] == data["ann_twin"]["accuracy"]
    assert points[0]["joules"] == points[0]["layer_by_layer_J"] == pytest.approx(data["quoted"]["ann_J"])
    joules = [p["joules"] for p in points]
    assert joules == sorted(joules, reverse=True)
    assert frontier["snn"][0]["joules"] == pytest.approx(data["quoted"]["snn_J"])
    assert frontier["snn"][0]["layer_by_layer_J"] == pytest.approx(data["quoted_layer_by_layer"]["snn_J"])
    assert frontier["text"] in data["verdict"]
    assert data["accuracy"]["text"] in data["verdict"]
    again = energy(folder, None)
    assert again.frontier is not None
    assert again.frontier.as_dict() == frontier
    table = (folder / "report.html").read_text().partition('id="tradeoff-table"')[2].partition("</table>")[0]
    assert len(re.findall(r"<th scope=\"row\">", table)) == len(frontier["snn"]) + len(points)
    assert frontier["text"].startswith(data["headline"])


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


def at(name: str, kind: Any, right: int, joules: float, batched: float | None = None, samples: int = 1000) -> Point:
    decided = np.arange(samples) < right
    return Point(name, kind, "", 1, right / samples, joules, None, batched, right=decided)


ANNS = (at("twin", "ANN", 980, 4.0, 4.0), at("half", "ANN", 970, 1.0, 1.0), at("quarter", "ANN", 900, 0.5, 0.5))


def test_an_snn_is_held_against_the_cheapest_ann_of_its_accuracy() -> None:
    def against(right: int) -> tuple[str, float]:
        equal = against_equal_ann(at("a", "SNN", right, 2.0, 3.0), ANNS, "streaming")
        return equal.ann.name, equal.ratio

    assert against(975) == ("twin", 0.5)
    assert against(970) == ("half", 2.0)
    assert against(990) == ("twin", 0.5)  # none reaches it: the most accurate
    assert against_equal_ann(at("a", "SNN", 970, 2.0, 3.0), ANNS, "layer_by_layer").ratio == 3.0
    assert against_equal_ann(at("exit", "SNN", 970, 2.0), ANNS, "layer_by_layer").ratio == 2.0  # goes step by step


def test_the_range_follows_the_samples() -> None:
    """20 samples do not tell which ANN is equal; 10,000 do: then the range is one number."""
    few = [at(*row, samples=20) for row in (("snn", "SNN", 18, 2.0), ("a", "ANN", 19, 4.0), ("b", "ANN", 17, 1.0))]
    equal = against_equal_ann(few[0], few[1:], "streaming")
    assert (equal.ann.name, equal.ratio, equal.interval) == ("a", 0.5, (0.5, 2.0))
    assert sum(equal.shares.values()) == pytest.approx(1)
    assert 0.3 < equal.shares["b"] < 0.4  # no resample holds the one sample that the SNN alone has right: 0.95^20
    sure = [replace(point, right=np.tile(point.decided, 500)) for point in few]
    assert against_equal_ann(sure[0], sure[1:], "streaming").interval == (0.5, 0.5)


def test_both_sides_choose() -> None:
    """The SNN may lose the margin; whichever of its points costs least beside an equal ANN is the verdict's."""
    snn = (at("T = 4", "SNN", 979, 8.0, 6.0), at("T = 2", "SNN", 976, 4.0, 4.0), at("T = 1", "SNN", 940, 0.1, 0.1))
    frontier = Frontier(snn, ANNS, "layer_by_layer", 0.005)
    equal = frontier.at_equal_accuracy
    assert list(equal) == ["layer_by_layer", "streaming"]
    assert [(each.snn.name, each.ann.name, each.ratio) for each in equal.values()] == [("T = 2", "twin", 1.0)] * 2
    wider = Frontier(snn, ANNS, "layer_by_layer", 0.05).at_equal_accuracy["streaming"]
    assert (wider.snn.name, wider.ann.name, wider.ratio) == ("T = 1", "half", 0.1)
    assert all(len(part.split()) <= MOST_WORDS for part in " ".join(frontier.sentences).split(". "))


def test_each_ratio_at_equal_accuracy_names_its_own_snn() -> None:
    """An early exit may be cheapest streaming while fewer steps are layer by layer; and no ANN may be as accurate."""
    snn = (at("T = 4", "SNN", 979, 8.0, 6.0), at("T = 2", "SNN", 976, 4.0, 2.0), at("exit", "SNN", 976, 3.0))
    headline, networks = Frontier(snn, ANNS, "layer_by_layer", 0.005).sentences
    assert headline.startswith("Layer by layer the SNN (T = 2) costs")
    assert networks.index("The SNN: 2 J, 97.60 %") < networks.index("Streaming (exit)")
    headline, networks = Frontier((at("T = 4", "SNN", 990, 8.0, 6.0),), ANNS, "streaming", 0.005).sentences
    assert headline.endswith("the most accurate ANN.")
    assert networks.endswith("the most accurate ANN.")


@pytest.mark.parametrize(
    ("interval", "says"),
    [((0.5, 0.9), "the SNN costs less"), ((0.5, 1.0), "undecided"), ((1.1, 2.0), "the SNN costs more")],
)
def test_the_headline_says_what_the_whole_range_says(interval: tuple[float, float], says: str) -> None:
    equal = against_equal_ann(at("a", "SNN", 970, 2.0, 3.0), ANNS, "layer_by_layer")
    assert says in replace(equal, interval=interval).verdict.replace(" (a)", "")


def test_advice_is_the_cheapest_change_that_keeps_the_accuracy() -> None:
    tried = (at("T = 4", "SNN", 975, 8.0, 6.0), at("T = 2", "SNN", 971, 4.0, 5.0), at("T = 1", "SNN", 940, 1.0, 1.0))
    found = advise((*tried, at("until sure", "SNN", 975, 4.5)), 0.005, "layer_by_layer", 2.0)
    assert found is not None
    assert found.point is not None
    assert (found.point.name, found.ratio) == ("until sure", 2.25)
    alone = advise(tried[:1], 0.005, "streaming", 2.0)
    assert alone is not None
    assert (alone.point, alone.ratio) == (None, None)
    assert advise((), 0.005, "streaming", 2.0) is None


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
    assert alone.frontier.as_dict()["samples"] == len(zeros)
    (run_dir / "manifest.json").unlink()  # it has the hash of test.npz
    np.savez(run_dir / "test.npz", **few)
    whole, before = energy(run_dir, None), energy(small_run.run_dir, None)
    assert whole.frontier is not None
    assert before.frontier is not None
    assert whole.counts.batch == len(zeros)
    for side in ("snn", "ann"):
        there, here = (getattr(found.frontier, side) for found in (before, whole))
        assert [p.accuracy for p in here if p.margin is None] == [p.accuracy for p in there if p.margin is None]
    assert whole.accuracy == before.accuracy
    assert whole.frontier.ann[0].joules == pytest.approx(alone.frontier.ann[0].joules)


def test_more_samples_than_are_tried_are_compared_on_those_drawn(small_run: RunResult, tmp_path: Path) -> None:
    """The SNN's changes ran on 500 of them, the ANNs on all: numpy could not stack their decisions."""
    kept = np.load(small_run.run_dir / "test.npz")
    times = -(-600 // kept["x"].shape[1])
    np.savez(tmp_path / "many.npz", x=np.tile(kept["x"], (1, times, 1, 1, 1)), y=np.tile(kept["y"], times))
    report = energy(small_run.run_dir, tmp_path / "many.npz")
    assert report.frontier is not None
    assert {len(point.decided) for point in (*report.frontier.snn, *report.frontier.ann)} == {500}
    assert report.accuracy is not None
    assert report.accuracy.samples == times * kept["x"].shape[1]


def test_the_page_of_a_run_shows_its_learned_thresholds(small_run: RunResult, tmp_path: Path) -> None:
    kept = np.load(small_run.run_dir / "test.npz")
    np.savez(tmp_path / "few.npz", x=kept["x"][:, :5], y=kept["y"][:5])
    energy(small_run.run_dir, tmp_path / "few.npz", output=tmp_path / "out")
    assert '<figure id="thresholds">' in (tmp_path / "out" / "energy.html").read_text()
