"""Measure the spread over samples with running integer sums, in constant memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.energy.counts.taps import Ints

MEASURES = ("synops_AC", "synops_MAC", "spikes")
"""Counts that are kept sample by sample."""


@dataclass(frozen=True)
class Spread:
    """Count, sum, sum of squares, minimum and maximum of a series of integers."""

    n: int = 0
    sum: int = 0
    squares: int = 0
    least: int = 0
    most: int = 0

    def add(self, values: Ints) -> Spread:
        """Return the spread with ``values`` added; at least one value."""
        whole = [int(value) for value in values]
        return self.join(Spread(len(whole), sum(whole), sum(v * v for v in whole), min(whole), max(whole)))

    def join(self, other: Spread) -> Spread:
        """Return the spread of both series."""
        if not self.n or not other.n:
            return self if self.n else other
        least, most = min(self.least, other.least), max(self.most, other.most)
        return Spread(self.n + other.n, self.sum + other.sum, self.squares + other.squares, least, most)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; std is the population's."""
        variance = (self.n * self.squares - self.sum**2) / self.n**2
        return {"mean": self.sum / self.n, "std": sqrt(variance), "min": self.least, "max": self.most}


class Samples:
    """Spread of each measure over all samples and per class (labels ``[B]``, not per step)."""

    def __init__(self, labels: NDArray[Any] | None = None) -> None:
        self._labels = None if labels is None or labels.ndim > 1 else labels
        self._seen = 0
        self.overall = dict.fromkeys(MEASURES, Spread())
        self.by_class: dict[int, dict[str, Spread]] = {}

    def add(self, values: Mapping[str, Ints]) -> None:
        """Add the next samples, in order: one integer per sample for each measure."""
        count = len(values[MEASURES[0]])
        self.overall = {name: spread.add(values[name]) for name, spread in self.overall.items()}
        if self._labels is not None:
            labels = self._labels[self._seen : self._seen + count]
            for label in np.unique(labels):
                chosen = labels == label
                known = self.by_class.setdefault(int(label), dict.fromkeys(MEASURES, Spread()))
                self.by_class[int(label)] = {name: known[name].add(values[name][chosen]) for name in MEASURES}
        self._seen += count

    def join(self, other: Samples) -> None:
        """Add the samples of another counter."""
        self.overall = {name: spread.join(other.overall[name]) for name, spread in self.overall.items()}
        for label, spreads in other.by_class.items():
            known = self.by_class.setdefault(label, dict.fromkeys(MEASURES, Spread()))
            self.by_class[label] = {name: known[name].join(spreads[name]) for name in MEASURES}

    def as_dict(self) -> dict[str, Any]:
        """Return the energy JSON's ``per_sample`` and, with labels, ``per_class``."""
        data: dict[str, Any] = {"per_sample": {name: spread.as_dict() for name, spread in self.overall.items()}}
        if self.by_class:
            data["per_class"] = {
                str(label): {"samples": spreads["spikes"].n} | {name: s.as_dict() for name, s in spreads.items()}
                for label, spreads in sorted(self.by_class.items())
            }
        return data
