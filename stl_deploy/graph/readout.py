"""What is made of a network's outputs over time: the decision that a classifier takes from ``[T, B, ...]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.graph.program import Floats

OverTime = Literal["mean", "sum", "max", "last"]
Then = Literal["softmax", "log_softmax"]
KEY = "readout"
"""Where the graph's metadata keeps it."""


@dataclass(frozen=True)
class Readout:
    """How outputs ``[T, B, features]`` become scores.

    over_time: mean, sum, maximum or last of the T steps; None: every step is put out as it is.
    population: the mean of so many neighbouring outputs is one score (a vote); 1: none is taken.
    then: what is done over the classes at the end; None: nothing.

        Readout("mean", population=10)(y)  # [T, B, 100] -> [B, 10]
    """

    over_time: OverTime | None = None
    population: int = 1
    then: Then | None = None

    def __post_init__(self) -> None:
        if self.over_time not in (None, *get_args(OverTime)):
            accepted = ", ".join(get_args(OverTime))
            raise InputError(f"readout: expected over time {accepted}, or None (every step); found {self.over_time!r}")
        if self.then not in (None, *get_args(Then)):
            raise InputError(f"readout: expected then {', '.join(get_args(Then))}, or None; found {self.then!r}")
        if not isinstance(self.population, int) or self.population < 1:
            raise InputError(f"readout: expected a population from 1 in whole numbers; found {self.population!r}")

    def __call__(self, y: NDArray[Any]) -> Floats:
        """Scores of outputs ``[T, B, ..., features]``; sums and means are added up in float64.

        Raises InputError where the features are no multiple of ``population``.
        """
        scores = np.asarray(y)
        if self.population > 1:
            if scores.shape[-1] % self.population:
                raise InputError(
                    f"expected outputs in a multiple of {self.population}, the readout's population; found "
                    f"{scores.shape[-1]}"
                )
            scores = scores.reshape(*scores.shape[:-1], -1, self.population).mean(axis=-1, dtype=np.float64)
        match self.over_time:
            case "mean":
                scores = scores.mean(axis=0, dtype=np.float64)
            case "sum":
                scores = scores.sum(axis=0, dtype=np.float64)
            case "max":
                scores = scores.max(axis=0)
            case "last":
                scores = scores[-1]
        if self.then is not None:
            shifted = scores - scores.max(axis=-1, keepdims=True)
            logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
            scores = logs if self.then == "log_softmax" else np.exp(logs)
        return np.asarray(scores, np.float32)

    def decide(self, y: NDArray[Any]) -> NDArray[np.int64]:
        """The class of each sample ``[B]``; without a rule over time the steps' scores are added up."""
        scores = self(y)
        if self.over_time is None:
            scores = Readout("sum")(scores)
        return np.asarray(scores.argmax(axis=-1), np.int64)

    def as_dict(self) -> dict[str, Any]:
        """For the graph's metadata; a rule that is None is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        steps = "every step" if self.over_time is None else f"{self.over_time} over time"
        votes = "" if self.population == 1 else f" of votes of {self.population} neurons"
        return steps + votes + ("" if self.then is None else f", then {self.then}")


def readout_of(metadata: Mapping[str, Any]) -> Readout:
    """The readout that a graph's metadata declares: ``readout``, or our networks' ``decision`` (mean or max).

    Raises InputError for a declaration that is none.
    """
    declared = metadata.get(KEY)
    if isinstance(declared, Mapping):
        unknown = sorted(set(declared) - {"over_time", "population", "then"})
        if unknown:
            raise InputError(f"graph metadata: expected readout keys over_time, population, then; found '{unknown[0]}'")
        return Readout(declared.get("over_time"), declared.get("population", 1), declared.get("then"))
    return Readout("max" if metadata["decision"] == "max" else "mean") if "decision" in metadata else Readout()
