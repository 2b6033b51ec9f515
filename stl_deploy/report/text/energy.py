"""Print an energy report, and the models against published measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stl_deploy._util.console import Console
from stl_deploy._util.tables import csv_table
from stl_deploy._util.units import counted, plain, range_with_unit, with_unit
from stl_deploy.energy.chips.lines import NO_BOARD, title_of
from stl_deploy.energy.measure import EnergyReport
from stl_deploy.energy.models.grid import QUOTED_PRICE
from stl_deploy.energy.models.ratios import number
from stl_deploy.energy.prices.bill import Bill, Priced
from stl_deploy.energy.validate import Check, scores
from stl_deploy.pipeline.tradeoff import pareto_front

if TYPE_CHECKING:
    from stl_deploy.pipeline.tradeoff import Tradeoff


def show(report: EnergyReport, say: Console) -> None:
    """Print counts, the comparison grid, prices side by side, dominating items, and last the verdict.

    Of a network that decides nothing on the input (silent, saturated), counts and the verdict alone.
    """
    totals = report.counts.totals
    say.say(
        f"{report.counts.batch} samples, T = {report.counts.T}: {totals.synops_AC:,} synops AC + "
        f"{totals.synops_MAC:,} MAC; {totals.spikes:,} spikes; ANN twin {totals.ann_macs_exact:,} MACs, dense"
    )
    if report.idle:
        say.say(report.verdict)
        return
    rows = []
    for priced in report.energy:
        about = priced.prices
        rows.append([about.name, about.scope, about.evidence, _side(priced.snn), _side(priced.ann), _ratio(priced)])
    say.table(["modelled, per inference", "scope", "evidence", "SNN", "dense ANN twin", "the SNN costs"], rows)
    if any(p.snn is not None and p.snn.unpriced for p in report.energy):
        say.say("bracket: from nothing to the bounds of terms that have no price")
    lists = {cell.prices.name: f"{cell.prices.width}, {cell.prices.node}" for cell in report.comparisons}
    texts = Counter(lists.values())
    heads = [text if texts[text] == 1 else name for name, text in lists.items()]
    say.table(["memory included: the SNN costs", *heads], _grid(report, [*lists]))
    say.table(
        ["on a chip, modelled", "energy", "ANN twin on it", "floor", "events", "latency", "a step"], _chips(report)
    )
    for chip in report.chips:
        say.details.say(f"{chip.title}: {chip.source}")
    sources = () if say.verbose or not report.chips else ("Sources of the chips' energy: -v, or --json.",)
    boards = (note for note in report.assumptions if note.startswith(NO_BOARD))
    for line in (*sources, *report.checked.notes, *boards, *summary(report)):
        say.say(line)
    if report.one_sided:
        say.warn(report.one_sided)
    say.say(report.verdict)
    if report.advice is not None:
        say.say(report.advice.text)


def _chips(report: EnergyReport) -> list[list[str]]:
    rows = []
    for line in report.chips:
        total, events = range_with_unit(line.total, "J"), range_with_unit(line.events, "J")
        ann = "-" if line.ann is None else range_with_unit(line.ann, "J")
        floor = "-" if line.floor is None else f"{range_with_unit(line.floor, 'J')} ({line.regime})"
        latency = "-" if line.latency is None else range_with_unit(line.latency, "s")
        step = "not known" if line.step_source is None else line.step_source.partition(", ")[0]
        rows.append([line.title, total, ann, floor, events, latency, step])
    return rows + [[title_of(chip), "not placed", *"-----"] for chip in report.checked.refused]


def _grid(report: EnergyReport, lists: Sequence[str]) -> list[list[str]]:
    rows: dict[str, dict[str, str]] = {}
    for cell in report.comparisons:
        zeros = ", ANN skips zeros" if cell.ann_zeros == "skipped" else ""
        rows.setdefault(f"{cell.name}{zeros}", {})[cell.prices.name] = _times(cell.ratio)
    return [[name, *(row[entry] for entry in lists)] for name, row in rows.items()]


def summary(report: EnergyReport) -> list[str]:
    """Return a few lines: dominating items, the twin's zeros, static power, and the break-even."""
    data = report.as_dict()
    lines, twin = [], data["ann_twin"]
    if items := data["itemised"].get(data["leads"], {}).get("snn"):
        everything = sum(item["joules"][1] for item in items)
        shares = ", ".join(f"{i['layer']}: {i['term']} {i['joules'][1] / everything:.0%}" for i in items[:3])
        lines += [f"what dominates ({data['leads'].replace('_', ' ')}, {data['quoted']['prices']}): {shares}"]
    least, most = twin["macs_zero_skipping"]
    skipped = f"{least:,.0f}" if least == most else f"{least:,.0f} to {most:,.0f}"
    lines += [f"ANN twin, zeros skipped: {skipped} of {twin['macs_dense']:,.0f} MACs ({twin['label']})"]
    lines += [report.spread] if report.spread else []
    lines += _placed(data["placement"])
    return [*lines, *_limits(data["break_even"])]


