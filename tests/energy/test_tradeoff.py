"""Accuracy against energy: the front, the points of a real network, and its page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stl_deploy.config.load import load_config
from stl_deploy.config.options import EnergyOptions, TradeoffOptions
from stl_deploy.data import load_dataset
from stl_deploy.energy import AnnTwin, measure_energy
from stl_deploy.energy.models.frontier import Point
from stl_deploy.energy.models.grid import LAYER_BY_LAYER, quoted
from stl_deploy.energy.prices.price_list import middle
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Operand, Program, Reshape, Scale
from stl_deploy.graph.readout import exit_steps, sureness
from stl_deploy.graph.run import run
from stl_deploy.pipeline.tradeoff import TradeoffPoint, ann_point, changes, pareto_front, snn_point
from stl_deploy.report.page.against_energy import render_pareto
from stl_deploy.runs.candidates import read_tradeoff
from stl_deploy.runs.configure import configure
from stl_deploy.runs.train import train
from stl_deploy.training.checkpoint import load_network, model_facts
from stl_deploy.training.evaluate import evaluate
from stl_deploy.verbs.weighing import tradeoff
from tests.energy.nets import f32, inputs, lif, linear, program, programs, start
from tests.energy.test_ann import NETWORK
from tests.energy.test_report import EVIL, Page
from tests.energy.test_verbs import main, spikes, write


def point(accuracy: float, joules: float, name: str = "p") -> Point:
    return Point(name, "SNN", "", 1, accuracy, joules)


def test_the_front_by_hand() -> None:
    cheap, good, beaten, twin = point(0.8, 1), point(0.9, 2), point(0.8, 1.5), point(0.9, 2, "twin")
    assert pareto_front([beaten, good, cheap, twin]) == (good, cheap, twin)


def test_points_of_unlike_samples_do_not_beat_each_other() -> None:
    """Unlike data sets shared one front, without a word."""
    good, elsewhere = replace(point(0.9, 1), samples="a"), replace(point(0.8, 2), samples="b")
    assert pareto_front([good, elsewhere]) == (good, elsewhere)
    assert pareto_front([good, replace(elsewhere, samples="a")]) == (good,)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=12))
def test_every_point_off_the_front_is_beaten_by_one_on_it(values: list[tuple[int, int]]) -> None:
    points = [point(a / 5, float(j), str(i)) for i, (a, j) in enumerate(values)]
    front = pareto_front(points)
    assert front
    for p in points:
        as_good = [f for f in front if f.accuracy >= p.accuracy and f.joules <= p.joules]
        assert as_good
        assert (p in front) == all((f.accuracy, f.joules) == (p.accuracy, p.joules) for f in as_good)


def test_every_number_of_steps_is_a_run_of_its_own(tmp_path: Path) -> None:
    net, x = write(tmp_path, spikes(), y=np.zeros(5, np.int64))
    found = tradeoff([Path(net)], Path(x), points_at=TradeoffOptions(over_steps=True))
    assert [p.steps for p in found.points] == [1, 2, 3, 4]
    program = lower(read_nir(Path(net)))
    for p in found.points:
        report = measure_energy(program, spikes()[: p.steps])
        chosen = quoted(report.comparisons)
        assert chosen is not None
        assert p.joules == middle(chosen.comparison.snn_J)
        assert p.accuracy == 1.0  # both outputs spike alike; the first wins


def test_what_the_input_is_coded_as_is_asked_of_all_its_steps_and_samples(tmp_path: Path) -> None:
    x = spikes()
    x[2:, 3:] /= 2  # the first steps, and the samples that stop there, hold only 0 and 1
    net, file = write(tmp_path, x, y=np.zeros(5, np.int64))
    graph = read_nir(Path(net))
    graph.nodes["fc"] = nir.Linear(np.array([[2, 0, 1], [0, 2, -1]], np.float32))
    graph.nodes["if"] = nir.IF(r=np.full(2, 1e4), v_threshold=np.ones(2))
    nir.write(net, graph)
    inferred = tradeoff([Path(net)], Path(file), points_at=TradeoffOptions(over_steps=True, early_exit=True))
    declared = tradeoff(
        [Path(net)],
        Path(file),
        points_at=TradeoffOptions(over_steps=True, early_exit=True),
        options=EnergyOptions(input_coding="analog"),
    )
    assert any(p.margin for p in inferred.points)
    assert inferred == declared


def test_a_twin_that_saw_every_frame_pays_for_every_frame() -> None:
    net = program(start((3,)), linear("a", "in", np.ones((2, 3))), lif("out_", "a", (2,)))
    candidate = TradeoffPoint("net", "", net, spikes(), np.zeros(5, np.int64))
    once, each = (AnnTwin(9 * n, 30 * n, 5 * n, "twin", 0.6, frames=n) for n in (1, 4))
    one, four = (ann_point("twin", candidate.program, twin) for twin in (once, each))
    assert (one.steps, four.steps) == (1, 4)
    assert four.joules == pytest.approx(4 * one.joules)
    told = measure_energy(net, spikes(), twin=each).as_dict()["ann_twin"]["text"]
    assert (
        told == "MACs on non-zero inputs, counted in the trained twin: of each of the 4 frames that its accuracy is of"
    )


@settings(max_examples=30)
@given(st.data())
def test_a_point_costs_the_joules_that_the_report_quotes(data: st.DataObject) -> None:
    """Bit for bit, though a point prices the two quoted accounts alone."""
    body = data.draw(programs())
    last = body.nodes[-2]
    flat = Reshape(
        name="flat",
        shape=(last_size := int(np.prod(last.shape)),),
        operands=(Operand(last.name),),
        input_shape=last.shape,
    )
    weights = np.arange(3 * last_size).reshape(3, last_size) - last_size
    net = program(*body.nodes[:-1], flat, linear("decide", "flat", weights), lif("fire", "decide", (3,)))
    x = data.draw(inputs(net))
    point = snn_point(TradeoffPoint("net", "", net, x, np.arange(x.shape[1]) % 3), len(x), None)
    cells = measure_energy(net, x).comparisons
    streaming, batched = quoted(cells), quoted(cells, LAYER_BY_LAYER)
    assert streaming is not None
    assert batched is not None
    assert (point.joules, point.layer_by_layer_J) == (middle(streaming.energy.snn_J), middle(batched.energy.snn_J))


def test_a_twin_is_priced_folded_on_both_axes_of_the_plot() -> None:
    """A scale behind weights is in them: the twin's point charged it as a layer, so the SNN's ratio came out lower."""
    scale = Scale(name="s", shape=(2,), operands=(Operand("a"),), scale=f32([0.5, 2]))
    net = program(start((3,)), linear("a", "in", np.ones((2, 3))), scale, lif("n", "s", (2,)))
    twin = AnnTwin(25, 40, 5, "twin", 0.6, by_layer={"a": 0.5, "s": 1.0})
    cell = quoted(measure_energy(net, spikes(), twin=twin).comparisons)
    assert cell is not None
    assert ann_point("twin", net, twin).joules == middle(cell.energy.ann_J)


def test_sureness_and_exit_steps_by_hand() -> None:
    program = Program((), 1.0)
    outputs = np.array([[[1, 0, 0], [0, 1, 1]], [[0, 0, 0], [0, 2, 0]], [[0, 4, 0], [0, 0, 0]]], np.float32)
    sure = sureness(program, outputs)
    np.testing.assert_allclose(sure, [[1, 0], [0.5, 1], [1, 2 / 3]])
    assert exit_steps(sure, 0.5).tolist() == [1, 2]
    assert exit_steps(sure, 1.0).tolist() == [1, 2]
    assert exit_steps(sure, 1.1).tolist() == [3, 3]
    largest = sureness(Program((), 1.0, metadata={"decision": "max"}), outputs)
    np.testing.assert_allclose(largest, [[1, 0], [1, 1], [3, 1]])
    outputs[0, 1] = 0
    first = sureness(Program((), 1.0, metadata={"decision": "first"}), outputs)
    np.testing.assert_allclose(first, [[1, 0], [1, 1], [1, 1]])
    last = sureness(Program((), 1.0, metadata={"readout": {"over_time": "last"}}), outputs)
    np.testing.assert_allclose(last, [[1, 0], [0, 2], [4, 0]])


def test_early_exit_sums_what_its_samples_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(3)
    x = (rng.random((4, 6, *spikes().shape[2:])) < 0.5).astype(np.float32)
    net, file = write(tmp_path, x, y=np.array([0, 1, 0, 1, 1, 0]))
    graph = read_nir(Path(net))
    graph.nodes["fc"] = nir.Linear(np.array([[2, 0, 1], [0, 2, -1]], np.float32))
    graph.nodes["if"] = nir.IF(r=np.full(2, 1e4), v_threshold=np.ones(2))
    nir.write(net, graph)
    out = tmp_path / "out"
    assert main(["energy", net, "-i", file, "--early-exit", "-o", str(out), "--json"]) == 0
    whole, *exits = json.loads(capsys.readouterr().out)["points"]
    assert whole["margin"] is None
    program = lower(read_nir(Path(net)))
    sure = sureness(program, run(program, x).y)
    assert [p["margin"] for p in exits] == sorted(set(np.quantile(sure[-1], (0.25, 0.5, 0.75))) - {0.0})
    for p in exits:
        after = exit_steps(sure, p["margin"])
        each = []
        for sample, steps in enumerate(after):
            chosen = quoted(measure_energy(program, x[:steps, [sample]]).comparisons)
            assert chosen is not None
            each.append(middle(chosen.comparison.snn_J))
        assert p["joules"] == pytest.approx(np.mean(each))
        assert p["steps"] == pytest.approx(after.mean(), abs=1e-3)
        assert p["joules"] <= whole["joules"]
    assert exits
    Page((out / "tradeoff.html").read_text())
    assert read_tradeoff(out / "tradeoff.json")["points"][1]["margin"] == exits[0]["margin"]


def test_several_networks_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, x = write(tmp_path, spikes(), y=np.array([0, 1, 0, 1, 1]))
    out = tmp_path / "out"
    assert main(["energy", net, net, "-i", x, "-o", str(out), "--json"]) == 0
    shown = capsys.readouterr()
    data = json.loads(shown.out)
    assert data == json.loads((out / "tradeoff.json").read_text())
    assert [p["accuracy"] for p in data["points"]] == [0.4, 0.4]
    Page((out / "tradeoff.html").read_text())
    assert "accuracy (measured)" in shown.err


def test_a_silent_network_among_several_has_that_word_beside_it(tmp_path: Path) -> None:
    """Its joules stood in the table, the page and the front as any other's."""
    net, x = write(tmp_path, 0 * spikes(), y=np.zeros(5, np.int64))
    found = tradeoff([Path(net), Path(net)], Path(x), output=tmp_path / "out")
    assert all(p.name.endswith(" (silent)") for p in found.points)
    assert "(silent)" in (tmp_path / "out" / "tradeoff.html").read_text()


