"""Verify: do the runs of an artifact spike like the reference, and if not, where do they part?

Spiking nets are judged by their spikes. A tolerance on numbers says nothing: one unit in the last place moves a spike,
and the rest follows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError, ParityError
from stl_deploy.exporters.margins import Margin, NearThreshold, margin_at
from stl_deploy.graph.program import Floats, Program
from stl_deploy.graph.run import Result

LAYER_HEADER = ("run", "layer", "spikes compared", "differ", "agreement", "near threshold", "first difference")
RUN_HEADER = ("run", "spikes compared", "differ", "agreement", "accuracy")
NOT_COMPARED = "not compared"


@dataclass(frozen=True)
class Divergence:
    """The first value of a node that differs: earliest step, then sample, then neuron.

    expected: the reference's value; found: the run's. margin: the reference's, if verify was given x.
    """

    node: str
    step: int
    sample: int
    neuron: tuple[int, ...]
    expected: float
    found: float
    margin: Margin | None = None

    def __str__(self) -> str:
        where = f"'{self.node}', step {self.step}, sample {self.sample}, neuron {list(self.neuron)}"
        text = f"{where}: expected {self.expected:g}, found {self.found:g}"
        return text if self.margin is None else f"{text}, {self.margin}"


@dataclass(frozen=True)
class NodeParity:
    """One node of one run against the reference.

    compared: values compared (0: the run or the reference lacks the node); differing: how many are unequal.
    largest: greatest absolute difference. near_threshold: reference potentials near θ, None if not counted.
    """

    node: str
    compared: int
    differing: int
    largest: float
    first: Divergence | None
    near_threshold: int | None = None

    @property
    def agreement(self) -> float | None:
        """Share of equal values; None if nothing was compared."""
        return 1 - self.differing / self.compared if self.compared else None

    def as_dict(self) -> dict[str, Any]:
        """JSON twin."""
        return asdict(self) | {"agreement": self.agreement}


@dataclass(frozen=True)
class RunParity:
    """One run against the reference: its spiking nodes in graph order, and what it puts out."""

    run: str
    nodes: tuple[NodeParity, ...]
    outputs: tuple[NodeParity, ...]
    accuracy: float | None

    @property
    def compared(self) -> int:
        """Spikes (and silences) compared."""
        return sum(node.compared for node in self.nodes)

    @property
    def differing(self) -> int:
        """How many of them differ."""
        return sum(node.differing for node in self.nodes)

    @property
    def agreement(self) -> float | None:
        """Share that is equal; None if nothing was compared."""
        return 1 - self.differing / self.compared if self.compared else None

    @property
    def exact(self) -> bool:
        """Every spiking node was compared and spikes alike; without spiking nodes, every output is equal."""
        return all(node.compared and not node.differing for node in self.nodes or self.outputs)

    @property
    def first(self) -> Divergence | None:
        """The root of the differences: the earliest step, in it the first layer in graph order."""
        found = [node.first for node in self.nodes or self.outputs if node.first is not None]
        return min(found, key=lambda divergence: divergence.step, default=None)

    def as_dict(self) -> dict[str, Any]:
        """JSON twin."""
        return {
            "run": self.run,
            "exact": self.exact,
            "compared": self.compared,
            "differing": self.differing,
            "agreement": self.agreement,
            "accuracy": self.accuracy,
            "first": None if self.first is None else asdict(self.first),
            "nodes": [node.as_dict() for node in self.nodes],
            "outputs": [node.as_dict() for node in self.outputs],
        }


@dataclass(frozen=True)
class Report:
    """All runs against one reference."""

    reference: str
    accuracy: float | None
    runs: tuple[RunParity, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON twin, for verify.json."""
        runs = [run.as_dict() for run in self.runs]
        return {"schema_version": 1, "reference": self.reference, "accuracy": self.accuracy, "runs": runs}


