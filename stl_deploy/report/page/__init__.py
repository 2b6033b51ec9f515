"""One HTML page and its JSON twin: training, verification of exports, and energy."""

from stl_deploy.graph.compare import ParityRow
from stl_deploy.pipeline.parity import Accuracy
from stl_deploy.report.page.render import Raster, ReportData, Thresholds, render_report, report_json

__all__ = ["Accuracy", "ParityRow", "Raster", "ReportData", "Thresholds", "render_report", "report_json"]
