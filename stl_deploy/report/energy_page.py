"""Render an energy report as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stl_deploy.energy.measure import EnergyReport
from stl_deploy.pipeline.tradeoff import Tradeoff
from stl_deploy.report.page import ReportData, Thresholds, render_report, report_json
from stl_deploy.report.page.plots import write_figures


def page(report: EnergyReport, thresholds: Sequence[Thresholds] = ()) -> str:
    """Return the report as one HTML page that opens offline; thresholds: learned by the network."""
    return render_report(_contents(report, thresholds))


def figures(report: EnergyReport, folder: Path) -> None:
    """Write the page's figures as SVG, PDF and CSV into a folder."""
    write_figures(report_json(_contents(report)), folder)


def _contents(report: EnergyReport, thresholds: Sequence[Thresholds] = ()) -> ReportData:
    tried = Tradeoff(report.tried).as_dict() if report.tried else None
    title = f"Energy of {report.source}"
    summary = summary_of(report)
    return ReportData(title, summary=summary, energy=report.as_dict(), tradeoff=tried, thresholds=thresholds)


def summary_of(report: EnergyReport) -> dict[str, str]:
    """Summarise the network and its input, label to text."""
    counts = report.counts
    return {
        "network": " - ".join(counts.order),
        "neurons": f"{sum(c.neurons for c in counts.neurons.values()):,}",
        "synapses": f"{sum(c.synapses for c in counts.weighted.values()):,}",
        "time steps": str(counts.T),
        "input": report.coding.sentence(),
    }