def verify(
    program: Program,
    runs: Mapping[str, Result],
    *,
    reference: str = "nir",
    labels: NDArray[Any] | None = None,
    near: NearThreshold | None = None,
    x: NDArray[Any] | Mapping[str, NDArray[Any]] | None = None,
) -> Report:
    """Compare each run with the one named ``reference``, spike by spike.

    runs: what each backend put out and recorded on the same input; nodes that one lacks are not compared.
    labels: ``[B]``, for the accuracy of each run (class whose only output's mean over time is
    greatest, or its maximum where the graph's metadata say ``decision: max``).
    near: the observer that watched the reference. x: the input, to measure the margin where runs part.
    Raises InputError if there is no such reference, or arrays of one node differ in shape.
    """
    if reference not in runs:
        raise InputError(f"no run '{reference}' to compare with; runs: {', '.join(runs)}")
    base = runs[reference]
    counts = {} if near is None else near.counts
    reports = []
    for name, result in runs.items():
        if name != reference:
            nodes = tuple(
                _compare(name, node.name, base.recorded, result.recorded, counts.get(node.name))
                for node in program.spiking
            )
            outputs = tuple(_compare(name, node.name, base.outputs, result.outputs, None) for node in program.outputs)
            parity = RunParity(name, nodes, outputs, accuracy(program, result, labels))
            reports.append(parity if x is None else _with_margins(parity, program, x))
    return Report(reference, accuracy(program, base, labels), tuple(reports))


def accuracy(program: Program, result: Result, labels: NDArray[Any] | None) -> float | None:
    """Share of samples whose class is right; None without labels, or unless there is one output ``[T, B, classes]``.

    Raises InputError for a label that is no class of the output.
    """
    if len(program.outputs) != 1:
        return None
    return share_right(result, labels, largest=program.metadata.get("decision") == "max")


def share_right(result: Result, labels: NDArray[Any] | None, *, largest: bool = False) -> float | None:
    """As `accuracy`, where no Program is at hand; largest: the largest score in time decides, not the sum."""
    scores = list(result.outputs.values())
    if labels is None or len(scores) != 1 or scores[0].ndim != 3:
        return None
    classes = scores[0].shape[2]
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise InputError(
            f"label {labels[wrong[0]]} of sample {wrong[0]} is no class of the output; accepted: 0 to {classes - 1}"
        )
    decided = scores[0].max(axis=0) if largest else scores[0].sum(axis=0, dtype=np.float64)
    return float((decided.argmax(axis=-1) == labels).mean())


def require_exact(report: Report, runs: Collection[str] | None = None) -> None:
    """Raise ParityError naming the first run of ``runs`` (None: all) that does not spike like the reference."""
    for run in report.runs:
        if run.exact or (runs is not None and run.run not in runs):
            continue
        missing = [node.node for node in run.nodes or run.outputs if not node.compared]
        if missing:
            raise ParityError(f"{run.run}: node '{missing[0]}' was not recorded, so its spikes cannot be compared")
        count = f"{run.differing:,} of {run.compared:,} spikes differ" if run.nodes else "outputs differ"
        raise ParityError(f"{run.run}: {count} from {report.reference}, first in {run.first}")


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


def _compare(
    run: str, node: str, base: Mapping[str, Floats], other: Mapping[str, Floats], near: int | None
) -> NodeParity:
    if node not in base or node not in other:
        return NodeParity(node, 0, 0, 0.0, None, near)
    expected, found = base[node], other[node]
    if expected.shape != found.shape:
        raise InputError(
            f"run '{run}' has shape {list(found.shape)} for node '{node}', the reference {list(expected.shape)}; "
            "run both on the same input"
        )
    unequal = expected != found
    differing = int(unequal.sum())
    if not differing:
        return NodeParity(node, expected.size, 0, 0.0, None, near)
    step, sample, *neuron = (int(i) for i in np.unravel_index(int(unequal.argmax()), unequal.shape))
    at = (step, sample, *neuron)
    first = Divergence(node, step, sample, tuple(neuron), float(expected[at]), float(found[at]))
    largest = float(np.abs(expected[unequal].astype(np.float64) - found[unequal]).max())
    return NodeParity(node, expected.size, differing, largest, first, near)


def _with_margins(parity: RunParity, program: Program, x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> RunParity:
    return replace(parity, nodes=tuple(_with_margin(node, program, x) for node in parity.nodes))


def _with_margin(node: NodeParity, program: Program, x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> NodeParity:
    first = node.first
    if first is None:
        return node
    margin = margin_at(program, x, first.node, first.step, first.sample, first.neuron)
    return replace(node, first=replace(first, margin=margin))


def _percent(share: float | None) -> str:
    """At most 100 %, and never 100 % for less than all."""
    if share is None:
        return ""
    text = f"{100 * share:.2f} %"
    return "> 99.99 %" if text == "100.00 %" and share < 1 else text
