"""The verb verify: artifacts and backends against the graph, spike by spike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.console import QUIET, Console
from stl_deploy.errors import InputError
from stl_deploy.exporters.targets import Format, OnGrid, format_of, registry
from stl_deploy.exporters.verify import LAYER_HEADER, Report, layer_rows
from stl_deploy.graph.exact import Grid, input_scale, on_grid
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput
from stl_deploy.pipeline.artifacts import Bench, labels_of, open_runner, ready
from stl_deploy.pipeline.progress import now_and_then
from stl_deploy.runs.manifest import check_network
from stl_deploy.runs.source import named, on_declared_grid, open_program, open_source, program_input


def verify(
    source: Path,
    against: Sequence[Path | str],
    *,
    input_file: Path | None = None,
    dialect: str | None = None,
    input_grid: int | None = None,
    lava: bool = True,
    deadline: float = 600.0,
    say: Console = QUIET,
) -> Report:
    """Compare artifacts, or the network on backends, with a run folder's or .nir file's graph on one input.

    against: an artifact's path, or the name of a backend. The input is the file given, else the run folder's test
    images, else random input on the graph's grid. input_grid: see `check_against`. lava: an artifact also runs on
    further backends that read it and must equal one of our models (a .net file on real Lava), where they are ready, on
    the first `SAMPLES` samples. deadline: seconds that each outside tool may take without showing progress.
    ``report.require()`` raises ParityError where spikes differ that must not.
    Raises InputError for files that cannot be read or do not belong to the graph, ToolError if a tool fails.
    """
    opened = open_source(source)
    if opened.kind == "run":
        check_network(source)
    program = open_program(opened, dialect, say=say)
    x, labels, what = program_input(opened, program, input_file)
    say.say(f"input: {what}")
    report = check_against(program, against, x, labels, input_grid=input_grid, further=lava, deadline=deadline, say=say)
    show(report, say)
    return report


def check_against(
    program: Program,
    against: Sequence[Path | str],
    x: NetworkInput,
    labels: NDArray[Any] | None = None,
    *,
    input_grid: int | None = None,
    further: bool = False,
    deadline: float = 600.0,
    say: Console = QUIET,
) -> Report:
    """Run the program and each artifact (or the program on each backend) on ``x`` ``[T, B, *shape]`` and compare.

    labels: ``[B]``, for accuracies. input_grid: x is rounded to multiples of 2^-input_grid; None: to the grid that an
    artifact was exported for, where that is another than the program's. A file that computes something else on purpose,
    as an ONNX file with int8 weights, must equal the reference of that, and its difference from the program is told.
    """
    runners = registry().runners
    common: dict[str, Any] = {"deadline": deadline, "progress": now_and_then(say, "steps")}
    names = labels_of(Path(one) for one in against if str(one) not in runners or format_of(Path(one)))
    formats = {path: _format(path) for path in names}
    loaded = {path: of.load(path) for path, of in formats.items()}
    bits = {names[path]: one.input_bits for path, one in loaded.items() if isinstance(one, OnGrid)}
    if not isinstance(x, Mapping):
        theirs = _their_grid(math.log2(input_scale(program)) if input_grid is None else input_grid, bits, say)
        input_grid = theirs if input_grid is None else input_grid
    program, x = on_declared_grid(program, x, input_grid, say)
    _require_whole(x, [name for name, found in bits.items() if found == 0])
    bench = Bench(program, x, labels)
    for one in dict.fromkeys(against):
        path = Path(one)
        if path not in names:
            kind = runners[str(one)]
            bench.hold(kind.name, open_runner(kind, program, program, say=say, **common), program)
            continue
        bench.hold(names[path], ready(loaded[path], program, deadline), path, artifact=str(path))
        if further:
            bench.further(path, formats[path], names[path], {loaded[path].name}, say, **common)
    return bench.report


def _their_grid(own: float, bits: Mapping[str, int | None], say: Console) -> int | None:
    """The coarsest input grid that artifacts were exported for, in bits; None if it is ``own``."""
    told = {name: found for name, found in bits.items() if found}
    if not told or min(told.values()) == own:
        return None
    name, coarsest = min(told.items(), key=lambda one: one[1])
    say.say(f"{name} was exported for input in multiples of 2^-{coarsest}")
    return coarsest


def _require_whole(x: NetworkInput, names: Sequence[str]) -> None:
    """Raise InputError for fractions in the input of artifacts that take whole numbers alone."""
    if names and not isinstance(x, Mapping) and not on_grid(x, Grid(0, np.inf)):
        raise InputError(
            f"{names[0]} was exported for whole numbers as input; found fractions; export it again with --input-grid "
            "BITS, which rounds to multiples of 2^-BITS"
        )


def _format(path: Path) -> Format:
    of = format_of(path)
    if of is not None and path.exists():
        return of
    found = named(path) if path.exists() else "no such file or folder"
    formats = ", ".join(one.suffix or f"a folder with {one.folder}" for one in registry().formats.values())
    raise InputError(f"{path}: expected {formats} or a backend ({', '.join(registry().runners)}); found {found}")


def show(report: Report, say: Console) -> None:
    """Agreement by layer."""
    for warning in report.warnings:
        say.warn(warning)
    say.table(list(LAYER_HEADER), [list(row) for row in layer_rows(report)])
