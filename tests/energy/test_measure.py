"""The energy JSON: its keys to the letter, the input coding, and bad input."""

from __future__ import annotations

import json
from dataclasses import replace

import nir
import numpy as np
import pytest

from stl_deploy._util.console import Console
from stl_deploy.energy import list_prices, measure_energy
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Neuron, Operand, Program
from stl_deploy.report.text.energy import show
from tests.energy.nets import conv, f32, lif, linear, pool, program, start

TAPPED = {
    "in_nonzero",
    "binary_input",
    "synops",
    "synops_nonzero_w",
    "synapses",
    "dense_macs_exact",
    "dense_macs_nominal",
    "bias_adds",
    "op",
}
NEURON = {"neurons", "neuron_updates", "neuron_updates_touched", "spikes"}
TAPPED |= {"weight_words", "bias_words", "weight_bits", "weight_bytes", "weight_reads", "bias_reads"}
TAPPED |= {"potential_reads", "potential_writes", "queue_reads", "queue_bits"}
TAPPED |= {f"weights_{zero}per_{often}" for zero in ("", "nonzero_") for often in ("step", "inference")}
NEURON |= {"leak_muls", "leak_shifts", "threshold_cmps", "resets"}
NEURON |= {"state_words", "state_bits", "state_bytes", "state_reads", "state_writes", "queue_writes", "queue_bits"}


def net(**metadata: object) -> Program:
    return program(
        start((1, 4, 4)),
        conv("c", "in", np.ones((2, 1, 3, 3)), (1, 4, 4), padding=((1, 1), (1, 1))),
        lif("n", "c", (2, 4, 4)),
        pool("p", "n", (2, 4, 4)),
        conv("d", "p", np.ones((1, 2, 2, 2)), (2, 2, 2)),
        lif("m", "d", (1, 1, 1)),
        metadata=metadata,
    )


def spikes(T: int = 3, B: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (T, B, 1, 4, 4)).astype(np.float32)


def test_the_keys_are_those_of_the_contract() -> None:
    data = json.loads(json.dumps(measure_energy(net(), spikes(), source="net.nir").as_dict(), allow_nan=False))
    assert set(data) == {
        "schema_version",
        "source",
        "headline",
        "T",
        "batch",
        "layers",
        "totals",
        "energy",
        "conventions",
        "models",
        "model_range",
        "verdict",
        "comparisons",
        "by_layer",
        "chips",
        "ann_baselines",
        "edges",
        "price_lists",
        "quoted",
        "quoted_layer_by_layer",
        "itemised",
        "spread",
        "sensitivity",
        "ann_twin",
        "per_sample",
        "neurobench",
        "placement",
        "not_placed",
        "leads",
        "break_even",
        "assumptions",
        "unpriced",
    }
    assert (data["source"], data["T"], data["batch"]) == ("net.nir", 3, 4)
    assert list(data["layers"]) == ["c", "n", "p", "d", "m"]
    assert set(data["layers"]["c"]) == set(data["layers"]["p"]) == TAPPED
    assert set(data["layers"]["d"]) == TAPPED | {"synops_pool_folded"}
    assert set(data["layers"]["n"]) == NEURON
    assert set(data["totals"]) == {
        "synops_AC",
        "synops_MAC",
        "synops",
        "dense_macs_exact",
        "dense_macs_nominal",
        "ann_macs_exact",
        "ann_macs_nominal",
        "bias_adds",
        "neuron_updates",
        "neuron_updates_touched",
        "spikes",
        "pool_events",
    }
    for counts in data["layers"].values():
        for key, value in counts.items():
            assert isinstance(value, str if key == "op" else bool if key == "binary_input" else int), key
    assert all(entry["label"] == "modelled" for entry in (*data["energy"], *data["conventions"]))
    for entry in data["energy"]:
        assert {"price", "scope", "source", "evidence"} <= set(entry)


def test_chunks_of_samples_change_nothing() -> None:
    assert measure_energy(net(), spikes(), chunk=1).as_dict() == measure_energy(net(), spikes(), chunk=99).as_dict()


