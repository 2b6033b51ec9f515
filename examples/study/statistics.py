"""Means with intervals, and comparisons in pairs that share a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
_ROUNDING = 1e-9
"""A spread of differences this small beside the largest is float64's rounding of equal ones."""


@dataclass(frozen=True)
class Mean:
    """A mean of n values and half the width of its 95 % t-interval (None for fewer than two values)."""

    value: float
    half: float | None
    n: int


@dataclass(frozen=True)
class Paired:
    """Two methods over the same seeds: mean of the differences (first minus second) with its interval.

    p_t: two-sided paired t-test. p_wilcoxon: Wilcoxon's signed-rank test, exact where no differences tie; with n
    pairs it cannot fall below 2^(1-n). effect: Cohen's d_z, mean difference / standard deviation of the differences.
    All None where they are not defined (fewer than two pairs, or differences all alike).
    """

    difference: Mean
    p_t: float | None
    p_wilcoxon: float | None
    effect: float | None


def mean(values: Sequence[float]) -> Mean:
    """Mean and t-interval; raises ValueError for no values."""
    if not values:
        raise ValueError("no values to average")
    array = np.asarray(values, np.float64)
    n = len(array)
    if n < 2:
        return Mean(float(array.mean()), None, n)
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * array.std(ddof=1) / math.sqrt(n)
    return Mean(float(array.mean()), float(half), n)


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Compare values pair by pair; raises ValueError where the numbers of values differ."""
    differences = np.asarray([a - b for a, b in zip(first, second, strict=True)], np.float64)
    difference = mean(list(differences))
    if len(differences) < 2:
        return Paired(difference, None, None, None)
    wilcoxon = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
    spread = float(differences.std(ddof=1))
    if spread <= _ROUNDING * float(np.abs(differences).max()):
        return Paired(difference, None, wilcoxon, None)
    p_t = float(stats.ttest_1samp(differences, 0.0).pvalue)
    return Paired(difference, p_t, wilcoxon, float(differences.mean()) / spread)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for several comparisons (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = worst
    return adjusted
