"""Check and show networks, artifacts and folders by path; measure a dialect's open options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import leading, read_inputs, require_suffix, write_text
from stl_deploy._util.keywords import named_options
from stl_deploy._util.remedies import named
from stl_deploy._util.units import counted
from stl_deploy.config.options import CheckKeywords, CheckOptions
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.check import Effect, check_file, effects
from stl_deploy.exporters.nir.detect_writer import resolve_dialect
from stl_deploy.exporters.nir.dialect import load_dialect
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.targets import ListsLayers, find_format
from stl_deploy.graph.exact import require_on_grid
from stl_deploy.graph.findings import CheckReport, Finding, NodeReport, fidelities, from_error, worst
from stl_deploy.graph.margins import UlpMargins
from stl_deploy.graph.readout import readout_of
from stl_deploy.graph.run import CHUNK, NetworkInput, run
from stl_deploy.graph.show import Row, svg, table
from stl_deploy.pipeline.check import check_as_program, declared_grid, seen_coding, targets_asked
from stl_deploy.report.text.check import show as tell
from stl_deploy.report.text.check import show_effects, show_folder
from stl_deploy.runs.source import NetworkSource, graph_of, open_program, open_source, read_for


@dataclass(frozen=True)
class FolderCheck:
    """The reports of a folder's .nir files, by file name."""

    reports: Mapping[str, CheckReport]

    @property
    def ok(self) -> bool:
        """Whether every file is sound and every requested target can hold it."""
        return all(report.ok for report in self.reports.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        return {"ok": self.ok, "files": {name: report.as_dict() for name, report in self.reports.items()}}


@named_options(CheckOptions)
def check(
    source: Path,
    *,
    targets: Sequence[str] | None = None,
    dialect: str | None = None,
    x: NetworkInput | None = None,
    options: CheckOptions | None = None,
    say: Console = QUIET,
    **keywords: Unpack[CheckKeywords],
) -> CheckReport:
    """Check a run folder's graph, a .nir file or an exported artifact against targets (default: all formats).

    x: representative input, for targets that accept only integers. options: an options object, or its fields as
    keywords. Raises InputError for invalid arguments.
    """
    options = options or CheckOptions(**keywords)
    asked = targets_asked(targets, options, x)
    opened = open_source(source, artifacts=True)
    if not opened.is_graph:
        if targets or options != CheckOptions():
            raise InputError(
                f"{source}: expected a graph to check against targets; found an artifact of {opened.kind}; "
                f"leave {named('targets')} and its options out, or give the graph it was made from"
            )
        report = _artifact(opened)
        tell(report, say)
        return report
    if dialect is not None:
        load_dialect(dialect)  # a bad one ends the call; in check_file it would be a finding of the file's
    declared, seen = declared_grid(options.input_grid), seen_coding(x)
    if opened.holds_program:
        report = check_as_program(open_program(opened, dialect), asked, declared, seen)
    else:
        report = check_file(opened.file, dialect, asked, declared, seen)
    tell(report, say)
    return report


def _artifact(source: NetworkSource) -> CheckReport:
    """Return whether an artifact can be read back, and its layers, held by its own target."""
    of = find_format(source.kind)
    try:
        runner = of.load(source.file)
        rows = artifact_rows(source) if isinstance(of, ListsLayers) else ()
    except Exception as error:
        return CheckReport((), (from_error(error, of.name),), {of.name: "unsupported"}, None)
    warned = tuple(replace(warning, target=of.name) for warning in getattr(runner, "warnings", ()))
    notes = tuple(Finding("left-out", "info", None, note) for note in getattr(runner, "notes", ()))
    held = fidelities([row.node for row in rows], warned, [of.name])
    nodes = tuple(NodeReport(row.node, row.kind, row.shape, held[row.node]) for row in rows)
    return CheckReport(nodes, (*warned, *notes), {of.name: worst(*(by[of.name] for by in held.values()))}, None)


@named_options(CheckOptions)
def check_folder(
    folder: Path,
    *,
    targets: Sequence[str] | None = None,
    dialect: str | None = None,
    options: CheckOptions | None = None,
    say: Console = QUIET,
    **keywords: Unpack[CheckKeywords],
) -> FolderCheck:
    """Check every .nir file of a folder in one table; options as in `check`.

    Raises InputError for invalid arguments or a folder without .nir files.
    """
    options = options or CheckOptions(**keywords)
    asked = targets_asked(targets, options)
    if dialect is not None:
        load_dialect(dialect)  # a bad one ends the call; in check_file it would be a finding of the file's
    files = nir_files(folder)
    if not files:
        raise InputError(f"{folder}: expected .nir files in it; found none")
    grid = declared_grid(options.input_grid)
    result = FolderCheck({file.name: check_file(file, dialect, asked, grid) for file in files})
    show_folder(result.reports, list(asked), say)
    return result


def nir_files(source: Path) -> list[Path]:
    """Return the .nir files of a folder, sorted by name; a run folder has none."""
    if not source.is_dir() or graph_of(source) is not None:
        return []
    return sorted(file for file in source.glob("*.nir") if file.is_file())


def measure(source: Path, input_file: Path, *, dialect: str | None = None, say: Console = QUIET) -> tuple[Effect, ...]:
    """Run the network under every other choice of its dialect's options and count the outputs that change.

    Raises InputError or GraphError if it cannot be run under the assumed dialect.
    """
    x, _ = read_inputs(input_file)
    opened = open_source(source)
    if opened.holds_program:
        raise InputError(
            f"{source}: {named('input_file')} measures what a .nir file leaves open; a .program file is complete"
        )
    graph = read_nir(opened.file)
    changes = effects(graph, x, resolve_dialect(graph, dialect, source, or_spec=True).dialect)
    show_effects(changes, f"{counted(leading(x)[1], 'sample')} of {input_file}", say)
    return changes


def near_threshold(
    source: Path, input_file: Path, *, dialect: str | None = None, say: Console = QUIET
) -> dict[str, int]:
    """Count, per spiking node, potentials within a few units in the last place of the threshold.

    There, a different order of summation can change a spike. Raises as `measure`.
    """
    opened = open_source(source)
    program, near = open_program(opened, dialect, or_spec=True), UlpMargins()
    x, _ = read_for(opened, program, input_file)
    try:
        require_on_grid(program, x)
    except InputError as error:
        say.warn(str(error))
    run(program, x, observe=near, chunk=CHUNK)
    close = {name: count for name, count in near.counts.items() if count}
    where = ", ".join(f"{name} {count:,}" for name, count in close.items()) or "nowhere"
    say.say(f"potentials within {near.ulps:g} units in the last place of the threshold: {where}")
    return near.counts


def show(
    source: Path, *, dialect: str | None = None, drawing: Path | None = None, say: Console = QUIET
) -> list[dict[str, Any]]:
    """Return the rows of a network's layer table, or of an artifact's (JSON-ready); ``drawing``: also write an SVG."""
    if drawing is not None:
        require_suffix(drawing, ".svg")
    opened = open_source(source, artifacts=True)
    if not opened.is_graph:
        if drawing is not None:
            raise InputError(f"{source}: expected a graph to draw; found an artifact of {opened.kind}")
        rows = artifact_rows(opened)
        _tell_rows(rows, say)
        return [row.as_dict() for row in rows]
    program = open_program(opened, dialect, say=say, or_spec=True)
    rows = table(program)
    _tell_rows(rows, say)
    total = sum(row.parameters or 0 for row in rows), sum(row.synapses or 0 for row in rows)
    say.say(f"{total[0]:,} weights and biases, {total[1]:,} synapses of one sample and step; dt {program.dt:g}")
    say.say(f"readout: {readout_of(program.metadata)}")
    if drawing is not None:
        write_text(drawing, svg(program))
        say.say(f"written: {drawing}")
    return [row.as_dict() for row in rows]


def artifact_rows(source: NetworkSource) -> Sequence[Row]:
    """Return the layers of an artifact; raise InputError for a format without layers."""
    of = find_format(source.kind)
    if not isinstance(of, ListsLayers):
        raise InputError(f"{source.path}: expected a target whose layers can be shown; found {of.name}; use verify")
    return of.rows(source.file)


def _tell_rows(rows: Sequence[Row], say: Console) -> None:
    say.table(
        ["node", "kind", "shape", "reads", "parameters", "synapses", "constants"],
        [
            [
                row.node,
                row.kind,
                "x".join(map(str, row.shape)),
                ", ".join(row.sources),
                _count(row.parameters),
                _count(row.synapses),
                row.constants,
            ]
            for row in rows
        ],
    )


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
