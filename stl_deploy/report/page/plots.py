"""Draw the page's figures from the report's JSON alone, and the Pareto plot of accuracy against energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from stl_deploy.energy.models.frontier import Point
from stl_deploy.pipeline.tradeoff import pareto_front
from stl_deploy.report.page.svg import FAINT, INK, SERIES, inline, panels, short, style
from stl_deploy.report.page.templates import joules, template

_WIDTH = 10.4
_MAX_RASTER_ROWS = 128
_MAX_DOTS = 6000
_DOT = 0.002
"""Half a dot's length in time steps: its round ends make it a dot; one of no length is not drawn."""
_RASTER_HEIGHT = 2.0


def plots(report: Mapping[str, Any]) -> dict[str, str | None]:
    """Return inline SVG by section; None without data."""
    energy = report["energy"] or {}
    with style():
        return {
            "curves": _curves(report["curves"]) if report["curves"] else None,
            "thresholds": _thresholds(report["thresholds"]) if report["thresholds"] else None,
            "raster": _raster(report["rasters"]) if report["rasters"] else None,
            "conventions": _conventions(energy["conventions"]) if energy else None,
            "layers": _layers(energy["layers"]) if energy else None,
            "cores": heat_map(energy["placement"]) if energy and energy["placement"]["placements"] else None,
            "tradeoff": draw(report["tradeoff"]["points"]) if report["tradeoff"] else None,
            "dominating": dominating(energy["itemised"][energy["leads"]]["snn"])
            if energy and energy["quoted"]
            else None,
            "by_layer": by_layer(energy["by_layer"]) if energy and energy["quoted"] else None,
            "region": region(energy["break_even"], energy["quoted"]["prices"]) if energy and energy["quoted"] else None,
        }


def _curves(curves: Sequence[Mapping[str, Any]]) -> str:
    rates = list(curves[0].get("rates") or {})
    figure, axes = panels(3 if rates else 2, _WIDTH, 2.3)
    _lines(axes[0], curves, {"training": "loss", "validation": "validation_loss"}, "Loss")
    _lines(axes[1], curves, {"training": "train_accuracy", "validation": "validation_accuracy"}, "Accuracy")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1.0))
    if rates:
        flat = [{"epoch": c["epoch"], **{name: (c.get("rates") or {}).get(name) for name in rates}} for c in curves]
        _lines(axes[2], flat, {name: name for name in rates}, "Spikes per neuron and step")
        axes[2].set_ylim(bottom=0)
    return inline(figure, "curves", "Loss, accuracy and spike rate by epoch")


def _lines(ax: Axes, curves: Sequence[Mapping[str, Any]], keys: Mapping[str, str], title: str) -> None:
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


def _thresholds(layers: Sequence[Mapping[str, Any]]) -> str:
    figure, axes = panels(len(layers), _WIDTH, 2.0, columns=3)
    for ax, layer in zip(axes, layers, strict=True):
        before, after = (np.ravel(layer[key]).astype(float) for key in ("before", "after"))
        low, high = min(before.min(), after.min()), max(before.max(), after.max())
        pad = 0.05 * (high - low) or 0.05 * (abs(high) or 1.0)
        bins = np.linspace(low - pad, high + pad, 25).tolist()
        ax.hist(after, bins, color=SERIES[0], alpha=0.85, label="after")
        ax.hist(before, bins, histtype="step", color=SERIES[1], lw=1.4, label="before")
        ax.set_title(f"{short(layer['layer'])}, by {layer['granularity']} ({after.size})")
        ax.set_xlabel("threshold")
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[0].legend(fontsize=7)
    return inline(figure, "thresholds", "Histograms of each layer's thresholds before and after training")


