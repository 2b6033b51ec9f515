"""Check and show networks, artifacts and folders by path; measure a dialect's open options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Unpack

from typer import Argument, Option

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import leading, read_inputs, require_suffix, write_text
from stl_deploy._util.keywords import named_options
from stl_deploy._util.remedies import named
from stl_deploy._util.units import counted
from stl_deploy.config.options import CheckKeywords, CheckOptions
from stl_deploy.errors import CheckFailed, InputError
from stl_deploy.exporters.nir.check import Effect, check_file, effects
from stl_deploy.exporters.nir.detect_writer import resolve_dialect
from stl_deploy.exporters.nir.dialect import load_dialect
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.targets import ListsLayers, find_format
from stl_deploy.graph.findings import CheckReport, Finding, NodeReport, fidelities, from_error, worst
from stl_deploy.graph.margins import UlpMargins
from stl_deploy.graph.readout import readout_of
from stl_deploy.graph.run import CHUNK, NetworkInput, run
from stl_deploy.graph.show import Row, svg, table
from stl_deploy.pipeline.check import check_as_program, declared_grid, seen_coding, targets_asked
from stl_deploy.pipeline.network_input import on_declared_grid
from stl_deploy.report.text.check import show as tell
from stl_deploy.report.text.check import show_effects, show_folder
from stl_deploy.runs.source import (
    FOLDER,
    UNTRAINED,
    NetworkSource,
    kind_of,
    nir_files,
    open_program,
    open_source,
    read_for,
)
from stl_deploy.verbs.arguments import DialectOption, Texts, checks, completed


@dataclass(frozen=True, kw_only=True)
class FolderCheck(CheckReport):
    """The reports of a folder's .nir files, by file name, and all their findings."""

    reports: Mapping[str, CheckReport]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        return {"ok": self.ok, "files": {name: report.as_dict() for name, report in self.reports.items()}}

    def require(self) -> None:
        """Raise CheckFailed if a file has errors."""
        if not self.ok:
            bad = sum(not report.ok for report in self.reports.values())
            raise CheckFailed(f"{self.name}: {bad} of {len(self.reports)} files have errors")


@dataclass(frozen=True, kw_only=True)
class Measured(CheckReport):
    """A report with what an input shows: other readings of the file, and potentials near the threshold."""

    effects: tuple[Effect, ...]
    near_threshold: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        effects = [effect.as_dict() for effect in self.effects]
        return super().as_dict() | {"effects": effects, "near_threshold": dict(self.near_threshold)}


@named_options(CheckOptions)
def check(
    source: Annotated[
        Path,
        Argument(
            metavar="SOURCE",
            help="A run folder, a .nir file, a folder of .nir files, an artifact; or before training: a preset, a "
            "configuration, FILE.py:NAME (with x in --input).",
        ),
    ],
    *,
    targets: Annotated[
        Sequence[str] | None,
        Texts,
        Option(
            "--target",
            metavar="TARGET",
            autocompletion=completed(checks),
            help="Repeatable; default: all export targets. A chip's name checks whether the network fits.",
        ),
    ] = None,
    input_file: Annotated[
        Path | None,
        Option("--input", "-i", metavar="X.npz", help="Measure on x which dialect options change the result."),
    ] = None,
    dialect: DialectOption = None,
    x: NetworkInput | None = None,
    options: CheckOptions | None = None,
    say: Console = QUIET,
    **keywords: Unpack[CheckKeywords],
) -> CheckReport:
    """Check a network, trained or not, a file, a folder of .nir files, or an artifact against targets.

    x: representative input, for targets that accept only integers; input_file: one, on which what the file leaves open
    is also measured. options: an options object, or its fields as keywords.
    Raises InputError for invalid arguments, CaptureError for a module that cannot be expressed as a graph.
    """
    options = options or CheckOptions(**keywords)
    kind, name = kind_of(source), str(source)
    if kind == UNTRAINED:
        from stl_deploy.verbs.capturing import check_untrained  # torch

        report = check_untrained(name, input_file, targets_asked(targets, options), options, say)
        return replace(report, name=name)
    if kind == FOLDER and input_file is not None:
        raise InputError(f"{named('input_file')} measures one network; give a run folder or one .nir file")
    if input_file is not None:
        x, _ = read_inputs(input_file)
    asked, declared, seen = targets_asked(targets, options, x), declared_grid(options.input_grid), seen_coding(x)
    if kind == FOLDER:
        _require_dialect(dialect)
        each = {file.name: check_file(file, dialect, asked, declared) for file in nir_files(source)}
        show_folder(each, list(asked), say)
        findings = tuple(finding for report in each.values() for finding in report.findings)
        return FolderCheck((), findings, {}, None, name, reports=each)
    opened = open_source(source, artifacts=True)
    if not opened.is_graph:
        if targets or options != CheckOptions():
            raise InputError(
                f"{source}: expected a graph to check against targets; found an artifact of {opened.kind}; "
                f"leave {named('targets')} and its options out, or give the graph it was made from"
            )
        report = _artifact(opened)
    else:
        _require_dialect(dialect)
        if opened.holds_program:
            report = check_as_program(open_program(opened, dialect), asked, declared, seen)
        else:
            report = check_file(opened.file, dialect, asked, declared, seen)
    tell(report, say)
    if input_file is None or not report.runs:
        return replace(report, name=name)
    changes = measure(source, input_file, dialect=dialect, say=say)
    near = near_threshold(source, input_file, dialect=dialect, say=say)
    about = (report.nodes, report.findings, report.targets, report.dialect, name)
    return Measured(*about, effects=changes, near_threshold=near)


def _require_dialect(dialect: str | None) -> None:
    """Raise InputError for a bad dialect, which `check_file` would report as the file's."""
    if dialect is not None:
        load_dialect(dialect)


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


def measure(source: Path, input_file: Path, *, dialect: str | None = None, say: Console = QUIET) -> tuple[Effect, ...]:
    """Run the network under every other choice of its dialect's options and count the outputs that change.

    A .program file leaves nothing open. Raises InputError or GraphError if it cannot be run under the assumed dialect.
    """
    x, _ = read_inputs(input_file)
    opened = open_source(source)
    if opened.holds_program:
        return ()
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
        program, x = on_declared_grid(program, x, None, say)
    except InputError as error:
        say.warn(str(error))
    run(program, x, observe=near, chunk=CHUNK)
    close = {name: count for name, count in near.counts.items() if count}
    where = ", ".join(f"{name} {count:,}" for name, count in close.items()) or "nowhere"
    say.say(f"potentials within {near.ulps:g} units in the last place of the threshold: {where}")
    return near.counts


def show(
    source: Annotated[
        Path, Argument(metavar="SOURCE", help="A run folder, a .nir file, or an exported .onnx, .net, C or Verilog.")
    ],
    *,
    dialect: DialectOption = None,
    drawing: Annotated[Path | None, Option("-o", "--output", metavar="GRAPH.svg", help="Also draw the graph.")] = None,
    say: Console = QUIET,
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
