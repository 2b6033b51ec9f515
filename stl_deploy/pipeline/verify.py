"""The verb verify: artifacts against the graph they were made from, spike by spike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stl_deploy._util.console import Console
from stl_deploy.errors import InputError
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.margins import NearThreshold
from stl_deploy.exporters.onnx.int8 import to_int8
from stl_deploy.exporters.onnx.interface import Precision
from stl_deploy.exporters.onnx.model import OnnxModel
from stl_deploy.exporters.verify import LAYER_HEADER, Report, RunParity, layer_rows, require_exact
from stl_deploy.exporters.verify import verify as compare
from stl_deploy.graph.io.nir_file import read_nir
from stl_deploy.graph.lower import lower
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import Result, run
from stl_deploy.pipeline.backends import CHUNK, Options, model_of_file, run_model, spiking
from stl_deploy.pipeline.manifest import check_unchanged
from stl_deploy.pipeline.progress import tenths
from stl_deploy.pipeline.source import TEST_INPUT, NetworkInput, open_program, open_source, program_input

REFERENCE = "reference"
INT8 = " (int8)"
"""Ends the name of a run with int8 weights, compared with the graph as it is."""
LAVA = " (real Lava against our integer model)"
LAVA_SAMPLES = 100


def verify(
    source: Path,
    against: Sequence[Path],
    *,
    input_file: Path | None = None,
    dialect: str | None = None,
    lava: bool = True,
    deadline: float = 600.0,
    say: Console | None = None,
) -> Report:
    """Compare artifacts (.nir, .onnx, .net) with a run folder's or .nir file's graph on one input.

    The input is the file given, else the run folder's test images, else random input on the graph's grid.
    lava: where its side environment is ready, a .net file also runs on real Lava, on the first `LAVA_SAMPLES` samples,
    within ``deadline`` seconds, and is compared with our integer model's run of it.
    Raises InputError for files that cannot be read or do not belong to the graph, ToolError if Lava fails.
    """
    say = say or Console(quiet=True)
    opened = open_source(source)
    if opened.kind == "run":
        check_unchanged(source, ("net.nir", TEST_INPUT))
    program = open_program(opened, dialect)
    x, what = program_input(opened, program, input_file)
    say.say(f"input: {what}")
    report = check_against(program, against, x)
    if lava:
        found = [one for path in against if path.suffix == ".net" for one in _on_lava(program, path, x, deadline, say)]
        report = replace(report, runs=(*report.runs, *found))
    show(report, say)
    return report


def check_against(program: Program, artifacts: Sequence[Path], x: NetworkInput) -> Report:
    """Run the program and each artifact on ``x`` ``[T, B, *shape]`` and compare.

    An ONNX file that adds up in float64 meets a reference that does too. One with int8 weights meets the reference
    with those weights, from which it must not differ, and the program itself, to measure what the rounding costs.
    """
    plain, doubled, rounded = dict[str, Result](), dict[str, Result](), dict[str, Result]()
    for path in artifacts:
        result, precision = _run_artifact(program, path, x)
        if precision == "exact":
            doubled[f"{path.name} (exact)"] = result
        elif precision == "int8":
            plain[path.name + INT8] = result
            rounded[f"{path.name} (against its int8 weights)"] = result
        else:
            plain[path.name] = result
    reports = [_compare(program, plain, x)] if plain else []
    if doubled:
        reports.append(_compare(program, doubled, x, double=True))
    if rounded:
        reports.append(_compare(to_int8(program)[0], rounded, x))
    return replace(reports[0], runs=tuple(run for report in reports for run in report.runs))


def _on_lava(program: Program, path: Path, x: NetworkInput, deadline: float, say: Console) -> tuple[RunParity, ...]:
    """The file on real Lava against our integer model; nothing, which is said, where Lava is not ready."""
    status = environment.status()
    if not status.ready:
        say.say(f"{path.name} did not run on real Lava ({status.reason})")
        return ()
    part = np.asarray(x)[:, :LAVA_SAMPLES]
    say.say(f"running {part.shape[1]} samples of it through {path.name} on real Lava")
    model = model_of_file(path, program)
    options = Options(record=True, deadline=deadline, progress=tenths(say, "steps on Lava"))
    runs = {
        path.name + LAVA: run_model(model, path, part, "lava", options),
        REFERENCE: run_model(model, path, part, "loihi", options),
    }
    return compare(program, runs, reference=REFERENCE).runs


def _compare(program: Program, runs: Mapping[str, Result], x: NetworkInput, *, double: bool = False) -> Report:
    near = NearThreshold()
    reference = run(program, x, record=spiking(program), observe=near, chunk=CHUNK, double=double)
    return compare(program, {REFERENCE: reference, **runs}, reference=REFERENCE, near=near, x=x)


def show(report: Report, say: Console) -> None:
    """Agreement by layer."""
    say.table(list(LAYER_HEADER), [list(row) for row in layer_rows(report)])


def _run_artifact(program: Program, path: Path, x: NetworkInput) -> tuple[Result, Precision]:
    kind = open_source(path, ("nir", "onnx", "net")).kind
    if kind == "nir":
        other = lower(read_nir(path))
        return run(other, x, record=spiking(other), chunk=CHUNK), "float32"
    if kind == "onnx":
        model = OnnxModel.load(path)
        return model.run(x, record=tuple(model.interface.spikes), chunk=CHUNK), model.interface.precision
    if isinstance(x, Mapping):
        raise InputError(f"{path}: a .net file has one input; the graph has {', '.join(x)}")
    return run_model(model_of_file(path, program), path, x, "loihi", Options(record=True)), "float32"


def require(report: Report) -> None:
    """Raise ParityError if a float artifact does not spike like the graph, or Lava like our integer model.

    Rounded weights may spike otherwise than the graph, and are counted.
    """
    require_exact(report, [run.run for run in report.runs if not run.run.endswith((".net", INT8))])
