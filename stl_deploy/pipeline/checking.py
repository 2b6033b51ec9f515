"""The verb check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stl_deploy.console import Console
from stl_deploy.errors import InputError
from stl_deploy.graph.check import TARGETS, TargetCheck, check_file
from stl_deploy.graph.dialect import load_dialect
from stl_deploy.graph.findings import Report
from stl_deploy.pipeline.chip_check import CHIP_TARGETS, check_netx
from stl_deploy.pipeline.source import open_source

DEFAULT_TARGETS: Mapping[str, TargetCheck] = {**TARGETS, "netx": check_netx}
"""Asked where none is named."""

ALL_TARGETS: Mapping[str, TargetCheck] = {**DEFAULT_TARGETS, **CHIP_TARGETS}


def check(
    source: Path, *, targets: Sequence[str] | None = None, dialect: str | None = None, say: Console | None = None
) -> Report:
    """Check a run folder's graph or a .nir file against targets (default: nir, onnx, netx).

    Raises InputError for a bad call.
    """
    say = say or Console(quiet=True)
    for name in targets or ():
        if name not in ALL_TARGETS:
            raise InputError(f"no target '{name}'; accepted: {', '.join(ALL_TARGETS)}")
    asked = {name: ask for name, ask in ALL_TARGETS.items() if name in (targets or DEFAULT_TARGETS)}
    opened = open_source(source)
    report = check_file(opened.file, load_dialect(dialect) if dialect is not None else None, asked)
    show(report, say)
    return report


def show(report: Report, say: Console) -> None:
    """The nodes as a table, then the findings."""
    headers = ["node", "kind", "shape", *report.targets]
    rows = [
        [n.node, n.kind, "?" if n.shape is None else "x".join(map(str, n.shape)), *n.targets.values()]
        for n in report.nodes
    ]
    say.table(headers, rows)
    for found in report.findings:
        where = f" at '{found.node}'" if found.node is not None else ""
        target = f" for {found.target}" if found.target is not None else ""
        remedy = f" -> {found.remedy}" if found.remedy else ""
        say.say(f"{found.severity}: {found.slug}{where}{target}: {found.reason}{remedy}")
    say.say("as a whole: " + ", ".join(f"{target} {fidelity}" for target, fidelity in report.targets.items()))
