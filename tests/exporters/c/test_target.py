"""From a Program to a C folder and back: what integers hold, what is refused, and folders not to be trusted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy._util.files import read_npz, write_npz
from stl_deploy._util.temporary import is_alive
from stl_deploy.errors import InputError, ToolError, UnsupportedError
from stl_deploy.exporters.c import compiler
from stl_deploy.exporters.c.compiler import MISSING, find_compiler, why_none
from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.program import Program as CProgram
from stl_deploy.exporters.c.render import render_plan
from stl_deploy.exporters.c.room import COMPILER, STACK, code_size, estimated_code
from stl_deploy.exporters.c.target import C, CFormat, read_folder, write_folder
from stl_deploy.exporters.integer_runner import IntegerRunner
from stl_deploy.exporters.netx.model import quantise as quantise_chain
from stl_deploy.exporters.netx.model import run_model
from stl_deploy.exporters.netx.target import Loihi, NetxOptions
from stl_deploy.exporters.verilog.target import VerilogFormat
from stl_deploy.graph.program import Delay, Linear, Neuron, Operand, Program, Synapse
from stl_deploy.graph.run import run
from stl_deploy.integers.graph import (
    DenseNode,
    IntegerGraph,
    IntegerInput,
    IntegerLI,
    IntegerLIF,
    IntegerOutput,
)
from stl_deploy.integers.net import INT16, LOIHI, WIDE, IntegerNeuron
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import NAME, About, read_integers, write_integers
from tests.exporters.netx.programs import Builder, F, conv_net, events
from tests.exporters.xylo.nets import chain as chip_like
from tests.exporters.xylo.nets import counts

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason=why_none())
RNG = np.random.default_rng


def small() -> Builder:
    return Builder((12,)).linear("fc", RNG(0).normal(0, 0.5, (9, 12)), RNG(1).normal(0, 0.1, 9))


def with_sources(program: Program, name: str, *sources: Operand) -> Program:
    nodes = [replace(n, operands=(*n.operands, *sources)) if n.name == name else n for n in program.nodes]
    return replace(program, nodes=tuple(nodes))


def skip() -> Program:
    build = small().lif("a", 0.7).linear("fc2", RNG(2).normal(0, 0.5, (9, 9))).lif("b", 1.0)
    return with_sources(build.program(), "b", Operand("a"))


def loop() -> Program:
    build = small().lif("a", 0.7).linear("fc2", RNG(2).normal(0, 0.5, (9, 9))).lif("b", 1.0)
    return with_sources(build.program(), "b", Operand("b", 1), Operand("a", 1))


def recurrent() -> Program:
    """A population that reads its own spikes through weights that stand behind it."""
    build = small().lif("a", 0.7).linear("back", RNG(2).normal(0, 0.3, (9, 9))).lif("b", 0.3)
    return with_sources(build.program(), "a", Operand("back", 1))


def back(*ways: str) -> Program:
    """A population that reads its own spikes of the step before by way of nodes that stand behind it."""
    build = Builder((12,)).linear("fc", RNG(0).normal(0, 0.5, (16, 12)), RNG(1).normal(0, 0.1, 16)).lif("a", 0.7)
    for way in ways:
        if way == "pool":
            build.sum_pool("pool")
        elif way == "delay":
            steps = np.arange(16) % 3
            build.nodes.append(Delay(name="late", shape=(16,), operands=(Operand(build.nodes[-1].name),), steps=steps))
        elif way == "weights":
            build.linear("back", RNG(2).normal(0, 0.3, (16, build.shape[0])))
        else:
            build.reshape(way, (4, 2, 2) if way == "map" else (int(np.prod(build.shape)),))
    last = build.nodes[-1].name
    build.nodes.append(
        Linear(
            name="end",
            shape=(7,),
            operands=(Operand("a"),),
            weight=RNG(3).normal(0, 0.5, (7, 16)).astype(F),
            bias=None,
            input_shape=(16,),
        )
    )
    return with_sources(build.lif("b", 0.7).program(), "a", Operand(last, 1))


def potentials() -> Program:
    build = small().lif("a", 0.7).linear("fc2", RNG(2).normal(0, 0.5, (4, 9)), [0.1, 0, -0.1, 0.2])
    build.nodes.append(
        Neuron(name="li", shape=(4,), operands=(Operand("fc2"),), decay=np.asarray(0.9, F), threshold=None)
    )
    return build.program()


def averaged() -> Program:
    build = Builder((2, 6, 6)).conv("conv", RNG(3).normal(0, 0.5, (4, 2, 3, 3)), None, ((1, 1), (1, 1)))
    build.lif("a", 0.8).sum_pool("mean", divisor=4).flatten("flat").linear("fc", RNG(4).normal(0, 0.4, (7, 36)))
    return build.lif("b", 0.5).program()


def pooled_currents() -> Program:
    build = Builder((2, 6, 6)).conv("conv", RNG(3).normal(0, 0.5, (4, 2, 3, 3)), [0.1, 0.2, -0.1, 0], ((1, 1), (1, 1)))
    return build.sum_pool("mean", divisor=4).lif("a", 0.3).program()


def delayed() -> Program:
    build = small().lif("a", 0.7)
    build.nodes.append(Delay(name="late", shape=(9,), operands=(Operand("a"),), steps=np.arange(9) % 3))
    return build.linear("fc2", RNG(2).normal(0, 0.5, (5, 9))).lif("b", 0.6).program()


def filtered(rule: Any) -> Program:
    synapse = Synapse(rule, np.asarray(0.6, F), np.asarray(0.8, F))
    return small().lif("a", 0.9, synapse=synapse, offset=np.asarray(0.02, F)).program()


def learned() -> Program:
    """Decays, gains and thresholds of each neuron's own."""
    decay, gain = RNG(5).uniform(0.2, 0.9, 9).astype(F), RNG(6).uniform(0.5, 1.5, 9).astype(F)
    build = small()
    build.nodes.append(
        Neuron(
            name="a", shape=(9,), operands=(Operand("fc"),), decay=decay, threshold=np.linspace(0.5, 1.5, 9).astype(F),
               gain=gain)
    )  # fmt: skip
    return build.program()


