"""Random integer graphs: the compiled program against the integer model, every spike of every layer."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import strategies as st

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.c import populations
from stl_deploy.exporters.c.compiler import find_compiler, why_none
from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.exporters.c.program import Program
from stl_deploy.exporters.c.render import render_plan
from stl_deploy.graph.program import Node, Operand
from stl_deploy.integers.graph import (
    ConvNode,
    IntegerGraph,
    IntegerInput,
    IntegerLI,
    IntegerLIF,
    IntegerOutput,
)
from stl_deploy.integers.net import INT16, STATE_SHIFT, IntegerNeuron
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import About
from tests.drawn import examples
from tests.exporters.c.graphs import Grower

pytestmark = pytest.mark.skipif(find_compiler() is None, reason=why_none())
STRICT = ("-Wconversion", "-Wsign-conversion", "-Wshadow", "-Wcast-qual", "-Wundef", "-Wmissing-prototypes")
SANITIZED = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", *STRICT)

NARROW = ("-DNET_NARROW",)
"""The functions of machines with 32-bit registers."""


@pytest.fixture(autouse=True)
def row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions take turns with their neurons, however few these are."""
    monkeypatch.setattr(populations, "FEW_NEURONS", 0)


def program(graph: IntegerGraph) -> Program:
    plan = make_plan(graph)
    return Program(render_plan(plan, About()), plan)


def fits(graph: IntegerGraph) -> bool:
    """Whether its sums are within the registers."""
    try:
        make_plan(graph)
    except UnsupportedError as error:
        return error.slug != "sums-too-large"
    return True


def differing(graph: IntegerGraph, x: Any, options: tuple[str, ...] = ()) -> int:
    ours, model = program(graph).run(x, record=True, options=options), simulate(graph, x, record=True)
    assert set(ours.spikes) == set(model.spikes)
    spikes = sum(int((ours.spikes[name] != model.spikes[name]).sum()) for name in model.spikes)
    return spikes + int((ours.y != model.y).sum())


@pytest.mark.push(4)
@pytest.mark.hypothesis
@pytest.mark.parametrize("block", range(8))
def test_every_spike_is_the_integer_models_under_sanitizers(block: int) -> None:
    @examples(25, suppress_health_check=list(HealthCheck))
    @given(st.integers(block * 10**6, (block + 1) * 10**6 - 1))
    def check(seed: int) -> None:
        graph, x = Grower(seed).grow()
        assume(fits(graph))
        assert differing(graph, x, (*SANITIZED, *NARROW[seed % 2 :])) == 0

    check()


def test_states_start_where_the_integer_model_starts_them() -> None:
    """Of the graphs that the tests below draw, those that spike otherwise from 0, and states of both widths."""
    otherwise, kinds = 0, set()
    for seed in range(80):
        graph, x = Grower(seed, adapts=seed % 4 > 1).grow()
        if not fits(graph):
            continue
        begins = make_plan(graph).begins
        kinds |= {(state.rpartition("_")[2], table.ctype) for state, table in begins}
        otherwise += bool(begins) and not np.array_equal(simulate(graph, x).y, simulate(from_zero(graph), x).y)
    assert otherwise > 5
    assert kinds == {("u", "int32_t"), *((state, kind) for state in "va" for kind in ("int16_t", "int32_t"))}


def from_zero(graph: IntegerGraph) -> IntegerGraph:
    def without(node: Node) -> Node:
        if isinstance(node, IntegerLI):
            return replace(node, v_start=None, u_start=None)
        if not isinstance(node, IntegerLIF):
            return node
        adapts = node.neuron.adaptation
        adapts = None if adapts is None else replace(adapts, start=None)
        return replace(node, neuron=replace(node.neuron, v_start=None, u_start=None, adaptation=adapts))

    return IntegerGraph(tuple(without(node) for node in graph.nodes), graph.accumulator)


