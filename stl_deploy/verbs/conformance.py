"""The verb nir-conformance: test whether a program reads NIR files as one of the known dialects."""

from __future__ import annotations

import shlex
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from stl_deploy._util.atomic import make_folder, write_json, write_text
from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.remedies import named, option, remedy, require_one_of
from stl_deploy._util.untrusted import printable
from stl_deploy._util.working import now_and_then
from stl_deploy.errors import CheckFailed, InputError
from stl_deploy.exporters.nir.conformance.builder import Case
from stl_deploy.exporters.nir.conformance.kit import (
    LEVELS,
    STATUSES,
    Outcome,
    agreement,
    cases,
    markdown,
    run_case,
    write_case,
)
from stl_deploy.exporters.nir.dialect import PRESETS
from stl_deploy.verbs.arguments import Texts

_SHOWN = 20
"""Graphs that differ, listed on the terminal; the files list all."""


class Conformance(dict[str, Any]):
    """Outcome of every graph, JSON-ready."""

    def require(self) -> None:
        """Raise CheckFailed if the reader does not follow the dialect."""
        if not self.get("conforms", True):
            counts = self["counts"]
            raise CheckFailed(
                f"the reader does not follow {self['dialect']}: {counts['differs']} graphs differ, {counts['failed']} "
                "failed"
            )


def nir_conformance(
    reader: Annotated[
        str | None,
        Option(metavar="'COMMAND'", help="Called as COMMAND GRAPH.nir IN.npz OUT.npz; exit status 77: no such node."),
    ] = None,
    output: Annotated[
        Path | None,
        Option("-o", "--output", metavar="DIR", help="Folder for the table; without --reader, for the graphs."),
    ] = None,
    *,
    dialect: Annotated[str, Option(metavar="NAME", help="Dialect that the reader must follow.")] = "spec",
    dt: Annotated[float, Option(help="Time step of the reader, in the unit of time constants.")] = 1e-4,
    levels: Annotated[
        Sequence[str] | None,
        Texts,
        Option("--level", help="nodes, neurons, shapes, wiring, time or files; repeatable."),
    ] = None,
    deadline: Annotated[float, Option(metavar="SECONDS", help="Time allowed per graph.")] = 120.0,
    say: Console = QUIET,
) -> Conformance:
    """Run a reader of NIR files on the conformance kit and compare its spikes with a dialect's.

    Args:
        reader: Command that is called once per graph as `reader GRAPH.nir IN.npz OUT.npz`. It reads `x`
            `[T, B, *shape]` from IN.npz and writes the graph's output as `y` `[T, B, *shape]` to OUT.npz. Exit status
            77 says that it does not support the graph. None: only write the kit's files.
        output: Folder for `nir-conformance.json` and `nir-conformance.md`; without a reader, for the graphs, inputs and
            expected outputs of every dialect.
        dialect: Dialect that the reader must follow.
        dt: Time step of the reader, in the unit of the graphs' time constants.
        levels: Levels to run (default: all).
        deadline: Seconds allowed per graph.

    Returns:
        JSON-ready: the outcome of every graph, counts by status, and how many graphs agree with each dialect.

    Raises:
        InputError: For an unknown dialect or level, or a reader that cannot be started.

    Example:
        >>> nir_conformance("python read_with_ours.py", dialect="snntorch")  # doctest: +SKIP
    """
    _require_known("dialect", [dialect], PRESETS)
    levels = levels or ()
    _require_known("level", levels, LEVELS)
    if dt <= 0:
        raise InputError(f"{named('dt')}: expected a positive number; found {dt:g}")
    chosen = [case for case in cases(dt) if not levels or case.level in levels]
    if reader is None:
        return _write_only(chosen, output, dt, say)
    command = _command(reader)
    outcomes = _run_all(chosen, command, dialect=dialect, dt=dt, deadline=deadline, say=say)
    done = _result(reader, dialect, dt, outcomes)
    if output is not None:
        make_folder(output)
        write_json(output / "nir-conformance.json", done)
        write_text(output / "nir-conformance.md", markdown(outcomes, printable(reader), dialect))
        say.say(f"written: {output}/nir-conformance.json and nir-conformance.md")
    _show(done, say)
    return done


def _command(reader: str) -> list[str]:
    try:
        command = shlex.split(reader)
    except ValueError as error:
        raise InputError(
            f"{remedy(cli='--reader', python='reader')}: expected a command as a shell splits it; found {reader!r} "
            f"({error})"
        ) from None
    if not command:
        raise InputError(f"{remedy(cli='--reader', python='reader')}: expected a command; found nothing")
    return command


def _require_known(what: str, names: Sequence[str], known: Any) -> None:
    for name in names:
        require_one_of(name, known, named(what))


def _write_only(chosen: Sequence[Case], output: Path | None, dt: float, say: Console) -> Conformance:
    if output is None:
        raise InputError(
            f"nir-conformance: expected {remedy(cli='--reader COMMAND', python='reader=COMMAND')}, or "
            f"{option('output', 'DIR')} to write to"
        )
    make_folder(output)
    for case in chosen:
        write_case(case, output, dt)
    say.say(f"written: {len(chosen)} graphs with inputs and expected outputs to {output}")
    return Conformance(dt=dt, graphs=[case.name for case in chosen], output=str(output))


def _run_all(
    chosen: Sequence[Case], command: Sequence[str], *, dialect: str, dt: float, deadline: float, say: Console
) -> list[Outcome]:
    outcomes = []
    progress = now_and_then(say, "graphs")
    with tempfile.TemporaryDirectory(prefix="nir-conformance-") as folder:
        for index, case in enumerate(chosen):
            progress(index, len(chosen))
            outcomes.append(run_case(case, command, Path(folder), dialect=dialect, dt=dt, deadline=deadline))
    return outcomes


def _result(reader: str, dialect: str, dt: float, outcomes: Sequence[Outcome]) -> Conformance:
    counts = Counter(outcome.status for outcome in outcomes)
    return Conformance(
        reader=reader,
        dialect=dialect,
        dt=dt,
        conforms=not (counts["differs"] or counts["failed"]),
        counts={status: counts[status] for status in STATUSES},
        agreement=agreement(outcomes),
        graphs=[outcome.as_dict() for outcome in outcomes],
    )


def _show(done: Conformance, say: Console) -> None:
    graphs = done["graphs"]
    levels = list(dict.fromkeys(graph["level"] for graph in graphs))
    by_level = {level: Counter(g["status"] for g in graphs if g["level"] == level) for level in levels}
    statuses = list(done["counts"])
    say.table(["level", *statuses], [[level, *(str(by_level[level][s]) for s in statuses)] for level in levels])
    wrong = [graph for graph in graphs if graph["status"] in ("differs", "failed")]
    rows = [
        [g["case"], g["reason"] or f"{g['differing']:,} of {g['compared']:,} differ", ", ".join(g["dialects"])]
        for g in wrong[:_SHOWN]
    ]
    if rows:
        say.table(["graph", "result", "reads as"], rows)
    if len(wrong) > _SHOWN:
        say.say(f"and {len(wrong) - _SHOWN} more; the table in an output folder lists all")
    best = next(iter(done["agreement"].items()), None)
    if best is not None:
        say.say(f"closest dialect: {best[0]}, equal on {best[1]} of {len(graphs)} graphs")
