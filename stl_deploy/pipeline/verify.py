"""The verb verify: artifacts and backends against the graph, spike by spike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stl_deploy._util.console import Console
from stl_deploy.errors import InputError
from stl_deploy.exporters.targets import Format, format_of, registry
from stl_deploy.exporters.verify import LAYER_HEADER, Report, layer_rows
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput
from stl_deploy.pipeline.artifacts import Bench, labels_of, open_runner
from stl_deploy.pipeline.manifest import check_unchanged
from stl_deploy.pipeline.progress import now_and_then
from stl_deploy.pipeline.source import TEST_INPUT, on_declared_grid, open_program, open_source, program_input


def verify(
    source: Path,
    against: Sequence[Path | str],
    *,
    input_file: Path | None = None,
    dialect: str | None = None,
    input_grid: int | None = None,
    lava: bool = True,
    deadline: float = 600.0,
    say: Console | None = None,
) -> Report:
    """Compare artifacts, or the network on backends, with a run folder's or .nir file's graph on one input.

    against: an artifact's path, or the name of a backend. The input is the file given, else the run folder's test
    images, else random input on the graph's grid. input_grid: it is rounded to multiples of 2^-input_grid. lava: an
    artifact also runs on further backends that read it and must
    equal one of our models (a .net file on real Lava), where they are ready, on the first `SAMPLES` samples, within
    ``deadline`` seconds. ``report.require()`` raises ParityError where spikes differ that must not.
    Raises InputError for files that cannot be read or do not belong to the graph, ToolError if a tool fails.
    """
    say = say or Console(quiet=True)
    opened = open_source(source)
    if opened.kind == "run":
        check_unchanged(source, ("net.nir", TEST_INPUT))
    program = open_program(opened, dialect, say=say)
    x, _, what = program_input(opened, program, input_file)
    program, x = on_declared_grid(program, x, input_grid, say)
    say.say(f"input: {what}")
    report = check_against(program, against, x, further=lava, deadline=deadline, say=say)
    show(report, say)
    return report


def check_against(
    program: Program,
    against: Sequence[Path | str],
    x: NetworkInput,
    *,
    further: bool = False,
    deadline: float = 600.0,
    say: Console | None = None,
) -> Report:
    """Run the program and each artifact (or the program on each backend) on ``x`` ``[T, B, *shape]`` and compare.

    A file that computes something else on purpose, as an ONNX file with int8 weights, must equal the reference of
    that, and its difference from the program is told.
    """
    say = say or Console(quiet=True)
    bench, runners = Bench(program, x), registry().runners
    common = {"deadline": deadline, "progress": now_and_then(say, "steps")}
    names = labels_of(Path(one) for one in against if str(one) not in runners or Path(one).exists())
    for one in dict.fromkeys(against):
        path = Path(one)
        if path not in names:
            kind = runners[str(one)]
            bench.hold(kind.name, open_runner(kind, program, program, **common), program)
            continue
        of = _format(path)
        runner = bench.artifact(path, of, names[path])
        if further:
            bench.further(path, of, names[path], {runner.name}, say, **common)
    return bench.report


def _format(path: Path) -> Format:
    of = format_of(path)
    if of is not None and path.exists():
        return of
    found = f"'{path.suffix}'" if path.exists() else "no such file or folder"
    formats = ", ".join(one.suffix or f"a folder with {one.folder}" for one in registry().formats.values())
    raise InputError(f"{path}: expected {formats} or a backend ({', '.join(registry().runners)}); found {found}")


def show(report: Report, say: Console) -> None:
    """Agreement by layer."""
    say.table(list(LAYER_HEADER), [list(row) for row in layer_rows(report)])
