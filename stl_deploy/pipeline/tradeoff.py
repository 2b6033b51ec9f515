"""Plot accuracy against energy, over time steps, epochs and networks: a table and a Pareto plot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.counts.coding import Coding, resolve_coding
from stl_deploy.energy.counts.count import ActivityCounter
from stl_deploy.energy.measure import EnergyReport, energy_report
from stl_deploy.energy.models.grid import LAYER_BY_LAYER, quoted
from stl_deploy.energy.models.ratios import number
from stl_deploy.energy.models.what_if import DEFAULT_PRICE
from stl_deploy.energy.paired import MARGIN, Paired, check_margin, compare
from stl_deploy.energy.prices.price_list import Range, middle
from stl_deploy.errors import InputError
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import accuracy, decided_right, exit_steps, sureness
from stl_deploy.graph.run import CHUNK, match_inputs, run

HTML, JSON = "tradeoff.html", "tradeoff.json"
KEPT = "ANN twin"
"""The name of the point of the twin that a run keeps."""
_EXITS = (0.25, 0.5, 0.75)


@dataclass(frozen=True, eq=False)
class TradeoffPoint:
    """A spiking network, labelled input for it, and its source.

    x: ``[T, B, *shape]``; labels: ``[B]``. mode: how it was trained ("" of a .nir file). epoch: of a kept epoch.
    """

    name: str
    mode: str
    program: Program
    x: NDArray[Any]
    labels: NDArray[np.int64]
    epoch: int | None = None


@dataclass(frozen=True)
class Point:
    """One network at one number of steps, or stopping at each sample once sure by ``margin``: steps is then a mean.

    joules: of one inference when streaming (weights once per step); layer_by_layer_J: with weights once per inference;
    range_J: over the grid. mode: how it was trained (stl, sl, tl, ann; "" if unknown). epoch: of a kept
    epoch of a training. samples: names those that it was measured on; points of other samples are not compared.
    right: ``[B]``, whether each sample was decided right, for paired comparisons; not in `as_dict`.
    """

    name: str
    kind: Literal["SNN", "ANN"]
    mode: str
    steps: float
    epoch: int | None
    accuracy: float
    joules: float
    range_J: tuple[float, float]
    margin: float | None = None
    layer_by_layer_J: float | None = None
    samples: str = ""
    right: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        row = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "right"}
        return row | {"range_J": list(self.range_J)}


def pareto_front(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the points that no other point of the same samples dominates in accuracy and energy."""
    return tuple(p for p in points if not any(_beats(other, p) for other in points))


def _beats(a: Point, b: Point) -> bool:
    if a.samples != b.samples:
        return False
    no_worse = a.accuracy >= b.accuracy and a.joules <= b.joules
    return no_worse and (a.accuracy > b.accuracy or a.joules < b.joules)


@dataclass(frozen=True)
class Tradeoff:
    """Every point, each with whether another beats it; iso: one network against one twin, at equal accuracy."""

    points: tuple[Point, ...]
    iso: IsoAccuracy | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        front = pareto_front(self.points)
        rows = [p.as_dict() | {"pareto": p in front} for p in self.points]
        iso = {} if self.iso is None else {"iso_accuracy": self.iso.as_dict()}
        return {"price": DEFAULT_PRICE, "label": "modelled", "points": rows} | iso


MOST_STEPS = 8
"""At so many numbers of time steps `over_time` looks, at most."""


def over_time(
    candidate: TradeoffPoint, twin: AnnTwin | None, coding: str | None = None, margin: float = MARGIN
) -> Tradeoff:
    """Return one network at up to `MOST_STEPS` numbers of time steps, and its twin's point if measured."""
    points: list[Point] = []
    report: EnergyReport | None = None
    for steps in numbers_of_steps(len(candidate.x)):
        right, report = measured(candidate, steps, coding, twin)
        points.append(snn_point(candidate, steps, right, report))
    if twin is not None and twin.accuracy is not None and report is not None:
        points.append(_ann_point(KEPT, candidate, twin, report))
    return Tradeoff(tuple(points), iso_accuracy(points, check_margin(margin)))


def numbers_of_steps(most: int) -> list[int]:
    """Return 1 to ``most``, evenly spaced in their logarithm if they are many."""
    if most <= MOST_STEPS:
        return list(range(1, most + 1))
    return sorted({round(most ** (i / (MOST_STEPS - 1))) for i in range(MOST_STEPS)})


