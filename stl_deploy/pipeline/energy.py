"""Compute energy in memory: exact counts, joules, and the ANN twin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import leading, one_or_several
from stl_deploy._util.remedies import named, remedy
from stl_deploy.config.options import EnergyOptions
from stl_deploy.energy.chips import fpga
from stl_deploy.energy.context import DEFAULT_PRICES, AnnTwin
from stl_deploy.energy.measure import EnergyReport, measure_energy
from stl_deploy.energy.models.frontier import advise
from stl_deploy.energy.models.grid import quoted
from stl_deploy.energy.paired import MARGIN, MetricScore, check_margin
from stl_deploy.energy.prices.chip import CORES, PLACED_ON, Checked, OnChip
from stl_deploy.energy.prices.price_list import middle
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.netx.chain import read_chain, refusals
from stl_deploy.exporters.netx.placement import RESOURCES, load_chips, place
from stl_deploy.exporters.netx.target import Netx
from stl_deploy.exporters.targets import find_format, findings, make_options
from stl_deploy.exporters.verilog.devices import DEVICES
from stl_deploy.exporters.verilog.fits import too_large
from stl_deploy.exporters.verilog.target import VerilogFormat, VerilogOptions
from stl_deploy.graph.check import refused as untaken
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import CAPTURED, MATRICES, Program
from stl_deploy.graph.readout import no_classes, readout_of, require_classes
from stl_deploy.graph.run import CHUNK, NetworkInput, match_inputs, run
from stl_deploy.pipeline.network_input import on_declared_grid
from stl_deploy.pipeline.results import Metric, name_of, score_of
from stl_deploy.pipeline.tradeoff import TradeoffPoint, changes

FILE = "energy.json"
"""In a run folder."""


def energy(
    program: Program,
    x: NetworkInput,
    options: EnergyOptions,
    *,
    labels: NDArray[Any] | None = None,
    twin: AnnTwin | None = None,
    metric: Metric | None = None,
    source: str = "",
    notes: Sequence[str] = (),
    say: Console = QUIET,
) -> EnergyReport:
    """Count a network's activity on ``x`` ``[T, B, *shape]`` exactly and price the counts.

    labels: ``[B]``, for accuracy and the spread by class. twin: activity of a trained ANN of the same topology. source:
    name of the counted network. metric: instead of accuracy; ``labels`` are then its targets ``[B, ...]``. notes:
    assumptions, one sentence each.
    Raises InputError or ConfigError for input, coding, price list or margin that do not fit, for a margin without
    labels, and for input off the grid that the graph declares.
    """
    match_inputs(program, x)
    program, x = on_declared_grid(program, x, options.input_grid, say)
    score, margin = None, MARGIN if options.margin is None else options.margin
    if metric is not None:
        score, labels = _scored(metric, program, x, labels, twin), None
    require_labels(options, labels, program)
    if twin is not None:
        require_decided(labels, program)
    report = measure_energy(
        program,
        x,
        input_coding=options.input_coding,
        prices=one_or_several(() if options.prices is None else options.prices) or DEFAULT_PRICES,
        source=source,
        labels=labels,
        twin=twin,
        chip=on_loihi(program),
        checked=checked(program, x, options.step_time),
        step_time=options.step_time,
        score=score,
        margin=margin,
        notes=(*notes, *rounded(options), *_matrices(program)),
    )
    return with_advice(report, program, x, labels, margin)


def with_advice(
    report: EnergyReport, program: Program, x: NetworkInput, labels: NDArray[np.int64] | None, margin: float
) -> EnergyReport:
    """Return the report with fewer steps and early exits tried on its samples; unchanged without decisions or a ratio.

    margin: percentage points that a change may lose.
    """
    cell, classes = quoted(report.comparisons), _classes(program)
    if cell is None or isinstance(x, Mapping) or labels is None or classes is None:
        return report
    if no_classes(labels, classes).any():
        return report  # counts need none
    tried = tuple(changes(TradeoffPoint(report.source, "", program, x, labels), report.coding.value))
    decided = report.right is not None and not report.idle and not report.no_ann
    advice = advise(tried, check_margin(margin), report.leads, middle(cell.energy.ann_J)) if decided else None
    return replace(report, tried=tried, advice=advice)


def _scored(
    metric: Metric, program: Program, x: NetworkInput, targets: NDArray[Any] | None, twin: AnnTwin | None
) -> MetricScore:
    """Return the user's metric of the network, and of its twin if that ran."""
    samples = leading(x)[1]
    if targets is None or len(targets) != samples or len(program.outputs) != 1:
        seen = f"{0 if targets is None else len(targets)} and {len(program.outputs)}"
        raise InputError(f"metric: expected targets of {samples} samples and 1 output; found {seen}")
    outputs = run(program, x, chunk=CHUNK).y
    snn = score_of(metric, readout_of(program.metadata).scores(outputs), targets)
    ann = None if twin is None or twin.scores is None else score_of(metric, twin.scores, targets)
    return MetricScore(name_of(metric), snn, ann, samples)


