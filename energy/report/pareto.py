"""Accuracy against energy: which points no other beats in both, drawn on a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, PercentFormatter

from stl_deploy.energy.report.render import joules, percent, span
from stl_deploy.energy.report.svg import FAINT, SERIES, inline, panels, short, style


@dataclass(frozen=True)
class Point:
    """One network at one number of steps. joules: of one inference under one model; range_J: over all models."""

    name: str
    kind: Literal["SNN", "ANN"]
    steps: int
    accuracy: float
    joules: float
    range_J: tuple[float, float]

    @property
    def label(self) -> str:
        """Name and steps."""
        return f"{self.name}, T = {self.steps}" if self.kind == "SNN" else f"{self.name} (ANN)"


def pareto_front(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points that no other equals or beats in both accuracy and energy while beating it in one."""
    return tuple(p for p in points if not any(_beats(other, p) for other in points))


def _beats(a: Point, b: Point) -> bool:
    no_worse = a.accuracy >= b.accuracy and a.joules <= b.joules
    return no_worse and (a.accuracy > b.accuracy or a.joules < b.joules)


def render_pareto(points: Sequence[Point]) -> str:
    """One self-contained page: the plot and its table. Names are escaped."""
    with style():
        drawn = Markup(_draw(points))
    front = pareto_front(points)
    return _template().render(points=points, front=front, plot=drawn)


def _draw(points: Sequence[Point]) -> str:
    figure, (ax,) = panels(1, 10.4, 4.2)
    front = sorted(pareto_front(points), key=lambda p: p.joules)
    ax.plot([p.joules for p in front], [p.accuracy for p in front], color=FAINT, lw=2, drawstyle="steps-post")
    for kind, colour in (("SNN", SERIES[0]), ("ANN", SERIES[1])):
        kept = [p for p in points if p.kind == kind]
        sizes = [42 if p in front else 18 for p in kept]
        ax.scatter([p.joules for p in kept], [p.accuracy for p in kept], color=colour, s=sizes, zorder=3)
    for p in front:
        ax.annotate(short(p.label), (p.joules, p.accuracy), (5, -9), textcoords="offset points")
    if all(p.joules > 0 for p in points):
        ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: joules(value)))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: joules(value)))
    ax.tick_params(axis="x", which="both", labelsize=7)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.grid(axis="y")
    ax.set(xlabel="energy of one inference (modelled)", ylabel="accuracy (measured)")
    return inline(figure, "pareto", "Accuracy against energy; the line joins the points that no other beats in both")


@cache
def _template() -> Template:
    folder = files(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(joules=joules, percent=percent, span=span)
    environment.globals["css"] = Markup((folder / "style.css").read_text(encoding="utf-8"))
    return environment.from_string((folder / "pareto.html").read_text(encoding="utf-8"))
