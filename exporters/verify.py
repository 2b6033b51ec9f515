"""Verify: runs of a network and of its artifacts, held to the reference or to the model that they must equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.graph.accuracy import accuracy
from stl_deploy.graph.compare import RunParity, compare
from stl_deploy.graph.margins import NearThreshold
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput, Result

LAYER_HEADER = ("run", "layer", "spikes compared", "differ", "agreement", "near threshold", "first difference")
RUN_HEADER = ("run", "spikes compared", "differ", "agreement", "accuracy")
NOT_COMPARED = "not compared"


@dataclass(frozen=True)
class Report:
    """All runs, most of them against one reference (each says which). warnings: where agreement proves nothing."""

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
        """JSON twin, for verify.json."""
        runs = [run.as_dict() for run in self.runs]
        return {
            "schema_version": 1,
            "reference": self.reference,
            "accuracy": self.accuracy,
            "runs": runs,
            "warnings": list(self.warnings),
        }


def verify(
    program: Program,
    runs: Mapping[str, Result],
    *,
    reference: str = "nir",
    labels: NDArray[Any] | None = None,
    near: NearThreshold | None = None,
    x: NetworkInput | None = None,
) -> Report:
    """Compare each run with the one named ``reference``, spike by spike.

    runs: what each backend put out and recorded on the same input; nodes that one lacks are not compared.
    labels: ``[B]``, for the accuracy of each run (class whose only output's mean over time is
    greatest, or its maximum where the graph's metadata say ``decision: max``).
    near: the observer that watched the reference. x: the input, to measure the margin where runs part.
    Raises InputError if there is no such reference, or arrays of one node differ in shape.
    """
    if reference not in runs:
        raise InputError(f"expected a run to compare with: {', '.join(runs)}; found '{reference}'")
    base = runs[reference]
    counts = None if near is None else near.counts
    found = tuple(
        compare(
            program,
            base,
            result,
            name,
            x=x,
            near=counts,
            against=reference,
            accuracy=accuracy(program, result, labels),
        )
        for name, result in runs.items()
        if name != reference
    )
    return Report(reference, accuracy(program, base, labels), found)


def layer_rows(report: Report) -> list[tuple[str, ...]]:
    """One row for each run and spiking node, under `LAYER_HEADER`."""
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


def run_rows(report: Report) -> list[tuple[str, ...]]:
    """One row for the reference and each run, under `RUN_HEADER`."""
    rows: list[tuple[str, ...]] = [(report.reference, "reference", "", "", _percent(report.accuracy))]
    for run in report.runs:
        compared = f"{run.compared:,}" if run.compared else NOT_COMPARED
        differing = f"{run.differing:,}" if run.compared else ""
        rows.append((run.run, compared, differing, _percent(run.agreement), _percent(run.accuracy)))
    return rows


def _percent(share: float | None) -> str:
    """At most 100 %, and never 100 % for less than all."""
    if share is None:
        return ""
    text = f"{100 * share:.2f} %"
    return "> 99.99 %" if text == "100.00 %" and share < 1 else text
