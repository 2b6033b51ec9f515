"""Data of a source, before the split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.graph.exact import Grid

Samples = NDArray[Any]
Labels = NDArray[np.int64]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Raw:
    """Samples ``[N, *shape]`` and labels ``[N]``, or of each step ``[N, T]``; splits that are not there are None.

    levels: the value that means 1: integers from 0 to it are images, floats with levels 1 are taken as they are.
    timed: samples carry time, ``[N, T, *shape]``. grid: of the input that the network sees; None: as `levels` say.
    digest: sha256 of all that was read, of own data. groups: ``[N]`` of ``train``; samples of one group (windows of one
    recording, say) go into one split.
    """

    train: Samples
    train_labels: Labels
    test: Samples | None
    test_labels: Labels | None
    levels: int
    timed: bool = False
    validation: Samples | None = None
    validation_labels: Labels | None = None
    grid: Grid | None = None
    digest: str | None = None
    groups: NDArray[Any] | None = None


@dataclass(frozen=True)
class Look:
    """Known before data are loaded: a sample's shape at one step, class names, steps if timed."""

    shape: Shape
    classes: tuple[str, ...]
    steps: int | None = None
