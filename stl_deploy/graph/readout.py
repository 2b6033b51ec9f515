"""Read out a network's outputs over time: a classifier's decision from ``[T, B, ...]``, and its accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.graph.program import Floats, Program
from stl_deploy.graph.run import Result

OverTime = Literal["mean", "sum", "max", "last", "first"]
Then = Literal["softmax", "log_softmax"]
KEY = "readout"
"""Where the graph's metadata keeps it."""


@dataclass(frozen=True)
class Readout:
    """Rule from outputs ``[T, B, features]`` to scores.

    over_time: mean, sum, maximum or last of the T steps, or ``first``: T less the step of the first output above 0,
    and of those in one step the greater scores higher (0 where none is); None: every step is put out as it is.
    population: number of neighbouring outputs whose mean is one score (a vote); 1: no vote.
    then: operation over the classes at the end; None: nothing. each: the same operations, in each step.
    start: the first step that counts (a burn-in of so many steps); negative: so many steps at the end count.

        Readout("mean", population=10)(y)  # [T, B, 100] -> [B, 10]
    """

    over_time: OverTime | None = None
    population: int = 1
    then: Then | None = None
    start: int = 0
    each: Then | None = None

    def __post_init__(self) -> None:
        if self.over_time not in (None, *get_args(OverTime)):
            accepted = ", ".join(get_args(OverTime))
            raise InputError(f"readout: expected over time {accepted}, or None (every step); found {self.over_time!r}")
        for key, operation in (("then", self.then), ("each", self.each)):
            if operation not in (None, *get_args(Then)):
                raise InputError(f"readout: expected {key} {', '.join(get_args(Then))}, or None; found {operation!r}")
        if not isinstance(self.population, int) or self.population < 1:
            raise InputError(f"readout: expected an integer population from 1; found {self.population!r}")
        if not isinstance(self.start, int) or isinstance(self.start, bool):
            raise InputError(f"readout: expected start to be the number of a step; found {self.start!r}")

    def __call__(self, y: NDArray[Any]) -> Floats:
        """Return scores of outputs ``[T, B, ..., features]``; sums and means are added up in float64.

        Raises InputError where the features are no multiple of ``population``.
        """
        scores = _over_time(self.votes(y), self.over_time)
        return np.asarray(scores if self.then is None else _normalised(scores, self.then), np.float32)

    def scores(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return scores ``[B, ...]`` of all samples; without a rule over time the steps are added up."""
        scores = self(y)
        return scores.sum(axis=0, dtype=np.float64) if scores.ndim == y.ndim else scores

    def decide(self, y: NDArray[Any]) -> NDArray[np.int64]:
        """Return the class of each sample ``[B]``; without a rule over time the steps' scores are added up."""
        rule = "sum" if self.over_time in (None, "mean") else self.over_time
        return np.asarray(_over_time(self.votes(y), rule).argmax(axis=-1), np.int64)

    def first_step(self, steps: int) -> int:
        """The first of ``steps`` steps that counts; raises InputError if there are too few."""
        first = self.start if self.start >= 0 else steps + self.start
        if not 0 <= first < max(steps, 1):
            left_out = f"leaves out {self.start} steps" if self.start >= 0 else f"takes the last {-self.start} steps"
            raise InputError(f"the readout {left_out}, and the outputs have {steps}; give more steps")
        return first

    def votes(self, y: NDArray[Any]) -> NDArray[Any]:
        """The score of each step that counts ``[T, B, ..., classes]``: ``each``, means over ``population`` neighbours.

        Raises InputError where the features are no multiple of ``population``, or no step counts.
        """
        votes = np.asarray(y)[self.first_step(len(y)) :]
        if self.each is not None:
            votes = _normalised(votes.astype(np.float64), self.each)
        if self.population == 1:
            return votes
        if votes.shape[-1] % self.population:
            raise InputError(
                f"expected outputs of a multiple of {self.population} features, the readout's population; found "
                f"{votes.shape[-1]}"
            )
        return np.asarray(votes.reshape(*votes.shape[:-1], -1, self.population).mean(axis=-1, dtype=np.float64))

    def as_dict(self) -> dict[str, Any]:
        """Return the form for the graph's metadata; a rule that is None is left out, as is a start at step 0."""
        return {key: value for key, value in asdict(self).items() if value is not None and (key, value) != ("start", 0)}

    def __str__(self) -> str:
        steps = "every step" if self.over_time is None else f"{self.over_time} over time"
        votes = "" if self.population == 1 else f" of votes of {self.population} neurons"
        if self.start:
            steps += f" from step {self.start} on" if self.start > 0 else f", the last {-self.start} steps"
        each = "" if self.each is None else f" of each step's {self.each}"
        return steps + votes + each + ("" if self.then is None else f", then {self.then}")


def _normalised(scores: NDArray[Any], operation: Then) -> NDArray[Any]:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.asarray(logs if operation == "log_softmax" else np.exp(logs))


def _over_time(votes: NDArray[Any], rule: OverTime | None) -> NDArray[Any]:
    match rule:
        case "mean":
            return np.asarray(votes.mean(axis=0, dtype=np.float64))
        case "sum":
            return np.asarray(votes.sum(axis=0, dtype=np.float64))
        case "max":
            return np.asarray(votes.max(axis=0))
        case "last":
            return np.asarray(votes[-1])
        case "first":
            return _earliest(votes)
        case None:
            return votes


def _earliest(votes: NDArray[Any]) -> NDArray[np.float64]:
    spiked = votes > 0
    step = spiked.argmax(axis=0)
    vote = np.take_along_axis(votes, step[None], axis=0)[0].astype(np.float64).clip(min=0)
    return np.where(spiked.any(axis=0), len(votes) - step + vote / (1 + vote), 0.0)


def readout_of(metadata: Mapping[str, Any]) -> Readout:
    """Return the readout of a graph's metadata: ``readout``, or our networks' ``decision`` (mean, max or first).

    Raises InputError for a declaration that is none.
    """
    declared = metadata.get(KEY)
    if isinstance(declared, Mapping):
        unknown = sorted(set(declared) - {field.name for field in fields(Readout)})
        if unknown:
            raise InputError(
                f"graph metadata: expected readout keys over_time, population, then, start, each; found '{unknown[0]}'"
            )
        return Readout(**declared)
    return Readout(metadata["decision"]) if "decision" in metadata else Readout()


def sureness(program: Program, outputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return the lead of the first class over the next at each step, ``[T, B]``, of outputs ``[T, B, classes]``.

    Scores are those so far: means over the steps, maxima or the last step's, as the readout decides. If the first spike
    decides, 1 from its step on, since nothing changes the decision then, and 0 before.
    """
    readout = readout_of(program.metadata)
    scores = readout.votes(outputs).astype(np.float64)
    match readout.over_time:
        case "max":
            scores = np.maximum.accumulate(scores, axis=0)
        case "first":
            spiked = np.logical_or.accumulate((scores > 0).any(axis=2), axis=0).astype(np.float64)
            return _after_burn_in(spiked, len(outputs))
        case "mean" | "sum" | None:
            scores = scores.cumsum(axis=0) / np.arange(1, len(scores) + 1)[:, None, None]
    ahead = np.sort(scores, axis=2)
    return _after_burn_in(np.asarray(ahead[:, :, -1] - ahead[:, :, -2]), len(outputs))


def _after_burn_in(sure: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Return the sureness of all steps: 0 in those that do not count."""
    return np.concatenate([np.zeros((steps - len(sure), *sure.shape[1:])), sure])


def exit_steps(sure: NDArray[np.float64], margin: float) -> NDArray[np.int64]:
    """Return the steps until each sample is sure by ``margin``, ``[B]``; all of them if it never is."""
    # leads of the same votes are the same lead, whatever order a processor added them up in
    reached = (sure >= margin) | np.isclose(sure, margin)
    return np.where(reached.any(axis=0), reached.argmax(axis=0) + 1, len(sure)).astype(np.int64)


def accuracy(program: Program, result: Result, labels: NDArray[Any] | None) -> float | None:
    """Return the share of samples decided right; None without labels, or without one output of two classes or more.

    Raises InputError for a label that is no class of the output.
    """
    if len(program.outputs) != 1:
        return None
    return share_right(result, labels, readout_of(program.metadata))


def decided_right(program: Program, result: Result, labels: NDArray[Any] | None) -> NDArray[np.bool_] | None:
    """Return whether each sample is decided right, ``[B]``; None without labels ``[B]``, or if `accuracy` is None."""
    readout = readout_of(program.metadata)
    scores = _deciding(result, readout)
    if labels is None or labels.ndim != 1 or scores is None:
        return None
    return np.asarray(readout.decide(scores) == labels)


def _deciding(result: Result, readout: Readout) -> Floats | None:
    """Return the one output ``[T, B, classes]`` that decides among two classes or more; None without."""
    scores = list(result.outputs.values())
    if len(scores) != 1 or scores[0].ndim != 3 or scores[0].shape[2] < 2 * readout.population:
        return None
    return scores[0]


def share_right(result: Result, labels: NDArray[Any] | None, readout: Readout | None = None) -> float | None:
    """Return `accuracy` without a Program; readout: decides (default: the greatest sum over time).

    With labels of each step, ``[B, T]``: share of steps whose class is right.
    """
    readout = readout or Readout()
    scores = _deciding(result, readout)
    if labels is None or scores is None:
        return None
    votes = readout.votes(scores)
    classes = votes.shape[2]
    require_classes(labels, classes)
    if labels.ndim == 2:
        steps = len(scores)  # the steps of a burn-in have labels, too, and no vote
        return float((labels[:, steps - len(votes) : steps] == votes.argmax(axis=-1).T).mean())
    return float((readout.decide(scores) == labels).mean())


def no_classes(labels: NDArray[Any], classes: int) -> NDArray[np.bool_]:
    """Return which labels are no class of the output."""
    return (labels < 0) | (labels >= classes)


def require_classes(labels: NDArray[Any], classes: int) -> None:
    """Raise InputError for labels that are no class of the output."""
    wrong = np.argwhere(no_classes(labels, classes))
    if wrong.size:
        label = labels[tuple(wrong[0])]
        from_one = labels.min() >= 1 and labels.max() == classes
        raise InputError(
            f"expected labels from 0 to {classes - 1}, the classes of the output; found {label} of sample {wrong[0][0]}"
            f"{'; count them from 0: y - 1' if from_one else ''}"
        )