def require_labels(options: EnergyOptions, labels: NDArray[np.int64] | None, program: Program) -> None:
    """Raise InputError for a margin that is invalid, lacks labels, or has some that are no class of the output."""
    if options.margin is None:
        return
    check_margin(options.margin)
    require_decided(labels, program)
    if labels is None:
        raise InputError(
            f"{named('margin')}: expected labels, for accuracy; found none; leave it out, or give "
            + remedy(cli="'y' in the input file", python="labels=")
        )


def require_decided(labels: NDArray[np.int64] | None, program: Program) -> None:
    """Raise InputError for labels ``[B]`` that are no class of the output, where an accuracy needs them."""
    classes = _classes(program)
    if labels is not None and labels.ndim == 1 and classes is not None:
        require_classes(labels, classes)


def _classes(program: Program) -> int | None:
    """Return the number of classes that the output decides among; None unless it is one vector of at least two."""
    shapes = [node.shape for node in program.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 1:
        return None
    classes = shapes[0][0] // readout_of(program.metadata).population
    return classes if classes > 1 else None


def rounded(options: EnergyOptions) -> list[str]:
    """Return the note that the input was rounded, if it was."""
    bits = options.input_grid
    return [] if bits is None else [f"The input was rounded to multiples of 2^-{bits}, as asked."]


def _matrices(program: Program) -> Iterator[str]:
    """Yield a note on each layer that capture could only write as a matrix."""
    captured = program.metadata.get(CAPTURED)
    grown = captured.get(MATRICES) if isinstance(captured, Mapping) else None
    for name, times in grown.items() if isinstance(grown, Mapping) else ():
        if name in program.by_name and isinstance(times, int | float):
            yield (
                f"Layer '{name}' is a matrix with {times:,g} times the MACs of the operation that it stands for: its "
                "synops, its dense MACs and the ANN's are too many by about that factor."
            )


MOST = 8 * CORES
"""Cores that a network may need to be placed: eight chips."""


def on_loihi(program: Program) -> OnChip:
    """Return the ``simple`` and the ``balanced`` placement, or why there is none.

    Thresholds are folded into the weights, one per core, so they take no room.
    """
    chip = load_chips()[PLACED_ON]
    refused = [*untaken(program, Netx.takes, Netx.name), *refusals(program)]
    if refused:
        return OnChip(chip.name, reason=f"'{refused[0].node}' cannot be placed on {chip.name}: {refused[0].reason}")
    simple = place(program, chip, "simple")
    excess = [(node, item) for node, item in simple.excess if item.kind != "thresholds"]
    for node, item in excess:
        if item.kind == "neuron":
            return OnChip(chip.name, reason=f"'{node}' cannot be placed on {chip.name}: {item}")
    if len(simple.placement.cores) > MOST:
        needed = f"{len(simple.placement.cores):,} cores of {chip.name} would be needed"
        return OnChip(chip.name, reason=f"{needed}, and more than {MOST:,} are not looked at")
    return OnChip(
        chip.name,
        {name: limit for name in RESOURCES if (limit := chip.value(f"{name}_per_core")) is not None},
        (simple.placement, place(program, chip, "balanced").placement),
        tuple(node.name for node in read_chain(program).readout),
        tuple(str(item) if node is None else f"'{node}': {item}" for node, item in excess),
    )


XYLO = "xylo_audio2"


def checked(program: Program, x: NetworkInput, step_times: Mapping[str, float] | None = None) -> Checked:
    """Ask the checks of UP5K and, if its line is asked for, of Xylo Audio 2, on the same input."""
    clocks: NDArray[np.int64] | None = None
    try:
        for error in untaken(program, VerilogFormat.takes, VerilogFormat.name):
            raise error
        if reason := too_large(program, DEVICES[fpga.KEY]):  # said before choosing integers takes minutes
            raise InputError(reason)
        reported, clocks = VerilogFormat().examine(program, VerilogOptions(device=fpga.KEY, x=x))
    except (InputError, UnsupportedError) as error:
        reported = [from_error(error)]
    refused = _first(fpga.KEY, reported)
    if XYLO in (step_times or {}):
        xylo = find_format("xylo")
        refused |= _first(XYLO, findings(xylo, program, replace(make_options(xylo, {"device": "audio2"}), x=x)))
    return Checked(refused, () if clocks is None else tuple(clocks.tolist()))


def _first(chip: str, found: Iterable[Finding]) -> dict[str, str]:
    """Return the first error's reason under the chip's name; nothing if there is none."""
    for finding in found:
        if finding.severity == "error":
            where = "" if finding.node is None else f"'{finding.node}': "
            return {chip: f"{where}{finding.reason}"}
    return {}
