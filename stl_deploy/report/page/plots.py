"""Draw a report's figures from its JSON: each has rows, which are its CSV, too, and a drawing of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from stl_deploy._util.atomic import whole_file, write_text
from stl_deploy._util.tables import csv_table
from stl_deploy.report.page.against_energy import HALF, Rows, against_energy, points_of
from stl_deploy.report.page.svg import FAINT, FORMS, INK, SERIES, inline, panels, saved, short, style
from stl_deploy.report.page.templates import joules

_WIDTH = 10.4
"""Inches: of the page."""
_MAX_RASTER_ROWS = 128
_MAX_DOTS = 6000
_DOT = 0.002
"""Half a dot's length in time steps: its round ends make it a dot; one of no length is not drawn."""
_RASTER_HEIGHT = 2.0


@dataclass(frozen=True)
class Drawing:
    """A figure: its data, its drawing, and a description for readers who do not see it."""

    rows: Rows
    draw: Callable[[Rows], Figure]
    label: str


def drawings(report: Mapping[str, Any]) -> dict[str, Drawing]:
    """Return the figures that a report has data for, by name."""
    energy = report["energy"] or {}
    priced, leads = energy.get("quoted") is not None, energy.get("leads", "streaming")
    compared = energy["frontier"]["at_equal_accuracy"][leads] if "frontier" in energy else None
    against = partial(against_energy, flow=leads, compared=compared, of_one=True)
    every = {
        "frontier": Drawing(points_of(report), against, "Accuracy against energy of one inference, SNN and ANN"),
        "dominating": Drawing(
            list(_terms(energy["itemised"][leads])) if priced else (),
            dominating,
            "Energy of one inference by layer and kind, of the SNN above its ANN twin",
        ),
        "thresholds": Drawing(
            list(_threshold_rows(report["thresholds"])),
            _thresholds,
            "Histograms of each layer's thresholds before and after training",
        ),
        "region": Drawing(
            _regions(energy) if priced else (),
            region,
            "Spike rates at which the SNN costs less than its ANN twin, by dataflow",
        ),
        "curves": Drawing(report["curves"], _curves, "Loss, accuracy and spike rate by epoch"),
        "raster": Drawing(
            list(_fired(report["rasters"])), _raster, "Spikes of one sample: a dot for each neuron and step that fired"
        ),
        "conventions": Drawing(
            [row for row in energy.get("conventions", ()) if row["snn_over_ann"]],
            _conventions,
            "How many times the ANN the SNN costs under each accounting convention",
        ),
        "cores": Drawing(
            list(_cores(energy["placement"])) if energy else (),
            heat_map,
            "How full each core is, by resource, as a share of its limit",
        ),
    }
    return {name: drawing for name, drawing in every.items() if drawing.rows}


def plots(report: Mapping[str, Any]) -> dict[str, Markup]:
    """Return the figures as SVG inside a page, by name."""
    with style():
        return {
            name: Markup(inline(drawing.draw(drawing.rows), name, drawing.label))
            for name, drawing in drawings(report).items()
        }


FIGURES = "figures"
"""The folder of `write_figures`, beside a report."""


def write_figures(report: Mapping[str, Any], folder: Path) -> None:
    """Write each figure of a report's JSON as NAME.svg and NAME.pdf, and its data as NAME.csv."""
    with style(paper=True):
        for name, drawing in drawings(report).items():
            figure = drawing.draw(drawing.rows)
            for form in FORMS:
                with whole_file(folder / f"{name}.{form}") as temporary:
                    temporary.write_bytes(saved(figure, form))
            write_text(folder / f"{name}.csv", csv_table(drawing.rows))


def _curves(curves: Rows) -> Figure:
    rates = list(curves[0].get("rates") or {})
    figure, axes = panels(3 if rates else 2, _WIDTH, 2.3)
    _lines(axes[0], curves, {"training": "loss", "validation": "validation_loss"}, "Loss")
    _lines(axes[1], curves, {"training": "train_accuracy", "validation": "validation_accuracy"}, "Accuracy")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1.0))
    if rates:
        flat = [{"epoch": c["epoch"], **{name: (c.get("rates") or {}).get(name) for name in rates}} for c in curves]
        _lines(axes[2], flat, {name: name for name in rates}, "Spikes per neuron and step")
        axes[2].set_ylim(bottom=0)
    return figure


