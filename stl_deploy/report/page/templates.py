"""Load the page templates: one file, every name escaped, a missing value is an error."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from stl_deploy._util.units import between, plain, with_unit
from stl_deploy.energy.chips.lines import title_of


@cache
def template(name: str) -> Template:
    """Load a page by its file name, with the style and the script inlined."""
    folder = files(__package__)

    def load(file: str) -> str:
        return (folder / file).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        joules=joules, count=count, percent=percent, percents=percents, ratio=ratio, span=span, plain=plain
    )
    environment.filters.update(
        ratios=ratios,
        counts=counts,
        title_of=title_of,
        span_w=lambda value: ends(value, "W"),
        span_s=lambda value: ends(value, "s"),
        span_js=lambda value: ends(value, "J·s"),
    )
    script = load("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(css=Markup(load("style.css")), script=Markup(script), script_hash=f"sha256-{digest}")
    return environment.get_template(name)


_WHOLE = 1000
"""Means from here up are shown without decimals."""


def joules(value: float | None) -> str:
    """Format with three digits and an SI prefix; a dash for None."""
    return "–" if value is None else with_unit(value, "J").replace(" ", "\u00a0")


def ends(values: Sequence[float], unit: str) -> str:
    """Format a [low, high] range with a unit."""
    return between(*(with_unit(value, unit).replace(" ", "\u00a0") for value in values))


def span(values: Sequence[float] | None) -> str:
    """Format a [low, high] range of joules; a dash for None."""
    return "–" if values is None else ends(values, "J")


def count(value: float | None) -> str:
    """Format with digits in groups of three; a dash for None."""
    if value is None:
        return "–"
    whole = value == int(value) or abs(value) >= _WHOLE
    return (f"{value:,.0f}" if whole else f"{value:,.4g}").replace(",", "\u202f")


def counts(values: Sequence[float]) -> str:
    """Format a [low, high] range of numbers, three digits each."""
    return between(*(count(float(f"{value:.3g}")) for value in values))


def percent(value: float | None) -> str:
    """Format a fraction as a percentage with two digits; a dash for None."""
    return "–" if value is None else f"{100 * value:.2f}\u00a0%"


def percents(values: Sequence[float]) -> str:
    """Format a [low, high] range of fractions as percentages."""
    return between(*(percent(value) for value in values))


def ratio(value: float | None) -> str:
    """Format with three digits and a times sign; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}×" if value >= _WHOLE else f"{value:#.3g}".rstrip(".") + "×"


def ratios(values: Sequence[float] | None) -> str:
    """Format a [low, high] range of ratios; a dash for None."""
    return "–" if values is None else between(*(ratio(value) for value in values))