def test_accuracy_needs_labels(tmp_path: Path) -> None:
    net, x = write(tmp_path, spikes())
    with pytest.raises(InputError, match="expected labels 'y' for accuracy against energy; found none"):
        tradeoff([Path(net)], Path(x), points_at=TradeoffOptions(over_steps=True))


def test_early_exit_and_accuracy_need_labels_of_samples_and_classes_to_choose(tmp_path: Path) -> None:
    steps = np.zeros((5, 4), np.int64)
    net, x = write(tmp_path, spikes(), y=steps)
    with pytest.raises(InputError, match="early exit needs one output and one label for each sample"):
        tradeoff([Path(net)], Path(x), points_at=TradeoffOptions(early_exit=True))
    with pytest.raises(InputError, match="energy depends on activity; give the input"):
        tradeoff([Path(net)], None, points_at=TradeoffOptions(over_steps=True))


def test_an_image_of_outputs_has_no_accuracy(tmp_path: Path) -> None:
    conv = nir.Conv2d((2, 2), np.ones((1, 1, 1, 1), np.float32), 1, 0, 1, 1, np.zeros(1, np.float32))
    neurons = nir.IF(r=np.full((1, 2, 2), 1e4), v_threshold=np.ones((1, 2, 2)))
    nir.write(tmp_path / "image.nir", nir.NIRGraph.from_list(conv, neurons))
    np.savez(tmp_path / "x.npz", x=np.ones((3, 5, 1, 2, 2), np.float32), y=np.zeros(5, np.int64))
    with pytest.raises(InputError, match=r"accuracy needs a network with one output, of shape \[classes\]"):
        tradeoff(
            [tmp_path / "image.nir"], tmp_path / "x.npz", dialect="spec", points_at=TradeoffOptions(over_steps=True)
        )


