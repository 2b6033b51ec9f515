"""The verb energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util import install
from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import leading, require_folder, write_json, write_text
from stl_deploy._util.units import counted, plain, range_with_unit, with_unit
from stl_deploy.config.load import load_config
from stl_deploy.energy.ann_twin import AnnTwin
from stl_deploy.energy.chips.step_times import StepTimes
from stl_deploy.energy.layers_csv import layers_csv
from stl_deploy.energy.measure import DEFAULT_PRICES, EnergyReport, measure_energy
from stl_deploy.energy.models.frontier import Frontier
from stl_deploy.energy.models.wording import number
from stl_deploy.energy.paired import MARGIN, check_margin
from stl_deploy.energy.prices.bill import Bill, Priced
from stl_deploy.energy.prices.machine import MachineEnergy, measure_machine
from stl_deploy.energy.validate import Check, scores
from stl_deploy.energy.validate import validate as check_all
from stl_deploy.errors import InputError
from stl_deploy.exporters.targets import find_runner
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput, match_inputs
from stl_deploy.pipeline.artifacts import open_runner
from stl_deploy.pipeline.mapping import on_loihi
from stl_deploy.runs.kept_twin import kept_twin, twin_frames
from stl_deploy.runs.manifest import check_network, record_files
from stl_deploy.runs.source import RUN, TEST_INPUT, Source, on_declared_grid, open_reading, open_source, read_for
from stl_deploy.training.run_files import CONFIG

FILE, CSV, HTML, NEUROBENCH = "energy.json", "layers.csv", "energy.html", "neurobench.json"


def energy(
    source: Path,
    input_file: Path | None,
    *,
    prices: Sequence[str] | None = None,
    input_coding: str | None = None,
    dialect: str | None = None,
    input_grid: int | None = None,
    ann: Path | None = None,
    measure: bool = False,
    step_time: StepTimes | None = None,
    margin: float | None = None,
    frontier: bool = False,
    processes: int = 1,
    output: Path | None = None,
    say: Console = QUIET,
) -> EnergyReport:
    """Count a network's activity on an input npz and price it; with ``output`` write energy.html, energy.json,
    layers.csv and neurobench.json (NeuroBench's metrics alone) in that folder.

    input_file: None takes a run folder's own test samples. ann: the run folder of an ANN of the same topology; default:
    the one that a run kept, on one frame of each sample, as it was trained; where that cannot be told from the input,
    a note says so.
    input_grid: the input is rounded to multiples of 2^-input_grid, and that is declared.
    step_time: chip (as ``loihi1``) to the seconds of one measured time step, instead of the predicted one.
    margin: percentage points that the SNN may be behind its twin and still count as equally accurate (default 0.5).
    frontier: train the narrower ANNs that a run does not have yet, each once, and keep them in it; those that it has
    are compared in any case.
    measure: also read this machine's energy counters while ONNX Runtime runs the network. processes: to count in.

    Raises InputError or ConfigError for a bad source, input, coding, price list or margin, for a margin without labels,
    and for input off the grid that the graph declares.
    """
    if margin is not None:
        check_margin(margin)
    if output is not None:
        install.require("matplotlib")
        require_folder(output)
    opened = open_source(source)
    if opened.kind == "run":
        check_network(source)
    program, reading = open_reading(opened, dialect)
    x, labels = read_for(opened, program, input_of(opened, input_file))
    if margin is not None and labels is None:
        raise InputError("--margin: expected labels 'y' in the input, for accuracy; found none; leave --margin out")
    match_inputs(program, x)
    program, x = on_declared_grid(program, x, input_grid, say)
    rounded = "" if input_grid is None else f"The input was rounded to multiples of 2^-{input_grid}, as asked."
    twin, unmeasured = None, ""
    if ann is not None:
        twin = _twin(program, ann, x, labels, say)
    elif opened.kind == RUN:
        twin, unmeasured = kept_twin(program, source, input_file, x, labels, say, input_grid=input_grid)
    report = measure_energy(
        program,
        x,
        input_coding=input_coding,
        prices=prices or DEFAULT_PRICES,
        source=source.name,
        labels=labels,
        twin=twin,
        processes=processes,
        machine=_on_this_machine(program, x) if measure else None,
        chip=on_loihi(program),
        step_time=step_time,
        margin=MARGIN if margin is None else margin,
        notes=[text for text in (reading.reason, reading.unsaid, unmeasured, rounded) if text],
    )
    narrower = ""
    if opened.kind == RUN and ann is None:
        found, narrower = _frontier(
            program, source, input_file, x, labels, report, twin, margin, wanted=frontier, say=say
        )
        report = replace(report, frontier=found)
    elif frontier:
        narrower = _NO_FRONTIER
    say.say(reading.reason)
    for warning in (reading.unsaid, unmeasured, narrower):
        if warning:
            say.warn(warning)
    show(report, say)
    if output is not None:
        write_json(output / FILE, report.as_dict())
        write_text(output / CSV, layers_csv(report.as_dict()))
        write_json(output / NEUROBENCH, dict(report.neurobench))
        write_text(output / HTML, page(report))
        record_files(output, [FILE])
        say.say(f"written: {output / HTML} (opens offline), {output / FILE} and {output / CSV}")
    return report


_NO_FRONTIER = "No narrower ANNs are compared: they are trained on a run's data, and this graph has none with it."


def _frontier(
    program: Program,
    run_dir: Path,
    input_file: Path | None,
    x: NetworkInput,
    labels: NDArray[np.int64] | None,
    report: EnergyReport,
    twin: AnnTwin | None,
    margin: float | None,
    *,
    wanted: bool,
    say: Console,
) -> tuple[Frontier | None, str]:
    """The kept ANNs compared on the same samples; where they were asked for and cannot be, why in one sentence."""
    if twin is None or twin.right is None:
        why = "No narrower ANNs are compared: that takes labels and the run's kept ANN twin on the same samples."
        return None, why if wanted else ""
    from stl_deploy.pipeline.frontier import frontier_of, is_kept, keep_frontier  # torch

    if wanted and not is_kept(run_dir):
        keep_frontier(load_config(run_dir / CONFIG), run_dir, say)
    if not is_kept(run_dir):
        return None, ""
    frames, _ = twin_frames(program, run_dir, input_file, x, labels)
    assert frames is not None
    assert frames[1] is not None
    share = check_margin(MARGIN if margin is None else margin)
    return frontier_of(run_dir, twin, program, report, frames[0], frames[1], share), ""


def _on_this_machine(program: Program, x: NetworkInput) -> MachineEnergy:
    runner = open_runner(find_runner("onnx"), program, program)
    runner.run(x)
    return measure_machine(lambda: runner.run(x), leading(x)[1])


def _twin(program: Program, ann: Path, x: NetworkInput, labels: NDArray[np.int64] | None, say: Console) -> AnnTwin:
    from stl_deploy.pipeline.ann_twin import measure_twin  # torch
    from stl_deploy.pipeline.fast_path import announce

    if isinstance(x, Mapping):
        raise InputError(f"an ANN of the same topology has one input, not {', '.join(x)}; leave --ann out")
    announce("cpu", say)
    say.say(f"counting what the ANN twin in {ann} does on the same input")
    return measure_twin(program, ann, x, labels)


def page(report: EnergyReport) -> str:
    """The report as one HTML page that opens offline."""
    from stl_deploy.report.page import ReportData, render_report  # matplotlib

    title = f"Energy of {report.source}"
    return render_report(ReportData(title, summary=summary_of(report), energy=report.as_dict()))


def summary_of(report: EnergyReport) -> dict[str, str]:
    """The network and its input in a few lines, label to text."""
    counts = report.counts
    return {
        "network": " - ".join(counts.order),
        "neurons": f"{sum(c.neurons for c in counts.neurons.values()):,}",
        "synapses": f"{sum(c.synapses for c in counts.weighted.values()):,}",
        "time steps": str(counts.T),
        "input": report.coding.sentence(),
    }


def input_of(source: Source, given: Path | None) -> Path:
    """The input file given, else a run folder's own test samples; raises InputError if there are none."""
    if given is not None:
        return given
    kept = source.path / TEST_INPUT
    if source.kind != "run" or not kept.is_file():
        raise InputError(f"{source.path}: energy depends on activity; give the input with --input X.npz")
    return kept


def validate(*, say: Console = QUIET) -> tuple[Check, ...]:
    """The models against published measurements: scores of each on training and held-out data, then each check."""
    checks = check_all()
    rows = [
        [
            score.model,
            score.quantity,
            score.family,
            "held out" if score.held_out else f"fitted to {score.fitted}",
            str(score.others),
            *("-" if error is None else f"{error:.0%}" for error in (score.worst_error, score.mean_error)),
            f"{score.inside} of {score.others}",
            "-" if score.width is None else f"{score.width:.3g}",
        ]
        for score in scores(checks)
    ]
    headers = ["model", "of", "network family", "family is", "rows", "worst error", "mean", "inside its range"]
    say.table([*headers, "times wide"], rows)
    rows = [
        [
            c.case,
            c.model,
            plain(c.predicted),
            f"{plain(c.measured)} {c.unit}",
            c.how,
            f"{c.error:+.0%}",
            "-" if c.width is None else f"{c.width:.3g}",
            c.verdict,
            c.split,
        ]
        for c in checks
    ]
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
    return checks


def show(report: EnergyReport, say: Console) -> None:
    """Counts, the comparison grid, prices side by side, what dominates, and last the verdict."""
    totals = report.counts.totals
    say.say(
        f"{report.counts.batch} samples, T = {report.counts.T}: {totals.synops_AC:,} synops AC + "
        f"{totals.synops_MAC:,} MAC; {totals.spikes:,} spikes; ANN twin {totals.ann_macs_exact:,} MACs, dense"
    )
    rows = [
        [p.prices.name, p.prices.scope, p.prices.evidence, _side(p.snn), _side(p.ann), _ratio(p)] for p in report.energy
    ]
    say.table(["modelled, per inference", "scope", "evidence", "SNN", "dense ANN twin", "the SNN costs"], rows)
    if any(p.snn is not None and p.snn.unpriced for p in report.energy):
        say.say("bracket: from nothing to the bounds of terms that have no price")
    lists = {cell.prices.name: f"{cell.prices.width}, {cell.prices.node}" for cell in report.comparisons}
    heads = [text if [*lists.values()].count(text) == 1 else name for name, text in lists.items()]
    say.table(["memory included: the SNN costs", *heads], _grid(report, [*lists]))
    say.table(
        ["on a chip, modelled", "energy", "ANN twin on it", "floor", "events", "latency", "a step"], _chips(report)
    )
    for line in summary(report):
        say.say(line)
    say.say(report.verdict)


def _chips(report: EnergyReport) -> list[list[str]]:
    return [
        [
            line.title,
            range_with_unit(line.total, "J"),
            "-" if line.ann is None else range_with_unit(line.ann, "J"),
            "-" if line.floor is None else f"{range_with_unit(line.floor, 'J')} ({line.regime})",
            range_with_unit(line.events, "J"),
            "-" if line.latency is None else range_with_unit(line.latency, "s"),
            "not known" if line.step_source is None else line.step_source.partition(", ")[0],
        ]
        for line in report.chips
    ]


def _grid(report: EnergyReport, lists: Sequence[str]) -> list[list[str]]:
    rows: dict[str, dict[str, str]] = {}
    for cell in report.comparisons:
        zeros = ", ANN skips zeros" if cell.ann_zeros == "skipped" else ""
        rows.setdefault(f"{cell.flow.text}{zeros}", {})[cell.prices.name] = _times(cell.ratio)
    return [[name, *(row[entry] for entry in lists)] for name, row in rows.items()]


def summary(report: EnergyReport) -> list[str]:
    """In a few lines: what dominates, the twin's zeros, static power, and where it would break even."""
    data = report.as_dict()
    lines, twin = [], data["ann_twin"]
    items = data["models"][0]["snn"][:3]
    everything = data["models"][0]["snn_range_J"][1]
    shares = ", ".join(f"{i['layer']}: {i['term']} {i['joules'][1] / everything:.0%}" for i in items)
    account = f"{data['models'][0]['name']}, {data['models'][0]['price']}"
    lines += [f"what dominates ({account}): {shares}"] if items else []
    least, most = twin["macs_zero_skipping"]
    skipped = f"{least:,.0f}" if least == most else f"{least:,.0f} to {most:,.0f}"
    lines += [f"ANN twin, zeros skipped: {skipped} of {twin['macs_dense']:,.0f} MACs ({twin['label']})"]
    lines += [report.spread] if report.spread else []
    lines += _placed(data["placement"])
    if report.machine is not None:
        found = report.machine.joules_per_sample
        shown = (
            f"not measured: {report.machine.reason}"
            if found is None
            else f"{with_unit(found, 'J')} per sample (measured)"
        )
        lines += [f"this machine's CPU, ONNX Runtime: {shown}"]
    return [*lines, *_limits(data["break_even"])]


_MEASURES = {
    "spikes per synapse per inference": "{:.3g} spikes per synapse and inference",
    "spike rate": "{:.3g} % spikes per neuron and step",
}
_WHERE = {"below": "below the limit of", "within": "between the limits of", "above": "above the limit of"}


def _limits(break_even: dict[str, Any]) -> list[str]:
    """Where the network stands to published limits, one line for each measure that they are of."""
    told: dict[str, list[str]] = {}
    for limit in break_even["published"]:
        value = limit["this_network"]
        if value is not None:
            shown = _MEASURES[limit["measure"]].format(100 * value if limit["measure"] == "spike rate" else value)
            told.setdefault(shown, []).append(f"{_WHERE[limit['verdict']]} {limit['study'].split(',')[0]}")
    return [f"{shown}: {'; '.join(limits)}" for shown, limits in told.items()]


def _placed(placement: dict[str, Any]) -> list[str]:
    if placement["reason"] is not None:
        return [f"messages and hops between cores are not counted: {placement['reason']}"]
    parts = []
    for one in placement["placements"]:
        crossed = "hops unknown"
        if one["hops_ew"] is not None:
            crossed = f"{one['hops_ew'] + one['hops_ns']:,.0f} hops"
        parts.append(
            f"{one['placement']}: {counted(len(one['cores']), 'core')}, {one['messages']:,.0f} messages, {crossed}"
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
