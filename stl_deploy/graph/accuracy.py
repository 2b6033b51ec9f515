"""Accuracy of outputs, by the readout in a graph's metadata."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import Readout, readout_of
from stl_deploy.graph.run import Result


def accuracy(program: Program, result: Result, labels: NDArray[Any] | None) -> float | None:
    """Return the share of samples decided right; None without labels, or without one output ``[T, B, classes]``.

    Raises InputError for a label that is no class of the output.
    """
    if len(program.outputs) != 1:
        return None
    return share_right(result, labels, readout_of(program.metadata))


def decided_right(program: Program, result: Result, labels: NDArray[Any] | None) -> NDArray[np.bool_] | None:
    """Return whether each sample is decided right, ``[B]``; None without labels ``[B]``, or if `accuracy` is None."""
    scores = list(result.outputs.values())
    if labels is None or labels.ndim != 1 or len(scores) != 1 or scores[0].ndim != 3:
        return None
    return np.asarray(readout_of(program.metadata).decide(scores[0]) == labels)


def share_right(result: Result, labels: NDArray[Any] | None, readout: Readout | None = None) -> float | None:
    """Return `accuracy` without a Program; readout: decides (default: the greatest sum over time).

    With labels of each step, ``[B, T]``: share of steps whose class is right.
    """
    scores = list(result.outputs.values())
    if labels is None or len(scores) != 1 or scores[0].ndim != 3:
        return None
    readout = readout or Readout()
    votes = readout.votes(scores[0])
    classes = votes.shape[2]
    wrong = np.argwhere((labels < 0) | (labels >= classes))
    if wrong.size:
        label = labels[tuple(wrong[0])]
        raise InputError(
            f"expected labels from 0 to {classes - 1}, the classes of the output; found {label} of sample {wrong[0][0]}"
        )
    if labels.ndim == 2:
        return float((labels[:, : len(votes)] == votes.argmax(axis=-1).T).mean())
    return float((readout.decide(scores[0]) == labels).mean())
