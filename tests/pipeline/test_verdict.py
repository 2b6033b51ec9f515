"""How a run ends: short, narrow, and the numbers of its files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from stl_deploy.graph.compare import NodeParity, RunParity
from stl_deploy.report.text.run_summary import COLUMNS, LINES, verdict
from stl_deploy.verbs.whole_way import RunResult

ENERGY = (
    "The SNN costs 2.8 times its ANN twin streaming (weights once per step) and 1.04 times layer by layer (once per "
    "inference); modelled, int8, 45 nm, the ANN's zeros skipped. Whether the SNN is as accurate as its ANN twin (98.05 "
    f"% against 98.89 %, margin 0.5 points) is undecided. {'And more, ' * 24}that nobody can read at once."
)


def test_twelve_lines_of_eighty_columns(small_run: RunResult) -> None:
    lines = verdict(Path("runs/digits"), small_run.parity, ENERGY, 46.2)
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    text = " ".join(" ".join(lines).split())
    report = small_run.parity.report
    assert report.accuracy is not None
    assert f"{100 * report.accuracy:.2f} % deployed" in text
    assert "done in 46 s; look at runs/digits/report.html" in text
    assert "ONNX Runtime: all " in text
    assert "as in the graph, by proof" in text
    assert "The SNN costs 2.8 times its ANN twin streaming" in text
    assert "1.04 times layer by layer" in text
    assert "nobody can read" not in text
    assert "no chip" in text


SENTENCES = (
    "The SNN costs 2.8 times its ANN twin streaming (weights once per step) and 1.04 times layer by layer (once per "
    "inference); modelled, int8, 45 nm, the ANN's zeros skipped. Whether the SNN is as accurate as its ANN twin (98.05 "
    "% against 98.89 %, margin 0.5 points) is undecided with 359 samples; about 1,100 would do. On Loihi 1 an "
    "inference takes 11 to 120 µJ and 19 to 900 µs (neurocores only)."
)


@pytest.mark.parametrize("length", [1, 60, 130, 200])
def test_both_numbers_stay_however_long_the_folders_name_is(length: int, small_run: RunResult) -> None:
    lines = verdict(Path("a" * length), small_run.parity, SENTENCES, 1.0)
    text = " ".join(" ".join(lines).split())
    assert len(lines) <= LINES
    assert "2.8 times its ANN twin streaming" in text
    assert "1.04 times layer by layer" in text
    energy = text[text.index("energy ") : text.index("parity ")]
    assert energy.count("(") == energy.count(")")
    assert ("On Loihi 1 an inference takes" in energy) is not ("ore in the report." in energy)


def test_differing_spikes_are_told(small_run: RunResult) -> None:
    (integers,) = (r for r in small_run.parity.report.runs if r.run == "Loihi integers (our model)")
    text = " ".join(" ".join(verdict(Path("r"), small_run.parity, "x", 1.0)).split())
    assert f"{integers.run}: {integers.differing:,} of {integers.compared:,} differ" in text


@pytest.mark.parametrize(("differing", "told"), [(0, "Lava: all as our model predicts"), (3, "Lava: 3 of 10 differ")])
def test_lava_is_held_against_our_model(differing: int, told: str, small_run: RunResult) -> None:
    reference = small_run.parity.report.reference
    node = NodeParity("lif1", 10, differing, 0.0, None)
    runs = (
        RunParity("Lava", (node,), (), against=reference, required=False, label="simulated"),
        RunParity("Lava (against our model)", (node,), (), against="our model", label="simulated"),
    )
    report = dataclasses.replace(small_run.parity.report, runs=runs)
    table = dataclasses.replace(small_run.parity, report=report)
    text = " ".join(" ".join(verdict(Path("r"), table, "x", 1.0)).split())
    assert told in text
    assert text.count("Lava:") == 1


def test_a_simulator_that_ran_on_fewer_samples_has_a_line_of_its_own(small_run: RunResult) -> None:
    report = small_run.parity.report
    few = RunParity("brian2", (NodeParity("lif1", 10, 0, 0.0, None),), (), against=report.reference, backend="brian2")
    table = dataclasses.replace(small_run.parity, report=dataclasses.replace(report, runs=(*report.runs, few)))
    text = " ".join(" ".join(verdict(Path("r"), table, "x", 1.0)).split())
    assert "brian2: all 10 as in the graph" in text
    assert "ONNX Runtime, brian2" not in text
    assert ", brian2; simulated: " in text


def test_torch_is_named_once(small_run: RunResult) -> None:
    """The backend of this name, on fewer samples, made a line and a runner more."""
    report = small_run.parity.report
    few = RunParity("torch", (NodeParity("lif1", 10, 0, 0.0, None),), (), against=report.reference, backend="torch")
    others = [run for run in report.runs if run.backend != "torch"]
    table = dataclasses.replace(small_run.parity, report=dataclasses.replace(report, runs=(*others, few)))
    text = " ".join(" ".join(verdict(Path("r"), table, "x", 1.0)).split())
    assert "torch: all" not in text
    assert ", torch;" not in text


def test_simulators_that_say_the_same_share_a_line_and_a_command_is_never_broken(small_run: RunResult) -> None:
    report = small_run.parity.report
    node = NodeParity("lif1", 10, 0, 0.0, None)
    names = ("Lava", "C", "Loihi integers (our model) on xylosim")
    held = tuple(
        RunParity(f"{name} (against ours)", (node,), (), against="ours", backend=name.split()[-1], label="simulated")
        for name in names
    )
    told = RunParity("a", (node,), (), against=report.reference, required=False, label="simulated")
    table = dataclasses.replace(small_run.parity, report=dataclasses.replace(report, runs=(*report.runs, told, *held)))
    text = " ".join(" ".join(verdict(Path("r"), table, ENERGY, 1.0)).split())
    assert "Lava, C, xylosim: all as ours predicts" in text
    assert "a, Lava, C, xylosim; no chip" in text
    (integers,) = (run for run in report.runs if run.run == "Loihi integers (our model)")
    assert f"{integers.run}: {integers.differing:,} of" in text
    folder = Path("with-a-name-that-is-longer-than-any-terminal-is-wide-so-that-it-stands-out-in-its-line")
    assert verdict(folder, table, ENERGY, 1.0)[-1] == f"next      stl-deploy export {folder} --to c -o {folder}-c"


def test_twelve_lines_however_many_simulators_ran(small_run: RunResult) -> None:
    report = small_run.parity.report
    differing, same = (NodeParity("lif1", 10, count, 0.0, None) for count in (3, 0))
    many = tuple(
        RunParity(
            f"Loihi integers (our model) on chip{i} (against model {i})",
            (node,),
            (),
            against=f"model {i}",
            backend=f"chip{i}",
            label="simulated",
        )
        for i, node in enumerate([same] * 3 + [differing] * 9)
    )
    for runs in (many[:3], many):
        table = dataclasses.replace(small_run.parity, report=dataclasses.replace(report, runs=(*report.runs, *runs)))
        lines = verdict(Path("r"), table, ENERGY, 1.0)
        assert len(lines) <= LINES
        assert max(map(len, lines)) <= COLUMNS
        text = " ".join(" ".join(lines).split())
        assert "The SNN costs 2.8 times" in text
        assert ("all as our models of them predict" in text) == (len(runs) == 3)
        assert (" more, in verify.json" in text) == (len(runs) > 3)