def points_at_steps(candidate: TradeoffPoint, over_steps: bool, coding: str | None) -> Iterator[Point]:
    """Return a network's points at all of its steps, or at 1, 2, ... of them."""
    for steps in range(1 if over_steps else len(candidate.x), len(candidate.x) + 1):
        yield snn_point(candidate, steps, *measured(candidate, steps, coding))


def exit_points(
    candidate: TradeoffPoint, coding: str | None, margins: Sequence[float] | None = None
) -> Iterator[Point]:
    """Return points of a network whose samples stop once sure, by each of ``margins``; counts are exact.

    margins: default: those that a quarter, half and three quarters of the samples stay below at the last step.
    """
    outputs = run(candidate.program, candidate.x, chunk=CHUNK).outputs
    if len(outputs) != 1 or candidate.labels.ndim != 1:
        raise InputError(f"{candidate.name}: early exit needs one output and one label for each sample")
    coding = _coding(candidate, coding).value
    sure = sureness(candidate.program, next(iter(outputs.values())))
    chosen = sorted(set(np.quantile(sure[-1], _EXITS)) - {0.0}) if margins is None else margins
    for margin in chosen:
        after, parts = exit_steps(sure, margin), []
        right = np.zeros(len(candidate.labels), bool)
        for steps in np.unique(after):
            stopped = after == steps
            part = replace(candidate, x=candidate.x[:, stopped], labels=candidate.labels[stopped])
            point = snn_point(part, int(steps), *measured(part, int(steps), coding))
            parts.append((stopped.mean(), point))
            right[stopped] = point.right

        def mean(of: Callable[[Point], float], parts: list[tuple[float, Point]] = parts) -> float:
            return float(sum(share * of(point) for share, point in parts))

        names = {point.name for _, point in parts}
        yield replace(
            parts[0][1],
            name=names.pop() if len(names) == 1 else candidate.name,
            steps=round(float(after.mean()), 3),
            accuracy=mean(lambda p: p.accuracy),
            joules=mean(lambda p: p.joules),
            layer_by_layer_J=None,  # a sample that may stop is worked through step by step
            range_J=(mean(lambda p: p.range_J[0]), mean(lambda p: p.range_J[1])),
            margin=float(margin),
            samples=_samples(candidate),
            right=right,
        )


def _coding(candidate: TradeoffPoint, declared: str | None) -> Coding:
    """Return the coding of the whole input; some of its steps may hold only 0 and 1 by chance."""
    return resolve_coding(candidate.program, match_inputs(candidate.program, candidate.x).values(), declared)


def snn_point(candidate: TradeoffPoint, steps: int, right: Right, report: EnergyReport) -> Point:
    """Return one network at the given number of steps: accuracy, and joules streaming and layer by layer.

    Its name says why it decides nothing on this input (silent), if it does not.
    """
    chosen, batched = quoted(report.comparisons), quoted(report.comparisons, LAYER_BY_LAYER)
    if chosen is None or batched is None:
        raise InputError(f"{candidate.name}: the network has no weights; there is nothing to weigh")
    return Point(
        candidate.name if report.idle is None else f"{candidate.name} ({report.idle})",
        "SNN",
        candidate.mode,
        steps,
        candidate.epoch,
        right if isinstance(right, float) else float(right.mean()),
        middle(chosen.energy.snn_J),
        _limits([cell.energy.snn_J for cell in report.comparisons]),
        layer_by_layer_J=middle(batched.energy.snn_J),
        samples=_samples(candidate),
        right=None if isinstance(right, float) else right,
    )


def samples_name(x: NDArray[Any], labels: NDArray[np.int64]) -> str:
    """Name the samples ``x`` ``[T, B, *shape]``: number, shape, and a hash of their labels."""
    digest = sha256(np.ascontiguousarray(labels, np.int64).tobytes()).hexdigest()[:8]
    return f"{labels.shape[0]} x {'x'.join(map(str, x.shape[2:]))}, labels {digest}"


def _samples(candidate: TradeoffPoint) -> str:
    return samples_name(candidate.x, candidate.labels)


Right = NDArray[np.bool_] | float
"""Whether each sample is decided right; with labels of each step, the share of steps that are."""


