"""Random integer graphs of every node kind: the simulated Verilog against the integer model, every spike."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy.errors import ToolError, UnsupportedError
from stl_deploy.exporters.verilog.clocks import clocks_of
from stl_deploy.exporters.verilog.devices import DEVICES
from stl_deploy.exporters.verilog.lower import make_plan
from stl_deploy.exporters.verilog.plan import recorded
from stl_deploy.exporters.verilog.render import PREFIX, render
from stl_deploy.exporters.verilog.simulator import MISSING, Simulation, simulators
from stl_deploy.graph.program import Node, Operand, Reshape
from stl_deploy.integers.graph import (
    ConvNode,
    DenseNode,
    GainNode,
    IntegerGraph,
    IntegerInput,
    IntegerLI,
    IntegerLIF,
    IntegerOutput,
    MaxPoolNode,
    SumPoolNode,
)
from stl_deploy.integers.net import WIDE, IntegerNeuron
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import About
from tests.exporters.c.graphs import Grower

needs_simulator = pytest.mark.skipif(not simulators(), reason=MISSING)
SIZE, CLOCKS = 2000, 40_000
"""Graphs that would take more are left out: Icarus runs some 20,000 a second."""


def grown(seed: int, several: bool) -> tuple[Simulation, Any] | None:
    """A random graph's design and input, or None where its sums do not fit or it takes long."""
    graph, x = Grower(seed, several=several, starts=False).grow()  # which Verilog refuses
    graph, x = IntegerGraph(graph.nodes, WIDE), x[:4, :2]
    layers = [node for node in graph.nodes if isinstance(node, IntegerLIF | IntegerLI)]
    if sum(int(np.prod(node.shape)) for node in graph.nodes) > SIZE:
        return None
    largest = max(int(np.prod(node.shape)) for node in layers)
    able = [lanes for lanes in (1, 2, 4, 8, 16) if lanes <= largest]
    try:
        simulate(graph, x[:1, :1])
        plan = make_plan(graph, able[seed % len(able)])
    except UnsupportedError:
        return None
    if Simulation({}, plan).clocks_at_most * x.shape[0] * x.shape[1] > CLOCKS:
        return None
    return Simulation(render(plan, About(prefix=PREFIX)), plan), x


def differing(design: Simulation, x: Any, **options: Any) -> int:
    """Spikes and outputs that are not the model's."""
    (ours, _), model = design.run(x, **options), recorded(design.plan, x)
    assert set(ours.spikes) == set(model.spikes)
    spikes = sum(int((ours.spikes[name] != model.spikes[name]).sum()) for name in model.spikes)
    return spikes + int((ours.y != model.y).sum())


@cache
def cheap(first: int, count: int, *, several: bool = False) -> list[tuple[int, Simulation, Any]]:
    """So many graphs from a seed on."""
    found: list[tuple[int, Simulation, Any]] = []
    seed = first
    while len(found) < count:
        one = grown(seed, several)
        if one is not None:
            found.append((seed, *one))
        seed += 1
    return found


def loaded(design: Simulation) -> Simulation:
    """The same, with weights that are filled in after configuration."""
    plan = replace(design.plan, device=DEVICES["up5k"])
    return Simulation(render(plan, About(prefix=PREFIX)), plan)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """50 graphs; `make explore` compares 500."""
    if "block" in metafunc.fixturenames:
        explores = metafunc.config.getoption("hypothesis_profile", None) == "explore"
        metafunc.parametrize("block", range(50 if explores else 5))


@pytest.mark.push(2)
@needs_simulator
@pytest.mark.hypothesis
def test_every_spike_is_the_integer_models(block: int) -> None:
    for seed, design, x in cheap(1000 * block, 10):
        same = loaded(design) if seed % 5 == 0 else design
        assert differing(same, x, pressure=seed if seed % 2 else None) == 0, seed


@pytest.mark.push(2)
@needs_simulator
@pytest.mark.hypothesis
def test_every_count_is_the_integer_models(block: int) -> None:
    for seed, design, x in cheap(1000 * block, 8, several=True):
        same = loaded(design) if seed % 5 == 0 else design
        assert differing(same, x, pressure=seed if seed % 2 else None) == 0, seed


