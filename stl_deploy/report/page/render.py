"""Render the page: report contents as plain data, and a Jinja template over their JSON, in one file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import numpy as np

from stl_deploy.errors import InputError
from stl_deploy.graph.compare import ParityRow
from stl_deploy.pipeline.conversion import Conversion
from stl_deploy.pipeline.parity import Accuracy
from stl_deploy.report.page.against_energy import points_of
from stl_deploy.report.page.conversion import section_of
from stl_deploy.report.page.plots import RESOURCES, plots
from stl_deploy.report.page.templates import count, template


def render_report(data: ReportData) -> str:
    """Return one self-contained HTML page: inline style, SVG and one script that sorts tables.

    The page's own policy admits that script by its hash and no other; without scripts nothing is missing but sorting.
    Every name is escaped. Numbers are those of `report_json`; each number in a table carries its exact
    value in ``data-value``. Of a network that decides nothing on the input (silent, saturated), counts and the verdict
    alone. Raises InputError for numbers that are not finite.
    """
    report = report_json(data)
    energy = report["energy"]
    drawn = plots(report)
    shown, left_out = ([], 0) if energy is None else boxes(energy)
    return template("page.html").render(
        report=report,
        plots=drawn,
        points=points_of(report),
        energy=energy,
        idle=energy is not None and bool(energy["comparisons"]) and energy["quoted"] is None,
        boxes=shown,
        left_out=left_out,
        grid=[] if energy is None else _grid(energy),
        lists=[] if energy is None else list(dict.fromkeys(c["prices"] for c in energy["comparisons"])),
        bookkeeping=None if energy is None else _bookkeeping(energy),
        missing=_missing(report, drawn),
        glossary=GLOSSARY,
        resources=RESOURCES,
        **section_of(data.conversion),
    )


def _missing(report: Mapping[str, Any], drawn: Mapping[str, Any]) -> list[str]:
    """Return the contents of a complete report that this one lacks."""
    parts = {
        "Accuracy": bool(report["accuracy"]),
        "Parity": bool(report["parity"]),
        "Learning": "curves" in drawn,
        "Thresholds": "thresholds" in drawn,
        "Spikes": "raster" in drawn,
        "Energy": report["energy"] is not None,
        "Cores": "cores" in drawn,
        "Accuracy against energy": "frontier" in drawn,
    }
    return [name for name, there in parts.items() if not there]


def _grid(energy: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the comparison grid: a dataflow, and the ratio under each price list, in the lists' order."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for cell in energy["comparisons"]:
        key = (cell["dataflow"], cell["sums"], cell["ann_zeros"])
        row = rows.setdefault(key, {"dataflow": key[0], "sums": key[1], "zeros": key[2], "cells": []})
        row["cells"].append(cell)
    return sorted(rows.values(), key=lambda row: row["zeros"])


def _bookkeeping(energy: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Return the conventions with the lowest and highest ratio on the same hardware."""
    rows = [row for row in energy["conventions"] if row["kind"] == "bookkeeping" and row["snn_over_ann"] is not None]
    rows.sort(key=lambda row: float(row["snn_over_ann"]))
    return (rows[0], rows[-1]) if rows else None


GLOSSARY: dict[str, str] = {
    "SNN": "Spiking neural network: neurons send spikes (0 or 1) and keep a potential from step to step.",
    "ANN twin": "The same layers with ReLU instead of spiking neurons, run once per inference.",
    "synop": "Synaptic operation: one spike, or other non-zero input, crossing one synapse.",
    "MAC": "Multiply and accumulate: what an ANN does once per synapse, and an SNN where values are graded.",
    "AC": "Accumulate: an addition without a multiply, enough where only 0 and 1 arrive.",
    "T": "Time steps of one inference.",
    "spike rate": "Spikes per neuron and time step.",
    "dataflow": "How often a weight is fetched from memory, and where sums are kept between additions.",
    "per event": "A weight is fetched for each synop; by the ANN for each MAC.",
    "per step": "A weight is fetched once per time step, for all its synops in it; by the ANN once per inference.",
    "per inference": "A weight is fetched once; all time steps of a layer are worked through before the next layer.",
    "registers": "A sum stays beside the adder; in memory, each addition reads and writes it.",
    "floor": "Power that flows on a ready chip whether or not anything spikes, times the latency.",
    "events": "Energy of synops, neuron updates, spikes and messages on a chip.",
    "neurocores only": "Without the host and without input and output, which often last longer than the cores compute.",
    "energy-delay product": "Energy times latency of one inference: small where a chip is both frugal and fast.",
    "break-even": "The spike rate at which SNN and ANN twin cost the same.",
    "Pareto front": "Points that no other equals or beats in both accuracy and energy.",
    "threshold": "The potential at which a neuron fires.",
    "modelled": "Worked out from counts and prices; not measured on hardware.",
    "simulated": "Run on a simulator of hardware.",
    "measured": "Ran, and was read off.",
    "bracket": "A low and a high end between which the value lies, because something has no published price.",
}