def measured(
    candidate: TradeoffPoint, steps: int, declared: str | None, twin: AnnTwin | None = None
) -> tuple[Right, EnergyReport]:
    """Return decisions and energy of the first ``steps`` steps, from one run."""
    program, x = candidate.program, candidate.x[:steps]
    coding = _coding(candidate, declared)
    counter = ActivityCounter(program, coding.value)
    result = run(program, x, observe=counter, chunk=CHUNK)
    share = accuracy(program, result, candidate.labels)
    if share is None:
        raise InputError("accuracy needs a network with one output, of shape [classes]")
    right = decided_right(program, result, candidate.labels)
    return share if right is None else right, energy_report(program, counter.counts(), coding, prices=(), twin=twin)


def _limits(ends: Sequence[Range]) -> Range:
    return min(low for low, _ in ends), max(high for _, high in ends)


def kept_twin_point(candidate: TradeoffPoint, twin: AnnTwin, name: str, coding: str | None) -> Point:
    """Return the point of an ANN that was measured on the same samples."""
    _, report = measured(candidate, len(candidate.x), coding, twin)
    return _ann_point(name, candidate, twin, report)


def _ann_point(name: str, candidate: TradeoffPoint, twin: AnnTwin, report: EnergyReport) -> Point:
    chosen, batched = quoted(report.comparisons), quoted(report.comparisons, LAYER_BY_LAYER)
    assert twin.accuracy is not None
    assert chosen is not None
    assert batched is not None
    low, high = _limits([cell.energy.ann_J for cell in report.comparisons])
    return Point(
        name,
        "ANN",
        "ann",
        twin.frames,
        None,
        twin.accuracy,
        twin.frames * middle(chosen.energy.ann_J),
        (twin.frames * low, twin.frames * high),
        layer_by_layer_J=twin.frames * middle(batched.energy.ann_J),
        samples=_samples(candidate),
        right=twin.right,
    )


@dataclass(frozen=True)
class IsoAccuracy:
    """The fewest steps at which the SNN is as accurate as its twin; all of them if it is not, or undecided.

    Steps are tested from the most down to the first that is not equal (a fixed sequence, so that no correction for
    several tests is needed). ratio: SNN over ANN at these steps when streaming; layer_by_layer_ratio: with weights
    fetched once per inference.
    """

    steps: int
    paired: Paired
    ratio: float
    layer_by_layer_ratio: float | None

    @property
    def reached(self) -> bool:
        """Whether it is as accurate, within the margin."""
        return self.paired.verdict == "equal"

    @property
    def text(self) -> str:
        """Two sentences: accuracy, and cost at these steps."""
        batched = "" if self.layer_by_layer_ratio is None else f", {number(self.layer_by_layer_ratio)} layer by layer"
        at = f"At T = {self.steps} the SNN costs {number(self.ratio)} times its ANN twin streaming{batched} (modelled)."
        return f"{self.paired.text} {at}"

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "reached": self.reached,
            "steps": self.steps,
            "ratio": self.ratio,
            "layer_by_layer_ratio": self.layer_by_layer_ratio,
            **self.paired.as_dict(),
            "text": self.text,
        }


def iso_accuracy(points: Sequence[Point], margin: float) -> IsoAccuracy | None:
    """Return where the SNN's points meet the ANN's, within ``margin``, a share; None without a twin."""
    twin = next((p for p in points if p.kind == "ANN" and p.right is not None), None)
    spiking = [p for p in points if p.kind == "SNN" and p.margin is None and p.right is not None]
    if twin is None or twin.right is None or not spiking:
        return None
    reached: IsoAccuracy | None = None
    for point in sorted(spiking, key=lambda p: -p.steps):
        assert point.right is not None
        here = _at(point, twin, compare(point.right, twin.right, margin))
        if reached is not None and not here.reached:
            break
        reached = here
        if not here.reached:
            break
    return reached


def _at(point: Point, twin: Point, paired: Paired) -> IsoAccuracy:
    batched = None
    if point.layer_by_layer_J is not None and twin.layer_by_layer_J:
        batched = point.layer_by_layer_J / twin.layer_by_layer_J
    return IsoAccuracy(int(point.steps), paired, point.joules / twin.joules, batched)
