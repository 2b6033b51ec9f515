"""The verb nir-conformance: test whether a program reads NIR files as one of the known dialects."""

from __future__ import annotations

import shlex
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stl_deploy._util.atomic import make_folder, write_json, write_text
from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.remedies import did_you_mean, named, option, remedy
from stl_deploy._util.untrusted import printable
from stl_deploy._util.working import now_and_then
from stl_deploy.errors import InputError
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


def nir_conformance(
    reader: str | None = None,
    output: Path | None = None,
    *,
    dialect: str = "spec",
    dt: float = 1e-4,
    levels: Sequence[str] = (),
    deadline: float = 120.0,
    say: Console = QUIET,
) -> dict[str, Any]:
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
        if name not in known:
            hint = did_you_mean(name, known)
            raise InputError(f"{named(what)}: expected one of {', '.join(known)}; found '{name}'{hint}")


def _write_only(chosen: Sequence[Case], output: Path | None, dt: float, say: Console) -> dict[str, Any]:
    if output is None:
        raise InputError(
            f"nir-conformance: expected {remedy(cli='--reader COMMAND', python='reader=COMMAND')}, or "
            f"{option('output', 'DIR')} to write to"
        )
    make_folder(output)
    for case in chosen:
        write_case(case, output, dt)
    say.say(f"written: {len(chosen)} graphs with inputs and expected outputs to {output}")
    return {"dt": dt, "graphs": [case.name for case in chosen], "output": str(output)}


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


def _result(reader: str, dialect: str, dt: float, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    counts = Counter(outcome.status for outcome in outcomes)
    return {
        "reader": reader,
        "dialect": dialect,
        "dt": dt,
        "conforms": not (counts["differs"] or counts["failed"]),
        "counts": {status: counts[status] for status in STATUSES},
        "agreement": agreement(outcomes),
        "graphs": [outcome.as_dict() for outcome in outcomes],
    }