NETS: dict[str, Callable[[], Program]] = {
    "conv, thresholds by channel": lambda: conv_net(RNG(3)),
    "conv, thresholds by pixel": lambda: conv_net(RNG(3), "pixel"),
    "skip": skip,
    "loop": loop,
    "recurrent weights": recurrent,
    "spikes come back": lambda: back("map", "flat"),
    "spikes come back later": lambda: back("map", "flat", "delay"),
    "weighted spikes come back": lambda: back("map", "flat", "weights"),
    "pooled spikes come back": lambda: back("map", "pool", "flat", "weights"),
    "potentials": potentials,
    "average pool": averaged,
    "pooled currents": pooled_currents,
    "delay": delayed,
    "soft reset": lambda: small().lif("a", 0.7, reset="subtract").program(),
    "soft reset, a step late": lambda: small().lif("a", 0.7, reset="subtract_delayed").program(),
    "reset, a step late": lambda: small().lif("a", 0.7, reset="value_delayed").program(),
    "reset to a value": lambda: small().lif("a", 0.7, v_reset=np.asarray(-0.3, F)).program(),
    "filtered": lambda: filtered("euler"),
    "filtered after adding": lambda: filtered("exp_add"),
    "every neuron its own": learned,
}


def data(program: Program, seed: int = 11) -> Any:
    return events(RNG(seed), 12, 80, *program.inputs[0].shape)


@pytest.mark.push(8)
@needs_compiler
@pytest.mark.parametrize("name", NETS)
def test_programs_of_every_kind(name: str, tmp_path: Path) -> None:
    """The program spikes as its integers say, and these as the network does but for rounding."""
    program = NETS[name]()
    x = data(program)
    CFormat().write(program, tmp_path / "c", COptions(x=x))
    runner = CFormat().load(tmp_path / "c").of(program)
    found, model = runner.run(x, record=True), runner.model(program).run(x, record=True)
    names = [node.name for node in program.spiking]
    assert list(found.recorded) == names
    for node in names:
        np.testing.assert_array_equal(found.recorded[node], model.recorded[node])
    np.testing.assert_array_equal(found.y, model.y)
    wanted = run(program, x, record=names)
    for node in names:
        assert 0.02 < wanted.recorded[node].mean() < 0.98
        assert np.mean(wanted.recorded[node] != found.recorded[node]) < 0.04
    if name == "potentials":
        assert np.abs(wanted.y - found.y).max() < 0.15 * np.abs(wanted.y).max()


@needs_compiler
@pytest.mark.parametrize(
    "neuron",
    [
        {"threshold": 3000, "reset": "subtract"},
        {"threshold": 3000, "reset": "subtract_delayed"},
        {"threshold": 0.7, "v_reset": np.asarray(-5000, F)},
    ],
    ids=["subtract", "subtract_delayed", "to a value"],
)
def test_thresholds_and_resets_far_above_the_weights_stay_in_their_width(neuron: Any, tmp_path: Path) -> None:
    program = small().lif("a", neuron.pop("threshold"), **neuron).program()
    x = data(program)
    CFormat().write(program, tmp_path / "c", COptions(x=x))
    runner = CFormat().load(tmp_path / "c").of(program)
    np.testing.assert_array_equal(runner.run(x).y, runner.model(program).run(x).y)
    assert np.mean(runner.run(x).y != run(program, x).y) < 0.05


def wrapping() -> tuple[Program, Any]:
    """127 times 1200 inputs is 152,400: 64 times that passes 2^23. In real numbers, 1200 is above 1 and 0 is not."""
    program = Builder((1200,)).linear("fc", np.ones((1, 1200))).lif("a", 1.0).program()
    x = np.stack([np.ones((2, 1200), F), np.zeros((2, 1200), F)], axis=1)
    return program, x


