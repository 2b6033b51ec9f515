"""Draw accuracy against energy: both frontiers, or the points of several networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, PercentFormatter

from stl_deploy.energy.models.frontier import Point
from stl_deploy.energy.models.ratios import number
from stl_deploy.pipeline.tradeoff import pareto_front
from stl_deploy.report.page.svg import INK, SERIES, inline, panels, short, style
from stl_deploy.report.page.templates import joules, template

Rows = Sequence[Mapping[str, Any]]
HALF = 5.1
"""Inches: of a figure that is legible on a telephone; two stand side by side on a desk."""
_COLOURS = {"": 0, "stl": 0, "ann": 1, "sl": 2, "tl": 3}
_NAMED = 12
"""More points than this on the lines are drawn without names; the table has them."""


def points_of(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the points of both frontiers, or else of accuracy against energy, with the ends of their intervals."""
    energy, tradeoff = report["energy"] or {}, report["tradeoff"] or {"points": []}
    points = [*energy["frontier"]["snn"], *energy["frontier"]["ann"]] if "frontier" in energy else tradeoff["points"]
    rows = [dict(point) for point in points]
    for row in rows:
        row["low"], row["high"] = row.pop("interval") or (None, None)
    return rows


def render_pareto(points: Sequence[Point], text: str = "") -> str:
    """Return one self-contained page: a text, the plot and its table. Names are escaped."""
    front = pareto_front(points)
    listed = {"points": [p.as_dict() | {"pareto": p in front} for p in points]}
    rows = points_of({"energy": None, "tradeoff": listed})
    with style():
        drawn = Markup(inline(against_energy(rows), "pareto", "Accuracy against energy of one inference"))
    return template("pareto.html").render(points=rows, plot=drawn, text=text)


def against_energy(
    points: Rows, flow: str = "streaming", compared: Mapping[str, Any] | None = None, *, of_one: bool = False
) -> Figure:
    """Plot accuracy against energy, with a line through each kind's points that no other of it beats in both.

    compared: an SNN and an ANN of equal accuracy, joined by an arrow. of_one: marks the first point, this network.
    """
    figure, (ax,) = panels(1, HALF, 3.4)
    for (kind, _), group in groupby(sorted(points, key=_kind_and_samples), key=_kind_and_samples):
        front = _front(list(group), flow)
        where = [_cost(p, flow) for p in front], [p["accuracy"] for p in front]
        ax.plot(*where, color=SERIES[kind == "ANN"], alpha=0.35, lw=2, drawstyle="steps-post")
        for p in front if len(front) <= _NAMED else ():
            place = (0, 7 if kind == "ANN" else -13)  # the two kinds on either side of their lines
            at = (_cost(p, flow), p["accuracy"])
            ax.annotate(_name(p, points), at, place, textcoords="offset points", fontsize=7, ha="center")
    modes = sorted({p["mode"] for p in points}, key=lambda mode: _COLOURS.get(mode, len(_COLOURS)))
    for mode in modes:
        kept = [p for p in points if p["mode"] == mode]
        colour = SERIES[_COLOURS.get(mode, len(_COLOURS))]
        costs = [_cost(p, flow) for p in kept]
        ax.scatter(costs, [p["accuracy"] for p in kept], color=colour, s=24, zorder=3, label=mode.upper() or "SNN")
        for cost, p in zip(costs, kept, strict=True):
            if p["low"] is not None:
                ax.vlines(cost, p["low"], p["high"], color=colour, lw=1, alpha=0.6)
    if of_one:
        ax.scatter(
            _cost(points[0], flow), points[0]["accuracy"], s=110, facecolor="none", edgecolor=INK, label="this network"
        )
    if compared is not None:
        snn, ann = ((compared[f"{side}_J"], compared[f"{side}_accuracy"]) for side in ("snn", "ann"))
        ax.annotate("", snn, ann, arrowprops={"arrowstyle": "->", "color": INK, "lw": 1})
        times, low, high = map(number, (compared["ratio"], *compared["interval"]))
        ax.set_title(f"Arrow: {times} times (95 %: {low} to {high}) the cheapest equal ANN")
    ax.legend(fontsize=7)
    if all(p["joules"] > 0 for p in points):
        ax.set_xscale("log")
        ax.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: joules(value)))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: joules(value)))
    ax.tick_params(axis="x", which="both", labelsize=7)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_ylim(top=min(ax.get_ylim()[1], 1.01))
    ax.grid(axis="y")
    ax.set(xlabel=f"energy of one inference, {flow.replace('_', ' ')} (modelled)", ylabel="accuracy (measured)")
    return figure


def _kind_and_samples(point: Mapping[str, Any]) -> tuple[str, str]:
    return point["kind"], point["samples"]


def _cost(point: Mapping[str, Any], flow: str) -> float:
    batched = point["layer_by_layer_J"]
    return float(point["joules"] if flow == "streaming" or batched is None else batched)


def _front(points: Rows, flow: str) -> Rows:
    """Return the points that no cheaper one equals in accuracy, cheapest first."""
    front: list[Mapping[str, Any]] = []
    for point in sorted(points, key=lambda p: (_cost(p, flow), -p["accuracy"])):
        if not front or point["accuracy"] > front[-1]["accuracy"]:
            front.append(point)
    return front


def _name(point: Mapping[str, Any], points: Rows) -> str:
    """Return a point's name, with its steps if another has the same name."""
    names = [(other["kind"], other["name"]) for other in points]
    is_shared = names.count((point["kind"], point["name"])) > 1
    return f"{short(point['name'])}, T = {point['steps']}" if is_shared else short(point["name"])
