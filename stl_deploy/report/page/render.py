"""The page: a Jinja template over the report's JSON, everything in one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from stl_deploy.report.page.cores import RESOURCES
from stl_deploy.report.page.data import ReportData, report_json
from stl_deploy.report.page.glossary import GLOSSARY
from stl_deploy.report.page.network import boxes
from stl_deploy.report.page.plots import plots
from stl_deploy.report.page.templates import template


def render_report(data: ReportData) -> str:
    """One self-contained HTML page: inline style, SVG and one script that sorts tables; nothing loaded from elsewhere.

    The page's own policy admits that script by its hash and no other; without scripts nothing is missing but sorting.
    Every name is escaped. Numbers are those of `report_json`; each number in a table carries its exact
    value in ``data-value``. Raises InputError for numbers that are not finite.
    """
    report = report_json(data)
    energy = report["energy"]
    drawn = {name: None if svg is None else Markup(svg) for name, svg in plots(report).items()}
    shown, left_out = ([], 0) if energy is None else boxes(energy)
    return template("page.html").render(
        report=report,
        plots=drawn,
        energy=energy,
        boxes=shown,
        left_out=left_out,
        grid=[] if energy is None else _grid(energy),
        lists=[] if energy is None else list(dict.fromkeys(c["prices"] for c in energy["comparisons"])),
        bookkeeping=None if energy is None else _bookkeeping(energy),
        missing=_missing(report, drawn),
        glossary=GLOSSARY,
        resources=RESOURCES,
    )


def _missing(report: Mapping[str, Any], drawn: Mapping[str, Any]) -> list[str]:
    """What a whole report holds and this one does not."""
    parts = {
        "Accuracy": bool(report["accuracy"]),
        "Parity": bool(report["parity"]),
        "Learning": drawn["curves"] is not None,
        "Thresholds": drawn["thresholds"] is not None,
        "Spikes": drawn["raster"] is not None,
        "Energy": report["energy"] is not None,
        "Cores": drawn["cores"] is not None,
        "Accuracy against energy": drawn["tradeoff"] is not None,
    }
    return [name for name, there in parts.items() if not there]


def _grid(energy: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the comparison grid: a dataflow, and the ratio under each price list, in the lists' order."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for cell in energy["comparisons"]:
        key = (cell["dataflow"], cell["sums"], cell["ann_zeros"])
        row = rows.setdefault(key, {"dataflow": key[0], "sums": key[1], "zeros": key[2], "cells": []})
        row["cells"].append(cell)
    return sorted(rows.values(), key=lambda row: row["zeros"])


def _bookkeeping(energy: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """The conventions that say least and most although the hardware is the same."""
    rows = [row for row in energy["conventions"] if row["kind"] == "bookkeeping" and row["snn_over_ann"] is not None]
    rows.sort(key=lambda row: float(row["snn_over_ann"]))
    return (rows[0], rows[-1]) if rows else None
