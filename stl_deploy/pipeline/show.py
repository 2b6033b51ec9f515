"""The verb show: a network as a table and a drawing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stl_deploy._util.console import Console
from stl_deploy._util.files import write_text
from stl_deploy.errors import InputError
from stl_deploy.graph.draw import svg
from stl_deploy.graph.show import table
from stl_deploy.pipeline.source import open_program, open_source


def show(
    source: Path, *, dialect: str | None = None, drawing: Path | None = None, say: Console | None = None
) -> list[dict[str, Any]]:
    """The rows of a network's layer table (JSON-ready); with ``drawing`` also an SVG of the graph."""
    say = say or Console(quiet=True)
    if drawing is not None and drawing.suffix != ".svg":
        raise InputError(f"{drawing}: a drawing ends in .svg")
    program = open_program(open_source(source), dialect, say=say, or_spec=True)
    rows = table(program)
    say.table(
        ["node", "kind", "shape", "reads", "parameters", "synapses", "constants"],
        [
            [
                row.node,
                row.kind,
                "x".join(map(str, row.shape)),
                ", ".join(row.sources),
                f"{row.parameters:,}",
                f"{row.synapses:,}",
                row.constants,
            ]
            for row in rows
        ],
    )
    total = sum(row.parameters for row in rows), sum(row.synapses for row in rows)
    say.say(f"{total[0]:,} weights and biases, {total[1]:,} synapses of one sample and step; dt {program.dt:g}")
    if drawing is not None:
        write_text(drawing, svg(program))
        say.say(f"written: {drawing}")
    return [row.as_dict() for row in rows]
