"""The page: a Jinja template over the report's JSON, everything in one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from stl_deploy.report.cores import RESOURCES
from stl_deploy.report.data import ReportData, report_json
from stl_deploy.report.plots import plots
from stl_deploy.report.templates import template


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
    return template("page.html").render(
        report=report, plots=drawn, energy=report["energy"], first=first, sections=sections, resources=RESOURCES
    )


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
        ("cores", "Cores", drawn["cores"] is not None),
        ("models", "Models", energy),
        ("conventions", "Conventions", energy),
        ("break-even", "Break-even", energy),
        ("tradeoff", "Accuracy against energy", drawn["tradeoff"] is not None),
        ("validation", "Against measurements", bool(report["validation"])),
        ("sources", "Assumptions and sources", True),
    ]


def _first_screen(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the three answers at the top are made of."""
    energy = report["energy"]
    if energy is None:
        return dict.fromkeys(("lead", "chip", "low", "high"))
    priced = [entry for entry in energy["energy"] if entry["snn"] and entry["snn"]["total_J"]]
    ratios = [row for row in energy["conventions"] if row["kind"] == "bookkeeping" and row["snn_over_ann"] is not None]
    ratios.sort(key=lambda row: float(row["snn_over_ann"]))
    return {
        "lead": next((entry for entry in priced if entry["ann"]), priced[0] if priced else None),
        "chip": next((e for e in reversed(energy["energy"]) if e["scope"] == "marginal" and e["snn"]), None),
        "low": ratios[0] if ratios else None,
        "high": ratios[-1] if ratios else None,
    }
