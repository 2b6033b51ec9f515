"""The verb energy on paths: a network with its input, the ANNs that a run keeps, and the files written."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util import install
from stl_deploy._util.console import QUIET, Console
from stl_deploy._util.files import require_folder, write_json, write_text
from stl_deploy._util.keywords import named_options
from stl_deploy._util.remedies import named
from stl_deploy.config.load import load_config
from stl_deploy.config.options import EnergyKeywords, EnergyOptions
from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.measure import EnergyReport
from stl_deploy.energy.paired import MARGIN, check_margin
from stl_deploy.energy.validate import Check
from stl_deploy.energy.validate import validate as check_all
from stl_deploy.errors import InputError, StlDeployError
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput, match_inputs
from stl_deploy.pipeline.energy import FILE, require_decided, require_labels, rounded
from stl_deploy.pipeline.energy import energy as count
from stl_deploy.pipeline.network_input import on_declared_grid
from stl_deploy.pipeline.results import Metric
from stl_deploy.report.text.advice import with_commands
from stl_deploy.report.text.energy import layers_csv, show, show_checks
from stl_deploy.runs.kept_twin import Frames, kept_twin, twin_frames
from stl_deploy.runs.manifest import check_network, record_files
from stl_deploy.runs.source import RUN, input_of, open_reading, open_source, read_for
from stl_deploy.training.run_files import CONFIG

CSV, HTML, NEUROBENCH = "layers.csv", "energy.html", "neurobench.json"
_NO_FRONTIER = "No narrower ANNs are compared: they are trained on a run's data, and this graph has none with it."


@named_options(EnergyOptions)
def energy(
    source: Path,
    input_file: Path | None,
    *,
    dialect: str | None = None,
    ann: Path | None = None,
    frontier: bool = False,
    metric: Metric | str | None = None,
    output: Path | None = None,
    options: EnergyOptions | None = None,
    say: Console = QUIET,
    **keywords: Unpack[EnergyKeywords],
) -> EnergyReport:
    """Count a network's activity on an input npz and price it.

    Args:
        source: Run folder or network file.
        input_file: Input npz; None: the run folder's test samples.
        output: Folder for energy.html, energy.json, layers.csv and neurobench.json (NeuroBench's metrics only).
        ann: Run folder of an ANN of the same topology; default: the run's own twin, on one frame of each sample, as in
            training; a note says if the input does not determine the frame.
        frontier: Train missing narrower ANNs once and keep them in the run; existing ones are always compared.
        metric: Function of readout and targets ``y``, both ``[B, ...]``, instead of accuracy; or FILE.py:NAME, which
            is executed.
        options: An options object, or its fields as keywords.

    Raises:
        InputError: For an invalid source, input, coding, price list or margin (some as ConfigError), a margin without
            labels, or input off the graph's declared grid.
    """
    options = options or EnergyOptions(**keywords)
    if options.margin is not None:
        check_margin(options.margin)
    if isinstance(metric, str):
        from stl_deploy.runs.user_module import load_function  # torch

        metric = load_function(metric)
    if output is not None:
        install.require("matplotlib")
        require_folder(output)
    opened = open_source(source)
    if opened.kind == RUN:
        check_network(source)
    program, reading = open_reading(opened, dialect)
    x, targets = read_for(opened, program, input_of(opened, input_file), any_target=metric is not None)
    labels = None if metric is not None else targets
    require_labels(options, labels, program)
    match_inputs(program, x)
    program, x = on_declared_grid(program, x, options.input_grid, say)
    twin, unmeasured = None, ""
    if ann is not None:
        twin = _twin(program, ann, x, labels, say)
    elif opened.kind == RUN:
        twin, unmeasured = kept_twin(program, source, input_file, x, labels, say, input_grid=options.input_grid)
    if twin is not None:
        require_decided(labels, program)
    notes = [text for text in (reading.reason, reading.unspecified_options, unmeasured, *rounded(options)) if text]
    on_grid = replace(options, input_grid=None)
    report = count(program, x, on_grid, labels=targets, twin=twin, metric=metric, source=source.name, notes=notes)
    report = with_commands(report, source, input_file, is_run=opened.kind == RUN)
    narrower = ""
    if opened.kind == RUN and ann is None:
        narrower = _train_narrower(source, twin, say) if frontier else ""
        frames = None
        if twin is not None and twin.right is not None:
            # on the grid of the twin's: the narrower ANNs get the very frames that it got
            frames, _ = twin_frames(program, source, input_file, x, labels, input_grid=options.input_grid)
        if twin is not None and frames is not None:
            own = input_file is None and options.input_grid is None
            report = _with_frontier(report, source, program, twin, frames, options.margin, own)
    elif frontier:
        narrower = _NO_FRONTIER
    say.say(reading.reason)
    for warning in (reading.unspecified_options, unmeasured, narrower):
        if warning:
            say.warn(warning)
    show(report, say)
    if output is not None:
        _write(report, output, source if opened.kind == RUN else None, say)
    return report


def validate(*, say: Console = QUIET) -> tuple[Check, ...]:
    """Compare the models with published measurements: scores on training and held-out data, then each check."""
    checks = check_all()
    show_checks(checks, say)
    return checks


def _twin(program: Program, ann: Path, x: NetworkInput, labels: NDArray[np.int64] | None, say: Console) -> AnnTwin:
    from stl_deploy.pipeline.fast_path import announce
    from stl_deploy.runs.ann_twin import measure_twin  # torch

    if isinstance(x, Mapping):
        raise InputError(f"an ANN of the same topology has one input, not {', '.join(x)}; leave {named('ann')} out")
    announce("cpu", say)
    say.say(f"counting operations of the ANN twin in {ann} on the same input")
    return measure_twin(program, ann, x, labels)


def _train_narrower(run_dir: Path, twin: AnnTwin | None, say: Console) -> str:
    """Train the missing ANNs; return the reason in one sentence if that is pointless."""
    if twin is None or twin.right is None:
        return "No narrower ANNs are compared: that takes labels and the run's kept ANN twin on the same samples."
    from stl_deploy.runs.frontier import is_kept, keep_frontier  # torch

    if not is_kept(run_dir):
        keep_frontier(load_config(run_dir / CONFIG), run_dir, say)
    return ""


def _with_frontier(
    report: EnergyReport, source: Path, program: Program, twin: AnnTwin, frames: Frames, margin: float | None, own: bool
) -> EnergyReport:
    """Return the report with the kept ANNs compared: on the whole test split of the run's own input, if it is there."""
    from stl_deploy.data import load_dataset  # torch
    from stl_deploy.runs.frontier import is_kept, with_frontier

    images, labels = frames
    if not is_kept(source) or labels is None:
        return report
    test = None
    if own:
        with suppress(StlDeployError):
            test = load_dataset(load_config(source / CONFIG).dataset).test
    share = check_margin(MARGIN if margin is None else margin)
    return with_frontier(report, source, twin, program, (images, labels), share, test)


def _write(report: EnergyReport, output: Path, run_dir: Path | None, say: Console) -> None:
    from stl_deploy.report.energy_page import page  # matplotlib
    from stl_deploy.report.run_report import thresholds_of  # torch
    from stl_deploy.training.checkpoint import load_network

    thresholds = () if run_dir is None else tuple(thresholds_of(load_network(run_dir)[0]))
    html = page(report, thresholds)  # first, so that no other file is written where it fails
    write_json(output / FILE, report.as_dict())
    write_text(output / CSV, layers_csv(report.as_dict()))
    write_json(output / NEUROBENCH, dict(report.neurobench))
    write_text(output / HTML, html)
    record_files(output, [FILE])
    say.say(f"written: {output / HTML} (opens offline), {output / FILE}, {output / CSV} and {output / NEUROBENCH}")
