"""The parity table: every run of the network against the reference run of its graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stl_deploy._util.console import Console
from stl_deploy._util.files import write_json
from stl_deploy.exporters.margins import NearThreshold
from stl_deploy.exporters.verify import RUN_HEADER, Report, require_exact, run_rows, verify
from stl_deploy.graph.exact import NodeProof
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import Result
from stl_deploy.graph.run import run as run_reference
from stl_deploy.pipeline.backends import CHUNK, spiking
from stl_deploy.pipeline.inputs import LabelledInput

FILE = "verify.json"
REFERENCE = "NIR graph, reference run"


@dataclass(frozen=True, eq=False)
class Run:
    """One run to compare. exact: it must agree on every spike, by proof."""

    result: Result
    label: Literal["measured", "simulated"]
    exact: bool = False
    note: str = ""


@dataclass(frozen=True, eq=False)
class ParityTable:
    """What was compared: the report, how each run came about, and the proofs of the graph's sums."""

    report: Report
    runs: Mapping[str, Run]
    proofs: tuple[NodeProof, ...]
    samples: int

    def require(self) -> None:
        """Raise ParityError if a run that must agree on every spike does not."""
        require_exact(self.report, [name for name, run in self.runs.items() if run.exact])

    def as_dict(self) -> dict[str, Any]:
        """verify.json: the comparison in full, and the rows that the report shows."""
        return {
            **self.report.as_dict(),
            "samples": self.samples,
            "proofs": [proof.as_dict() for proof in self.proofs],
            "rows": {"accuracy": self._accuracies(), "parity": self._parities()},
            "assumptions": self._assumptions(),
        }

    def _accuracies(self) -> list[dict[str, Any]]:
        found = {REFERENCE: self.report.accuracy, **{run.run: run.accuracy for run in self.report.runs}}
        return [
            {
                "backend": name,
                "accuracy": accuracy,
                "samples": self.samples,
                "label": self.runs[name].label,
                "note": self.runs[name].note,
            }
            for name, accuracy in found.items()
        ]

    def _parities(self) -> list[dict[str, Any]]:
        return [
            {
                "artifact": run.run,
                "compared": run.compared,
                "differing": run.differing,
                "accuracy": run.accuracy,
                "exact": self.runs[run.run].exact,
                "first_divergence": "" if run.first is None else str(run.first),
                "label": self.runs[run.run].label,
                "note": self.runs[run.run].note,
            }
            for run in self.report.runs
        ]

    def _assumptions(self) -> Sequence[str]:
        unproved = [proof.node for proof in self.proofs if not proof.exact]
        grid = (
            "weights, biases and inputs are multiples of powers of two, and every partial float32 sum fits in 24 bits, "
            "so the order of summation cannot matter (Winograd and FFT convolutions and reduced precision excepted)"
            if not unproved
            else f"not proved for {', '.join(unproved)}; spikes that differ were counted"
        )
        return (
            f"Spikes and silences of every spiking node were compared on {self.samples} test samples, at every step.",
            f"Exact grid: {grid}.",
            "Loihi's integers: 8-bit weights chosen after training by spike agreement on training images; simulated, "
            "not run on the chip.",
        )


def compare(
    program: Program, runs: Mapping[str, Run], test: LabelledInput, proofs: tuple[NodeProof, ...]
) -> ParityTable:
    """Run the reference and compare every other run with it, spike by spike."""
    near = NearThreshold()
    reference = run_reference(program, test.x, record=spiking(program), observe=near, chunk=CHUNK)
    everything = {REFERENCE: Run(reference, "measured"), **runs}
    results = {name: run.result for name, run in everything.items()}
    report = verify(program, results, reference=REFERENCE, labels=test.labels, near=near, x=test.x)
    return ParityTable(report, everything, proofs, test.x.shape[1])


def write(path: Path, table: ParityTable) -> None:
    """Write verify.json whole or not at all."""
    write_json(path, table.as_dict())


def show(table: ParityTable, say: Console) -> None:
    """The table for people, and where each run first parts from the reference."""
    say.table([*RUN_HEADER, "how"], [[*row, table.runs[row[0]].label] for row in run_rows(table.report)])
    for run in table.report.runs:
        if table.runs[run.run].note:
            say.say(f"{run.run}: {table.runs[run.run].note}")
        if run.first is not None:
            say.say(f"{run.run}: first difference at {run.first}")
