"""The parity table of a run: every run of the network against the reference run of its graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stl_deploy._util.console import Console
from stl_deploy.exporters.verify import RUN_HEADER, Report, run_rows
from stl_deploy.graph.exact import NodeProof

FILE = "verify.json"
REFERENCE = "NIR graph, reference run"


Label = Literal["measured", "simulated", "modelled"]
"""How a figure came about: ran and was read off, ran on a simulator of hardware, or was worked out."""


@dataclass(frozen=True)
class Accuracy:
    """One backend's accuracy on ``samples`` samples: a fraction, or None with the reason in ``note``."""

    backend: str
    accuracy: float | None
    samples: int
    label: Label = "measured"
    note: str = ""


@dataclass(frozen=True, eq=False)
class ParityTable:
    """What was compared: the report, and the proofs of the graph's sums. samples: that were run."""

    report: Report
    proofs: tuple[NodeProof, ...]
    samples: int

    def as_dict(self) -> dict[str, Any]:
        """verify.json: the comparison in full, and the rows that the report shows."""
        return {
            **self.report.as_dict(),
            "samples": self.samples,
            "proofs": [proof.as_dict() for proof in self.proofs],
            "rows": {
                "accuracy": [asdict(row) for row in accuracies(self.report, self.samples)],
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


def accuracies(report: Report, samples: int) -> list[Accuracy]:
    """The accuracy of the reference, then of every run that is compared with it."""
    runs = [run for run in report.runs if run.against == report.reference]
    return [
        Accuracy(REFERENCE, report.accuracy, samples),
        *(Accuracy(run.run, run.accuracy, samples, run.label, run.note) for run in runs),
    ]


def proof_sentence(proofs: Sequence[NodeProof]) -> str:
    """Whether the order of summation can matter."""
    unproved = [proof.node for proof in proofs if not proof.exact]
    if unproved:
        return f"Exact grid: not proved for {', '.join(unproved)}; spikes that differ were counted."
    return (
        "Exact grid: weights, biases and inputs are multiples of powers of two, and every partial float32 sum fits in "
        "24 bits, so the order of summation cannot matter (Winograd and FFT convolutions and reduced precision "
        "excepted)."
    )


def show(table: ParityTable, say: Console) -> None:
    """The table for people, and where each run first parts from what it is compared with."""
    labels = ["measured", *(run.label for run in table.report.runs)]
    say.table([*RUN_HEADER, "how"], [[*row, how] for row, how in zip(run_rows(table.report), labels, strict=True)])
    for warning in table.report.warnings:
        say.warn(warning)
    for run in table.report.runs:
        if run.note:
            say.say(f"{run.run}: {run.note}")
        if run.first is not None:
            say.say(f"{run.run}: first difference at {run.first}")