@needs_simulator
def test_a_reset_within_a_sample_leaves_nothing_behind() -> None:
    for seed, design, x in cheap(1000, 4):
        _, clocks = design.run(x, simulator=simulators()[-1])
        assert differing(design, x, reset=clocks // 2, pressure=seed) == 0
        assert differing(design, x, reset=8) == 0
    for seed, design, x in cheap(0, 3, several=True):
        _, clocks = design.run(x, simulator=simulators()[-1])
        assert differing(design, x, reset=clocks // 3) == 0, seed


def pooled(seed: int) -> tuple[Simulation, Any]:
    """A convolution over one or two axes, a pool of any stride that may leave rows out, and a small dense layer."""
    rng = np.random.default_rng(seed)
    channels, width, outs, classes = (
        int(rng.choice(sizes)) for sizes in ((1, 2, 3), range(4, 9), (2, 4, 8), (2, 4, 10))
    )
    height = int(rng.choice([1, *range(4, 9)]))
    line, image, shape = height == 1, (channels, height, width), (outs, height, width)
    nodes: list[Node] = [
        IntegerInput(name="in", shape=image, operands=(), low=0, high=1, scale=1.0),
        ConvNode(
            name="conv", shape=shape, operands=(Operand("in"),), bias=None, input_shape=image,
            weight=rng.integers(-60, 80, (outs, channels, 1 if line else 3, 3)).astype(np.int32),
            stride=(1, 1), padding=((0, 0) if line else (1, 1), (1, 1)), dilation=(1, 1), groups=1,
        ),
        fires("a", "conv", shape, int(rng.integers(1, 150))),
    ]  # fmt: skip
    kernel = (1 if line else int(rng.integers(2, 4)), int(rng.integers(2, 4)))
    stride = (1 if line else int(rng.integers(1, kernel[0] + 1)), int(rng.integers(1, kernel[1] + 1)))
    shape = (outs, (height - kernel[0]) // stride[0] + 1, (width - kernel[1]) // stride[1] + 1)
    nodes.append(
        SumPoolNode(
            name="pool", shape=shape, operands=(Operand("a"),), input_shape=nodes[-1].shape,
            kernel=kernel, stride=stride, padding=((0, 0), (0, 0)),
        )
    )  # fmt: skip
    count = int(np.prod(shape))
    weight = rng.integers(-60, 70, (classes, count)).astype(np.int32)
    nodes += [
        Reshape(name="flat", shape=(count,), operands=(Operand("pool"),), input_shape=shape),
        DenseNode(name="fc", shape=(classes,), operands=(Operand("flat"),), weight=weight, bias=None),
        fires("b", "fc", (classes,), int(rng.integers(1, 300))),
        IntegerOutput(name="out", shape=(classes,), operands=(Operand("b"),), unit=1.0),
    ]
    x = (rng.random((2, 1, *image)) < rng.choice([0.1, 0.3, 0.6])).astype(np.int32)
    plan = make_plan(IntegerGraph(tuple(nodes), WIDE), min(int(rng.choice([1, 2, 4, 8])), outs))
    return Simulation(render(plan, About(prefix=PREFIX)), plan), x


def fires(name: str, source: str, shape: Any, threshold: int) -> IntegerLIF:
    neuron = IntegerNeuron(v_decay=2048, threshold=np.full((), threshold, np.int32))
    return IntegerLIF(name=name, shape=shape, operands=(Operand(source),), neuron=neuron, bias=None)


@needs_simulator
def test_clocks_are_computed_as_they_are_simulated() -> None:
    """Within 2 %; a simulation ends with its last output, before the last pass does (up to 20 clocks)."""
    graphs = [
        *cheap(0, 10),
        *cheap(0, 10, several=True),
        *cheap(154, 1),
    ]  # graph 154: words that every event reaches, late ones
    for seed, design, x in [*graphs, *((seed, *pooled(seed)) for seed in range(40))]:
        _, simulated = design.run(x, simulator=simulators()[-1])
        assert abs(int(clocks_of(design.plan, x).sum()) - simulated) < 0.02 * simulated + 20, seed


@needs_simulator
@pytest.mark.parametrize("drop", [0, 3])
def test_a_late_reset_that_takes_nothing_leaves_the_leak_alone(drop: int) -> None:
    """In 64ths, half kept, 384 as threshold: 320, 480, 560, 600; with a drop of 3 320, 480, 240 - 192 + 320, 504."""
    neuron = IntegerNeuron(
        v_decay=2048,
        threshold=np.full((), 6, np.int32),
        reset="subtract_delayed",
        drop=np.full((), drop, np.int32),
    )
    graph = IntegerGraph(
        (
            IntegerInput(name="in", shape=(1,), operands=(), low=0, high=1, scale=1.0),
            GainNode(name="gain", shape=(1,), operands=(Operand("in"),), weight=np.full((), 5, np.int32)),
            IntegerLIF(name="lif", shape=(1,), operands=(Operand("gain"),), neuron=neuron, bias=None),
            IntegerOutput(name="out", shape=(1,), operands=(Operand("lif"),), unit=1.0),
        ),
        WIDE,
    )
    x = np.ones((4, 1, 1), np.int32)
    plan = make_plan(graph)
    design = Simulation(render(plan, About(prefix=PREFIX)), plan)
    ours, _ = design.run(x, simulator=simulators()[-1])
    assert ours.y[:, 0, 0].tolist() == ([0, 1, 1, 1] if drop == 0 else [0, 1, 0, 1])
    np.testing.assert_array_equal(ours.y, simulate(graph, x).y)


def counting(pool: type[SumPoolNode] | type[MaxPoolNode], *, behind: bool, **other: Any) -> IntegerGraph:
    """Neurons of up to 3 spikes on a square of 2 x 2 values, a pool of it behind or before them, and times 10."""
    image, sizes = (1, 2, 2), {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}
    neuron = IntegerNeuron(
        v_decay=4096, threshold=np.full((), 1, np.int32), reset="subtract", drop=np.full((), 2, np.int32), cap=3
    )
    first, second = ("lif", "pool") if behind else ("pool", "lif")
    nodes: dict[str, Node] = {
        "lif": IntegerLIF(
            name="lif", shape=image if behind else (1, 1, 1), operands=(Operand("gain" if behind else "pool"),),
            bias=None, neuron=replace(neuron, **other),
        ),
        "pool": pool(
            name="pool", shape=(1, 1, 1), operands=(Operand("lif" if behind else "gain"),), input_shape=image, **sizes
        ),
    }  # fmt: skip
    return IntegerGraph(
        (
            IntegerInput(name="in", shape=image, operands=(), low=0, high=9, scale=1.0),
            GainNode(name="gain", shape=image, operands=(Operand("in"),), weight=np.full((), 1, np.int32)),
            nodes[first],
            nodes[second],
            GainNode(name="ten", shape=(1, 1, 1), operands=(Operand(second),), weight=np.full((), 10, np.int32)),
            IntegerOutput(name="out", shape=(1, 1, 1), operands=(Operand("ten"),), unit=1.0),
        ),
        WIDE,
    )


@needs_simulator
def test_counts_by_hand() -> None:
    """A spike for each 2 above 1, at most 3: 0, 1, 2, 3 of 0, 2, 5, 9; of 16, the sum, 3."""
    x = np.array([0, 2, 5, 9], np.int32).reshape(1, 1, 1, 2, 2)
    cases = [(SumPoolNode, True, 60), (MaxPoolNode, True, 30), (MaxPoolNode, False, 30), (SumPoolNode, False, 30)]
    for pool, behind, wanted in cases:
        plan = make_plan(counting(pool, behind=behind))
        design = Simulation(render(plan, About(prefix=PREFIX)), plan)
        ours, clocks = design.run(x, simulator=simulators()[-1])
        assert ours.y.item() == wanted
        assert ours.spikes["lif"].reshape(-1).tolist() == ([0, 1, 2, 3] if behind else [3])
        assert abs(int(clocks_of(plan, x).item()) - clocks) <= 20


@pytest.mark.parametrize("other", [{"v_decay": 2048}, {"threshold": np.full((1, 1, 1), 2, np.int32)}])
def test_neurons_move_before_a_pool_of_sums_only_without_memory(other: dict[str, Any]) -> None:
    graph = counting(MaxPoolNode, behind=False, **other)
    if "threshold" in other:
        make_plan(graph)
        return
    with pytest.raises(UnsupportedError) as refused:
        make_plan(graph)
    assert refused.value.slug == "max-pool"


def test_the_random_graphs_are_worth_comparing() -> None:
    designs = [design for _, design, _ in cheap(0, 40)]
    passes = [one for design in designs for one in design.plan.passes]
    scans = [scan for design in designs for scan in design.plan.scans]
    widths = [design.plan.widths for design in designs]
    assert {one.lanes for one in (design.plan for design in designs)} == {1, 2, 4, 8, 16}
    assert any(one.filtered for one in passes)
    assert {(one.soft, one.late) for one in passes} == {(a, b) for a in (False, True) for b in (False, True)}
    assert any(width.clip for width in widths)
    assert any(width.keeps for width in widths)
    assert any(width.bias and len(design.plan.passes) > 1 for design, width in zip(designs, widths, strict=True))
    assert any(design.plan.graph.input.low < 0 for design in designs)
    assert {scan.source is None for scan in scans} == {False, True}
    assert any(scan.delay > 0 for scan in scans)
    assert any(scan.to_value for scan in scans)
    assert any(design.plan.pools for design in designs)
    assert any(len(scan.map.rows) > 1 for scan in scans)


BROKEN = {
    "fires at its threshold": ("x[5:0] == 6'd0}", "1'b0}"),
    "rounds down": ("own[STATE_BITS-1] && lose;", "1'b0;"),
    "reads what is still to be written": ("again_c || again_d || again_e;", "1'b0;"),
    "no reset": ("!spent || late ? own", "1'b1 ? own"),
    "reads ahead where currents come first": ("&& !filtered && !late && !emits", "&& !emits"),
    "no reset to 0": ("&& fired[n] && !late && !subtracts", "&& 1'b0"),
    "one tap too few": (
        "held_row_left <= {1'b0, seen_row_fan} - TWO_TAPS;",
        "held_row_left <= {1'b0, seen_row_fan} - TWO_TAPS - 1;",
    ),
    "the bias of the word before": ("primed ? arrived : parameters", "parameters"),
    "a pool of its window's last word": ("spike > most ? spike : most", "spike"),
    "every input counts as 1": ("from_input ? input_q : IN_ONE", "IN_ONE"),
    "no rest between samples": ("state <= rested || in_first ? CLEAR : LOOK;", "state <= LOOK;"),
}


@needs_simulator
def test_no_word_is_read_in_the_clock_that_writes_it() -> None:
    """Memories whose reads give the opposite then run the same: synthesis may leave open what they give."""
    plain = "if (read) read_data <= words[read_addr];"
    wrong = plain.replace("words[", "{WIDTH{write && read_addr == write_addr}} ^ words[")
    for seed, design, x in [*cheap(0, 20), *cheap(1000, 4)]:
        text = design.files["snn_engine.v"]
        assert plain in text
        changed = replace(design, files={**design.files, "snn_engine.v": text.replace(plain, wrong)})
        assert differing(changed, x, pressure=seed) == 0, seed


MEANT = ("DECLFILENAME", "UNUSEDSIGNAL", "BLKSEQ", "UNUSEDPARAM", "PINCONNECTEMPTY")
"""Several modules in a file, bits that a shift leaves out, functions, and ports that nothing reads."""


BROKEN_COUNTS = {
    "fires once": ("fires_so_far == more", "1'b1"),
    "fires once too often": ("fires_so_far == more", "1'b0"),
    "a spike takes nothing off": ("spent = again ? fired_next[n]", "spent = again ? 1'b0"),
    "counts as one": ("walk_factor       <= counts_spikes ?", "walk_factor       <= 1'b0 ?"),
    "counts go on over words": ("fire_last ? {LANE_SPIKES{1'b0}} : spikes_next;", "spikes_next;"),
    "an event of an odd count alone": ("spike_any[n] = spike != 0", "spike_any[n] = spike[0]"),
}


@pytest.mark.push(5)
@needs_simulator
@pytest.mark.parametrize("how", [*BROKEN, *BROKEN_COUNTS])
def test_a_broken_engine_is_noticed(how: str) -> None:
    right, wrong = {**BROKEN, **BROKEN_COUNTS}[how]
    for _, design, x in cheap(0, 40, several=how in BROKEN_COUNTS):
        text = design.files["snn_engine.v"]
        assert right in text
        broken = replace(design, files={**design.files, "snn_engine.v": text.replace(right, wrong)})
        try:
            if differing(broken, x):
                return
        except ToolError as error:
            assert "stalled" in str(error) or "undefined" in str(error)  # noqa: PT017
            return
    raise AssertionError("no graph noticed it")


@pytest.mark.skipif(shutil.which("verilator") is None, reason="verilator is not installed")
def test_the_text_is_clean(tmp_path: Path) -> None:
    quiet = [f"-Wno-{name}" for name in MEANT]
    designs = [design for _, design, _ in [*cheap(50, 6), *cheap(50, 3, several=True)]]
    for index, design in enumerate([*designs, loaded(designs[0])]):
        _written(design, tmp_path / str(index))
        sources = ["snn_serial.v", "snn_flash.v", *design.design]
        command = ["verilator", "--lint-only", "-Wall", *quiet, "--top-module", "snn_serial", *sources]
        done = subprocess.run(command, cwd=tmp_path / str(index), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")
def test_icarus_has_nothing_to_say(tmp_path: Path) -> None:
    for index, (_, design, _) in enumerate([*cheap(50, 3), *cheap(50, 2, several=True)]):
        _written(design, tmp_path / str(index))
        command = ["iverilog", "-g2005", "-Wall", "-t", "null", "-s", "tb", "tb.v", *design.design]
        done = subprocess.run(command, cwd=tmp_path / str(index), capture_output=True, text=True, check=True)
        assert done.stderr == ""


def _written(design: Simulation, folder: Path) -> None:
    (folder / "boards").mkdir(parents=True)
    for name, text in design.files.items():
        (folder / name).write_text(text)
