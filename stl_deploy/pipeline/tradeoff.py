"""Plot accuracy against energy, over time steps and networks: a table and a Pareto plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.counts.coding import Coding, resolve_coding
from stl_deploy.energy.counts.count import ActivityCounter
from stl_deploy.energy.models.frontier import Point, ann_joules, snn_joules
from stl_deploy.energy.models.grid import QUOTED_PRICE
from stl_deploy.energy.models.idle import idle
from stl_deploy.errors import InputError
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import accuracy, decided_right, exit_steps, readout_of, sureness
from stl_deploy.graph.run import CHUNK, match_inputs, run

HTML, JSON = "tradeoff.html", "tradeoff.json"
KEPT = "ANN twin"
"""The name of the point of the twin that a run keeps."""
_EXITS = (0.25, 0.5, 0.75)
_FINER_EXITS = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True, eq=False)
class TradeoffPoint:
    """A spiking network, labelled input for it, and its source.

    x: ``[T, B, *shape]``; labels: ``[B]``. mode: how it was trained ("" of a .nir file).
    """

    name: str
    mode: str
    program: Program
    x: NDArray[Any]
    labels: NDArray[np.int64]


def pareto_front(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the points that no other point of the same samples dominates in accuracy and energy."""
    return tuple(p for p in points if not any(_beats(other, p) for other in points))


def _beats(a: Point, b: Point) -> bool:
    # accuracies of different samples have no order
    if a.samples != b.samples:
        return False
    no_worse = a.accuracy >= b.accuracy and a.joules <= b.joules
    return no_worse and (a.accuracy > b.accuracy or a.joules < b.joules)


@dataclass(frozen=True)
class Tradeoff:
    """Every point, each with whether another beats it."""

    points: tuple[Point, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        front = pareto_front(self.points)
        rows = [p.as_dict() | {"pareto": p in front} for p in self.points]
        return {"price": QUOTED_PRICE, "label": "modelled", "points": rows}


_MOST_TRIED = 500


def tried_of(samples: int) -> NDArray[np.int64]:
    """Return the indices of the samples that `changes` runs: all, or a fixed draw, whatever their order."""
    return np.sort(np.random.default_rng(0).permutation(samples)[:_MOST_TRIED])


def changes(candidate: TradeoffPoint, coding: str | None) -> Iterator[Point]:
    """Return a network as it is, at half of its steps, a quarter, ..., and with early exits, on hundreds of samples."""
    tried = tried_of(len(candidate.labels))
    some = replace(candidate, x=candidate.x[:, tried], labels=candidate.labels[tried])
    steps = len(some.x)
    while steps:
        yield snn_point(replace(some, name=f"T = {steps}"), steps, coding)
        steps //= 2
    for point in exit_points(some, coding) if len(some.x) > 1 and some.labels.ndim == 1 else ():
        yield replace(point, name=f"early exit, {point.steps:.3g} steps")


def points_at_steps(candidate: TradeoffPoint, over_steps: bool, coding: str | None) -> Iterator[Point]:
    """Return a network's points at all of its steps, or at 1, 2, ... of them."""
    for steps in range(1 if over_steps else len(candidate.x), len(candidate.x) + 1):
        yield snn_point(candidate, steps, coding)


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
    y = next(iter(outputs.values()))
    sure = sureness(candidate.program, y)
    chosen = sorted(set(np.quantile(sure[-1], _EXITS)) - {0.0}) if margins is None else margins
    for margin in chosen:
        after, joules = exit_steps(sure, margin), 0.0
        for steps in np.unique(after):
            stopped = after == steps
            part = replace(candidate, x=candidate.x[:, stopped], labels=candidate.labels[stopped])
            joules += float(stopped.mean()) * snn_point(part, int(steps), coding).joules
        right = decided_after(candidate, y, after)
        mean_steps, share = round(float(after.mean()), 3), float(right.mean())
        at = (mean_steps, share, joules, float(margin))
        yield Point(candidate.name, "SNN", candidate.mode, *at, samples=samples_of(candidate), right=right)


def exit_margin(candidate: TradeoffPoint, lost: float) -> float | None:
    """Return the least lead at which samples may stop with at most the share ``lost`` of accuracy; None without any."""
    y = next(iter(run(candidate.program, candidate.x, chunk=CHUNK).outputs.values()))
    sure = sureness(candidate.program, y)
    whole = decided_after(candidate, y, np.full(y.shape[1], len(y))).mean()
    for margin in sorted(set(np.quantile(sure[-1], _FINER_EXITS)) - {0.0}):
        if decided_after(candidate, y, exit_steps(sure, margin)).mean() >= whole - lost:
            return float(margin)
    return None


def decided_after(candidate: TradeoffPoint, y: NDArray[Any], steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether each sample is decided right by its first ``steps`` ``[B]`` of the outputs ``[T, B, classes]``."""
    right = np.zeros(len(steps), bool)
    for count in np.unique(steps):
        stopped = steps == count
        decided = readout_of(candidate.program.metadata).decide(y[:count, stopped])
        right[stopped] = decided == candidate.labels[stopped]
    return right


def _coding(candidate: TradeoffPoint, declared: str | None) -> Coding:
    """Return the coding of the whole input; some of its steps may hold only 0 and 1 by chance."""
    return resolve_coding(candidate.program, match_inputs(candidate.program, candidate.x).values(), declared)


def snn_point(candidate: TradeoffPoint, steps: int, declared: str | None) -> Point:
    """Run the first ``steps`` steps; return their accuracy, and joules streaming and layer by layer.

    declared: the input's coding. The point's name says why the network decides nothing on this input (silent), if so.
    With labels of each step the accuracy is the share of steps decided right.
    """
    program, x, labels = candidate.program, candidate.x[:steps], candidate.labels
    counter = ActivityCounter(program, _coding(candidate, declared).value)
    result = run(program, x, observe=counter, chunk=CHUNK)
    share = accuracy(program, result, labels)
    if share is None:
        raise InputError("accuracy needs a network with one output, of shape [classes]")
    counts = counter.counts()
    if not counts.totals.ann_macs_exact:
        raise InputError(f"{candidate.name}: the network has no weights; there is nothing to weigh")
    streaming, layer_by_layer = snn_joules(program, counts)
    decides_nothing = idle(program, counts)
    return Point(
        candidate.name if decides_nothing is None else f"{candidate.name} ({decides_nothing})",
        "SNN",
        candidate.mode,
        steps,
        share,
        streaming,
        layer_by_layer_J=layer_by_layer,
        samples=samples_of(candidate),
        right=decided_right(program, result, labels),
    )


def samples_of(candidate: TradeoffPoint) -> str:
    """Name the samples of a network: number, shape, and a hash of their labels."""
    x, labels = candidate.x, candidate.labels
    digest = sha256(np.ascontiguousarray(labels, np.int64).tobytes()).hexdigest()[:8]
    return f"{labels.shape[0]} x {'x'.join(map(str, x.shape[2:]))}, labels {digest}"


def ann_point(name: str, program: Program, twin: AnnTwin, samples: str = "") -> Point:
    """Return the point of a measured ANN of a program's topology: one pass costs the same in both dataflows."""
    assert twin.accuracy is not None
    counter = ActivityCounter(program, "analog")
    silent = {node.name: np.zeros((1, 1, *node.shape), np.float32) for node in program.inputs}
    run(program, silent, observe=counter)  # for its structure
    joules = twin.frames * ann_joules(program, counter.counts(), twin)
    at = (twin.frames, twin.accuracy, joules, None, joules)
    return Point(name, "ANN", "ann", *at, samples, twin.right)
