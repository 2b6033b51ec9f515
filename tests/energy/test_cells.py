"""Cells cost the operations of their step, as a Neuron's equations do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stl_deploy as stl
from stl_deploy.energy import measure_energy
from stl_deploy.energy.counts.neuron_ops import NeuronOps, neuron_ops, node_ops
from stl_deploy.energy.counts.record import NeuronCounts
from stl_deploy.graph.program import Adaptation, Neuron, Operand, Program, Synapse
from stl_deploy.graph.run import run
from tests.drawn import examples
from tests.energy.close import approx
from tests.energy.nets import f32, inputs, linear, program, start
from tests.energy.test_batches import same
from tests.energy.test_verbs import main
from tests.graph import cells
from tests.tracing.neurons import KINDS, Net

N = 4


def test_operations_by_hand() -> None:
    """Two leaks, the drive's factor and a·v; four sums a step and one a spike; θ, the counter and its bound."""
    ops = neuron_ops(cells.adaptive())
    assert ops == NeuronOps(leak_muls=12, adds=12, compares=9, adds_per_spike=1, resets=True)


def test_joules_by_hand() -> None:
    x = cells.drive()
    report = measure_energy(cells.feed_forward(), x)
    spikes = int(cells.by_hand(x @ cells.feed_forward().by_name["w_in"].weight.T).sum())
    layer = report.as_dict()["layers"]["cell"]
    assert (layer["spikes"], layer["neurons"], layer["neuron_updates"]) == (spikes, 3, 3 * 20 * 4)
    assert (layer["state_words"], layer["state_reads"]) == (3, 3 * 3 * 20 * 4)
    per_sample = 20 * (12 * 3.7 + 21 * 0.9) + (spikes + 3 * np.count_nonzero(x)) / 4 * 0.9
    priced = next(entry for entry in report.energy if entry.prices.name == "horowitz45_fp32")
    assert priced.snn is not None
    assert priced.snn.total[0] == approx(per_sample * 1e-12)


@pytest.mark.parametrize("net", [cells.feed_forward(), cells.recurrent()], ids=["feed-forward", "recurrent"])
def test_a_batch_eight_times_costs_the_same_an_inference(net: Program) -> None:
    same(net, cells.drive())


def test_look_ups_and_divisions() -> None:
    lines = ["late = sigmoid x", "share = div one x", "half = div x two", "sum = add late share", "y = add sum half"]
    constants = (("one", np.float32(1)), ("two", np.float32(3)))
    graded = cells.cell("cell", [("x", Operand("in"), (N,))], lines, constants=constants, outputs=("y",))
    assert neuron_ops(graded) == NeuronOps(lookups=N, divs=N, other_muls=N, adds=2 * N)
    report = measure_energy(program(start((N,)), graded), np.ones((2, 3, N), np.float32), input_coding="analog")
    bill = {entry.prices.name: entry.snn for entry in report.energy}["horowitz45_fp32"]
    assert bill is not None
    by_term = {line.term: line for line in bill.lines}
    assert by_term["lookup"].count == by_term["div"].count == 2 * N
    assert by_term["lookup"].price.low == approx(5e-12)  # half of a 64-bit access to 8 KB
    assert by_term["div"].price.low == approx(5e-12 + 3.7e-12)


SPIKES = {
    "signed": (["up:bool = gt x one", "down:bool = lt x less", "u = cast up", "d = cast down", "s = sub u d"], "AC", 1),
    "sized": (["up:bool = gt x one", "u = cast up", "s = mul u size"], "MAC", 32),
    "counted": (["y = max x none", "s = floor y"], "MAC", 32),
    "graded": (["s = max x none"], "MAC", 32),
}


@pytest.mark.parametrize("kind", SPIKES)
def test_values_of_cells_are_events_as_they_are(kind: str) -> None:
    lines, op, bits = SPIKES[kind]
    constants = {"one": f32(1), "less": f32(-1), "size": f32(0.7), "none": f32(0)}
    made = cells.cell("cell", [("x", Operand("in"), (N,))], lines, constants=tuple(constants.items()), outputs=("s",))
    net = program(start((N,)), made, linear("w", "cell", [[0.5] * N, [1.0] * N]))
    x = np.random.default_rng(0).normal(0, 2, (5, 3, N)).astype(np.float32)
    y = run(net, x, record=["cell"]).recorded["cell"]
    events, carried = np.count_nonzero(y), np.abs(y).sum()
    report = measure_energy(net, x, input_coding="analog")
    shown = report.as_dict()["layers"]
    assert shown["w"]["op"] == op
    assert shown["w"]["synops"] == 2 * events
    assert shown["cell"]["queue_writes"] == events
    assert shown["cell"]["spikes"] == {"graded": 0, "counted": carried}.get(kind, events)
    assert shown["cell"]["queue_bits"] == shown["w"]["queue_bits"] == 2 + bits
    assert report.idle is None
    assert (report.break_even.spike_rate is None) is (kind == "graded")
    assert any("cell" in line and "event" in line for line in report.assumptions)
    assert "no neuron fires" not in report.verdict


def test_a_straight_through_gradient_costs_nothing() -> None:
    lines = ["f:bool = gt x one", "s = cast f"]
    gradient = ["least = max x none", "b = min least one", "e = sub s b", "y = add e b"]
    constants = (("one", np.float32(1)), ("none", np.float32(0)))
    made = [
        cells.cell("cell", [("x", Operand("in"), (N,))], of, constants=constants, outputs=(of[-1][0],))
        for of in (lines, [*lines, *gradient])
    ]
    assert neuron_ops(made[0]) == neuron_ops(made[1])