def _raster(rasters: Sequence[Mapping[str, Any]]) -> str:
    figure, axes = panels(len(rasters), _WIDTH, _RASTER_HEIGHT, columns=1)
    steps = len(rasters[0]["spikes"])
    for ax, raster in zip(axes, rasters, strict=True):
        spikes = np.asarray(raster["spikes"])[:, :_MAX_RASTER_ROWS]
        spikes = spikes[:, : _rows_of(spikes)]
        at, neuron = np.nonzero(spikes)
        shown, neurons = spikes.shape[1], len(raster["spikes"][0])
        if len(at):
            ends = np.stack([at - _DOT, neuron, at + _DOT, neuron], axis=-1).reshape(-1, 2)
            dots = Path(ends, [Path.MOVETO, Path.LINETO] * len(at))
            cell = min(72 * _RASTER_HEIGHT * 0.7 / shown, 72 * _WIDTH * 0.85 / steps)
            size = float(np.clip(cell, 1.8, 4))
            ax.add_patch(PathPatch(dots, fill=False, color=SERIES[0], lw=size, capstyle="round", snap=False))
        which = f"first {shown} of {neurons}" if shown < neurons else f"{neurons}"
        ax.set_title(f"{short(raster['layer'])}: {which} neurons, {len(at)} spikes")
        ax.set(xlim=(-0.5, steps - 0.5), ylim=(spikes.shape[1] - 0.5, -0.5), ylabel="neuron")
        ax.xaxis.set_major_locator(MaxNLocator(min(steps, 10), integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes[-1].set_xlabel("time step")
    return inline(figure, "raster", "Spikes of one sample: a dot for each neuron and time step that fired")


def _rows_of(spikes: NDArray[Any]) -> int:
    """Return the first neurons, as many as keep the number of dots small."""
    fired = np.cumsum((spikes != 0).sum(axis=0))
    return max(1, int(np.searchsorted(fired, _MAX_DOTS, side="right")))


def _conventions(rows: Sequence[Mapping[str, Any]]) -> str:
    kept = [row for row in rows if row["snn_over_ann"]]
    figure, (ax,) = panels(1, _WIDTH, 0.9 + 0.26 * max(1, len(kept)))
    ratios = [row["snn_over_ann"] for row in kept]
    places = range(len(kept))
    ax.axvline(1, color=INK, lw=0.8)
    ax.hlines(places, [1] * len(kept), ratios, color=FAINT, lw=2)
    ax.scatter(ratios, places, color=[SERIES[1] if r >= 1 else SERIES[0] for r in ratios], s=26, zorder=3)
    for place, ratio in zip(places, ratios, strict=True):
        ax.annotate(
            f"{ratio:.3g}×",
            (ratio, place),
            (7 if ratio >= 1 else -7, 0),
            textcoords="offset points",
            va="center",
            ha="left" if ratio >= 1 else "right",
        )
    ax.set_yticks(list(places), [row["name"] for row in kept])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xscale("log")
    ax.set_xlim(min([0.5, *(r / 1.6 for r in ratios)]), max([2.0, *(r * 1.6 for r in ratios)]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    ax.set_xlabel("how many times the ANN the SNN costs: left of 1 the SNN costs less")
    ax.invert_yaxis()
    return inline(figure, "conventions", "How many times the ANN the SNN costs under each accounting convention")


def _layers(layers: Mapping[str, Mapping[str, Any]]) -> str:
    """Plot operations against dense MACs of one pass, for each weighted or pooling node."""
    tapped = {name: layer for name, layer in layers.items() if "synops" in layer}
    figure, (ax,) = panels(1, _WIDTH, 0.9 + 0.26 * max(1, len(tapped)))
    places = np.arange(len(tapped))
    share = [100 * layer["synops"] / (layer["dense_macs_exact"] or 1) for layer in tapped.values()]
    colours = [SERIES[0] if layer["op"] == "AC" else SERIES[1] for layer in tapped.values()]
    ax.barh(places, share, color=colours, height=0.6)
    for place, value, layer in zip(places, share, tapped.values(), strict=True):
        ax.annotate(f"{value:.3g} %  {layer['op']}", (value, place), (4, 0), textcoords="offset points", va="center")
    ax.set_yticks(list(places), [short(name) for name in tapped])
    ax.set_xlim(0, max([1.0, *share]) * 1.2)
    ax.set_xlabel("synapses crossed, % of dense MACs over all steps")
    ax.invert_yaxis()
    return inline(figure, "layers", "Share of each layer's synapses that events crossed")


_MOST_TERMS = 14


def dominating(items: Sequence[Mapping[str, Any]]) -> str:
    """Plot the dearest items (dearest first in ``items``) as shares of the sum; the others as one bar."""
    costs = [float(item["joules"][1]) for item in items]
    names = [f"{short(item['layer'])}: {item['term']}" for item in items]
    if len(items) > _MOST_TERMS:
        names = [*names[: _MOST_TERMS - 1], f"{len(items) - _MOST_TERMS + 1} others"]
        costs = [*costs[: _MOST_TERMS - 1], sum(costs[_MOST_TERMS - 1 :])]
    everything = sum(costs) or 1.0
    figure, (ax,) = panels(1, _WIDTH, 0.8 + 0.24 * max(1, len(costs)))
    places = list(range(len(costs)))
    shares = [cost / everything for cost in costs]
    ax.barh(places, shares, color=SERIES[0], height=0.6)
    for place, share in zip(places, shares, strict=True):
        ax.annotate(f"{share:.1%}", (share, place), (4, 0), textcoords="offset points", va="center")
    ax.set_yticks(places, names)
    ax.set_xlim(0, max([0.01, *shares]) * 1.15)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("share of the energy of one inference")
    ax.invert_yaxis()
    return inline(figure, "dominating", "The terms that cost most, by layer, as shares of the whole")


_ENERGY_WIDTH = 6.6
"""Inches: a telephone shows all of it, still legible."""
_MOST_LAYERS_SHOWN = 16
_LEAST_RATE = 1e-3


def by_layer(layers: Sequence[Mapping[str, Any]]) -> str:
    """Plot joules of one inference by layer, SNN above ANN; the cheapest layers of a long network as one bar."""
    kept = [dict(layer) for layer in layers if layer["snn_J"] or layer["ann_J"]]
    if len(kept) > _MOST_LAYERS_SHOWN:
        ranked = sorted(kept, key=lambda layer: -max(layer["snn_J"], layer["ann_J"]))
        names = {layer["layer"] for layer in ranked[: _MOST_LAYERS_SHOWN - 1]}
        rest = [layer for layer in kept if layer["layer"] not in names]
        others = {"layer": f"{len(rest)} others", **{k: sum(r[k] for r in rest) for k in ("snn_J", "ann_J")}}
        kept = [*(layer for layer in kept if layer["layer"] in names), others]
    figure, (ax,) = panels(1, _ENERGY_WIDTH, 0.9 + 0.34 * max(1, len(kept)))
    for side, offset, colour, name in (("snn_J", -0.19, SERIES[0], "SNN"), ("ann_J", 0.19, SERIES[1], "ANN twin")):
        places = [place + offset for place in range(len(kept))]
        ax.barh(places, [layer[side] for layer in kept], height=0.34, color=colour, label=name)
        for place, layer in zip(places, kept, strict=True):
            ax.annotate(joules(layer[side]), (layer[side], place), (4, 0), textcoords="offset points", va="center")
    ax.set_yticks(list(range(len(kept))), [short(layer["layer"]) for layer in kept])
    most = max((max(layer["snn_J"], layer["ann_J"]) for layer in kept), default=0.0)
    ax.set_xlim(0, (most or 1.0) * 1.15)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: joules(value)))
    ax.set_xlabel("energy of one inference")
    ax.invert_yaxis()
    if kept:
        ax.legend(fontsize=7, loc="lower right")
    return inline(figure, "by-layer", "Energy of one inference by layer, of the SNN and of its ANN twin")


def region(break_even: Mapping[str, Any], price: str) -> str | None:
    """Plot for each dataflow the spike rates at which the SNN costs less, and this network's; None without any.

    break_even: as the energy JSON has it; price: the list to show.
    """
    models, rate = break_even["models"], break_even["spike_rate"]
    rows = [m for m in models if m["price"] == price and m["name"].startswith("weights")]
    rows = [m for m in rows if m["verdict"] != "not defined"]
    if not rows or not rate:
        return None
    figure, (ax,) = panels(1, _ENERGY_WIDTH, 0.9 + 0.3 * len(rows))
    for place, row in enumerate(rows):
        ax.barh(place, 1 - _LEAST_RATE, left=_LEAST_RATE, height=0.5, color=SERIES[1], alpha=0.25)
        end = (
            {"above": None, "below": 1.0}.get(row["verdict"])
            if row["spike_rate"] is None
            else sum(row["spike_rate"]) / 2
        )
        if end is not None and end > _LEAST_RATE:
            ax.barh(place, min(end, 1.0) - _LEAST_RATE, left=_LEAST_RATE, height=0.5, color=SERIES[0], alpha=0.8)
        said = "never" if end is None or end <= _LEAST_RATE else "always" if end >= 1 else f"below {100 * end:.2g} %"
        ax.annotate(said, (1.0, place), (4, 0), textcoords="offset points", va="center")
    ax.axvline(rate, color=INK, lw=1.2)
    ax.annotate(f"this network, {100 * rate:.2g} %", (rate, -0.6), (4, 0), textcoords="offset points", va="center")
    ax.set_xscale("log")
    ax.set_xlim(_LEAST_RATE, 1.0)
    ax.set_ylim(len(rows) - 0.5, -0.9)
    ax.set_yticks(list(range(len(rows))), [row["name"] for row in rows])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    ax.set_xlabel("spikes per neuron and step; solid: the SNN costs less, pale: the ANN does")
    ax.grid(axis="x", color=FAINT)
    return inline(figure, "region", "Spike rates at which the SNN costs less than its ANN twin, by dataflow")


_COLOURS = {"": 0, "stl": 0, "ann": 1, "sl": 2, "tl": 3}
_NAMED = 12
"""More points on the front than this are drawn without names; the table has them."""


def render_pareto(points: Sequence[Point], text: str = "") -> str:
    """Return one self-contained page: a text, the plot and its table. Names are escaped."""
    front = pareto_front(points)
    rows = [p.as_dict() | {"pareto": p in front} for p in points]
    with style():
        drawn = Markup(draw(rows))
    return template("pareto.html").render(points=rows, plot=drawn, text=text)


def draw(points: Sequence[Mapping[str, Any]]) -> str:
    """Draw the plot from the rows of a trade-off's JSON."""
    figure, (ax,) = panels(1, 6.6, 3.6)
    front = sorted((p for p in points if p["pareto"]), key=lambda p: float(p["joules"]))
    ax.plot([p["joules"] for p in front], [p["accuracy"] for p in front], color=FAINT, lw=2, drawstyle="steps-post")
    modes = sorted({p["mode"] for p in points}, key=lambda mode: _COLOURS.get(mode, len(_COLOURS)))
    for mode in modes:
        kept = [p for p in points if p["mode"] == mode]
        sizes = [42 if p["pareto"] else 18 for p in kept]
        colour = SERIES[_COLOURS.get(mode, len(_COLOURS))]
        where = [p["joules"] for p in kept], [p["accuracy"] for p in kept]
        ax.scatter(*where, color=colour, s=sizes, zorder=3, label=mode or "SNN")
    for p in front if len(front) <= _NAMED else ():
        ax.annotate(_label(p), (p["joules"], p["accuracy"]), (5, -9), textcoords="offset points")
    if len(modes) > 1:
        ax.legend(fontsize=7)
    if all(p["joules"] > 0 for p in points):
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: joules(value)))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: joules(value)))
    ax.tick_params(axis="x", which="both", labelsize=7)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_ylim(top=min(ax.get_ylim()[1], 1.01))
    ax.grid(axis="y")
    ax.set(xlabel="energy of one inference (modelled)", ylabel="accuracy (measured)")
    return inline(figure, "pareto", "Accuracy against energy; the line joins the points that no other beats in both")


