"""Measure the cost of each threshold form on Loihi in spikes and accuracy, and print a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.console import Console
from stl_deploy._util.working import part
from stl_deploy.config.options import ThresholdForm
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.netx.chain import refusals
from stl_deploy.exporters.netx.model import NetxModel, NetxRun, checked_model, run_model
from stl_deploy.graph.compare import FiringRates, Tally, rate_warnings
from stl_deploy.graph.exact import input_scale
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import accuracy
from stl_deploy.graph.run import CHUNK, Result, run
from stl_deploy.integers.per_pixel import per_pixel
from stl_deploy.integers.quantise import IntegerModel, choose
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.simulate import simulate

HOLDS = {
    "folded": "netx's documented contract: one threshold per population",
    "per-layer": "netx's documented contract: one threshold per population",
    "per-neuron": "Lava's CPU simulation only (undocumented arrays)",
    "projected": "netx's documented contract: one threshold per population",
    "unrolled": "netx's documented contract, convolutions as dense layers",
}
IN_C = "C: netx cannot hold the network"


_AT_ONCE = 256
"""Samples whose spikes are kept for the comparison."""


@dataclass(frozen=True)
class FormRow:
    """One threshold form: its accuracy (None without labels), and the spikes that differ from the graph's.

    refused: why this form cannot hold the network, else None. dead: the compared layers that never spike, ``"silent"``,
    or at every step, ``"saturated"``: they prove nothing.
    """

    stage: str
    form: str
    accuracy: float | None = None
    differing: int | None = None
    compared: int | None = None
    holds: str = ""
    refused: str | None = None
    dead: Mapping[str, str] = field(default_factory=dict)


Models = Mapping[ThresholdForm, NetxModel | IntegerModel | UnsupportedError]


def quantise_forms(
    program: Program, calibration: NDArray[Any], forms: Sequence[ThresholdForm] = get_args(ThresholdForm)
) -> Models:
    """Quantise in each threshold form that differs, or return why it cannot hold the network.

    A network that netx cannot hold is quantised as for C, with each neuron's own threshold.
    """
    if refusals(program):
        return {"per-neuron": choose(program, calibration)}
    pixels = per_pixel(program)
    wanted = [form for form in forms if pixels or form not in ("projected", "unrolled")]
    models: dict[ThresholdForm, NetxModel | UnsupportedError] = {}
    for number, form in enumerate(wanted, 1):
        with part(f"{form} thresholds, form {number} of {len(wanted)}"):
            models[form] = _model(program, form, calibration)
    return models


def _model(program: Program, form: ThresholdForm, calibration: NDArray[Any]) -> NetxModel | UnsupportedError:
    try:
        return checked_model(program, calibration, input_scale=input_scale(program), thresholds=form)
    except UnsupportedError as error:
        return error


def compare_forms(
    program: Program,
    models: Models,
    x: NDArray[Any],
    labels: NDArray[Any] | None,
    progress: Callable[[int, int], None] | None = None,
) -> list[FormRow]:
    """Run the graph, then each model, on ``x`` ``[T, B, *shape]``, in chunks reported to ``progress``."""
    names = [node.name for node in program.spiking]
    held = {form: model for form, model in models.items() if not isinstance(model, UnsupportedError)}
    outputs: dict[str, list[NDArray[Any]]] = {name: [] for name in ("graph", *held)}
    tallies, rates = {form: Tally() for form in held}, FiringRates()
    for start in range(0, x.shape[1], _AT_ONCE):
        batch = x[:, start : start + _AT_ONCE]
        reference = run(program, batch, record=names, chunk=CHUNK)
        rates.add(reference.recorded)
        if len(program.outputs) == 1:
            outputs["graph"].append(reference.y)
        for form, model in held.items():
            result = run_integers(model, batch)
            outputs[form].append(result.y)
            tallies[form].add(reference.recorded, result.spikes)
        if progress is not None:
            progress(start + batch.shape[1], x.shape[1])
    right = {
        name: accuracy(program, Result({"output": np.concatenate(parts, axis=1)}, {}), labels) if parts else None
        for name, parts in outputs.items()
    }
    rows = [FormRow("graph", "as folded", right["graph"], holds="float32")]
    for form, found_or_error in models.items():
        if isinstance(found_or_error, UnsupportedError):
            reason = f"'{found_or_error.node}': {found_or_error.reason}"
            rows.append(FormRow("post-training", form, holds=HOLDS[form], refused=reason))
        else:
            counts = tallies[form].differing, tallies[form].compared
            holds = HOLDS[form] if isinstance(found_or_error, NetxModel) else IN_C
            rows.append(FormRow("post-training", form, right[form], *counts, holds=holds, dead=rates.dead))
    return rows


def run_integers(model: NetxModel | IntegerModel, x: NDArray[Any]) -> NetxRun:
    """Run the integers on real input, every spike recorded."""
    if isinstance(model, NetxModel):
        return run_model(model, x, record=True)
    graph = model.graph
    result = simulate(graph, to_integers(x, graph.input.scale), record=True)
    return NetxRun((result.y * graph.output.unit).astype(np.float32), result.spikes)


def show_forms(rows: Sequence[FormRow], say: Console, samples: int, of: int, *, drawn: bool = False) -> None:
    """Print the table, measured on the first ``samples`` of ``of``."""
    part, kind = "all" if samples == of else f"the first {samples:,} of", " random" if drawn else ""
    say.say(f"threshold forms on {part} {of:,}{kind} samples:")
    shown = []
    for row in rows:
        accuracy = "-" if row.accuracy is None else f"{row.accuracy:.2%}"
        spikes = "-"
        if row.differing is not None and row.compared:
            share = proves_nothing(row.dead) or f" ({row.differing / row.compared:.2%})"
            spikes = f"{row.differing:,} of {row.compared:,}{share}"
        shown.append([row.stage, row.form, accuracy, spikes, row.holds if row.refused is None else row.refused])
    say.table(
        [
            "weights",
            "thresholds",
            "accuracy",
            f"spikes that differ from the graph{' (random input)' if drawn else ''}",
            "held by",
        ],
        shown,
    )
    dead = dict(item for row in rows for item in row.dead.items())
    for warning in rate_warnings({name: float(word == "saturated") for name, word in dead.items()}):
        say.warn(warning)


def proves_nothing(dead: Mapping[str, str]) -> str:
    """Return `` (lif2 silent)``, to stand beside a count of spikes; nothing if every layer of it is alive."""
    layers = [f"{name} {word}" for name, word in dead.items()]
    return f" ({', '.join(layers[:3])}{f' and {len(layers) - 3:,} more' if len(layers) > 3 else ''})" if layers else ""
