"""snn_decide.v: the class and the early exit, against the readout and the C program's rule."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stl_deploy.exporters.verilog.lower import make_plan
from stl_deploy.exporters.verilog.plan import Plan
from stl_deploy.exporters.verilog.render import PREFIX, RULES, decision_of, render
from stl_deploy.exporters.verilog.simulator import Simulation, input_text
from stl_deploy.graph.program import Operand
from stl_deploy.graph.readout import Readout
from stl_deploy.integers.graph import DenseNode, IntegerGraph, IntegerInput, IntegerLIF, IntegerOutput
from stl_deploy.integers.net import WIDE, IntegerNeuron
from stl_deploy.integers.simulate import simulate
from stl_deploy.integers.store import About

BENCH = Path(__file__).with_name("tb_class.v")
RTL = Path(str(files("stl_deploy.exporters.verilog") / "rtl"))
needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="iverilog is not installed")


def network(population: int) -> tuple[Plan, NDArray[np.int32]]:
    """Random weights whose outputs have signs, for three classes."""
    rng = np.random.default_rng(population)
    weight = rng.integers(-90, 90, (6, 5)).astype(np.int32)
    scores = rng.integers(-3, 4, (3 * population, 6)).astype(np.int32)
    neuron = IntegerNeuron(v_decay=1024, threshold=np.full((), 60, np.int32))
    graph = IntegerGraph(
        (
            IntegerInput(name="in", shape=(5,), operands=(), low=0, high=1, scale=1.0),
            DenseNode(name="fc", shape=(6,), operands=(Operand("in"),), weight=weight, bias=None),
            IntegerLIF(name="lif", shape=(6,), operands=(Operand("fc"),), neuron=neuron, bias=None),
            DenseNode(name="vote", shape=(3 * population,), operands=(Operand("lif"),), weight=scores, bias=None),
            IntegerOutput(name="out", shape=(3 * population,), operands=(Operand("vote"),), unit=1.0),
        ),
        WIDE,
    )
    return make_plan(graph), (rng.random((4, 12, 5)) < 0.6).astype(np.int32)


def expected(y: NDArray[np.int32], readout: Readout, margin: int) -> list[tuple[int, int]]:
    """Class and sureness after each step of each sample, by net_decide.c's rule."""
    votes = y.reshape(*y.shape[:2], -1, readout.population).sum(-1).astype(np.int64)
    found = []
    for sample in range(y.shape[1]):
        for step in range(1, len(y) + 1):
            seen = votes[:step, sample]
            rule = readout.over_time
            if rule == "first":
                at = np.where((seen > 0).any(0), (seen > 0).argmax(0), step)
                scores = np.where(at < step, (1000 - at) * 10_000 + seen[np.minimum(at, step - 1), range(3)], 0)
            else:
                scores = {"sum": seen.sum(0), "max": seen.max(0), "last": seen[-1]}[str(rule)]
            leader = int(scores.argmax())
            lead = scores[leader] - np.delete(scores, leader).max()
            sure = scores[leader] > 0 if rule == "first" else lead >= margin * (step if rule == "sum" else 1)
            found.append((leader, int(sure)))
    return found


@pytest.mark.push(2)
@needs_icarus
@pytest.mark.parametrize(("rule", "population"), [("sum", 1), ("sum", 2), ("max", 1), ("last", 3), ("first", 2)])
def test_the_class_after_each_step(rule: Any, population: int, tmp_path: Path) -> None:
    plan, x = network(population)
    about = About(prefix=PREFIX, readout=Readout(rule, population))
    decision = decision_of(plan, about)
    assert decision is not None
    assert decision.rule == RULES[rule]
    for name, text in render(plan, about).items():
        if "/" not in name:
            (tmp_path / name).write_text(text)
    (tmp_path / "input.txt").write_text(input_text(x, 1))
    sizes = {"WANTED": x.shape[0] * x.shape[1], "MARGIN": 2, "VOTE_BITS": decision.vote_bits, "CLASS_BITS": 2}
    given = [f"-Ptb_class.{name}={value}" for name, value in sizes.items()]
    sources = [str(BENCH), "snn_class.v", "snn_decide.v", *Simulation({}, plan).design]
    command = ["iverilog", "-g2005", "-Wall", *given, "-o", "s.vvp", "-s", "tb_class", *sources]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stderr
    assert not [line for line in said.splitlines() if "tb_class" not in line]
    subprocess.run(["vvp", "-n", "s.vvp"], cwd=tmp_path, check=True, capture_output=True)
    got = [tuple(map(int, line.split())) for line in (tmp_path / "class.txt").read_text().splitlines()]
    y = simulate(plan.graph, x).y
    wanted = expected(y, Readout(rule, population), 2)
    assert got == wanted
    assert 0 < sum(sure for _, sure in wanted) < len(wanted)
    ends = [at for at, _ in wanted[len(x) - 1 :: len(x)]]
    if rule != "first":
        assert ends == Readout(rule, population).decide(y).tolist()


@needs_icarus
@pytest.mark.parametrize(
    ("early", "late", "steps"), [(3, 5, 8), (5, 5, 8), (32_000, 32_769, 32_800), (65_536, 65_537, 65_540)]
)
def test_the_first_step_wins_however_late_it_is(early: int, late: int, steps: int, tmp_path: Path) -> None:
    """Of two classes in one step, the first wins; a count of 15 bits once let step 32,769 win against 32,000."""
    sources = [str(BENCH.with_name("tb_decide.v")), str(RTL / "snn_decide.v")]
    given = [f"-Ptb_decide.{name}={value}" for name, value in {"EARLY": early, "LATE": late, "STEPS": steps}.items()]
    subprocess.run(["iverilog", "-g2005", *given, "-o", tmp_path / "s.vvp", "-s", "tb_decide", *sources], check=True)
    subprocess.run(["vvp", "-n", "s.vvp"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "class.txt").read_text().split() == ["0" if early == late else "1", "1"]


def test_what_is_no_list_of_classes_is_not_decided_on() -> None:
    plan, _ = network(1)
    assert decision_of(plan, About(prefix=PREFIX, readout=Readout("sum", 2))) is None
    assert decision_of(plan, About(prefix=PREFIX, readout=Readout("sum", 3))) is None


@pytest.mark.skipif(shutil.which("verilator") is None, reason="verilator is not installed")
def test_the_text_is_clean(tmp_path: Path) -> None:
    plan, _ = network(2)
    for name, text in render(plan, About(prefix=PREFIX, readout=Readout("first", 2))).items():
        if "/" not in name:
            (tmp_path / name).write_text(text)
    quiet = [f"-Wno-{name}" for name in ("DECLFILENAME", "UNUSEDSIGNAL", "UNUSEDPARAM", "BLKSEQ", "PINCONNECTEMPTY")]
    sources = ["snn_class.v", "snn_decide.v", *Simulation({}, plan).design]
    command = ["verilator", "--lint-only", "-Wall", *quiet, "--top-module", "snn_class", *sources]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