def test_sums_past_loihis_24_bits_spike_as_the_network_does(tmp_path: Path) -> None:
    program, x = wrapping()
    CFormat().write(program, tmp_path / "c", COptions(x=x))
    graph, about = read_integers(tmp_path / "c" / NAME)
    assert graph.accumulator is WIDE
    runner = CFormat().load(tmp_path / "c").of(program)
    np.testing.assert_array_equal(runner.model(program).run(x).y, run(program, x).y)
    if find_compiler() is not None:
        np.testing.assert_array_equal(runner.run(x).y, run(program, x).y)
    assert not simulate(replace(graph, accumulator=LOIHI), x.astype(np.int32)).y.any()
    write_integers(replace(graph, accumulator=LOIHI), about, tmp_path / "again.npz")
    assert read_integers(tmp_path / "again.npz")[0].accumulator is LOIHI


def test_integers_that_name_no_accumulator_wrap_as_they_did(tmp_path: Path) -> None:
    program, x = wrapping()
    CFormat().write(program, tmp_path / "c", COptions(x=x))
    arrays = read_npz(tmp_path / "c" / NAME)
    structure = json.loads(arrays["structure"].tobytes())
    for name in (None, "narrow"):
        structure.pop("accumulator") if name is None else structure.update(accumulator=name)
        write_npz(tmp_path / "i.npz", {**arrays, "structure": np.frombuffer(json.dumps(structure).encode(), np.uint8)})
        if name is None:
            assert read_integers(tmp_path / "i.npz")[0].accumulator is LOIHI
        else:
            with pytest.raises(InputError, match="export it again"):
                read_integers(tmp_path / "i.npz")


@needs_compiler
@pytest.mark.parametrize("accumulator", [WIDE, LOIHI])
def test_c_stops_or_wraps_where_the_model_does(accumulator: Any) -> None:
    """A filter that loses 1 of 4096 a step reaches 2^30 behind sums of 4 million, v its own limit sooner."""
    neuron = IntegerNeuron(
        v_decay=0, threshold=np.array([9, 131071, 9], np.int32), i_decay=1, reset="subtract",
        drop=np.array([0, 131071, 1], np.int32),
    )  # fmt: skip
    nodes = (
        IntegerInput(name="in", shape=(1,), operands=(), low=-40000, high=40000, scale=1.0),
        DenseNode(name="fc", shape=(3,), operands=(Operand("in"),), weight=np.array([[100], [127], [-127]]), bias=None),
        IntegerLIF(name="a", shape=(3,), operands=(Operand("fc"),), neuron=neuron, bias=np.array(-7, np.int32)),
        IntegerLI(name="v", shape=(3,), operands=(Operand("fc"),), v_decay=0, bias=None, i_decay=1),
        IntegerOutput(name="out", shape=(3,), operands=(Operand("v"),), unit=1.0),
    )
    graph = IntegerGraph(nodes, accumulator)
    x = RNG(0).choice([-40000, 40000], (60, 2, 1), p=[0.2, 0.8]).astype(np.int32)
    plan = make_plan(graph)
    found, model = CProgram(render_plan(plan, About()), plan).run(x, record=True), simulate(graph, x, record=True)
    np.testing.assert_array_equal(found.y, model.y)
    np.testing.assert_array_equal(found.spikes["a"], model.spikes["a"])
    assert abs(model.y).max() == accumulator.v_top - 1


@needs_compiler
@pytest.mark.parametrize("names", [("net", "row", "list"), ("layer", "spike", "sums"), ("list", "net", "row")])
def test_names_that_the_templates_use(names: tuple[str, str, str]) -> None:
    build = (
        Builder((8, 6, 6)).conv("c", RNG(3).normal(0, 0.5, (16, 8, 3, 3)), None, ((1, 1), (1, 1))).lif(names[0], 0.8)
    )
    build.max_pool(names[1]).flatten("flat").linear("fc", RNG(4).normal(0, 0.3, (16, 144))).lif(names[2], 0.5)
    program = build.program()
    x = events(RNG(0), 4, 6, 8, 6, 6)
    runner = C(program, COptions(x=x))
    found, expected = runner.run(x, record=True), runner.model(program).run(x, record=True)
    for name in names:
        np.testing.assert_array_equal(found.recorded[name], expected.recorded[name])


def test_a_chain_has_the_integers_of_netx() -> None:
    program = conv_net(RNG(3))
    x = data(program)
    ours = IntegerRunner(program, COptions()).run(x, record=True)
    netx = run_model(quantise_chain(program, x, thresholds="per-neuron"), x, record=True)
    for node, spikes in netx.spikes.items():
        np.testing.assert_array_equal(ours.recorded[node], spikes)


