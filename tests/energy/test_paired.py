"""Paired non-inferiority: by hand, by McNemar's test, and by summing over every outcome of a small experiment."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest

from stl_deploy.energy.paired import check_margin, compare, interval
from stl_deploy.errors import InputError


def pair(samples: int, snn_only: int, ann_only: int, wrong: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Decisions with so many discordant samples, and samples that both decide wrong."""
    snn, ann = np.ones(samples, bool), np.ones(samples, bool)
    ann[:snn_only] = False
    snn[snn_only : snn_only + ann_only] = False
    snn[samples - wrong :] = ann[samples - wrong :] = False
    return snn, ann


def test_few_samples_tell_nothing() -> None:
    """85 against 90 % of 20 images was told as equal, because the difference is not significant."""
    found = compare(*pair(20, 1, 2, wrong=1), 0.005)
    assert (found.snn, found.ann, found.verdict) == (0.85, 0.9, "cannot tell")
    assert found.enough is not None
    assert found.enough > 20
    assert f"is undecided with 20 samples; about {found.enough:,} would do." in found.text
    assert "85.00 % against 90.00 %, margin 0.5 points" in found.text


def test_six_against_none_is_less_accurate() -> None:
    """Digits at one step: 6 discordant images against none, p = 0.031 paired, was told as equal."""
    found = compare(*pair(359, 0, 6), 0.005)
    assert found.verdict == "less"
    assert found.interval[0] > 0
    assert found.text.startswith("The SNN is less accurate than its ANN twin by ")


def test_equal_means_that_the_whole_interval_is_below_the_margin() -> None:
    found = compare(*pair(10_000, 50, 40), 0.005)
    assert (found.verdict, found.enough) == ("equal", None)
    assert found.interval[1] <= 0.005
    assert compare(*pair(10_000, 50, 40), 0.001).verdict == "cannot tell"
    assert compare(*pair(100, 40, 0), 0.0).verdict == "equal"  # far ahead


@pytest.mark.parametrize(("snn_only", "ann_only"), [(0, 5), (0, 6), (3, 14), (5, 14), (40, 60), (40, 65)])
def test_a_difference_is_told_where_mcnemar_s_exact_test_finds_one_at_two_percent(snn_only: int, ann_only: int) -> None:
    p = binomtest(ann_only, snn_only + ann_only, alternative="greater").pvalue
    assert (interval(1000, snn_only, ann_only)[0] > 0) == (p <= 0.02)


def test_the_interval_is_wrong_no_more_often_than_it_says() -> None:
    """Summed over every outcome of 15 samples, for a grid of true rates."""
    samples = 15
    outcomes = [(b, c) for b, c in product(range(samples + 1), repeat=2) if b + c <= samples]
    ends = {(b, c): interval(samples, b, c) for b, c in outcomes}
    for snn_only, ann_only in product((0.0, 0.02, 0.1, 0.3, 0.5), repeat=2):
        difference, above, below = ann_only - snn_only, 0.0, 0.0
        for b, c in outcomes:
            rest = samples - b - c
            ways = comb(samples, b) * comb(samples - b, c)
            chance = ways * snn_only**b * ann_only**c * max(0.0, 1 - snn_only - ann_only) ** rest
            above += chance * (ends[b, c][0] > difference + 1e-12)
            below += chance * (ends[b, c][1] < difference - 1e-12)
        assert max(above, below) <= 0.025, (snn_only, ann_only)


def test_the_two_sides_mirror_each_other() -> None:
    low, high = interval(200, 12, 30)
    assert interval(200, 30, 12) == pytest.approx((-high, -low))


def test_so_many_samples_would_tell() -> None:
    found = compare(*pair(359, 2, 5), 0.005)
    assert found.enough is not None
    scaled = [round(count / 359 * found.enough) for count in (2, 5)]
    assert compare(*pair(found.enough, *scaled), 0.005).verdict != "cannot tell"


@pytest.mark.parametrize("points", [-0.1, 100.1, float("nan"), float("inf")])
def test_a_margin_is_of_points(points: float) -> None:
    with pytest.raises(InputError, match="margin: expected 0 to 100 percentage points; found"):
        check_margin(points)
    assert check_margin(0.5) == 0.005


def test_the_samples_are_the_same() -> None:
    with pytest.raises(InputError, match="expected the same samples"):
        compare([True], [True, False], 0.005)
    with pytest.raises(InputError, match="expected the same samples"):
        compare([], [], 0.005)