def test_a_network_without_weights_has_nothing_to_weigh(tmp_path: Path) -> None:
    nir.write(tmp_path / "if.nir", nir.NIRGraph.from_list(nir.IF(r=np.full(2, 1e4), v_threshold=np.ones(2))))
    np.savez(tmp_path / "x.npz", x=np.ones((3, 5, 2), np.float32), y=np.zeros(5, np.int64))
    with pytest.raises(InputError, match="the network has no weights; there is nothing to weigh"):
        tradeoff([tmp_path / "if.nir"], tmp_path / "x.npz", dialect="spec", points_at=TradeoffOptions(over_steps=True))


def test_labels_that_repeat_lose_no_class_where_samples_are_drawn() -> None:
    """Every second sample of alternating labels was of one class: a network that always decides for it got 100 %."""
    net = program(start((2,)), linear("a", "in", np.eye(2)))
    labels = np.arange(1000) % 2
    x = np.broadcast_to(f32([1, 0]), (2, 1000, 2))
    whole, *fewer = changes(TradeoffPoint("always class 0", "", net, x, labels), None)
    assert len(whole.decided) == 500
    assert 0.45 < whole.accuracy < 0.55
    assert all(np.array_equal(point.decided, whole.decided) for point in fewer)


def test_names_on_the_page_are_escaped() -> None:
    page = render_pareto([point(0.5, 1e-9, EVIL), point(0.6, 0.0, "_free")])
    assert page.count("<script") == 1  # its own, which sorts
    Page(page)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A spiking network and its ANN, only trained: no graph, no test images in their folders."""
    folder = tmp_path_factory.mktemp("study")
    for mode in ("stl", "ann"):
        train(configure("digits", (f"train.mode={mode}", "train.epochs=1", NETWORK)), folder / mode)
    return folder / "stl", folder / "ann"


def test_modes_of_a_study(study: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spiking, ann = study
    assert main(["energy", str(ann), str(spiking), "-o", str(tmp_path), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [(p["name"], p["mode"], p["steps"]) for p in data["points"]] == [("stl", "stl", 4), ("ann", "ann", 1)]
    point, twin = data["points"]
    config = load_config(spiking / "config.yaml")
    images = load_dataset(config.dataset).test
    network, _ = load_network(spiking)
    assert abs(point["accuracy"] - evaluate(network, images, config).accuracy) <= 2 / len(images)  # weights rounded
    assert twin["accuracy"] == model_facts(ann)["test"]["accuracy"]
    assert read_tradeoff(tmp_path / "tradeoff.json") == data


def test_what_a_trade_off_cannot_be_made_of(study: tuple[Path, Path], tmp_path: Path) -> None:
    spiking, ann = study
    with pytest.raises(InputError, match="found the ANN alone; give both"):
        tradeoff([ann])
    net, _ = write(tmp_path, spikes(), y=np.zeros(5, np.int64))
    assert main(["energy", str(spiking), net, "--prices", "odin"]) == 2
    (tmp_path / "tradeoff.json").write_text('{"points": [{"name": "x"}]}')
    with pytest.raises(InputError, match=r"not as stl_deploy\.verbs\.energy writes it"):
        read_tradeoff(tmp_path / "tradeoff.json")
