"""The verb show: a network as a table and a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import require_suffix, write_text
from stl_deploy.errors import InputError
from stl_deploy.exporters.targets import Tabled, find_format
from stl_deploy.graph.draw import svg
from stl_deploy.graph.readout import readout_of
from stl_deploy.graph.show import Row, table
from stl_deploy.runs.source import Source, open_program, open_source


def show(
    source: Path, *, dialect: str | None = None, drawing: Path | None = None, say: Console = QUIET
) -> list[dict[str, Any]]:
    """The rows of a network's layer table, or of an artifact's (JSON-ready); ``drawing``: also an SVG of the graph."""
    if drawing is not None:
        require_suffix(drawing, ".svg")
    opened = open_source(source, artifacts=True)
    if not opened.is_graph:
        if drawing is not None:
            raise InputError(f"{source}: expected a graph to draw; found an artifact of {opened.kind}")
        rows = artifact_rows(opened)
        _tell(rows, say)
        return [row.as_dict() for row in rows]
    program = open_program(opened, dialect, say=say, or_spec=True)
    rows = table(program)
    _tell(rows, say)
    total = sum(row.parameters or 0 for row in rows), sum(row.synapses or 0 for row in rows)
    say.say(f"{total[0]:,} weights and biases, {total[1]:,} synapses of one sample and step; dt {program.dt:g}")
    say.say(f"outputs are read as: {readout_of(program.metadata)}")
    if drawing is not None:
        write_text(drawing, svg(program))
        say.say(f"written: {drawing}")
    return [row.as_dict() for row in rows]


def artifact_rows(source: Source) -> Sequence[Row]:
    """The layers of an artifact; raises InputError for a format that cannot tell them."""
    of = find_format(source.kind)
    if not isinstance(of, Tabled):
        raise InputError(f"{source.path}: expected a target whose layers can be shown; found {of.name}; use verify")
    return of.rows(source.file)


def _tell(rows: Sequence[Row], say: Console) -> None:
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