_MOST = 24
"""Boxes that are drawn; of a longer network the dearest layers, in order."""


@dataclass(frozen=True)
class Box:
    """One layer. share: of the SNN's energy; rate: spikes per neuron and step, None for a layer without spikes.

    follows: whether the previous box feeds it; others: its other sources, those that close a loop marked.
    """

    name: str
    kind: str
    count: float
    unit: str
    rate: float | None
    joules: float
    share: float
    follows: bool = False
    others: tuple[str, ...] = ()


def boxes(energy: Mapping[str, Any]) -> tuple[list[Box], int]:
    """Return the boxes of an energy JSON, per inference, and the number of layers left out."""
    cost = {entry["layer"]: entry["snn_J"] for entry in energy["by_layer"]}
    whole, batch = sum(cost.values()) or 1.0, energy["batch"]
    all_boxes = [_box(name, layer, cost.get(name, 0.0), whole, batch) for name, layer in energy["layers"].items()]
    kept = {box.name for box in sorted(all_boxes, key=lambda box: -box.joules)[:_MOST]}
    shown = [box for box in all_boxes if box.name in kept]
    order = {name: place for place, name in enumerate(energy["edges"])}
    linked, before = [], None
    for box in shown:
        linked.append(_linked(box, energy["edges"][box.name], before, order))
        before = box
    return linked, len(all_boxes) - len(kept)


def _linked(box: Box, sources: Sequence[str], before: Box | None, order: Mapping[str, int]) -> Box:
    """Return the box with its edges; the input is named only if a box stands before it."""
    named = [name for name in sources if before is None or name != before.name]
    follows = len(named) < len(sources)
    others = []
    for name in named:
        if before is not None or name in order:
            # a source that stands behind its reader closes a loop
            closes_loop = order.get(name, -1) >= order[box.name]
            others.append(f"{name}, a step ago" if closes_loop else name)
    return replace(box, follows=follows, others=tuple(others))


def _box(name: str, layer: Mapping[str, Any], joules: float, whole: float, batch: int) -> Box:
    rate = None
    if "neurons" in layer:
        kind, done, unit = f"{count(layer['neurons'])} neurons", layer["spikes"], "spikes"
        rate = done / layer["neuron_updates"] if done else None
    elif "max_compares" in layer:
        kind, done, unit = "max pool", layer["max_compares"], "comparisons"
    else:
        kind, done, unit = "product", layer["synops"], f"synops ({layer['op']})"
        weights = layer.get("weight_words")  # none where two signals are multiplied, as in attention
        if weights == 0:
            kind, unit = "pool", "pooled events"
        elif weights is not None:
            kind = f"{count(weights)} weights"
    return Box(name, kind, done / batch, unit, rate, joules, joules / whole)


SCHEMA_VERSION = 1
_PLAIN = {str, int, bool, type(None)}


@dataclass(frozen=True)
class Thresholds:
    """A layer's thresholds before and after training, any shape; ``granularity``: neuron, channel or layer."""

    layer: str
    granularity: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Raster:
    """Spikes of one sample in one layer: ``spikes`` is ``[T, neurons]`` (flattened), 0 where silent."""

    layer: str
    spikes: Any


@dataclass(frozen=True)
class ReportData:
    """Contents of the page. ``energy`` is an energy JSON (`EnergyReport.as_dict`), or None.

    summary: run settings, label to text. curves: one record per epoch (``epoch``, ``loss``,
    ``train_accuracy``, ``validation_loss``, ``validation_accuracy``, ``rates`` {layer: rate}; others are kept).
    tradeoff: accuracy against energy, as `stl_deploy.pipeline.tradeoff.Tradeoff.as_dict` has it.
    conversion: of an ANN. raster_sample: which sample the raster shows. environment: versions and machine, by label.
    """

    title: str
    summary: Mapping[str, str] = field(default_factory=dict)
    accuracy: Sequence[Accuracy] = ()
    curves: Sequence[Mapping[str, Any]] = ()
    thresholds: Sequence[Thresholds] = ()
    rasters: Sequence[Raster] = ()
    raster_sample: str = ""
    parity: Sequence[ParityRow] = ()
    energy: Mapping[str, Any] | None = None
    tradeoff: Mapping[str, Any] | None = None
    conversion: Conversion | None = None
    assumptions: Sequence[str] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)


def report_json(data: ReportData) -> dict[str, Any]:
    """Return the report's JSON twin; the page shows these numbers and no others.

    Raises InputError for a number that is not finite, naming where it stands.
    """
    return {"schema_version": SCHEMA_VERSION, **_plain(data, "report")}


def _plain(value: Any, where: str) -> Any:
    if type(value) in _PLAIN:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} is {value}; a report holds finite numbers, or null where there is none")
    return value
