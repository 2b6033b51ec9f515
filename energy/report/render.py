"""The page: a Jinja template over the report's JSON, everything in one file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from stl_deploy.energy.report.data import ReportData, report_json
from stl_deploy.energy.report.plots import plots

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"))


def render_report(data: ReportData) -> str:
    """One self-contained HTML page: inline style, SVG and one script that sorts tables; nothing loaded from elsewhere.

    The page's own policy admits that script by its hash and no other; without scripts nothing is missing but sorting.
    Every name is escaped. Numbers are those of `report_json`; each number in a table carries its exact
    value in ``data-value``. Raises InputError for numbers that are not finite.
    """
    report = report_json(data)
    drawn = {name: None if svg is None else Markup(svg) for name, svg in plots(report).items()}
    sections = _sections(report, drawn)
    first = _first_screen(report)
    return _template().render(report=report, plots=drawn, energy=report["energy"], first=first, sections=sections)


def _sections(report: Mapping[str, Any], drawn: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Id, name, and whether there is anything to show, in the page's order."""
    energy = report["energy"] is not None
    return [
        ("accuracy", "Accuracy", bool(report["accuracy"])),
        ("learning", "Learning", drawn["curves"] is not None),
        ("thresholds", "Thresholds", drawn["thresholds"] is not None),
        ("raster", "Spikes", drawn["raster"] is not None),
        ("parity", "Parity", bool(report["parity"])),
        ("energy", "Energy", energy),
        ("models", "Models", energy),
        ("conventions", "Conventions", energy),
        ("break-even", "Break-even", energy),
        ("validation", "Against measurements", bool(report["validation"])),
        ("sources", "Assumptions and sources", True),
    ]


def _first_screen(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the three answers at the top are made of."""
    energy = report["energy"]
    if energy is None:
        return dict.fromkeys(("lead", "low", "high", "withheld", "checks"))
    priced = [entry for entry in energy["energy"] if entry["snn"] and entry["snn"]["total_J"]]
    ratios = [row for row in energy["conventions"] if row["ratio_ann_over_snn"]]
    ratios.sort(key=lambda row: float(row["ratio_ann_over_snn"]))
    return {
        "lead": next((entry for entry in priced if entry["ann"]), priced[0] if priced else None),
        "low": ratios[0] if ratios else None,
        "high": ratios[-1] if ratios else None,
        "checks": _tally(report["validation"]),
        "withheld": [e["price"] for e in energy["energy"] if e["snn"] and not e["snn"]["total_J"]],
    }


def _tally(checks: Sequence[Mapping[str, Any]]) -> dict[str, int] | None:
    verdicts = [check["verdict"] for check in checks]
    return {"all": len(verdicts), "good": verdicts.count("good"), "bad": verdicts.count("bad")} if verdicts else None


@cache
def _template() -> Template:
    folder = files(__package__)

    def load(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(joules=joules, count=count, percent=percent, ratio=ratio, span=span, plain=plain)
    environment.filters.update(span_w=lambda value: _ends(value, "W"), span_s=lambda value: _ends(value, "s"))
    script = load("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(css=Markup(load("style.css")), script=Markup(script), script_hash=f"sha256-{digest}")
    return environment.get_template("page.html")


def joules(value: float | None) -> str:
    """Three digits with the prefix that fits; a dash for None."""
    return "–" if value is None else _prefixed(value, "J")


def _prefixed(value: float, unit: str) -> str:
    factor, prefix = next((p for p in _PREFIXES if abs(value) >= p[0]), _PREFIXES[-1] if value else (1.0, ""))
    shown = f"{value / factor:.3g}" if abs(value / factor) < 999.5 else f"{value / factor:.0f}"
    return f"{shown} {prefix}{unit}"


def _ends(values: Sequence[float], unit: str) -> str:
    low, high = (_prefixed(value, unit) for value in values)
    return low if low == high else f"{low} to {high}"


def plain(values: Sequence[float]) -> str:
    """A [low, high] range of bare numbers."""
    low, high = (f"{value:.4g}" for value in values)
    return low if low == high else f"{low} to {high}"


def span(values: Sequence[float] | None) -> str:
    """A [low, high] range of joules as one text; a dash for None."""
    if values is None:
        return "–"
    return _ends(values, "J")


def count(value: float | None) -> str:
    """Digits in groups of three; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}".replace(",", "\u2009") if value == int(value) else f"{value:,.4g}".replace(",", "\u2009")


def percent(value: float | None) -> str:
    """A fraction as a percentage with two digits; a dash for None."""
    return "–" if value is None else f"{100 * value:.2f} %"


def ratio(value: float | None) -> str:
    """Three digits and a times sign; a dash for None."""
    return "–" if value is None else f"{value:.3g}×"
