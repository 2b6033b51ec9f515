"""What each way of holding thresholds on Loihi costs in spikes and accuracy: measured, then shown as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from stl_deploy.console import Console
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.loihi.export import simulate_loihi
from stl_deploy.exporters.loihi.pixels import per_pixel
from stl_deploy.exporters.loihi.quantise import quantise
from stl_deploy.exporters.loihi.scales import ThresholdForm
from stl_deploy.exporters.verify import accuracy
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import Result, run
from stl_deploy.pipeline.backends import CHUNK, input_scale, spiking

HOLDS = {
    "folded": "netx's documented contract: one threshold per population",
    "per-layer": "netx's documented contract: one threshold per population",
    "per-neuron": "Lava's CPU simulation only (undocumented arrays)",
    "projected": "netx's documented contract: one threshold per population",
    "unrolled": "netx's documented contract, convolutions as dense layers",
}


@dataclass(frozen=True)
class FormRow:
    """One way: its accuracy on labelled input (None without labels), and spikes that differ from the graph's.

    refused: why this network cannot be held so, else None.
    """

    stage: str
    form: str
    accuracy: float | None = None
    differing: int | None = None
    compared: int | None = None
    holds: str = ""
    refused: str | None = None


def compare_forms(
    program: Program,
    calibration: NDArray[Any],
    x: NDArray[Any],
    labels: NDArray[Any] | None,
    forms: Sequence[ThresholdForm] = get_args(ThresholdForm),
) -> list[FormRow]:
    """The graph, then post-training quantisation in each form that makes a difference, on ``x`` ``[T, B, *shape]``."""
    reference = run(program, x, record=spiking(program), chunk=CHUNK)
    rows = [FormRow("graph", "as folded", accuracy(program, reference, labels), holds="float32")]
    pixels = per_pixel(program)
    for form in forms:
        if form in ("projected", "unrolled") and not pixels:
            continue
        rows.append(_row(program, form, calibration, x, labels, reference.recorded))
    return rows


def _row(
    program: Program,
    form: ThresholdForm,
    calibration: NDArray[Any],
    x: NDArray[Any],
    labels: NDArray[Any] | None,
    wanted: Any,
) -> FormRow:
    try:
        model = quantise(program, calibration, input_scale=input_scale(program), thresholds=form)
    except UnsupportedError as error:
        return FormRow("post-training", form, holds=HOLDS[form], refused=f"'{error.node}': {error.reason}")
    found = simulate_loihi(model, x, record=True)
    differing = sum(int(np.count_nonzero(spikes != wanted[name])) for name, spikes in found.spikes.items())
    compared = sum(spikes.size for spikes in found.spikes.values())
    decided = accuracy(program, Result({"output": found.y}, {}), labels)
    return FormRow("post-training", form, decided, differing, compared, HOLDS[form])


def show_forms(rows: Sequence[FormRow], say: Console) -> None:
    """The table."""
    shown = []
    for row in rows:
        accuracy = "-" if row.accuracy is None else f"{row.accuracy:.2%}"
        spikes = "-"
        if row.differing is not None and row.compared:
            spikes = f"{row.differing:,} of {row.compared:,} ({row.differing / row.compared:.2%})"
        shown.append([row.stage, row.form, accuracy, spikes, row.holds if row.refused is None else row.refused])
    say.table(["weights", "thresholds", "accuracy", "spikes that differ from the graph", "held by"], shown)