def _label(point: Mapping[str, Any]) -> str:
    if point["kind"] == "ANN":
        return f"{short(point['name'])} (ANN)"
    return f"{short(point['name'])}, T = {point['steps']}"


RESOURCES = {"neurons": "neurons", "in_axons": "input axons", "out_axons": "output axons", "synapse_bytes": "synapses"}
"""Resources that are drawn, and their labels."""
_MOST_CORES, _NUMBERED, _LEVELS = 256, 24, 20
"""Cores drawn; cores whose cells carry their percentage; strengths of colour."""


def heat_map(placement: Mapping[str, Any]) -> str:
    """Draw one panel per placement, from the energy JSON's ``placement``.

    Fuller cells are stronger; cells over the limit have the other colour.
    """
    known = {key: name for key, name in RESOURCES.items() if key in placement["limits"]}
    shown = placement["placements"]
    figure, axes = panels(len(shown), _WIDTH, 0.75 + 0.24 * len(known), columns=1)
    for ax, placed in zip(axes, shown, strict=True):
        cores = placed["cores"]
        part = f"first {_MOST_CORES} of {len(cores)}" if len(cores) > _MOST_CORES else f"{len(cores)}"
        ax.set_title(f"{placed['placement']}: {part} cores")
        _panel(ax, cores[:_MOST_CORES], known, placement["limits"])
    return inline(figure, "cores", "How full each core is, by resource, as a share of its limit")


