"""Verbs about artifacts: synthesise, nir-conformance."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from stl_deploy._util.console import Console
from stl_deploy.cli.output import console, emit_json
from stl_deploy.errors import CheckFailed
from stl_deploy.verbs.arguments import Deadline, Json


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("synthesise")(synthesise)
    app.command("nir-conformance")(nir_conformance)


def synthesise(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder written by export --to verilog.")],
    device: Annotated[str, typer.Option(metavar="DEVICE", help="up5k, hx8k, ecp5-25f, ecp5-85f or gw1nr-9.")],
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input", "-i", metavar="X.npz", help="x [T, B, *shape]: simulate it to count clocks for the latency."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of placements to try.")] = 3,
    grade: Annotated[int | None, typer.Option(help="Speed grade of an ECP5: 6 (default), 7 or 8.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="The bitstream.")] = None,
    deadline: Deadline = 3600.0,
    json: Json = False,
) -> None:
    """Place and route a Verilog folder with open tools: cells, RAM blocks, clock, bitstream, latency."""
    from stl_deploy.verbs import synthesise as place_and_route

    result = place_and_route(
        folder,
        device,
        input_file=input_file,
        seeds=range(1, seeds + 1),
        grade=grade,
        output=output,
        deadline=deadline,
        say=console(),
    )
    emit_json(result, json)


_SHOWN = 20
"""Graphs that differ, listed on the terminal; the files list all."""


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
        list[str] | None, typer.Option(help="nodes, neurons, shapes, wiring, time or files; repeatable.")
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
