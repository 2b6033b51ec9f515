"""Render an energy report as one HTML page."""

from __future__ import annotations

from stl_deploy.energy.measure import EnergyReport
from stl_deploy.report.page import ReportData, render_report


def page(report: EnergyReport) -> str:
    """Return the report as one HTML page that opens offline."""
    title = f"Energy of {report.source}"
    return render_report(ReportData(title, summary=summary_of(report), energy=report.as_dict()))


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
