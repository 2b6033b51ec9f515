"""The verb check: one network, a folder of files, and what a dialect's open options would change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import leading, read_inputs
from stl_deploy._util.suggest import did_you_mean
from stl_deploy._util.units import counted
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.ambiguity import Effect, effects
from stl_deploy.exporters.nir.check import check_file
from stl_deploy.exporters.nir.detect_writer import reading_of
from stl_deploy.exporters.nir.dialect import load_dialect
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.targets import ChecksFor, Tabled, find_format, findings, make_options, registry
from stl_deploy.exporters.targets import settings as option_names
from stl_deploy.graph.check import TargetCheck, check_program
from stl_deploy.graph.exact import Grid, on_grid, require_on_grid
from stl_deploy.graph.findings import Finding, NodeReport, Report, fidelities, from_error, told, worst
from stl_deploy.graph.margins import NearThreshold
from stl_deploy.graph.run import CHUNK, NetworkInput, run
from stl_deploy.pipeline.show import artifact_rows
from stl_deploy.runs.source import PROGRAM, Source, check_bits, open_program, open_source, read_for


@dataclass(frozen=True)
class FolderCheck:
    """The reports of a folder's .nir files, by file name."""

    reports: Mapping[str, Report]

    @property
    def ok(self) -> bool:
        """Whether every file is sound and every target asked for can hold it."""
        return all(report.ok for report in self.reports.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON twin."""
        return {"ok": self.ok, "files": {name: report.as_dict() for name, report in self.reports.items()}}


def check(
    source: Path,
    *,
    targets: Sequence[str] | None = None,
    dialect: str | None = None,
    input_grid: int | None = None,
    x: NetworkInput | None = None,
    say: Console = QUIET,
    **settings: Any,
) -> Report:
    """Check a run folder's graph or a .nir file against targets (default: every format's), or an artifact of ours.

    input_grid: the input will be multiples of 2^-input_grid up to 1. x: input like what will enter, for targets that
    take whole numbers alone. settings: the targets' own options, as ``device`` of xylo, ``flash`` and ``ram`` of c.

    Raises InputError for a bad call.
    """
    asked = targets_asked(targets, settings)
    opened = open_source(source, artifacts=True)
    if not opened.is_graph:
        if targets or input_grid is not None or any(value is not None for value in settings.values()):
            raise InputError(
                f"{source}: expected a graph to ask targets about; found an artifact of {opened.kind}; "
                "leave --target and its options out, or give the graph it was made from"
            )
        report = _artifact(opened)
        show(report, say)
        return report
    if dialect is not None:
        load_dialect(dialect)  # a bad one ends the call; in check_file it would be a finding of the file's
    if opened.kind == PROGRAM:
        report = _program(opened, dialect, asked, declared_grid(input_grid), seen_coding(x))
    else:
        report = check_file(opened.file, dialect, asked, declared_grid(input_grid), seen_coding(x))
    show(report, say)
    return report


def _program(
    source: Source,
    dialect: str | None,
    asked: Mapping[str, TargetCheck],
    declared: dict[str, Any] | None,
    seen: dict[str, Any] | None,
) -> Report:
    """The report on a Program file; declared, seen: as `check_file` takes them."""
    program = open_program(source, dialect)
    said = {"input": seen or {}, **program.metadata} | ({"input": declared} if declared else {})
    return check_program(replace(program, metadata=said), asked)


def _artifact(source: Source) -> Report:
    """Whether an artifact can be read back, and its layers, held as they are by its own target."""
    of = find_format(source.kind)
    try:
        runner = of.load(source.file)
        rows = artifact_rows(source) if isinstance(of, Tabled) else ()
    except Exception as error:
        return Report((), (from_error(error, of.name),), {of.name: "unsupported"}, None)
    warned = tuple(replace(found, target=of.name) for found in getattr(runner, "warnings", ()))
    notes = tuple(Finding("left-out", "info", None, note) for note in getattr(runner, "notes", ()))
    held = fidelities([row.node for row in rows], warned, [of.name])
    nodes = tuple(NodeReport(row.node, row.kind, row.shape, held[row.node]) for row in rows)
    return Report(nodes, (*warned, *notes), {of.name: worst(*(by[of.name] for by in held.values()))}, None)


def check_folder(
    folder: Path,
    *,
    targets: Sequence[str] | None = None,
    dialect: str | None = None,
    input_grid: int | None = None,
    say: Console = QUIET,
    **settings: Any,
) -> FolderCheck:
    """Check every .nir file of a folder; one table for all; input_grid, settings: as in `check`.

    Raises InputError for a bad call or if there is none.
    """
    asked = targets_asked(targets, settings)
    if dialect is not None:
        load_dialect(dialect)  # a bad one ends the call; in check_file it would be a finding of the file's
    files = nir_files(folder)
    if not files:
        raise InputError(f"{folder}: expected .nir files in it; found none")
    found = FolderCheck({file.name: check_file(file, dialect, asked, declared_grid(input_grid)) for file in files})
    errors = {name: sum(one.severity == "error" for one in r.findings) for name, r in found.reports.items()}
    rows = [[name, *r.targets.values(), str(errors[name]), _first(r)] for name, r in found.reports.items()]
    say.table(["file", *asked, "errors", "first finding"], rows)
    return found


def nir_files(source: Path) -> list[Path]:
    """The .nir files of a folder that is no run folder, in order of name."""
    if not source.is_dir() or (source / "net.nir").is_file():
        return []
    return sorted(file for file in source.glob("*.nir") if file.is_file())


def measure(source: Path, input_file: Path, *, dialect: str | None = None, say: Console = QUIET) -> tuple[Effect, ...]:
    """Run the network under every other choice of its dialect's options and count the outputs that change.

    Raises InputError or GraphError if it cannot be run as it is assumed to be meant.
    """
    x, _ = read_inputs(input_file)
    opened = open_source(source)
    if opened.kind == PROGRAM:
        raise InputError(
            f"{source}: --input measures what a .nir file leaves open; a .program file leaves nothing open"
        )
    graph = read_nir(opened.file)
    found = effects(graph, x, reading_of(graph, dialect, source, or_spec=True).dialect)
    rows = [
        [effect.option, str(effect.assumed), str(effect.instead), _share(effect)]
        for effect in found
        if effect.differ != 0
    ]
    say.say(f"what other choices in the dialect would change, on {counted(leading(x)[1], 'sample')} of {input_file}:")
    if rows:
        say.table(["option", "assumed", "instead", "outputs that change"], rows)
    unchanged = dict.fromkeys(effect.option for effect in found if effect.differ == 0)
    some = {effect.option for effect in found if effect.differ != 0}
    nothing = [option for option in unchanged if option not in some]
    if nothing:
        say.say(f"nothing changes with: {', '.join(nothing)}")
    return found


def near_threshold(
    source: Path, input_file: Path, *, dialect: str | None = None, say: Console = QUIET
) -> dict[str, int]:
    """How often each spiking node's potential came within a few units in the last place of its threshold.

    There another order of summation can move a spike. Raises as `measure` does.
    """
    opened = open_source(source)
    program, near = open_program(opened, dialect, or_spec=True), NearThreshold()
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


def declared_grid(bits: int | None) -> dict[str, Any] | None:
    """What metadata say of an input of multiples of 2^-bits up to 1; raises InputError for bits outside 0…24."""
    if bits is None:
        return None
    check_bits(bits)
    return {"fraction_bits": bits, "max": 1.0}


def seen_coding(x: NetworkInput | None) -> dict[str, Any] | None:
    """What ``x`` shows of the input, as metadata say it; None without x."""
    if x is None:
        return None
    arrays = list(x.values()) if isinstance(x, Mapping) else [np.asarray(x)]
    return {"coding": "graded" if all(on_grid(array, Grid(0, np.inf)) for array in arrays) else "analog"}


def targets_asked(targets: Sequence[str] | None, settings: Mapping[str, Any] | None = None) -> dict[str, TargetCheck]:
    """What each target is asked; without names, of every format but those that are asked by name alone.

    settings: options of the targets that are named. Raises InputError for a name or an option that is none of theirs.
    """
    formats: dict[str, TargetCheck] = {n: partial(findings, one) for n, one in registry().formats.items()}
    known: dict[str, TargetCheck] = {**formats, **{n: partial(findings, one) for n, one in registry().checks.items()}}
    for name in targets or ():
        if name not in known:
            close = did_you_mean(name, known)
            raise InputError(f"expected a target: {', '.join(known)}; found '{name}'{close}")
    default = [name for name, one in registry().formats.items() if one.by_default]
    asked = {name: ask for name, ask in known.items() if name in (targets or default)}
    given = {name: value for name, value in (settings or {}).items() if value is not None}
    return asked | (_with_options(list(asked), given) if given else {})


def _with_options(asked: Sequence[str], given: Mapping[str, Any]) -> dict[str, TargetCheck]:
    """The checks that these options change; raises InputError for an option that none of those asked has."""
    able = {name for name in asked if isinstance(registry().formats.get(name), ChecksFor)}
    for option in given:
        takers = [
            name
            for name, one in registry().formats.items()
            if isinstance(one, ChecksFor) and option in option_names(one.options)
        ]
        if not able & {*takers}:
            raise InputError(
                f"expected --target {' or '.join(takers)} for option '{option}'; found {', '.join(asked)}; name it"
                if takers
                else f"expected options of check; found '{option}'"
            )
    made: dict[str, TargetCheck] = {}
    for name in able:
        one = registry().formats[name]
        own = {option: value for option, value in given.items() if option in option_names(one.options)}
        made[name] = partial(findings, one, options=make_options(one, own))
    return made


def _first(report: Report) -> str:
    """The gravest finding in a few words: an error before a warning before a remark."""
    for severity in ("error", "warning", "info"):
        for finding in report.findings:
            if finding.severity == severity:
                where = "" if finding.node is None else f" at '{finding.node}'"
                return f"{severity}: {finding.slug}{where}"
    return ""


def _share(effect: Effect) -> str:
    if effect.differ is None:
        return f"cannot be run: {effect.reason}"
    return f"{effect.differ:,} of {effect.compared:,}"


def show(report: Report, say: Console) -> None:
    """The nodes as a table, then the findings."""
    headers = ["node", "kind", "shape", *report.targets]
    rows = [
        [n.node, n.kind, "?" if n.shape is None else "x".join(map(str, n.shape)), *n.targets.values()]
        for n in report.nodes
    ]
    say.table(headers, rows)
    for line in told(report.findings):
        say.say(line)
    say.say("as a whole: " + ", ".join(f"{target} {fidelity}" for target, fidelity in report.targets.items()))