def _lines(ax: Axes, curves: Rows, keys: Mapping[str, str], title: str) -> None:
    for i, (name, key) in enumerate(keys.items()):
        points = [(c["epoch"], c[key]) for c in curves if c.get(key) is not None]
        if points:
            ax.plot(
                *zip(*points, strict=True), color=SERIES[i % len(SERIES)], lw=1.4, label=short(name), marker=".", ms=3
            )
    ax.set_title(title)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.grid(axis="y")
    if ax.lines:
        ax.legend(fontsize=7)


def _by(rows: Rows, key: str) -> list[Rows]:
    """Return the rows in groups of neighbours that have the same value."""
    return [list(group) for _, group in groupby(rows, key=itemgetter(key))]


def _threshold_rows(layers: Rows) -> Iterator[dict[str, Any]]:
    for layer in layers:
        both = (np.ravel(layer[key]).astype(float) for key in ("before", "after"))
        for index, (before, after) in enumerate(zip(*both, strict=True)):
            named = {"layer": layer["layer"], "by": layer["granularity"], "index": index}
            yield named | {"before": float(before), "after": float(after)}


def _thresholds(rows: Rows) -> Figure:
    layers = _by(rows, "layer")
    figure, axes = panels(len(layers), HALF, 1.7, columns=min(3, len(layers)))
    for ax, values in zip(axes, layers, strict=True):
        before, after = (np.array([row[key] for row in values]) for key in ("before", "after"))
        low, high = min(before.min(), after.min()), max(before.max(), after.max())
        pad = 0.05 * (high - low) or 0.05 * (abs(high) or 1.0)
        bins = np.linspace(low - pad, high + pad, 25).tolist()
        ax.hist(after, bins, color=SERIES[0], alpha=0.85, label="after")
        ax.hist(before, bins, histtype="step", color=SERIES[1], lw=1.4, label="before")
        ax.set_title(f"{short(values[0]['layer'])}: {after.size}, by {values[0]['by']}")
        ax.set_xlabel("threshold")
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0].legend(fontsize=7)
    return figure


def _fired(rasters: Rows) -> Iterator[dict[str, Any]]:
    """Yield the neurons that fired, by layer and step."""
    for raster in rasters:
        for step, spikes in enumerate(raster["spikes"]):
            fired = np.flatnonzero(spikes).tolist()
            yield {"layer": raster["layer"], "neurons": len(spikes), "step": step, "fired": fired}


