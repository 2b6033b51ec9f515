"""The verb nir-conformance."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from stl_deploy._util.console import Console
from stl_deploy.cli.options import Json
from stl_deploy.cli.output import console, emit_json
from stl_deploy.errors import CheckFailed

_SHOWN = 20
"""Graphs that differ, listed on the terminal; the files list all."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("nir-conformance")(nir_conformance)


def nir_conformance(
    reader: Annotated[
        str | None,
        typer.Option(
            metavar="'COMMAND'", help="Called as COMMAND GRAPH.nir IN.npz OUT.npz; exit status 77: no such node."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder for the table; without --reader, for the graphs."),
    ] = None,
    dialect: Annotated[str, typer.Option(metavar="NAME", help="Dialect that the reader must follow.")] = "spec",
    dt: Annotated[float, typer.Option(help="Time step of the reader, in the unit of time constants.")] = 1e-4,
    level: Annotated[
        list[str] | None, typer.Option(help="nodes, neurons, shapes, wiring, time or files; several times for several.")
    ] = None,
    deadline: Annotated[float, typer.Option(metavar="SECONDS", help="Time allowed per graph.")] = 120.0,
    json: Json = False,
) -> None:
    """Test a reader of NIR files on graphs whose spikes are known under every dialect."""
    from stl_deploy.verbs.conformance import nir_conformance as conformance

    say = console()
    done = conformance(reader, output, dialect=dialect, dt=dt, levels=level or (), deadline=deadline, say=say)
    if reader is not None:
        _show(done, say)
    emit_json(done, json)
    if not done.get("conforms", True):
        counts = done["counts"]
        raise CheckFailed(
            f"the reader does not follow {dialect}: {counts['differs']} graphs differ, {counts['failed']} failed"
        )


def _show(done: dict[str, Any], say: Console) -> None:
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
        say.say(f"and {len(wrong) - _SHOWN} more; -o DIR writes them all")
    best = next(iter(done["agreement"].items()), None)
    if best is not None:
        say.say(f"closest dialect: {best[0]}, equal on {best[1]} of {len(graphs)} graphs")