_MEASURES = {
    "spikes per synapse per inference": "{:.3g} spikes per synapse and inference",
    "spike rate": "{:.3g} % spikes per neuron and step",
}
_WHERE = {"below": "below the limit of", "within": "between the limits of", "above": "above the limit of"}


def _limits(break_even: dict[str, Any]) -> list[str]:
    """Compare the network with published limits, one line per measure."""
    limits_by_measure: dict[str, list[str]] = {}
    for limit in break_even["published"]:
        value = limit["this_network"]
        if value is not None:
            shown = _MEASURES[limit["measure"]].format(100 * value if limit["measure"] == "spike rate" else value)
            limits_by_measure.setdefault(shown, []).append(f"{_WHERE[limit['verdict']]} {limit['study'].split(',')[0]}")
    return [f"{shown}: {'; '.join(limits)}" for shown, limits in limits_by_measure.items()]


def _placed(placement: dict[str, Any]) -> list[str]:
    if placement["reason"] is not None:
        unplaced = f"messages and hops between cores are not counted: {placement['reason']}"
        return [] if placement["chip"] else [unplaced]
    parts = []
    for row in placement["placements"]:
        crossed = "hops unknown"
        if row["hops_ew"] is not None:
            crossed = f"{row['hops_ew'] + row['hops_ns']:,.0f} hops"
        parts.append(
            f"{row['placement']}: {counted(len(row['cores']), 'core')}, {row['messages']:,.0f} messages, {crossed}"
        )
    notes = "; ".join(["per inference", *placement["notes"]])
    return [f"on {placement['chip']}, {'; '.join(parts)} ({notes})"]


def _side(bill: Bill | None) -> str:
    if bill is None:
        return "not priced"
    return range_with_unit(bill.total, "J") + (" (bracket)" if bill.unpriced else "")


def _ratio(priced: Priced) -> str:
    compared = priced.comparison
    if compared is None or compared.snn_over_ann is None:
        return "-"
    return _times(compared.snn_over_ann)


def _times(ratio: float) -> str:
    return f"{ratio:.2f} times" if ratio >= 0.1 else f"{number(ratio)} times"


def show_checks(checks: Sequence[Check], say: Console) -> None:
    """Print scores of each model on training and held-out data, then each check."""
    rows = []
    for score in scores(checks):
        how = "held out" if score.held_out else f"fitted to {score.fitted}"
        errors = [_or_dash(score.worst_error, ".0%"), _or_dash(score.mean_error, ".0%")]
        inside = f"{score.inside} of {score.others}"
        about = [score.model, score.quantity, score.family, how, str(score.others)]
        rows.append([*about, *errors, inside, _or_dash(score.width, ".3g")])
    headers = ["model", "of", "network family", "family is", "rows", "worst error", "mean", "inside its range"]
    say.table([*headers, "times wide"], rows)
    rows = []
    for check in checks:
        measured = f"{plain(check.measured)} {check.unit}"
        row = [check.case, check.model, plain(check.predicted), measured, check.how, f"{check.error:+.0%}"]
        rows.append([*row, _or_dash(check.width, ".3g"), check.verdict, check.split])
    headers = ["case", "model", "predicted", "published", "how", "error", "times wide", "verdict", "split"]
    say.table(headers, rows)
    say.say(
        "error: middle over middle; good: within 25 %; rough: within a factor 2; bracketed: inside a range at most "
        "5 times wide; wide: inside a wider one, which says nothing; bad: the rest"
    )
    say.say(
        "training: the model was fitted to it; held out: it was not; shortcut: a wrong way of counting that is in use. "
        "ANNs on devices: each network predicted from the device's others"
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def show_tradeoff(result: Tradeoff, say: Console) -> None:
    """Print every point as a row."""
    front = pareto_front(result.points)
    rows = []
    for p in result.points:
        batched = "-" if p.layer_by_layer_J is None else with_unit(p.layer_by_layer_J, "J")
        energy = [with_unit(p.joules, "J"), batched]
        sure = "" if p.margin is None else f", until sure by {p.margin:.3g}"
        what = [p.name, p.mode or p.kind, f"{p.steps}{sure}"]
        rows.append([*what, f"{p.accuracy:.2%}", *energy, "yes" if p in front else ""])
    headers = ["network", "mode", "T", "accuracy (measured)", f"streaming ({QUOTED_PRICE})"]
    say.table([*headers, "layer by layer", "Pareto"], rows)


def layers_csv(energy: Mapping[str, Any]) -> str:
    """Return a CSV table: one row per layer, one column per count; empty where a layer has no such count."""
    return csv_table([{"layer": name, **layer} for name, layer in energy["layers"].items()])