def _raster(rows: Rows) -> Figure:
    layers = _by(rows, "layer")
    figure, axes = panels(len(layers), _WIDTH, _RASTER_HEIGHT, columns=1)
    for ax, steps in zip(axes, layers, strict=True):
        neurons = int(steps[0]["neurons"])
        dots = np.array([(row["step"], neuron) for row in steps for neuron in row["fired"]], int).reshape(-1, 2)
        shown = min(neurons, _MAX_RASTER_ROWS, _rows_within(dots[:, 1]))
        at, neuron = dots[dots[:, 1] < shown].T
        if len(at):
            ends = np.stack([at - _DOT, neuron, at + _DOT, neuron], axis=-1).reshape(-1, 2)
            outline = Outline(ends, [Outline.MOVETO, Outline.LINETO] * len(at))
            cell = min(72 * _RASTER_HEIGHT * 0.7 / shown, 72 * _WIDTH * 0.85 / len(steps))
            size = float(np.clip(cell, 1.8, 4))
            ax.add_patch(PathPatch(outline, fill=False, color=SERIES[0], lw=size, capstyle="round", snap=False))
        which = f"first {shown} of {neurons}" if shown < neurons else f"{neurons}"
        ax.set_title(f"{short(steps[0]['layer'])}: {which} neurons, {len(at)} spikes")
        ax.set(xlim=(-0.5, len(steps) - 0.5), ylim=(shown - 0.5, -0.5), ylabel="neuron")
        ax.xaxis.set_major_locator(MaxNLocator(min(len(steps), 10), integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes[-1].set_xlabel("time step")
    return figure


def _rows_within(neurons: Any) -> int:
    """Return the first neurons, as many as keep the number of dots small."""
    if len(neurons) <= _MAX_DOTS:
        return _MAX_RASTER_ROWS
    return max(1, int(np.sort(neurons)[_MAX_DOTS]))


def _conventions(rows: Rows) -> Figure:
    figure, (ax,) = panels(1, _WIDTH, 0.9 + 0.26 * len(rows))
    values = [row["snn_over_ann"] for row in rows]
    places = range(len(rows))
    ax.axvline(1, color=INK, lw=0.8)
    ax.hlines(places, [1] * len(rows), values, color=FAINT, lw=2)
    ax.scatter(values, places, color=[SERIES[1] if r >= 1 else SERIES[0] for r in values], s=26, zorder=3)
    for place, value in zip(places, values, strict=True):
        ax.annotate(
            f"{value:.3g}×",
            (value, place),
            (7 if value >= 1 else -7, 0),
            textcoords="offset points",
            va="center",
            ha="left" if value >= 1 else "right",
        )
    ax.set_yticks(list(places), [row["name"] for row in rows])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xscale("log")
    ax.set_xlim(min([0.5, *(r / 1.6 for r in values)]), max([2.0, *(r * 1.6 for r in values)]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    ax.set_xlabel("how many times the ANN the SNN costs: left of 1 the SNN costs less")
    ax.invert_yaxis()
    return figure


_KINDS = {"weights": "weights", "states": "states", "operations": "operations", "transient": "events, activations"}
"""Kinds of an item of energy, and their names in a figure."""
_COLOURS = dict(zip(_KINDS, SERIES[2:], strict=True))
"""Of each kind; the first two colours are the SNN's and the ANN's."""
_MOST_LAYERS = 6


def _terms(sides: Mapping[str, Rows]) -> Iterator[dict[str, Any]]:
    for side, items in sides.items():
        yield from ({"side": side.upper(), **item, "joules": sum(item["joules"]) / 2} for item in items)


def dominating(terms: Rows) -> Figure:
    """Plot joules of one inference by layer, stacked by kind, the SNN above its twin; the cheapest layers as one."""
    dearest = sorted(dict.fromkeys(term["layer"] for term in terms), key=lambda layer: -_dearer_side(terms, layer))
    kept = dearest if len(dearest) <= _MOST_LAYERS else dearest[: _MOST_LAYERS - 1]
    bars = [("all layers", list(terms))]
    bars += [(short(layer), [term for term in terms if term["layer"] == layer]) for layer in kept]
    if len(kept) < len(dearest):
        others = [term for term in terms if term["layer"] not in kept]
        bars.append((f"{len(dearest) - len(kept)} others", others))
    figure, (ax,) = panels(1, HALF, 1.0 + 0.36 * len(bars))
    for place, (_, parts) in enumerate(bars):
        _stack(ax, place - 0.19, "SNN", parts, strength=1.0)
        _stack(ax, place + 0.19, "ANN", parts, strength=0.45)
    ax.set_yticks(range(len(bars)), [name for name, _ in bars])
    ax.set_xlim(0, ax.get_xlim()[1] * 1.25)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: joules(value)))
    ax.set_xlabel("energy of one inference; solid: this network, pale: its ANN twin")
    ax.invert_yaxis()
    drawn = {term["kind"] for term in terms if term["joules"]}
    handles = [Patch(color=_COLOURS[kind], label=name) for kind, name in _KINDS.items() if kind in drawn]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), fontsize=7)
    return figure


def _dearer_side(terms: Rows, layer: str) -> float:
    of_side: dict[str, float] = {}
    for term in terms:
        if term["layer"] == layer:
            of_side[term["side"]] = of_side.get(term["side"], 0.0) + term["joules"]
    return max(of_side.values())


def _stack(ax: Axes, at: float, side: str, terms: Rows, *, strength: float) -> None:
    end = 0.0
    for kind, colour in _COLOURS.items():
        part = sum(term["joules"] for term in terms if (term["side"], term["kind"]) == (side, kind))
        ax.barh(at, part, left=end, height=0.34, color=to_rgba(colour, strength))
        end += part
    ax.annotate(joules(end), (end, at), (4, 0), textcoords="offset points", va="center", fontsize=7)


_LEAST_RATE = 1e-3