def test_every_shipped_list_can_be_applied() -> None:
    data = measure_energy(net(), spikes(), prices=list_prices()).as_dict()
    assert len(data["energy"]) == len(list_prices())
    json.dumps(data, allow_nan=False)


def test_a_silent_network_reports_zeros_not_errors() -> None:
    data = measure_energy(net(), spikes() * 0).as_dict()
    assert data["totals"]["spikes"] == data["totals"]["synops"] == 0
    json.dumps(data, allow_nan=False)


@pytest.mark.parametrize(
    ("x", "metadata", "declared", "coding", "op"),
    [
        ([0, 1], {}, None, "spikes (inferred from the whole input: it holds only 0 and 1)", "AC"),
        ([0, 0.5], {}, None, "analog (inferred", "MAC"),
        ([0, 1], {"input_coding": "analog"}, None, "analog (as the graph's metadata declare)", "MAC"),
        ([0, 1], {"input_coding": "analog"}, "spikes", "spikes (as declared)", "AC"),
        ([0, 3], {}, "graded", "graded (as declared)", "MAC"),
    ],
)
def test_the_input_coding_and_where_it_comes_from(
    x: list[float], metadata: dict[str, object], declared: str | None, coding: str, op: str
) -> None:
    one = program(start((2,)), linear("l", "in", [[1, 1]]), metadata=metadata)
    report = measure_energy(one, f32([[x]]), input_coding=declared)
    assert any(coding in line for line in report.assumptions)
    assert report.counts.weighted["l"].op == op


@pytest.mark.parametrize(
    ("x", "declared", "sentence"),
    [
        ([0, 2], "spikes", r"coding is 'spikes' \(caller\) but the input holds 2; spikes are 0 or 1"),
        ([0, 0.5], "graded", r"coding is 'graded' \(caller\) but the input holds 0.5; graded events carry integers"),
        ([0, 1], "rate", r"input coding \(caller\): expected spikes, graded, analog; found 'rate'"),
    ],
)
def test_an_input_that_contradicts_its_coding_is_refused(x: list[float], declared: str, sentence: str) -> None:
    one = program(start((2,)), linear("l", "in", [[1, 1]]))
    with pytest.raises(InputError, match=sentence):
        measure_energy(one, f32([[x]]), input_coding=declared)


def test_a_nir_graph_is_counted_node_by_node_under_its_own_names() -> None:
    ones = np.ones((2, 4, 4), np.float32)
    graph = nir.NIRGraph(
        nodes={
            "input": nir.Input(input_type={"input": np.array([1, 4, 4])}),
            "conv": nir.Conv2d((4, 4), np.ones((2, 1, 3, 3), np.float32), 1, 1, 1, 1, np.zeros(2, np.float32)),
            "lif": nir.LIF(tau=ones, r=ones, v_leak=0 * ones, v_threshold=ones),
            "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
            "max": nir.Threshold(0.5 * ones[:, :2, :2]),
            "flat": nir.Flatten({"input": np.array([2, 2, 2])}, start_dim=0),
            "fc": nir.Linear(np.ones((3, 8), np.float32)),
            "output": nir.Output(output_type={"output": np.array([3])}),
        },
        edges=[
            ("input", "conv"),
            ("conv", "lif"),
            ("lif", "pool"),
            ("pool", "max"),
            ("max", "flat"),
            ("flat", "fc"),
            ("fc", "output"),
        ],
    )
    # dt/tau is 1: no leak between steps is left, and an event counts whole
    lowered = lower(graph, Dialect(dt=1.0, compare="ge"))
    x = np.zeros((2, 1, 1, 4, 4), np.float32)
    x[0, 0, 0, 0, 0] = 1  # reaches a 2x2 corner of both channels: 8 spikes, one window each channel
    data = measure_energy(lowered, x).as_dict()
    assert list(data["layers"]) == ["conv", "lif", "pool", "max", "fc"]
    assert data["layers"]["conv"]["synops"] == 8
    assert data["layers"]["lif"]["spikes"] == 8
    assert data["layers"]["pool"]["synops"] == data["totals"]["pool_events"] == 8
    assert (
        data["layers"]["fc"].items()
        >= {
            "in_nonzero": 2,
            "binary_input": True,
            "synops": 6,
            "synops_nonzero_w": 6,
            "synapses": 24,
            "dense_macs_exact": 48,
            "dense_macs_nominal": 48,
            "bias_adds": 0,
            "op": "AC",
            "synops_pool_folded": 24,
            "weight_reads": 6,
            "potential_writes": 6,
            "queue_reads": 2,
            "weight_bytes": 96,
        }.items()
    )
    assert data["totals"]["synops"] == 14