@pytest.mark.hypothesis
def test_several_spikes_a_step_are_the_integer_models_under_sanitizers() -> None:
    most = 0

    @examples(25, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 10**6))
    def check(seed: int) -> None:
        nonlocal most
        graph, x = Grower(seed, several=True).grow()
        assume(fits(graph))
        most = max(most, *(int(s.max()) for s in simulate(graph, x, record=True).spikes.values()))
        assert differing(graph, x, (*SANITIZED, *NARROW[seed % 2 :])) == 0

    check()
    assert most > 2


@pytest.mark.hypothesis
def test_adapting_thresholds_are_the_integer_models_under_sanitizers() -> None:
    kept, silenced = set(), 0

    @examples(40, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 10**6))
    def check(seed: int) -> None:
        nonlocal silenced
        graph, x = Grower(seed, adapts=True).grow()
        assume(fits(graph))
        kept.update(rule.a for rule in make_plan(graph).rules)
        silenced += not np.array_equal(simulate(graph, x).y, simulate(with_fixed_thresholds(graph), x).y)
        assert differing(graph, x, (*SANITIZED, *NARROW[seed % 2 :])) == 0

    check()
    assert kept >= {"int16_t", "int32_t"}
    assert silenced


def with_fixed_thresholds(graph: IntegerGraph) -> IntegerGraph:
    nodes = [
        replace(node, neuron=replace(node.neuron, adaptation=None)) if isinstance(node, IntegerLIF) else node
        for node in graph.nodes
    ]
    return IntegerGraph(tuple(nodes), graph.accumulator)


def in_16_bits(graph: IntegerGraph) -> IntegerGraph:
    """The same nodes with potentials of 16 bits: thresholds and resets within them."""
    top = INT16.threshold_top

    def within(node: Node) -> Node:
        if not isinstance(node, IntegerLIF):
            return node
        names = {"threshold": top, "drop": top, "v_reset": top, "v_start": top << STATE_SHIFT}
        values = {name: (getattr(node.neuron, name), most) for name, most in names.items()}
        clipped = {name: None if v is None else np.clip(v, -most, most) for name, (v, most) in values.items()}
        return replace(node, neuron=replace(node.neuron, **clipped))

    return IntegerGraph(tuple(within(node) for node in graph.nodes), INT16)


@pytest.mark.hypothesis
def test_potentials_of_16_bits_are_the_integer_models_under_sanitizers() -> None:
    stopped = 0

    @examples(30, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 10**6))
    def check(seed: int) -> None:
        nonlocal stopped
        graph, x = Grower(seed, several=seed % 3 == 0).grow()
        graph = in_16_bits(graph)
        assume(fits(graph))
        plan = make_plan(graph)
        assert {rule.v for rule in plan.rules if rule.spikes} <= {"int16_t"}
        stopped += any("int16" in rule.clips for rule in plan.rules)
        assert differing(graph, x, (*SANITIZED, *NARROW[seed % 2 :])) == 0

    check()
    assert stopped


NATIVE = ("-O3", "-march=native", "-Wno-psabi", *STRICT)
"""This machine's vectors: with AVX-512 the rows of weights are such by name."""


@pytest.mark.push(3)
@pytest.mark.parametrize(
    ("seed", "form"),
    [
        (0, ("conv_levels", "levels", "int16_t")),
        (6, ("dense", "spikes", "int16_t")),
        (8, ("conv_window", "spikes", "int16_t")),
        (21, ("dense", "spikes", "int32_t")),
        (607, ("conv_window", "spikes", "int32_t")),
    ],
)
def test_vectors_of_this_machine_are_the_integer_models(seed: int, form: tuple[str, ...]) -> None:
    graph, x = Grower(seed).grow()
    assert form in {(step.kind, *step.form) for step in make_plan(graph).statements if "form" in step.fields}
    assert differing(graph, x, NATIVE) == 0


def test_a_convolution_to_maps_of_one_pixel() -> None:
    """Its neurons are one row: their function takes no number of rows."""
    graph, x = Grower(3887633).grow()
    assert any(isinstance(node, ConvNode) and node.shape[1:] == (1, 1) for node in graph.nodes)
    assert differing(graph, x, SANITIZED) == 0


