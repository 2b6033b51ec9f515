"""A netx file from a source: what each threshold form costs, then the one chosen, with its ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.console import Console
from stl_deploy._util.files import read_input
from stl_deploy.errors import InputError
from stl_deploy.exporters.integers.scales import ThresholdForm
from stl_deploy.exporters.loihi.export import export_netx
from stl_deploy.exporters.loihi.quantise import LoihiModel
from stl_deploy.graph.exact import input_grid, round_to_grid
from stl_deploy.graph.program import Program
from stl_deploy.pipeline.backends import CALIBRATION, input_scale
from stl_deploy.pipeline.source import TEST_INPUT, NetworkInput, Source
from stl_deploy.pipeline.threshold_forms import compare_forms, quantise_forms, show_forms

COMPARED = 256
"""Input samples on which the threshold forms are compared."""


def write_netx_file(
    source: Source,
    program: Program,
    path: Path,
    thresholds: ThresholdForm,
    input_file: Path | None,
    x: NetworkInput,
    say: Console,
) -> dict[str, Any]:
    """Show what each threshold form costs in spikes and accuracy, then write the one chosen; returns facts for its
    manifest. input_file: what the user gave, which then calibrates too. Raises as `export_netx` does.
    """
    if isinstance(x, Mapping):
        raise InputError(f"netx holds one input; the graph has {', '.join(x)}")
    calibration = _calibration(source, program, input_file, x)
    labels = _labels(source, input_file)
    first = _on_grid(program, np.asarray(x[:, :COMPARED]))
    models = quantise_forms(program, calibration)
    rows = compare_forms(program, models, first, None if labels is None else labels[:COMPARED])
    show_forms(rows, say)
    model = export_netx(program, path, calibration=calibration, input_scale=input_scale(program), thresholds=thresholds)
    say.say(f"chosen: {thresholds}")
    for found in model.ranges:
        if not found.holds:
            say.warn(
                f"'{found.node}': no overflow on calibration data (u {found.u_seen}, v {found.v_seen}), but some input "
                f"could (u {found.u_worst}, v {found.v_worst}; 24 bits hold 8388607)"
            )
    return {"target": "netx", **netx_facts(model), "forms": [asdict(row) for row in rows]}


def netx_facts(model: LoihiModel) -> dict[str, Any]:
    """What a manifest keeps of a netx file: scales, how each layer came out, ranges of u and v (JSON-ready)."""
    return {
        "thresholds": model.thresholds,
        "input_scale": model.input_scale,
        "layers": [asdict(fit) for fit in model.fits],
        "ranges": [asdict(found) | {"holds_whatever_the_input": found.holds} for found in model.ranges],
        "host": [node.name for node in model.host],
    }


def _labels(source: Source, input_file: Path | None) -> NDArray[Any] | None:
    if input_file is None and source.kind == "run" and (source.path / TEST_INPUT).is_file():
        input_file = source.path / TEST_INPUT
    return None if input_file is None else read_input(input_file)[1]


def _calibration(source: Source, program: Program, input_file: Path | None, x: NDArray[Any]) -> NDArray[Any]:
    """Samples to choose integers by: a run folder's training images, else the input's first, on the graph's grid."""
    if source.kind == "run" and input_file is None and (source.path / "config.yaml").is_file():
        from stl_deploy.pipeline.inputs import training_input

        return training_input(source.path, CALIBRATION)
    return _on_grid(program, np.asarray(x[:, :CALIBRATION]))


def _on_grid(program: Program, x: NDArray[Any]) -> NDArray[Any]:
    """``x`` rounded to the input grid that the graph declares, if it declares one."""
    grid = input_grid(program.metadata)
    return x if grid is None else round_to_grid(x, grid.fraction_bits)
