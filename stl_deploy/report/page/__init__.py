"""One HTML page and its JSON twin: training, verification of exports, and energy."""

from stl_deploy.graph.compare import ParityRow
from stl_deploy.pipeline.parity import Accuracy
from stl_deploy.report.page.data import Raster, ReportData, Thresholds, report_json
from stl_deploy.report.page.render import render_report

__all__ = ["Accuracy", "ParityRow", "Raster", "ReportData", "Thresholds", "render_report", "report_json"]