def test_edges_without_weights_are_said_to_cost_nothing() -> None:
    first, second = lif("n", "in", (2,)), replace(lif("m", "a", (2,)), operands=(Operand("a"), Operand("n")))
    skip = program(start((2,)), first, linear("a", "n", np.ones((2, 2))), second)
    lines = measure_energy(skip, f32(np.ones((2, 1, 2)))).assumptions
    assert [line for line in lines if line.startswith("Edges without weights (in to n, n to m) cost nothing here")]
    plain = program(start((2,)), linear("a", "in", np.ones((2, 2))), lif("n", "a", (2,)))
    assert not any("without weights" in line for line in measure_energy(plain, f32(np.ones((2, 1, 2)))).assumptions)


@pytest.mark.parametrize(("back", "loops"), [("n", True), ("in", False)])
def test_loops_are_named_in_the_assumptions_and_mere_delays_are_not(back: str, loops: bool) -> None:
    cell = lif("n", "in", (1,))
    late = Neuron(**{**vars(cell), "operands": (Operand("in"), Operand(back, delay=1))})
    lines = measure_energy(program(start((1,)), late), f32([[[1]], [[0]]])).assumptions
    assert any("has loops" in line for line in lines) == loops


def test_no_time_steps_are_refused() -> None:
    with pytest.raises(InputError, match="T, B >= 1"):
        measure_energy(net(), spikes(T=0))


def test_samples_differ_and_classes_are_told_apart() -> None:
    net = program(start((2,)), linear("l", "in", np.ones((3, 2))), lif("n", "l", (3,)))
    x = f32([[[1, 1], [1, 0], [0, 0]]])
    labels = np.array([7, 7, 2])
    data = measure_energy(net, x, labels=labels, chunk=2).as_dict()
    assert data["per_sample"]["synops_AC"] == {"mean": 3, "std": pytest.approx(6**0.5), "min": 0, "max": 6}
    assert data["per_sample"]["spikes"]["mean"] == 2
    assert list(data["per_class"]) == ["2", "7"]
    assert data["per_class"]["7"]["samples"] == 2
    assert data["per_class"]["7"]["synops_AC"] == {"mean": 4.5, "std": 1.5, "min": 3, "max": 6}
    assert data["per_class"]["2"]["spikes"]["max"] == 0
    assert "per_class" not in measure_energy(net, x).as_dict()


def test_samples_that_lack_classes_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    net = program(start((2,)), linear("l", "in", np.ones((3, 2))), lif("n", "l", (3,)))
    x = f32([[[1, 1], [1, 0], [0, 0]]])
    lacking = "The 3 samples counted are of 1 of 3 classes, so other classes may cost more or less"
    report = measure_energy(net, x, labels=np.array([2, 2, 2]))
    assert any(line.startswith(lacking) for line in report.as_dict()["assumptions"])
    show(report, Console())
    assert lacking in " ".join("".join(capsys.readouterr()).split())
    for labels in (np.array([2, 0, 1]), np.array([0, 0]), None):  # two samples cannot be of three classes
        few = x if labels is None else x[:, : len(labels)]
        assert not measure_energy(net, few, labels=labels).one_sided
    two = measure_energy(net, x, labels=np.array([2, 0, 2]))
    assert two.one_sided.startswith("The 3 samples counted are of 2 of 3 classes")


@pytest.mark.parametrize("chunk", [1, 2, 99])
def test_samples_add_up_to_the_totals(chunk: int) -> None:
    data = measure_energy(net(), spikes(), chunk=chunk).as_dict()
    for measure in ("synops_AC", "synops_MAC", "spikes"):
        assert data["per_sample"][measure]["mean"] * data["batch"] == pytest.approx(data["totals"][measure])