def _panel(ax: Axes, cores: Sequence[Mapping[str, Any]], known: Mapping[str, str], limits: Mapping[str, int]) -> None:
    cells: dict[float, list[tuple[int, int]]] = {}
    for row, key in enumerate(known):
        for column, core in enumerate(cores):
            share = core[key] / limits[key]
            cells.setdefault(min(round(share * _LEVELS) / _LEVELS, 1) if share <= 1 else 2, []).append((column, row))
            if len(cores) <= _NUMBERED:
                ax.text(column + 0.5, row + 0.5, f"{share:.0%}", ha="center", va="center", fontsize=6)
    for level, where in cells.items():
        colour = to_rgba(SERIES[0], 0.05 + 0.55 * level) if level <= 1 else to_rgba(SERIES[1], 0.7)
        ax.add_patch(PathPatch(_boxes(where), facecolor=colour, linewidth=0))
    start = 0
    marks = []
    for node, group in groupby(cores, key=lambda core: str(core["node"])):
        end = start + len(list(group))
        marks.append(((start + end) / 2, short(node)))
        ax.axvline(end, color=INK, lw=0.5)
        start = end
    crowded = len(marks) > 12
    ax.set_xticks([at for at, _ in marks], [name for _, name in marks], rotation=90 if crowded else 0, fontsize=7)
    ax.set_yticks([row + 0.5 for row in range(len(known))], list(known.values()))
    ax.tick_params(length=0)
    ax.set(xlim=(0, len(cores)), ylim=(len(known), 0))


def _boxes(where: Sequence[tuple[int, int]]) -> Path:
    """Return one path of a box in each cell."""
    box = np.array([(0.04, 0.06), (0.96, 0.06), (0.96, 0.94), (0.04, 0.94), (0.04, 0.06)])
    corners = (np.array(where, float)[:, None] + box).reshape(-1, 2)
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(corners, np.tile(codes, len(where)))
