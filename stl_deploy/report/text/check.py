"""Print the results of check and fold as tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stl_deploy._util.console import Console
from stl_deploy._util.units import counted
from stl_deploy.graph.findings import CheckReport, kept_thresholds, to_lines

if TYPE_CHECKING:
    from stl_deploy.exporters.nir.check import Effect
    from stl_deploy.runs.folded_run import FoldedRun


def show(report: CheckReport, say: Console) -> None:
    """Print the nodes as a table, then the findings."""
    headers = ["node", "kind", "shape", *report.targets]
    rows = [
        [n.node, n.kind, "?" if n.shape is None else "x".join(map(str, n.shape)), *n.targets.values()]
        for n in report.nodes
    ]
    say.table(headers, rows)
    for line in to_lines(report.findings):
        say.say(line)
    say.say("as a whole: " + ", ".join(f"{target} {fidelity}" for target, fidelity in report.targets.items()))


def show_folder(reports: Mapping[str, CheckReport], targets: Sequence[str], say: Console) -> None:
    """Print one row for each file of a folder."""
    errors = {name: sum(finding.severity == "error" for finding in r.findings) for name, r in reports.items()}
    rows = [[name, *r.targets.values(), str(errors[name]), _first(r)] for name, r in reports.items()]
    say.table(["file", *targets, "errors", "first finding"], rows)


def _first(report: CheckReport) -> str:
    """Summarise the most severe finding: an error before a warning before a remark."""
    for severity in ("error", "warning", "info"):
        for finding in report.findings:
            if finding.severity == severity:
                where = "" if finding.node is None else f" at '{finding.node}'"
                return f"{severity}: {finding.slug}{where}"
    return ""


def show_effects(effects: Sequence[Effect], what: str, say: Console) -> None:
    """Print the effects of other dialect choices on ``what``."""
    rows = [
        [effect.option, str(effect.assumed), str(effect.instead), _share(effect)]
        for effect in effects
        if effect.differ != 0
    ]
    say.say(f"what other choices in the dialect would change, on {what}:")
    if rows:
        say.table(["option", "assumed", "instead", "outputs that change"], rows)
    unchanged = dict.fromkeys(effect.option for effect in effects if effect.differ == 0)
    some = {effect.option for effect in effects if effect.differ != 0}
    nothing = [option for option in unchanged if option not in some]
    if nothing:
        say.say(f"nothing changes with: {', '.join(nothing)}")


def _share(effect: Effect) -> str:
    if effect.differ is None:
        return f"cannot be run: {effect.reason}"
    return f"{effect.differ:,} of {effect.compared:,}"


def show_fold(done: FoldedRun, say: Console) -> None:
    """Print the grids, and whether every sum is proved exact."""
    for grid in done.folded.grids:
        say.say(
            f"{grid.node}: weights on multiples of 2^-{grid.fraction_bits}, sums need {grid.bits:.1f} of 24 bits, "
            f"largest change {grid.largest_change:.1e}"
        )
    for sentence in kept_thresholds(done.folded.kept):
        say.warn(sentence)
    unproved = [proof for proof in done.proofs if not proof.exact]
    if unproved:
        say.warn(f"not proved exact: {counted(len(unproved), 'sum')} (first: {unproved[0].node}: {unproved[0].reason})")
    else:
        say.say("every float32 sum is proved exact: all backends must agree bit for bit")
