"""Verify finds exactly what was changed, and says so."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from stl_deploy.errors import InputError, ParityError
from stl_deploy.graph.compare import compare
from stl_deploy.graph.margins import Margin, UlpMargins
from stl_deploy.graph.program import Input, Operand, Output, Program
from stl_deploy.graph.readout import accuracy
from stl_deploy.graph.run import Result, run
from stl_deploy.pipeline.parity import LAYER_HEADER, RUN_HEADER, ParityReport, layer_rows, run_rows
from tests.drawn import examples
from tests.exporters.onnx.nets import chain, digits, neuron, spikes
from tests.graph.cells import cell

NODES = ["lif1", "max", "lif2"]


@pytest.fixture(scope="module")
def net():
    program, x = digits(), spikes(6, 5, 1, 6, 6)
    return program, x, run(program, x, record=NODES)


def verify(program, runs, labels=None, near=None, x=None):
    """Every run against the one called nir."""
    near = None if near is None else near.counts
    found = tuple(
        compare(program, runs["nir"], run, name, x=x, near=near, against="nir", accuracy=accuracy(program, run, labels))
        for name, run in runs.items()
        if name != "nir"
    )
    return ParityReport("nir", accuracy(program, runs["nir"], labels), found)


def flipped(result, node, *places):
    """A copy of the result with spikes of one node turned round."""
    array = result.recorded[node].copy()
    for at in places:
        array[at] = 1 - array[at]
    return replace(result, recorded={**result.recorded, node: array})


def test_equal_runs(net):
    program, _, result = net
    report = verify(program, {"nir": result, "onnx": result})
    (onnx,) = report.runs
    assert onnx.exact
    assert [node.node for node in onnx.nodes] == NODES
    assert onnx.compared == 6 * 5 * (4 * 36 + 4 * 9 + 3)
    assert (onnx.differing, onnx.agreement, onnx.first) == (0, 1.0, None)
    report.require()


@examples(50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_spike_is_found_where_it_is(data, net):
    program, _, result = net
    node = data.draw(st.sampled_from(NODES))
    at = tuple(data.draw(st.integers(0, size - 1)) for size in result.recorded[node].shape)
    report = verify(program, {"nir": result, "onnx": flipped(result, node, at)})
    (onnx,) = report.runs
    assert {found.node: found.differing for found in onnx.nodes} == {name: int(name == node) for name in NODES}
    first = onnx.first
    assert (first.node, first.step, first.sample, first.neuron) == (node, at[0], at[1], at[2:])
    assert (first.expected, first.found) == (result.recorded[node][at], 1 - result.recorded[node][at])
    assert not onnx.exact
    with pytest.raises(
        ParityError, match=rf"^onnx: 1 of 5,490 spikes differ from nir, first in '{node}', step {at[0]}"
    ):
        report.require()


def test_the_root_is_the_earliest_step_then_the_first_layer(net):
    program, _, result = net
    later = flipped(result, "lif1", (3, 0, 0, 0, 0))
    both = flipped(later, "lif2", (2, 4, 1), (2, 3, 2), (5, 0, 0))
    (onnx,) = verify(program, {"nir": result, "onnx": both}).runs
    assert (onnx.first.node, onnx.first.step, onnx.first.sample, onnx.first.neuron) == ("lif2", 2, 3, (2,))
    same_step = flipped(flipped(result, "lif2", (3, 0, 0)), "lif1", (3, 4, 3, 5, 5))
    (onnx,) = verify(program, {"nir": result, "onnx": same_step}).runs
    assert onnx.first.node == "lif1"


def test_a_run_that_lacks_nodes_is_not_compared_there(net):
    program, _, result = net
    loihi = Result(result.outputs, {"lif2": result.recorded["lif2"]})
    report = verify(program, {"nir": result, "loihi": loihi})
    (parity,) = report.runs
    assert parity.compared == result.recorded["lif2"].size
    assert not parity.exact
    assert [row[2] for row in layer_rows(report)] == ["not compared", "not compared", "90"]
    assert parity.nodes[0].agreement is None
    with pytest.raises(ParityError, match=r"^loihi: node 'lif1' was not recorded, so its spikes cannot be compared"):
        report.require()
    replace(report, runs=(replace(parity, required=False),)).require()


def test_without_spiking_nodes_the_outputs_are_judged():
    program = chain((3,), neuron(threshold=None))
    result = run(program, spikes(4, 2, 3))
    verify(program, {"nir": result, "onnx": result}).require()
    y = result.y.copy()
    y[2, 1, 0] += 0.5
    report = verify(program, {"nir": result, "onnx": Result({"output": y}, {})})
    assert report.runs[0].outputs[0].largest == 0.5
    with pytest.raises(
        ParityError, match=r"^onnx: outputs differ from nir, first in 'output', step 2, sample 1, neuron"
    ):
        report.require()


def test_accuracy_is_the_greatest_sum_over_time():
    program = chain((2,), neuron(threshold=None, decay=None))
    y = np.zeros((3, 2, 2), np.float32)
    y[:, 0] = [[5, 0], [0, 3], [0, 3]]
    y[:, 1] = [[1, 0], [0, 0], [0, 0]]
    result = Result({"output": y}, {})
    for labels, expected in ([1, 0], 1.0), ([1, 1], 0.5), ([0, 1], 0.0):
        report = verify(program, {"nir": result, "onnx": result}, labels=np.array(labels))
        assert report.accuracy == report.runs[0].accuracy == expected
    assert verify(program, {"nir": result}).accuracy is None


def test_margin_where_runs_part_is_the_reference_potential_before_reset():
    # v: 1.5 fires -> 0 | 1 fires (ge) -> 0 | .5 | .25 + .5 = .75
    program = chain((1,), neuron(compare="ge"))
    x = np.array([1.5, 1, 0.5, 0.5])[:, None, None]
    result = run(program, x, record=["lif"])
    for step, potential in enumerate([1.5, 1.0, 0.5, 0.75]):
        report = verify(program, {"nir": result, "onnx": flipped(result, "lif", (step, 0, 0))}, x=x)
        margin = report.runs[0].first.margin
        assert (margin.potential, margin.threshold) == (potential, 1.0)
        assert margin.ulps == (potential - 1) * 2**23
    assert str(report.runs[0].first).endswith(", potential -0.25 from the threshold of 1")


@pytest.mark.parametrize(
    ("ulps", "said"),
    [
        (0, "potential at the threshold of 1"),
        (-2, "potential -2 ulp from the threshold of 1"),
        (1000, "potential +1000 ulp from the threshold of 1"),
        (1001, "potential +0.000119 from the threshold of 1"),
    ],
)
def test_a_margin_is_told_in_ulp_only_where_it_may_be_rounding(ulps, said):
    assert str(Margin(1 + ulps * 2.0**-23, 1.0, ulps)) == said


def test_margin_of_several_spikes_is_to_the_nearest_multiple():
    program = chain((1,), neuron(threshold=0.5, reset="subtract", multi_spike=True))
    x = np.array([[[1.4]]])
    result = run(program, x, record=["lif"])
    report = verify(program, {"nir": result, "onnx": flipped(result, "lif", (0, 0, 0))}, x=x)
    assert report.runs[0].first.margin.threshold == 1.5


def test_near_threshold_counts_potentials_within_some_ulp():
    # one neuron each: far, exactly at, 3 ulp below, 5 ulp above
    one = np.float32(1)
    close = [0.5, 1.0, one - 3 * np.spacing(one), one + 5 * np.spacing(one)]
    program = chain((4,), neuron(decay=None))
    x = np.array(close, np.float32)[None, None].repeat(2, axis=0)
    near, wide, chunked = UlpMargins(), UlpMargins(ulps=5), UlpMargins()
    result = run(program, x, record=["lif"], observe=near)
    run(program, x, observe=wide)
    run(program, np.concatenate([x, x], axis=1), observe=chunked, chunk=1)
    assert (near.counts, wide.counts, chunked.counts) == ({"lif": 4}, {"lif": 6}, {"lif": 8})
    report = verify(program, {"nir": result, "onnx": result}, near=near)
    assert report.runs[0].nodes[0].near_threshold == 4


def test_rows_and_json_say_the_same(net):
    program, x, result = net
    near = UlpMargins()
    run(program, x, observe=near)
    labels = np.array([0, 1, 2, 0, 1])
    runs = {"nir": result, "onnx": result, "loihi": flipped(result, "lif1", (0, 0, 0, 0, 0))}
    report = verify(program, runs, labels=labels, near=near, x=x)
    data = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert [run["run"] for run in data["runs"]] == ["onnx", "loihi"]
    assert data["runs"][1]["first"]["neuron"] == [0, 0, 0]
    assert data["runs"][1]["nodes"][0]["differing"] == 1
    rows = layer_rows(report)
    assert all(len(row) == len(LAYER_HEADER) for row in rows)
    assert rows[0][:5] == ("onnx", "lif1", "4,320", "0", "100.00 %")
    assert rows[3][4] == "99.98 %"
    assert rows[3][6].startswith("'lif1', step 0, sample 0, neuron [0, 0, 0]: expected ")
    summary = run_rows(report)
    assert all(len(row) == len(RUN_HEADER) for row in summary)
    assert [row[0] for row in summary] == ["nir", "onnx", "loihi"]
    assert summary[0][4] == summary[1][4] == f"{100 * report.accuracy:.2f} %"


@pytest.mark.parametrize("found", [np.nan, np.inf])
def test_numbers_that_json_has_not_are_null(net, found):
    program, _, result = net
    y = {name: np.full_like(array, found) for name, array in result.outputs.items()}
    spikes = {name: np.full_like(array, found) for name, array in result.recorded.items()}
    run = verify(program, {"nir": result, "onnx": Result(y, spikes)}).as_dict()["runs"][0]
    json.dumps(run, allow_nan=False)
    assert run["first"]["found"] is run["nodes"][0]["largest"] is run["outputs"][0]["largest"] is None


def test_outputs_of_a_cell_of_several_have_no_margin():
    both = cell("c", [("x", Operand("x"), (1,))], ["f:bool = gt x a", "s = cast f", "g:bool = gt x b", "t = cast g"],
                constants=[("a", np.float32(0.5)), ("b", np.float32(0.7))], outputs=["s", "t"])  # fmt: skip
    ends = (Input(name="x", shape=(1,), operands=()), Output(name="y", shape=(2,), operands=(Operand("c"),)))
    program, x = Program((ends[0], both, ends[1]), 1.0), np.full((1, 1, 1), 0.6, np.float32)
    result = run(program, x, record=["c"])
    report = verify(program, {"nir": result, "onnx": flipped(result, "c", (0, 0, 0))}, x=x)
    assert report.runs[0].first.margin is None


def test_never_100_percent_for_less():
    program = chain((100_000,), neuron())
    zeros = np.zeros((1, 1, 100_000), np.float32)
    result = Result({"output": zeros}, {"lif": zeros})
    report = verify(program, {"nir": result, "onnx": flipped(result, "lif", (0, 0, 7))})
    assert layer_rows(report)[0][4] == "> 99.99 %"


def test_runs_on_different_inputs(net):
    program, x, result = net
    other = run(program, x[:, :2], record=NODES)
    with pytest.raises(
        InputError, match=r"run 'onnx' has shape \[6, 2, 4, 6, 6\] for node 'lif1', the reference \[6, 5,"
    ):
        verify(program, {"nir": result, "onnx": other})