@st.composite
def neurons(draw: st.DrawFn) -> Neuron:
    several = draw(st.booleans())
    adapts = not several and draw(st.booleans())
    reset = draw(st.sampled_from(["value", "subtract", "none", *([] if several else ["subtract_delayed"])]))
    subtracts = draw(st.sampled_from(["baseline", "adapted"]))
    factor = st.sampled_from([f32(0.9), f32(0.5), f32(0.75), f32([0.5, 0.8, 0.9, 0.7])])
    return Neuron(
        name="cell",
        shape=(N,),
        operands=(Operand("w"),),
        decay=draw(factor),
        threshold=f32(0.7),
        reset=draw(st.just(reset)),
        v_reset=draw(st.sampled_from([None, f32(-0.25)])),
        v_min=draw(st.sampled_from([None, f32(-1)])),
        synapse=draw(st.sampled_from([None, Synapse("euler", f32(0.8), None), Synapse("exp_add", f32(0.5), None)])),
        compare=draw(st.sampled_from(["gt", "ge"])),
        multi_spike=several,
        cap=draw(st.sampled_from([None, 3])) if several else None,
        rounding=draw(st.sampled_from(["down", "half_up", "half_even"])) if several else "down",
        adaptation=Adaptation(draw(factor), f32(0.2), subtracts) if adapts else None,
    )


def written(node: Neuron) -> cells.Cell:
    """Write a neuron's equations down, operation by operation."""
    zeros = np.zeros(N, np.float32)
    states = [("v", "v_next", zeros)]
    constants = {"decay": node.decay, "theta": node.threshold, "none": f32(0), "half": f32(0.5)}
    lines, x = [], "x"
    if node.synapse is not None:
        faded = ["fade = mul i rho", "i_next = add fade x"]
        lines += faded if node.synapse.rule == "euler" else ["sum = add i x", "i_next = mul sum rho"]
        states += [("i", "i_next", zeros)]
        constants["rho"], x = node.synapse.decay, "i_next"
    lines += ["leak = mul v decay", f"charged = add leak {x}"]
    level, v = "theta", "charged"
    if node.adaptation is not None:
        constants |= {"slow": node.adaptation.decay, "jump": node.adaptation.jump}
        lines += ["level = add a theta"]
        level = "level"
    taken = level if node.adaptation is not None and node.adaptation.subtracts == "adapted" else "theta"
    if node.reset == "subtract_delayed":
        lines += [f"due = mul s_before {taken}", f"less = sub {v} due"]
        states, v = [*states, ("s_before", "s", zeros)], "less"
    if node.v_min is not None:
        lines, v, constants["v_min"] = [*lines, f"kept = max {v} v_min"], "kept", node.v_min
    if node.multi_spike:
        rounded = {
            "down": ["q1 = trunc q"],
            "half_up": ["q0 = add q half", "q1 = floor q0"],
            "half_even": ["q1 = round q"],
        }
        lines += [f"q = div {v} {level}", *rounded[node.rounding], "s0 = max q1 none"]
        lines, constants["cap"] = [*lines, "s = min s0 cap"], f32(1e9 if node.cap is None else node.cap)
    else:
        lines += [f"f:bool = {node.compare} {v} {level}", "s = cast f"]
    if node.adaptation is not None:
        lines += ["rest = mul a slow", "more = mul s jump", "a_next = add rest more"]
        states += [("a", "a_next", zeros)]
    if node.reset == "value":
        constants["v_reset"] = f32(0) if node.v_reset is None else node.v_reset
        lines += ["fired:bool = gt s none", f"v_next = where fired v_reset {v}"]
    elif node.reset == "subtract":
        lines += [f"off = mul s {taken}", f"v_next = sub {v} off"]
    else:
        states[0] = ("v", v, zeros)
    operands = [("x", node.operands[0], (N,))]
    return cells.cell("cell", operands, lines, states=states, constants=tuple(constants.items()), outputs=("s",))


@given(neurons())
def test_a_neuron_written_as_a_cell_takes_the_same_operations(node: Neuron) -> None:
    counted = NeuronCounts(N, 10 * N, 10 * N, spikes=7, events=5)
    for numbers in ("integer", "float"):
        assert node_ops(written(node), counted, numbers) == node_ops(node, counted, numbers)


@examples(15)
@given(neurons(), st.data())
def test_a_neuron_written_as_a_cell_costs_the_same(node: Neuron, data: st.DataObject) -> None:
    weight = [[0.5, 1.0, -0.5], [1.0, 0.0, 1.0], [0.25, 1.0, 0.5], [1.0, 1.0, 1.0]]
    net = [program(start((3,)), linear("w", "in", weight), either) for either in (node, written(node))]
    x = data.draw(inputs(net[0]))
    known, found = (measure_energy(each, x, input_coding="analog").as_dict() for each in net)
    for key in ("totals", "comparisons", "models", "conventions", "neurobench", "sensitivity", "break_even"):
        assert found[key] == known[key], key


def test_command_line_and_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = (np.random.default_rng(1).random((12, 3, 8)) < 0.5).astype(np.float32)
    net = stl.capture(Net(KINDS["adLIF"], recurrent=True), torch.from_numpy(x), progress=False)
    net.export(tmp_path / "net.program")
    np.savez(tmp_path / "x.npz", x=x)
    bill = net.energy(x)
    files = [str(tmp_path / "net.program"), "-i", str(tmp_path / "x.npz"), "-o", str(tmp_path / "out")]
    assert main(["energy", *files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for key in ("totals", "layers", "comparisons"):
        assert found[key] == json.loads(json.dumps(bill.as_dict()[key])), key
    assert found["quoted"] is not None
    assert not found["chips"]