def test_a_row_of_neurons_that_no_table_or_state_is_read_for() -> None:
    """They begin at 0 in every step, share their threshold, and are pooled as they come: nothing needs their place."""
    graph, x = Grower(6506986).grow()
    assert differing(graph, x, SANITIZED) == 0


def test_the_random_graphs_are_worth_comparing() -> None:
    rates, kinds, clipped, forms = [], set(), 0, set()
    for seed in range(200):
        graph, x = Grower(seed).grow()
        if not fits(graph):
            continue
        rates += [float(spikes.mean()) for spikes in simulate(graph, x, record=True).spikes.values()]
        kinds |= {type(node).__name__ for node in graph.nodes}
        plan = make_plan(graph)
        clipped += any(rule.clips or bool(rule.passes) for rule in plan.rules)
        forms |= {(step.kind, *step.form) for step in plan.statements if step.kind in ("dense", "conv_window")}
        row_by_row = [step.by_rows for step in plan.steps if step.fields.get("by_rows")]
        forms |= {(rows.conv.kind, rows.conv.form[0] == "spikes", rows.lag) for rows in row_by_row}
    assert np.mean([0.02 < rate < 0.98 for rate in rates]) > 0.6
    assert len(kinds) == 11
    assert clipped > 20
    assert forms >= {
        ("conv_window", "spikes", "int16_t"),
        ("dense", "spikes", "int16_t"),
        ("dense", "spikes", "int32_t"),
        *(("conv", spikes, lag) for spikes in (True, False) for lag in (0, 1, 2)),
        ("conv_window", True, 0),
    }
    nodes = [node for seed in range(200) for node in Grower(seed).grow()[0].nodes]
    assert {node.neuron.reset for node in nodes if isinstance(node, IntegerLIF)} == {
        "value", "subtract", "subtract_delayed", "value_delayed",
    }  # fmt: skip
    convs = [node for node in nodes if isinstance(node, ConvNode)]
    assert {len(node.shape) for node in convs} == {2, 3}
    assert any(node.groups > 1 for node in convs)
    assert any(max(node.dilation) > 1 for node in convs)


