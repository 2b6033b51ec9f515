"""Compare runs of a network and its artifacts with the reference, or with the model that they must equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stl_deploy.graph.compare import RunParity

LAYER_HEADER = ("run", "layer", "spikes compared", "differ", "agreement", "near threshold", "first difference")
RUN_HEADER = ("run", "spikes compared", "differ", "agreement", "accuracy")
NOT_COMPARED = "not compared"


@dataclass(frozen=True)
class ParityReport:
    """All runs, most of them against one reference (each says which). warnings: agreement that proves nothing."""

    reference: str
    accuracy: float | None
    runs: tuple[RunParity, ...]
    warnings: tuple[str, ...] = ()

    def require(self) -> None:
        """Raise ParityError naming the first run that must agree on every spike and does not."""
        for run in self.runs:
            if run.required:
                run.require()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin, for verify.json."""
        return {
            "schema_version": 1,
            "reference": self.reference,
            "accuracy": self.accuracy,
            "runs": [run.as_dict() for run in self.runs],
            "warnings": list(self.warnings),
        }


def layer_rows(report: ParityReport) -> list[tuple[str, ...]]:
    """Return one row for each run and spiking node, under `LAYER_HEADER`."""
    return [
        (
            run.run,
            node.node,
            f"{node.compared:,}" if node.compared else NOT_COMPARED,
            f"{node.differing:,}" if node.compared else "",
            _percent(node.agreement),
            "" if node.near_threshold is None else f"{node.near_threshold:,}",
            "" if node.first is None else str(node.first),
        )
        for run in report.runs
        for node in run.nodes
    ]


def run_rows(report: ParityReport) -> list[tuple[str, ...]]:
    """Return one row for the reference and each run, under `RUN_HEADER`."""
    rows: list[tuple[str, ...]] = [(report.reference, "reference", "", "", _percent(report.accuracy))]
    for run in report.runs:
        compared = f"{run.compared:,}" if run.compared else NOT_COMPARED
        differing = f"{run.differing:,}" if run.compared else ""
        rows.append((run.run, compared, differing, _percent(run.agreement), _percent(run.accuracy)))
    return rows


def _percent(share: float | None) -> str:
    """Format a share: at most 100 %, and never 100 % for less than all."""
    if share is None:
        return ""
    text = f"{100 * share:.2f} %"
    return "> 99.99 %" if text == "100.00 %" and share < 1 else text
