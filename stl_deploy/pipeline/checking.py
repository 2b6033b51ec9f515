"""The verb check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stl_deploy.console import Console
from stl_deploy.errors import InputError
from stl_deploy.exporters.loihi.structure import structure
from stl_deploy.graph.check import TARGETS, TargetCheck, check_file
from stl_deploy.graph.dialect import load_dialect
from stl_deploy.graph.findings import Finding, Report
from stl_deploy.graph.program import Program
from stl_deploy.pipeline.source import open_source


def check_netx(program: Program) -> Iterable[Finding]:
    """Ask whether Loihi's integers can hold the network; raises UnsupportedError at the first node they cannot."""
    structure(program)
    return ()


ALL_TARGETS: Mapping[str, TargetCheck] = {**TARGETS, "netx": check_netx}


def check(
    source: Path, *, targets: Sequence[str] | None = None, dialect: str | None = None, say: Console | None = None
) -> Report:
    """Check a run folder's graph or a .nir file against targets (default: all). Raises InputError for a bad call."""
    say = say or Console(quiet=True)
    for name in targets or ():
        if name not in ALL_TARGETS:
            raise InputError(f"no target '{name}'; accepted: {', '.join(ALL_TARGETS)}")
    asked = {name: ask for name, ask in ALL_TARGETS.items() if not targets or name in targets}
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
