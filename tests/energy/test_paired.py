"""Paired non-inferiority: by hand, and its coverage by summing over outcomes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

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
    assert found.would_be in ("equal", "less")
    assert f"is undecided with 20 samples; about {found.enough:,} would show it " in found.text
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
    assert compare(*pair(10_000, 50, 40), 0.0009).verdict == "cannot tell"
    assert compare(*pair(100, 40, 0), 0.0).verdict == "equal"  # far ahead


def test_an_interval_by_hand() -> None:
    """None of b, c of n: the score n·d / sqrt(n·d·(1 - d)) is z where d = z² / (n + z²)."""
    assert interval(359, 0, 0)[1] == pytest.approx(2.05**2 / (359 + 2.05**2))
    # a difference of 0 is refuted where (c - b) / sqrt(b + c) > 2.05, McNemar's score
    told = {(b, c): interval(1000, b, c)[0] > 0 for b, c in [(0, 4), (0, 5), (3, 12), (3, 13), (40, 60), (40, 61)]}
    assert told == {(b, c): (c - b) / (b + c) ** 0.5 > 2.05 for b, c in told}


def test_the_interval_covers_what_it_says_and_little_more() -> None:
    """Coverage summed over outcomes: at least 94.5 % everywhere.

    At most 97.5 % on average where two discordant samples or more are expected; of fewer, any interval holds.
    """
    covered, informative = [], []
    for samples in (20, 50, 100, 359, 1000, 10_000):
        discordant = range(min(samples, 75) + 1)
        outcomes = [(d - c, c) for d in discordant for c in range(d + 1)]
        ends = np.array([interval(samples, b, c) for b, c in outcomes])
        b, c = np.array(outcomes).T
        for expected in (0.3, 1, 2, 3, 5, 6.5, 8, 13, 22, 40):
            rate = expected / samples
            if rate > 0.65:
                continue
            for share in (0.5, 0.65, 0.8, 0.875, 0.9, 1.0):
                chance = binom.pmf(b + c, samples, rate) * binom.pmf(c, b + c, share)
                difference = rate * (2 * share - 1)
                inside = (ends[:, 0] <= difference + 1e-12) & (difference - 1e-12 <= ends[:, 1])
                covered.append(float(chance[inside].sum() + 1 - chance.sum()))
                informative += covered[-1:] if expected >= 2 else []
    assert min(covered) >= 0.945
    assert np.mean(informative) <= 0.975


def test_the_two_sides_mirror_each_other() -> None:
    low, high = interval(200, 12, 30)
    assert interval(200, 30, 12) == pytest.approx((-high, -low))


def test_so_many_samples_would_tell() -> None:
    found = compare(*pair(359, 2, 5), 0.005)
    assert found.enough is not None
    scaled = [round(count / 359 * found.enough) for count in (2, 5)]
    assert compare(*pair(found.enough, *scaled), 0.005).verdict == found.would_be


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
