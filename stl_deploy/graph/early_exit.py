"""Exit early: decide at the first step that is sure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import readout_of


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
            return np.logical_or.accumulate((scores > 0).any(axis=2), axis=0).astype(np.float64)
        case "mean" | "sum" | None:
            scores = scores.cumsum(axis=0) / np.arange(1, len(scores) + 1)[:, None, None]
    ahead = np.sort(scores, axis=2)
    return np.asarray(ahead[:, :, -1] - ahead[:, :, -2])


def exit_steps(sure: NDArray[np.float64], margin: float) -> NDArray[np.int64]:
    """Return the steps until each sample is sure by ``margin``, ``[B]``; all of them if it never is."""
    reached = sure >= margin
    return np.where(reached.any(axis=0), reached.argmax(axis=0) + 1, len(sure)).astype(np.int64)
