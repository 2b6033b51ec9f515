"""Parity of a run: runs of the network and its artifacts against the reference, or the model that they must equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from stl_deploy._util.console import Console
from stl_deploy.energy.paired import accuracy_interval
from stl_deploy.graph.compare import RunParity, require_spikes
from stl_deploy.graph.exact import NodeProof

LAYER_HEADER = ("run", "layer", "spikes compared", "differ", "agreement", "near threshold", "first difference")
RUN_HEADER = ("run", "spikes compared", "differ", "agreement", "accuracy")
NOT_COMPARED = "not compared"


@dataclass(frozen=True)
class ParityReport:
    """All runs, most of them against one reference (each says which).

    warnings: agreement that proves nothing. dead: the layers of which they are, ``"silent"`` or ``"saturated"``.
    silent: no layer spiked, which `require` refuses.
    """

    reference: str
    accuracy: float | None
    runs: tuple[RunParity, ...]
    warnings: tuple[str, ...] = ()
    dead: Mapping[str, str] = field(default_factory=dict)
    silent: bool = False

    def require(self) -> None:
        """Raise ParityError naming the first run that must agree and does not; CheckFailed for a silent network."""
        for run in self.runs:
            if run.required:
                run.require()
        require_spikes(self.silent, allowed=False)

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
    """Return one row for each run and spiking node, or output if none spikes, under `LAYER_HEADER`."""
    return [
        (
            run.run,
            node.node,
            f"{node.compared:,}" if node.compared else NOT_COMPARED,
            f"{node.differing:,}" if node.compared else "",
            _percent(node.agreement, report.dead.get(node.node) if node.compared else None),
            "" if node.near_threshold is None else f"{node.near_threshold:,}",
            "" if node.first is None else str(node.first),
        )
        for run in report.runs
        for node in run.nodes or run.outputs
    ]


def run_rows(report: ParityReport) -> list[tuple[str, ...]]:
    """Return one row for the reference and each run, under `RUN_HEADER`."""
    rows: list[tuple[str, ...]] = [(report.reference, "reference", "", "", _percent(report.accuracy))]
    for run in report.runs:
        compared = f"{run.compared:,}" if run.compared else NOT_COMPARED
        differing = f"{run.differing:,}" if run.compared else ""
        words = {report.dead.get(node.node) for node in run.nodes if node.compared}
        agreement = _percent(run.agreement, words.pop() if len(words) == 1 else None)
        rows.append((run.run, compared, differing, agreement, _percent(run.accuracy)))
    return rows


def _percent(share: float | None, dead: str | None = None) -> str:
    """Format a share: at most 100 %, and never 100 % for less than all. dead: why it proves nothing, beside it."""
    if share is None:
        return ""
    text = f"{100 * share:.2f} %"
    # one spike in a million would be rounded to all
    text = "> 99.99 %" if text == "100.00 %" and share < 1 else text
    return text if dead is None else f"{text} ({dead})"


FILE = "verify.json"
REFERENCE = "NIR graph, reference run"


Label = Literal["measured", "simulated", "modelled"]
"""Evidence of a figure: it ran here and was read off, ran on a simulator of hardware, or was calculated."""


@dataclass(frozen=True)
class Accuracy:
    """One backend's accuracy on ``samples`` samples: a fraction, or None with the reason in ``note``.

    interval: its exact 95 % interval, where labels are of samples. compared, differing: spikes held to the graph's.
    """

    backend: str
    accuracy: float | None
    samples: int
    label: Label = "measured"
    note: str = ""
    interval: Sequence[float] | None = None
    compared: int = 0
    differing: int = 0


@dataclass(frozen=True, eq=False)
class ParityTable:
    """Result of a comparison: the report, and the proofs of the graph's sums.

    samples: number run. by_step: labels are per step.
    """

    report: ParityReport
    proofs: tuple[NodeProof, ...]
    samples: int
    by_step: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return verify.json: the comparison in full, and the report's rows."""
        return {
            **self.report.as_dict(),
            "samples": self.samples,
            "proofs": [proof.as_dict() for proof in self.proofs],
            "rows": {
                "accuracy": [asdict(row) for row in accuracies(self.report, self.samples, by_step=self.by_step)],
                "parity": [asdict(run.row) for run in self.report.runs],
            },
            "assumptions": (
                f"Spikes and silences of every spiking node were compared on {self.samples} test samples, at every "
                "step; in simulators of other projects on as many of the first as their counts tell.",
                proof_sentence(self.proofs),
                "Loihi's integers: 8-bit weights chosen after training by spike agreement on training samples; "
                "simulated, not run on the chip.",
            ),
        }


def accuracies(report: ParityReport, samples: int, *, by_step: bool = False) -> list[Accuracy]:
    """Return the accuracy of the reference, then of every compared run, each with its interval.

    by_step: labels are of each step, which depend on one another, so that there is no interval.
    """
    runs = [run for run in report.runs if run.against == report.reference]

    def interval(accuracy: float | None) -> list[float] | None:
        return None if by_step or accuracy is None else [*accuracy_interval(round(accuracy * samples), samples)]

    return [
        Accuracy(REFERENCE, report.accuracy, samples, interval=interval(report.accuracy)),
        *(
            Accuracy(
                run.run,
                run.accuracy,
                samples,
                run.label,
                run.note,
                interval(run.accuracy),
                run.compared,
                run.differing,
            )
            for run in runs
        ),
    ]


def proof_sentence(proofs: Sequence[NodeProof]) -> str:
    """Say whether the order of summation can matter."""
    unproved = [proof.node for proof in proofs if not proof.exact]
    if unproved:
        return f"Exact grid: not proved for {', '.join(unproved)}; spikes that differ were counted."
    return (
        "Exact grid: weights, biases and inputs are multiples of powers of two, and every partial float32 sum fits in "
        "24 bits, so the order of summation cannot matter (Winograd and FFT convolutions and reduced precision "
        "excepted)."
    )


def show(table: ParityTable, say: Console) -> None:
    """Print the table, and the first divergence of each run."""
    intervals = {
        row.backend: "" if row.interval is None else "{:.1%} to {:.1%}".format(*row.interval)
        for row in accuracies(table.report, table.samples, by_step=table.by_step)
    }
    labels = ["measured", *(run.label for run in table.report.runs)]
    rows = [[*row, intervals.get(row[0], ""), label] for row, label in zip(run_rows(table.report), labels, strict=True)]
    say.table([*RUN_HEADER, "95 % interval", "how"], rows)
    for warning in table.report.warnings:
        say.warn(warning)
    for run in table.report.runs:
        if run.note:
            say.say(f"{run.run}: {run.note}")
        if run.first is not None:
            say.say(f"{run.run}: first difference at {run.first}")