def _regions(energy: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the break-even of each dataflow at the prices to quote; none for a network that sends no spikes."""
    rate = energy["break_even"]["spike_rate"]
    rows = []
    for row in energy["break_even"]["models"] if rate else ():
        is_quoted = row["price"] == energy["quoted"]["prices"] and row["name"].startswith("weights")
        if is_quoted and row["verdict"] != "not defined":
            rows.append({key: row[key] for key in ("name", "verdict", "spike_rate")} | {"this_network": rate})
    return rows


def region(rows: Rows) -> Figure:
    """Plot for each dataflow the spike rates at which the SNN costs less, and this network's."""
    rate = rows[0]["this_network"]
    figure, (ax,) = panels(1, HALF, 0.9 + 0.3 * len(rows))
    for place, row in enumerate(rows):
        ax.barh(place, 1 - _LEAST_RATE, left=_LEAST_RATE, height=0.5, color=to_rgba(SERIES[1], 0.25))
        # without a crossing one side is cheaper at every rate
        always = 1.0 if row["verdict"] == "below" else None
        end = always if row["spike_rate"] is None else sum(row["spike_rate"]) / 2
        if end is not None and end > _LEAST_RATE:
            ax.barh(place, min(end, 1.0) - _LEAST_RATE, left=_LEAST_RATE, height=0.5, color=to_rgba(SERIES[0], 0.8))
        said = "never" if end is None or end <= _LEAST_RATE else "always" if end >= 1 else f"below {100 * end:.2g} %"
        ax.annotate(said, (1.0, place), (4, 0), textcoords="offset points", va="center")
    ax.axvline(rate, color=INK, lw=1.2)
    ax.annotate(f"this network, {100 * rate:.2g} %", (rate, -0.6), (4, 0), textcoords="offset points", va="center")
    ax.set_xscale("log")
    ax.set_xlim(_LEAST_RATE, 1.0)
    ax.set_ylim(len(rows) - 0.5, -0.9)
    ax.set_yticks(list(range(len(rows))), [row["name"].replace(", ", ",\n") for row in rows])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    ax.set_xlabel("spikes per neuron and step; solid: the SNN costs less, pale: the ANN does")
    ax.grid(axis="x", color=FAINT)
    return figure


RESOURCES = {"neurons": "neurons", "in_axons": "input axons", "out_axons": "output axons", "synapse_bytes": "synapses"}
"""Resources that are drawn, and their labels."""
_MOST_CORES, _NUMBERED, _LEVELS = 256, 24, 20
"""Cores drawn; cores whose cells carry their percentage; strengths of colour."""


def _cores(placement: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the cores of each placement, and the share of each limit that is used."""
    known = [key for key in RESOURCES if key in placement["limits"]]
    for placed in placement["placements"]:
        for number, core in enumerate(placed["cores"]):
            shares = {key: core[key] / placement["limits"][key] for key in known}
            yield {"placement": placed["placement"], "core": number, "node": core["node"], **shares}


def heat_map(rows: Rows) -> Figure:
    """Draw one panel per placement, from shares of each core's limits.

    Fuller cells are stronger; cells over the limit have the other colour.
    """
    known = [key for key in RESOURCES if key in rows[0]]
    placed = _by(rows, "placement")
    figure, axes = panels(len(placed), _WIDTH, 0.75 + 0.24 * len(known), columns=1)
    for ax, cores in zip(axes, placed, strict=True):
        part = f"first {_MOST_CORES} of {len(cores)}" if len(cores) > _MOST_CORES else f"{len(cores)}"
        ax.set_title(f"{cores[0]['placement']}: {part} cores")
        _panel(ax, cores[:_MOST_CORES], known)
    return figure


def _panel(ax: Axes, cores: Rows, known: Sequence[str]) -> None:
    cells: dict[float, list[tuple[int, int]]] = {}
    for row, key in enumerate(known):
        for column, core in enumerate(cores):
            share = core[key]
            cells.setdefault(min(round(share * _LEVELS) / _LEVELS, 1) if share <= 1 else 2, []).append((column, row))
            if len(cores) <= _NUMBERED:
                ax.text(column + 0.5, row + 0.5, f"{share:.0%}", ha="center", va="center", fontsize=6)
    for level, where in cells.items():
        colour = to_rgba(SERIES[0], 0.05 + 0.55 * level) if level <= 1 else to_rgba(SERIES[1], 0.7)
        ax.add_patch(PathPatch(_boxes(where), facecolor=colour, linewidth=0))
    start = 0
    middles, names = [], []
    for of_node in _by(cores, "node"):
        end = start + len(of_node)
        middles.append((start + end) / 2)
        names.append(short(of_node[0]["node"]))
        ax.axvline(end, color=INK, lw=0.5)
        start = end
    ax.set_xticks(middles, names, rotation=90 if len(names) > 12 else 0, fontsize=7)
    ax.set_yticks([row + 0.5 for row in range(len(known))], [RESOURCES[key] for key in known])
    ax.tick_params(length=0)
    ax.set(xlim=(0, len(cores)), ylim=(len(known), 0))


def _boxes(where: Sequence[tuple[int, int]]) -> Outline:
    """Return one path of a box in each cell."""
    box = np.array([(0.04, 0.06), (0.96, 0.06), (0.96, 0.94), (0.04, 0.94), (0.04, 0.06)])
    corners = (np.array(where, float)[:, None] + box).reshape(-1, 2)
    codes = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY]
    return Outline(corners, np.tile(codes, len(where)))
