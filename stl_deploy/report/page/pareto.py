"""Plot accuracy against energy with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, LogLocator, PercentFormatter

from stl_deploy.pipeline.tradeoff import Point, pareto_front
from stl_deploy.report.page.svg import FAINT, SERIES, inline, panels, short, style
from stl_deploy.report.page.templates import joules, template

_COLOURS = {"": 0, "stl": 0, "ann": 1, "sl": 2, "tl": 3}
_NAMED = 12
"""More points on the front than this are drawn without names; the table has them."""


def render_pareto(points: Sequence[Point]) -> str:
    """Return one self-contained page: the plot and its table. Names are escaped."""
    front = pareto_front(points)
    rows = [p.as_dict() | {"pareto": p in front} for p in points]
    with style():
        drawn = Markup(draw(rows))
    return template("pareto.html").render(points=rows, plot=drawn)


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
    epoch = "" if point["epoch"] is None else f", epoch {point['epoch']}"
    return f"{short(point['name'])}, T = {point['steps']}{epoch}"