def test_input_outside_the_range_is_refused(tmp_path: Path) -> None:
    program = small().lif("a", 0.7).program()
    x = data(program)
    CFormat().write(program, tmp_path / "c", COptions(x=x))
    with pytest.raises(InputError, match="expected input from 0 to 1, which the integers were chosen for; found 0"):
        CFormat().load(tmp_path / "c").run(3 * x)
    with pytest.raises(InputError, match=r"found -1 to 0 .* export again with such input"):
        CFormat().load(tmp_path / "c").run(-x)


REFUSED: dict[str, tuple[Callable[[], Program], str, str]] = {
    "two layers of weights": (lambda: small().linear("fc2", np.eye(9)).lif("a", 1.0).program(), "fc2", "no-neuron"),
    "many": (lambda: small().lif("a", 1.0, multi_spike=True).program(), "a", "several-spikes"),
    "more than a byte": (lambda: several(cap=256), "a", "several-spikes"),
    "many, hard reset": (lambda: several(cap=9), "a", "several-spikes"),
    "v_min": (lambda: small().lif("a", 1.0, v_min=np.asarray(0, F)).program(), "a", "v-min"),
    "theta": (lambda: small().lif("a", -1.0).program(), "a", "threshold-not-positive"),
    "potentials read": (lambda: potentials_read(), "fc3", "potential"),
    "no neurons": (lambda: small().program(), "in", "no-neurons"),
}


def several(cap: int) -> Program:
    return small().lif("a", 1.0, multi_spike=True, cap=cap, reset="subtract" if cap > 255 else "value").program()


def potentials_read() -> Program:
    program = potentials()
    build = Builder((12,))
    build.nodes = list(program.nodes[:-1])
    return build.linear("fc3", np.eye(4)).lif("b", 1.0).program()


@pytest.mark.parametrize("name", REFUSED)
def test_what_integers_cannot_hold(name: str, tmp_path: Path) -> None:
    build, node, slug = REFUSED[name]
    program = build()
    findings = list(CFormat().check(program))
    assert (findings[0].node, findings[0].slug) == (node, slug)
    with pytest.raises(UnsupportedError) as error:
        CFormat().write(program, tmp_path / "c", COptions(x=data(program)))
    assert (error.value.node, error.value.slug) == (node, slug)
    assert not (tmp_path / "c").exists()


def test_a_field_that_integers_do_not_hold_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as error:
        CFormat().write(REFUSED["many"][0](), tmp_path / "c", COptions(x=np.zeros((3, 2, 6), F)))
    assert str(error.value) == (
        "node 'a': it fires several spikes per step, any number of them; integers count up to 255; state a cap: "
        "spikes_per_step: 255 in the dialect, or multi_spike of stl.LIF"
    )


@needs_compiler
@pytest.mark.parametrize("loop", [False, True])
def test_synaptic_currents_and_several_spikes(loop: bool, tmp_path: Path) -> None:
    """C equals the integers in every spike; those are nearly the reference's, but for what a loop adds up."""
    program = chip_like((4, 12, 8, 3), cap=31, recurrent=loop, readout=loop)
    x = counts(program, steps=40, batch=8).astype(F)
    CFormat().write(program, tmp_path / "c", COptions(x=x))
    ours, model = C(tmp_path / "c", COptions()).run(x, record=True), IntegerRunner(tmp_path / "c", COptions())
    integers, reference = model.run(x, record=True), run(program, x, record=["lif1", "lif2"])
    np.testing.assert_array_equal(ours.y, integers.y)
    for name in ("lif1", "lif2"):
        np.testing.assert_array_equal(ours.recorded[name], integers.recorded[name])
        assert ours.recorded[name].max() > 1
        assert loop or (ours.recorded[name] != reference.recorded[name]).mean() < 0.05


@dataclass(frozen=True, eq=False, kw_only=True)
class Refractory(Neuron):
    """A neuron with a field that nobody reads."""

    rest: float = 0.0


def test_a_new_field_of_neurons_is_refused_until_it_is_read() -> None:
    program = small().lif("a", 1.0).program()

    def grown(node: Any, value: float) -> Any:
        own = {field.name: getattr(node, field.name) for field in fields(node)}
        return Refractory(**own, rest=value) if isinstance(node, Neuron) else node

    for value, slugs in ((0.0, []), (0.5, ["rest"])):
        changed = replace(program, nodes=tuple(grown(node, value) for node in program.nodes))
        errors = [finding.slug for finding in CFormat().check(changed) if finding.severity == "error"]
        assert errors == slugs


