"""decide.c: the class, and the step at which it is sure, are those of the readout on the same outputs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy.errors import ToolError
from stl_deploy.exporters.c.compiler import FLAGS, find_compiler, why_none
from stl_deploy.exporters.c.layout import make_plan
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.program import Program as CProgram
from stl_deploy.exporters.c.render import render_plan
from stl_deploy.exporters.c.target import CFormat, read_folder, write_folder
from stl_deploy.graph.program import Operand, Program
from stl_deploy.graph.readout import Readout, exit_steps, sureness
from stl_deploy.integers.graph import IntegerGraph, IntegerLI
from stl_deploy.integers.store import About
from tests.exporters.c.test_by_hand import dense, entry, ints, out
from tests.exporters.c.test_target import data, small

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason=why_none())
OUTPUTS = 6


def signed() -> IntegerGraph:
    """Outputs from -9 to 9: the second half of the input is taken from the first; nothing lasts from step to step."""
    weight = np.concatenate([np.eye(OUTPUTS), -np.eye(OUTPUTS)], axis=1)
    keep = IntegerLI(name="li", shape=(OUTPUTS,), operands=(Operand("fc"),), v_decay=4096, bias=None)
    return IntegerGraph((entry((2 * OUTPUTS,), 9), dense("fc", "in", weight), keep, out("li", (OUTPUTS,))))


def made(readout: Readout) -> CProgram:
    plan = make_plan(signed())
    return CProgram(render_plan(plan, About(readout=readout)), plan)


@pytest.mark.push(5)
@needs_compiler
@pytest.mark.parametrize("population", [1, 2, 3])
@pytest.mark.parametrize("over_time", [None, "mean", "sum", "max", "last", "first"])
def test_class_and_steps_are_those_of_the_readout(over_time: Any, population: int) -> None:
    readout = Readout(over_time, population)
    rng = np.random.default_rng(4)
    x = ints(rng.integers(0, 10, (7, 40, 2 * OUTPUTS)) * (rng.random((7, 40, 1)) < 0.7))
    x[:, 0] = 0  # a sample that never decides
    program = made(readout)
    y = program.run(x).y
    assert y.min() < 0 < y.max()
    unit = int(np.gcd.reduce(y, axis=None))
    for margin in (0, 2 * unit, 5 * unit, 1000 * unit):
        classes, steps = program.decide(x, margin)
        sure = sureness(Program((), 1.0, metadata={"readout": readout.as_dict()}), y)
        # Votes are means over the population in numpy, sums in C; a thousandth of a unit forgives their rounding.
        wanted = exit_steps(sure, 0.5 if over_time == "first" else (margin - unit * 1e-3) / population)
        np.testing.assert_array_equal(steps, wanted)
        for sample, taken in enumerate(steps):
            assert classes[sample] == readout.decide(y[:taken, [sample]])[0]
    assert len(set(steps.tolist())) > 1 or over_time != "first"


@needs_compiler
def test_it_compiles_without_a_warning_and_refuses_another_option(tmp_path: Path) -> None:
    program = made(Readout("first", 2))
    for name, text in program.files.items():
        (tmp_path / name).write_text(text)
    for options in ([], ["-Wconversion"]):
        sources = ["net_decide.c"] if "-Wconversion" in options else ["net_decide.c", "main.c", "net.c"]
        flags = ["-c", "-o", "decide.o"] if len(sources) == 1 else ["-o", "net"]
        subprocess.run([str(find_compiler()), *FLAGS, *options, *flags, *sources], cwd=tmp_path, check=True)
    for wrong in (["--decide"], ["--decide", "-1"], ["--decide", "2x"], ["--margin", "2"], ["3000000000"]):
        found = subprocess.run([str(tmp_path / "net"), *wrong], input=b"", capture_output=True)
        assert found.returncode == 2
        assert found.stderr == b"net: expected --decide MARGIN, an integer from 0\n"


@needs_compiler
def test_a_folder_keeps_its_readout(tmp_path: Path) -> None:
    write_folder(signed(), About(readout=Readout("first", 2)), tmp_path / "c", flash=None, ram=None)
    _, program = read_folder(tmp_path / "c")
    x = ints(np.zeros((2, 1, 2 * OUTPUTS)))
    x[1, 0, 5] = 3
    assert [found.tolist() for found in program.decide(x, 0)] == [[2], [2]]
    subprocess.run(["make", "-s"], cwd=tmp_path / "c", check=True)
    given = ints([1, 2]).tobytes() + x.swapaxes(0, 1).tobytes()
    found = subprocess.run([str(tmp_path / "c" / "net"), "--decide", "0"], input=given, capture_output=True, check=True)
    assert np.frombuffer(found.stdout, "<i4").tolist() == [2, 2]


def test_the_readout_comes_from_the_graph(tmp_path: Path) -> None:
    program = small().lif("a", 0.7).program()
    options = COptions(x=data(program))
    CFormat().write(program, tmp_path / "sum", options)
    first = Program(program.nodes, program.dt, {**program.metadata, "readout": {"over_time": "first"}})
    CFormat().write(first, tmp_path / "first", options)
    kept = json.loads(np.load(tmp_path / "first" / "integers.npz")["structure"].tobytes())
    assert kept["readout"] == {"over_time": "first", "population": 1}
    texts = [(tmp_path / folder / "net_decide.h").read_text() for folder in ("sum", "first")]
    assert "the greatest sum over time" in texts[0]
    assert "the first output above 0" in texts[1]


def test_outputs_that_are_no_classes_have_no_decision() -> None:
    graph = IntegerGraph((entry((1,)), dense("fc", "in", [[1]]), out("fc", (1,))))
    plan = make_plan(graph)
    files = render_plan(plan, About())
    assert not [name for name in files if "decide" in name]
    assert "decide" not in files["main.c"] + files["Makefile"]
    if find_compiler() is not None:
        program = CProgram(files, plan)
        with pytest.raises(ToolError, match="this network has none to decide on"):
            program.decide(ints([[[1]]]), 0)