@pytest.mark.push(3)
@pytest.mark.parametrize(
    ("image", "outs", "kernel", "stride", "padding", "high"),
    [
        ((8, 6, 9), 20, (3, 3), (1, 1), ((1, 1), (1, 1)), 1),  # rows of 16 pairs, 9 outputs a row
        ((11, 5, 7), 40, (2, 3), (2, 1), ((0, 1), (2, 0)), 1),  # 16 pairs and 8; a number of inputs that is odd
        ((40, 4, 16), 10, (3, 3), (1, 2), ((1, 1), (0, 1)), 1),  # 8 pairs; lists of 32 values and of the rest
        ((1, 7, 8), 32, (3, 3), (1, 1), ((1, 1), (1, 1)), 255),
        ((2, 5, 6), 28, (2, 2), (1, 1), ((0, 0), (1, 0)), 16),
        ((4, 5, 6), 24, (2, 2), (1, 1), ((0, 0), (1, 0)), 16),  # with the bias, sums of 32 bits
    ],
)
def test_windows_of_many_inputs_are_the_integer_models(
    image: Any, outs: int, kernel: Any, stride: Any, padding: Any, high: int
) -> None:
    """Of no, a tenth of, half and all inputs; with AVX-512 many are added by dot products of bytes."""
    rng = np.random.default_rng(outs)
    taps = image[0] * kernel[0] * kernel[1]
    least = -min(128, 2**15 // (taps * high)) if high > 1 else -128
    weight = rng.integers(least, -least - 1, (outs, image[0], *kernel), endpoint=True).astype(np.int32)
    weight[0] = least
    bias = np.full(outs, 32000, np.int32) if taps * high == 256 else None
    sizes = [
        (n + sum(p) - k) // s + 1 for n, k, s, p in zip(image[1:], kernel, stride, padding, strict=True)
    ]  # fmt: skip
    window: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": (1, 1), "groups": 1}
    shape = (outs, *sizes)
    conv = ConvNode(
        name="c", shape=shape, operands=(Operand("in"),), weight=weight, bias=bias, input_shape=image, **window
    )
    threshold = (0 if bias is None else 32000) + rng.integers(0, -2 * least * high, (outs, 1, 1))
    neuron = IntegerNeuron(v_decay=2048, threshold=threshold.astype(np.int32))
    graph = IntegerGraph(
        (
            IntegerInput(name="in", shape=image, operands=(), low=0, high=high, scale=1.0),
            conv,
            IntegerLIF(name="a", shape=shape, operands=(Operand("c"),), neuron=neuron, bias=None),
            IntegerOutput(name="o", shape=shape, operands=(Operand("a"),), unit=1.0),
        )
    )
    forms = {(step.kind, *step.form) for step in make_plan(graph).statements if step.kind.startswith("conv")}
    sums = "int32_t" if bias is not None or (high == 1 and taps > 255) else "int16_t"
    assert forms == {("conv_window", "spikes", sums) if high == 1 else ("conv_levels", "levels", sums)}
    share = np.array([0, 0.1, 0.5, 1]).reshape(4, 1, 1, 1, 1)
    x = np.where(rng.random((4, 2, *image)) < share, rng.integers(1, high, (4, 2, *image), endpoint=True), 0)
    assert 0.05 < simulate(graph, x.astype(np.int32)).y.mean() < 0.95
    assert differing(graph, x.astype(np.int32), NATIVE) == 0
    assert differing(graph, x.astype(np.int32), (*SANITIZED, *NATIVE[1:])) == 0


@pytest.mark.parametrize("options", [(), NARROW, NATIVE[1:]])
def test_more_weights_than_16_bits_hold_the_sum_of(options: tuple[str, ...]) -> None:
    """Windows of up to 9 x 40 spikes, each weight at its limit: sums pass 2^15 and are taken 256 spikes at a time."""
    rng = np.random.default_rng(5)
    weight = rng.choice([-128, 127], (20, 40, 3, 3), p=[0.1, 0.9]).astype(np.int32)
    window: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 2), (0, 1)), "dilation": (1, 1), "groups": 1}
    conv = ConvNode(
        name="conv",
        shape=(20, 5, 4),
        operands=(Operand("in"),),
        weight=weight,
        bias=None,
        input_shape=(40, 8, 5),
        **window,
    )
    neuron = IntegerNeuron(v_decay=2048, threshold=rng.integers(10000, 40000, (20, 1, 1)).astype(np.int32))
    spikes = IntegerLIF(name="a", shape=(20, 5, 4), operands=(Operand("conv"),), neuron=neuron, bias=None)
    entry = IntegerInput(name="in", shape=(40, 8, 5), operands=(), low=0, high=1, scale=1.0)
    graph = IntegerGraph(
        (entry, conv, spikes, IntegerOutput(name="o", shape=(20, 5, 4), operands=(Operand("a"),), unit=1.0))
    )
    x = (rng.random((6, 3, 40, 8, 5)) < np.array([0, 0.02, 0.4, 0.8, 0.97, 1]).reshape(6, 1, 1, 1, 1)).astype(np.int32)
    assert {("conv_window", "spikes", "int32_t")} <= {
        (step.kind, *step.fields.get("form", ())) for step in make_plan(graph).statements
    }
    assert 0.1 < simulate(graph, x).y.mean() < 0.9
    assert differing(graph, x, (*SANITIZED, *options)) == 0


@pytest.mark.push(2)
@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3", "-Os"])
def test_no_level_of_optimisation_changes_a_spike(level: str) -> None:
    for seed in range(900, 906):
        assert differing(*Grower(seed).grow(), (level,)) == 0
        assert differing(*Grower(seed).grow(), (level, *NARROW)) == 0


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_another_compiler_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "clang")
    for seed in range(910, 920):
        assert differing(*Grower(seed).grow()) == 0
    for seed in (0, 8, 607):
        assert differing(*Grower(seed).grow(), NATIVE) == 0