@pytest.mark.parametrize("measured", [None, 700])
def test_limits_of_memory(measured: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for asks in ("target", "room"):
        monkeypatch.setattr(f"stl_deploy.exporters.c.{asks}.code_size", lambda files, prefix, deadline: measured)
    program = small().lif("a", 0.7).program()
    options = COptions(x=data(program))
    facts = CFormat().write(program, tmp_path / "c", options)
    code = measured or estimated_code(read_folder(tmp_path / "c")[1].plan)
    flash, ram = facts["flash_bytes"] + code, facts["ram_bytes"] + STACK
    fits = replace(options, flash=flash, ram=str(ram))
    CFormat().write(program, tmp_path / "fits", fits)
    assert not [one for one in CFormat().check_for(program, fits) if one.severity == "error"]
    for what in ({"flash": str(flash - 1)}, {"ram": str(ram - 1)}):
        with pytest.raises(UnsupportedError, match="expected at most"):
            CFormat().write(program, tmp_path / "tight", replace(options, **what))
    tight = CFormat().check_for(program, replace(options, flash=8, ram=8))
    assert [one.slug for one in tight if one.severity == "error"] == ["too-much-flash", "too-much-ram"]
    assert all(one.remedy.startswith("take a chip with") for one in tight if one.severity == "error")
    with pytest.raises(InputError, match="flash: expected bytes, as 262144, 256K or 1M; found '1G'"):
        CFormat().write(program, tmp_path / "tight", replace(options, flash="1G"))
    assert not (tmp_path / "tight").exists()


def many_filters(layers: int, *, size: int = 12, own: int = 1) -> IntegerGraph:
    """Layers of filtered neurons, each with decays of its own and thus a function of its own; own=0: one for all."""
    nodes: list[Any] = [IntegerInput(name="in", shape=(size,), operands=(), low=0, high=1, scale=1.0)]
    for i in range(layers):
        weight = RNG(i).integers(-60, 60, (size, size)).astype(np.int32)
        nodes.append(
            DenseNode(name=f"d{i}", shape=(size,), operands=(Operand(nodes[-1].name),), weight=weight, bias=None)
        )
        neuron = IntegerNeuron(v_decay=1000 + own * i, i_decay=500 + own * i, threshold=np.full((), 30, np.int32))
        nodes.append(IntegerLIF(name=f"l{i}", shape=(size,), operands=(Operand(f"d{i}"),), neuron=neuron, bias=None))
    nodes.append(IntegerOutput(name="out", shape=(size,), operands=(Operand(nodes[-1].name),), unit=1.0))
    return IntegerGraph(tuple(nodes), WIDE)


def test_without_a_cross_compiler_code_is_estimated_by_kinds_of_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 KiB, whatever the network, let 41,340 bytes of code pass; on a machine with the compiler it is near."""
    graph = many_filters(30)
    plan = make_plan(graph)
    measured = code_size(render_plan(plan, About()), "net")
    assert measured is None or 0.9 * measured < estimated_code(plan) < 1.3 * measured
    assert estimated_code(make_plan(many_filters(1))) < 8 * 1024
    shared = make_plan(many_filters(30, size=4, own=0))
    measured = code_size(render_plan(shared, About()), "net")
    assert measured is None or 0.9 * measured < estimated_code(shared) < 1.3 * measured
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="an estimate"):
        write_folder(graph, About(), tmp_path / "c", flash=plan.flash + 30 * 1024, ram=None)
    found = CFormat().check_for(small().lif("a", 0.7).program(), COptions(flash="64K"))
    assert [one.severity for one in found if one.slug == "code-estimated"] == ["info"]


@needs_compiler
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_check_runs_recorded_sequences(tmp_path: Path) -> None:
    """With the flags that it is given; a changed weight fails it."""
    program = small().lif("a", 0.7).program()
    CFormat().write(program, tmp_path / "c", COptions(x=data(program), name="kws"))
    command = ["make", "-s", "-C", str(tmp_path / "c"), f"CC={find_compiler()}", "CFLAGS=-O2 -Werror", "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "PASS: kws, 0 of 4 recorded sequences differ\n"
    source = tmp_path / "c" / "kws.c"
    text = source.read_text()
    at = text.index("\n", text.index("_threshold[")) + 1
    source.write_text(text[:at] + "    0," + text[text.index(",", at) + 1 :])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stdout.startswith("FAIL: kws")


def test_ram_that_only_potentials_of_16_bits_fit_into(tmp_path: Path) -> None:
    """The remedy holds; below the least possible the message says the least."""
    program = small().lif("a", 0.7).program()
    options = COptions(x=data(program), potentials=16)
    least = CFormat().write(program, tmp_path / "c", options)["ram_bytes"] + STACK
    with pytest.raises(UnsupportedError, match=f"use potentials=16: the network then takes about {least:,} bytes"):
        CFormat().write(program, tmp_path / "tight", replace(options, ram=least, potentials=32))
    CFormat().write(program, tmp_path / "fits", replace(options, ram=least))
    (finding,) = CFormat().check_for(program, COptions(ram=512))[-1:]
    assert finding.remedy is not None
    assert f"a chip with at least {least:,} bytes of RAM, which the network takes with potentials=16" in finding.remedy
    assert not [one for one in CFormat().check_for(program, replace(options, ram=least)) if one.severity == "error"]


def test_integers_with_potentials_of_16_bits(tmp_path: Path) -> None:
    """Thresholds and resets are within them; a file with others is refused."""
    program = small().lif("a", 0.7, reset="subtract").program()
    facts = CFormat().write(program, tmp_path / "c", COptions(x=data(program), potentials=16))
    assert facts["accumulator"] == "int16"
    graph, about = read_integers(tmp_path / "c" / "integers.npz")
    (population,) = graph.populations
    assert graph.accumulator is INT16
    assert population.neuron.threshold.max() <= 511
    for name in ("threshold", "drop"):
        neuron = replace(population.neuron, **{name: np.full((), 512, np.int32)})
        wrong = [replace(node, neuron=neuron) if node is population else node for node in graph.nodes]
        write_integers(IntegerGraph(tuple(wrong), INT16), about, tmp_path / "wrong.npz")
        with pytest.raises(InputError, match="threshold"):
            read_integers(tmp_path / "wrong.npz")


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason=f"{COMPILER} is not installed")
def test_a_cross_compiler_tells_how_long_the_code_is() -> None:
    two = "int f(int x);\nint f(int x) { return x; }\nint g(int x);\nint g(int x) { return f(x) * x; }\n"
    sizes = [code_size({"net.c": text, "net.h": ""}, "net") for text in (two.split("int g")[0], two)]
    assert 0 < (sizes[0] or 0) < (sizes[1] or 0) < 100
    assert code_size({"net.c": "int f(", "net.h": ""}, "net") is None


def test_without_a_cross_compiler_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert code_size({"net.c": "", "net.h": ""}, "net") is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    program = small().lif("2 */ a", 0.7).program()
    CFormat().write(program, tmp_path / "c", COptions(x=data(program)))
    return tmp_path / "c"


@needs_compiler
@pytest.mark.parametrize("name", ["net.c", "net.h", "main.c", "Makefile"])
def test_changed_text_is_not_run_unless_trusted(folder: Path, name: str) -> None:
    file = folder / name
    file.write_text(file.read_text() + "\n")
    with pytest.raises(InputError, match=rf"{name}: expected what stl-deploy makes of integers.npz; found other text"):
        CFormat().load(folder)
    assert CFormat().rows(folder)  # showing it runs nothing
    x = data(small().program())
    trusted = C(folder, COptions(trust=True)).run(x)
    assert trusted.y.shape == (12, 80, 9)


def test_the_loihi_model_runs_a_folder_as_the_network_that_it_is_of(folder: Path) -> None:
    program = small().lif("2 */ a", 0.7).program()
    x = data(program)
    found = Loihi(folder, NetxOptions()).of(program).run(x, record=True)
    expected = IntegerRunner(folder, COptions()).run(x, record=True)
    np.testing.assert_array_equal(found.y, expected.y)
    assert found.recorded.keys() == {"2 */ a"}
    with pytest.raises(InputError, match=r"expected integers that spike in b; found 2 \*/ a; name the graph"):
        Loihi(folder, NetxOptions()).of(small().lif("b", 0.7).program())


def test_missing_and_foreign_files(folder: Path) -> None:
    (folder / "main.c").unlink()
    with pytest.raises(InputError, match=r"main.c: expected .* beside integers.npz; found no such file; export it"):
        CFormat().load(folder)
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "main.c")  # reading it would wait for a writer
        with pytest.raises(InputError, match="found a pipe or device; export it again"):
            CFormat().load(folder)
        (folder / "main.c").unlink()
    (folder / "main.c").write_bytes(b"\xff")
    with pytest.raises(InputError, match="not ASCII"):
        CFormat().load(folder)
    (folder / NAME).write_bytes(b"PK")
    with pytest.raises(InputError, match=r"integers.npz: not an .npz file"):
        CFormat().load(folder)


def damage(folder: Path, change: Callable[[Any, dict[str, Any]], None]) -> None:
    arrays = read_npz(folder / NAME)
    structure = json.loads(arrays["structure"].tobytes())
    change(structure, arrays)
    arrays["structure"] = np.frombuffer(json.dumps(structure).encode(), np.uint8)
    write_npz(folder / NAME, arrays)


def _several(structure: Any, arrays: dict[str, Any], cap: Any, drop: int = 1) -> None:
    arrays |= {"cap": np.array([9], np.int32), "drop": np.array(drop, np.int32)}
    structure["nodes"][2]["neuron"].update(cap=cap, reset="subtract", drop={"array": "drop"})


DAMAGE: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    "no nodes": lambda s, a: s.update(nodes=[]),
    "a list": lambda s, a: s.update(nodes=[[]]),
    "a kind": lambda s, a: s["nodes"][1].update(kind="os.system"),
    "a field": lambda s, a: s["nodes"][1].update(field=1),
    "a field less": lambda s, a: s["nodes"][1].pop("weight"),
    "a text": lambda s, a: s["nodes"][0].update(high="9; }"),
    "a fraction": lambda s, a: s["nodes"][0].update(high=1.5),
    "a huge number": lambda s, a: s["nodes"][0].update(high=2**40),
    "nothing": lambda s, a: s["nodes"][2]["neuron"].update(v_decay=None),
    "an order": lambda s, a: s["nodes"].reverse(),
    "a source": lambda s, a: s["nodes"][1].update(sources=[["x", 0]]),
    "a late source": lambda s, a: s["nodes"][1].update(sources=[["in", 5]]),
    "a name twice": lambda s, a: s["nodes"][1].update(name="in"),
    "a shape": lambda s, a: s["nodes"][1].update(shape=[8]),
    "a large shape": lambda s, a: s["nodes"][0].update(shape=[2**30, 2**30]),
    "a decay": lambda s, a: s["nodes"][2]["neuron"].update(v_decay=5000),
    "a reset": lambda s, a: s["nodes"][2]["neuron"].update(reset="zap"),
    "a cap of a hard reset": lambda s, a: s["nodes"][2]["neuron"].update(cap=2),
    "no spikes": lambda s, a: s["nodes"][2]["neuron"].update(cap=0),
    "spikes beyond a byte": lambda s, a: _several(s, a, 256),
    "a cap for each": lambda s, a: _several(s, a, {"array": "cap"}),
    "spikes that take nothing": lambda s, a: _several(s, a, 9, drop=0),
    "weights": lambda s, a: a.update({"1.weight": a["1.weight"].astype(np.int32) * 100}),
    "weights' type": lambda s, a: a.update({"1.weight": a["1.weight"].astype(np.float32)}),
    "weights' shape": lambda s, a: a.update({"1.weight": a["1.weight"][:, :3]}),
    "no weights": lambda s, a: a.__delitem__("1.weight"),
    "a threshold": lambda s, a: a.update({"2.neuron.threshold": np.full(9, -1, np.int32)}),
    "a version": lambda s, a: s.update(version=99),
    "measured": lambda s, a: s.update(measured=[1]),
    "a long name": lambda s, a: s["nodes"][0].update(name="x" * 1001),
    "no name": lambda s, a: s["nodes"][0].update(name=""),
    "an infinite scale": lambda s, a: s["nodes"][0].update(scale=float("inf")),
    "two inputs": lambda s, a: s["nodes"].insert(1, s["nodes"][0] | {"name": "in2"}),
    "no source": lambda s, a: s["nodes"][-1].update(sources=[]),
    "sources that differ": lambda s, a: s["nodes"][2].update(sources=[["fc", 0], ["in", 0]]),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_integers_are_refused_in_one_sentence(folder: Path, what: str) -> None:
    damage(folder, DAMAGE[what])
    with pytest.raises(InputError, match=r"integers.npz: .*export it again"):
        read_folder(folder)


def test_weights_are_bytes_in_the_file_and_of_32_bits_in_older_ones(folder: Path) -> None:
    types = {}

    def widen(structure: Any, arrays: dict[str, Any]) -> None:
        types.update({name: array.dtype for name, array in arrays.items()})
        arrays["1.weight"] = arrays["1.weight"].astype(np.int32)

    before, _ = read_integers(folder / NAME)
    damage(folder, widen)
    after, _ = read_integers(folder / NAME)
    assert types["1.weight"] == np.int8
    for graph in (before, after):
        assert graph.by_name["fc"].weight.dtype == np.int32  # type: ignore[attr-defined]
    np.testing.assert_array_equal(before.by_name["fc"].weight, after.by_name["fc"].weight)  # type: ignore[attr-defined]


def test_several_spikes_are_read_back(folder: Path) -> None:
    damage(folder, lambda s, a: _several(s, a, 31))
    graph, _ = read_integers(folder / NAME)
    assert [node.neuron.cap for node in graph.populations] == [31]


def test_integers_whose_sums_fit_no_register_are_refused(folder: Path) -> None:
    damage(folder, lambda s, a: s["nodes"][0].update(high=2**31 - 1))
    with pytest.raises(
        InputError, match=r"integers.npz: node 'in': its sums may reach 2,147,483,647, beyond the 16,777,216"
    ):
        read_folder(folder)


def test_a_text_that_is_too_long_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stl_deploy.integers.store.MAX_FILE", 100)
    with pytest.raises(InputError, match=r"net\.c: expected .* of at most 100 bytes; found .*; export it again"):
        read_folder(folder)


@pytest.mark.parametrize("to", [CFormat(), VerilogFormat()])
def test_text_that_would_not_be_read_back_is_not_written(
    to: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stl_deploy.integers.store.MAX_FILE", 100)
    program = small().lif("a", 0.7).program()
    with pytest.raises(UnsupportedError) as error:
        to.write(program, tmp_path / "out", to.options(x=data(program)))
    assert error.value.slug == "too-much-text"
    assert not (tmp_path / "out").exists()


def tool(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_no_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    assert C.available() == MISSING
    with pytest.raises(ToolError, match="no C compiler found"):
        CFormat().load(folder).run(data(small().program()))


@pytest.mark.parametrize("named", ["/no/such/cc", "cc -m32"])
def test_no_other_compiler_is_taken_than_the_one_named(
    named: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path / "cc", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", named)
    assert C.available() == f"$CC: expected a C compiler, without options; found no program '{named}'; unset CC"
    with pytest.raises(ToolError, match=f"found no program '{named}'"):
        CFormat().load(folder).run(data(small().program()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo 'net.c:1: error: out of luck' >&2; exit 3", "failed with exit code 3: net.c:1: error: out of luck"),
        ("sleep 60", r"did not end within 0.5 s and was stopped"),
        ("exit 0", "the compiled network cannot be run: No such file"),
    ],
)
def test_a_compiler_that_fails_or_hangs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setenv("CC", tool(tmp_path / "cc", text))
    with pytest.raises(ToolError, match=said):
        C(folder, COptions(deadline=0.5 if "sleep" in text else 60.0)).run(data(small().program()))


def test_an_interrupt_leaves_no_program_behind(tmp_path: Path) -> None:
    kept = tmp_path / "pid"
    code = (
        "import os, signal, sys, threading, time\nfrom stl_deploy.exporters.c.compiler import run_program\n"
        "def interrupt():\n    while not os.path.exists(sys.argv[2]):\n        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt).start()\nrun_program([sys.argv[1]], b'', what='it')"
    )
    program = tool(tmp_path / "hangs", f'echo $$ > "{kept}.part"; mv "{kept}.part" "{kept}"; exec sleep 600')
    done = subprocess.run([sys.executable, "-c", code, program, kept], capture_output=True, text=True, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert not is_alive(int(kept.read_text()))


def test_an_interrupt_after_a_program_has_ended_is_the_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    communicate = compiler.subprocess.Popen.communicate

    def interrupted(process: Any, *given: Any, **options: Any) -> Any:
        found = communicate(process, *given, **options)
        if given:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(compiler.subprocess.Popen, "communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compiler.run_program(["true"], b"", what="it")


def test_a_program_that_says_too_little_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = "#!/bin/sh\\ncat > /dev/null\\n"
    script = f'while [ "$1" != -o ]; do shift; done; printf \'{made}\' > "$2"; chmod +x "$2"'
    monkeypatch.setenv("CC", tool(tmp_path / "cc", script))
    with pytest.raises(ToolError, match=r"the compiled network: expected [\d,]+ bytes of output; found 0"):
        CFormat().load(folder).run(data(small().program()))


def test_the_folder_can_be_built_by_make(folder: Path, tmp_path: Path) -> None:
    if find_compiler() is None or not any((Path(p) / "make").is_file() for p in os.get_exec_path()):
        pytest.skip("make or a C compiler is not installed")
    compiler.run_program(["make", "-s", "-C", str(folder)], b"", what="make")
    x = data(small().program())[:, :5]
    given = np.array([5, 12], "<i4").tobytes() + x.swapaxes(0, 1).astype("<i4").tobytes()
    y = np.frombuffer(compiler.run_program([str(folder / "net")], given, what="net"), "<i4").reshape(5, 12, 9)
    np.testing.assert_array_equal(y.swapaxes(0, 1), CFormat().load(folder).run(x).y)
    expected = r"code 2: net: expected int32 B and T, then x \[B, T, 12\]; found "
    for text in (b"", given[:5], given[:-1], np.array([2**31 - 1], "<i4").tobytes() + given[4:]):
        with pytest.raises(ToolError, match=f"{expected}an input that ends early$"):
            compiler.run_program([str(folder / "net")], text, what="net")
    with pytest.raises(ToolError, match=f"{expected}bytes after them$"):
        compiler.run_program([str(folder / "net")], given + b"\0", what="net")
    for samples, steps in ((-1, 12), (5, -1), (5, 0)):
        text = np.array([samples, steps], "<i4").tobytes() + given[8:]
        with pytest.raises(ToolError, match=f"code 2: net: .* from 1; found B = {samples} and T = {steps}$"):
            compiler.run_program([str(folder / "net")], text, what="net")
    with pytest.raises(ToolError, match="sample 0, step 0: the input holds a value outside 0 to 1"):
        compiler.run_program([str(folder / "net")], given[:8] + b"\x07" * (len(given) - 8), what="net")


@pytest.mark.parametrize("reset", ["none", "snntorch_subtract_now"])
def test_a_reset_that_integers_do_not_know_is_refused(reset: Any) -> None:
    program = small().lif("a", 0.7).program()
    nodes = tuple(replace(node, reset=reset) if isinstance(node, Neuron) else node for node in program.nodes)
    (found,) = (one for one in CFormat().check(replace(program, nodes=nodes)) if one.severity == "error")
    assert (found.slug, found.node) == ("reset", "a")
