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
    rows = []
    for node in report.nodes:
        shape = "?" if node.shape is None else "x".join(map(str, node.shape))
        rows.append([node.node, node.kind, shape, *node.targets.values()])
    say.table(["node", "kind", "shape", *report.targets], rows)
    for line in to_lines(report.findings):
        say.say(line)
    say.say("as a whole: " + ", ".join(f"{target} {fidelity}" for target, fidelity in report.targets.items()))


def show_folder(reports: Mapping[str, CheckReport], targets: Sequence[str], say: Console) -> None:
    """Print one row for each file of a folder."""
    rows = []
    for name, report in reports.items():
        severities = [finding.severity for finding in report.findings]
        rows.append([name, *report.targets.values(), str(severities.count("error")), _first(report)])
    say.table(["file", *targets, "errors", "first finding"], rows)


def _first(report: CheckReport) -> str:
    """Summarise the most severe finding: an error before a warning before a remark."""
    severities = ("error", "warning", "info")
    worst = min(report.findings, key=lambda finding: severities.index(finding.severity), default=None)
    if worst is None:
        return ""
    where = "" if worst.node is None else f" at '{worst.node}'"
    return f"{worst.severity}: {worst.slug}{where}"


def show_effects(effects: Sequence[Effect], what: str, say: Console) -> None:
    """Print the effects of other dialect choices on ``what``."""
    rows = []
    # an option may have several alternatives, of which some change nothing
    changes: dict[str, bool] = {}
    for effect in effects:
        if effect.differ != 0:
            rows.append([effect.option, str(effect.assumed), str(effect.instead), _share(effect)])
        changes[effect.option] = changes.get(effect.option, False) or effect.differ != 0
    say.say(f"what other choices in the dialect would change, on {what}:")
    if rows:
        say.table(["option", "assumed", "instead", "outputs that change"], rows)
    if nothing := [option for option, changed in changes.items() if not changed]:
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
