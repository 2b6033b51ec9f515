"""Paired comparison of two classifiers on the same samples: non-inferiority with a score interval.

Only discordant samples, which one network alone classifies correctly, carry information. The interval of the
difference in accuracy, ANN minus SNN, holds every difference whose score statistic is at most 2.05 (Tango, Statistics
in Medicine 17:891, 1998, with 1.96). With 2.05 it covers at least 94.5 % in every case computed, and at most 97.5 % on
average where 2 discordant samples or more are expected: 20 to 10,000 samples (tests/energy/test_paired.py).

"Not significantly different" is not "equal": equal means that the whole interval lies below the margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError

Verdict = Literal["equal", "less", "cannot tell"]
Right = Sequence[bool] | NDArray[np.bool_]
MARGIN = 0.5
"""Percentage points that an SNN may be behind its ANN and still count as equal."""
_MOST_SCORE = 2.05
_HALVINGS = 50
_MOST_SAMPLES = 10_000_000


@dataclass(frozen=True)
class MetricScore:
    """The metric of that name, instead of accuracy, on the samples counted; ann: of the twin, where it was run."""

    metric: str
    snn: float
    ann: float | None
    samples: int

    @property
    def text(self) -> str:
        """One sentence."""
        twin = "" if self.ann is None else f", of its ANN twin {self.ann:.4g}"
        return f"'{self.metric}' of the SNN is {self.snn:.4g}{twin} (measured, {self.samples:,} samples)."

    def as_dict(self) -> dict[str, Any]:
        """Return the energy JSON's ``score``."""
        return vars(self) | {"text": self.text, "label": "measured"}


@dataclass(frozen=True)
class Paired:
    """Two networks on the same samples; accuracies and ``margin`` are shares (0.005 is half a point).

    snn_only, ann_only: samples that one alone decides right. interval: of ``ann - snn``, 95 %. enough: about how many
    samples would tell at these rates, where these do not; would_be: what they would tell.
    """

    samples: int
    snn: float
    ann: float
    snn_only: int
    ann_only: int
    margin: float
    interval: tuple[float, float]
    verdict: Verdict
    enough: int | None
    would_be: Verdict | None = None

    @property
    def text(self) -> str:
        """One sentence."""
        both = f"{percent(self.snn)} against {percent(self.ann)}"
        low, high = (100 * end for end in self.interval)
        if self.verdict == "equal":
            behind = f"at most {high:.2g} points behind" if high > 0 else f"{-high:.2g} points or more ahead"
            basis = f"(95 %; {both}, {self.samples:,} samples, measured)"
            return f"The SNN is as accurate as its ANN twin: {behind} {basis}."
        if self.verdict == "less":
            return (
                f"The SNN is less accurate than its ANN twin by {low:.2g} to {high:.2g} points "
                f"(95 %; {both}, {self.samples:,} samples, measured)."
            )
        return (
            f"Whether the SNN is as accurate as its ANN twin ({both}, margin {100 * self.margin:g} points) "
            f"is undecided with {self.samples:,} samples; {self._would_do}."
        )

    @property
    def _would_do(self) -> str:
        if self.enough is None:
            return f"{_MOST_SAMPLES:,} would not decide it"
        shown = "as accurate" if self.would_be == "equal" else "less accurate"
        return f"about {self.enough:,} would show it {shown}"

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return vars(self) | {"interval": list(self.interval), "label": "measured", "text": self.text}


def check_margin(points: float) -> float:
    """Return the margin as a share; raise InputError unless it is 0 to 100 percentage points."""
    if not (isfinite(points) and 0 <= points <= 100):
        raise InputError(f"margin: expected 0 to 100 percentage points; found {points:g}")
    return points / 100


def compare(snn_right: Right, ann_right: Right, margin: float) -> Paired:
    """Compare two networks by the samples that each classifies correctly.

    Args:
        snn_right: ``[B]``, whether the SNN is right on each sample.
        ann_right: ``[B]``, the same for the ANN.
        margin: Share by which the SNN may be behind and still count as equal.

    Raises:
        InputError: If the samples differ in number, or there are none.

    Example:
        >>> compare([True] * 9 + [False], [True] * 10, 0.005).verdict
        'cannot tell'
    """
    snn, ann = np.asarray(snn_right, bool), np.asarray(ann_right, bool)
    if snn.shape != ann.shape or snn.ndim != 1 or not snn.size:
        raise InputError(f"paired comparison: expected the same samples; found {snn.shape} and {ann.shape}")
    n, b, c = len(snn), int((snn & ~ann).sum()), int((ann & ~snn).sum())
    bounds = interval(n, b, c)
    verdict = _verdict(bounds, margin)
    enough, would_be = _enough(n, b, c, margin) if verdict == "cannot tell" else (None, None)
    return Paired(n, float(snn.mean()), float(ann.mean()), b, c, margin, bounds, verdict, enough, would_be)


def interval(n: int, snn_only: int, ann_only: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference in accuracy, ANN minus SNN, of ``n`` samples."""
    return -_upper(n, ann_only, snn_only), _upper(n, snn_only, ann_only)


def _upper(n: int, b: int, c: int) -> float:
    """Return the largest difference that is not refuted, by bisection."""
    # the score grows with the difference, so its crossing is the only one
    low, high = (c - b) / n, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _score(n, b, c, middle) > _MOST_SCORE else (middle, high)
    return high


def _score(n: int, b: int, c: int, difference: float) -> float:
    """Return by how many standard deviations ``difference`` is above the measured one.

    The deviation is that of the most likely rates of b and c which differ so; the rate of b solves a quadratic.
    """
    # Tango (1998): 2n rate^2 + linear rate + constant = 0; rounding may take the discriminant below 0
    linear = (2 * n - c + b) * difference - b - c
    constant = -b * difference * (1 - difference)
    rate = (sqrt(max(0.0, linear**2 - 8 * n * constant)) - linear) / (4 * n)
    variance = n * (2 * rate + difference * (1 - difference))
    return (n * difference - (c - b)) / sqrt(variance) if variance > 0 else inf


def _highest(count: int, of: int, alpha: float) -> float:
    """Return the upper Clopper-Pearson limit of a share."""
    from scipy.special import betaincinv

    # at a full count the beta distribution has no second shape, and the limit is 1
    return 1.0 if count == of else float(betaincinv(count + 1, of - count, 1 - alpha))


def accuracy_interval(right: int, samples: int) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) 95 % interval of an accuracy, ``right`` of ``samples``."""
    return 1 - _highest(samples - right, samples, 0.025), _highest(right, samples, 0.025)


def _verdict(bounds: tuple[float, float], margin: float) -> Verdict:
    low, high = bounds
    return "equal" if high <= margin else "less" if low > 0 else "cannot tell"


def _enough(n: int, b: int, c: int, margin: float) -> tuple[int | None, Verdict | None]:
    """Return the samples needed for a decision at the measured rates, to two digits, and the decision."""
    size = n
    while size <= _MOST_SAMPLES:
        # steps of a tenth: nobody plans samples more exactly, and ten millions are reached in under 200 steps
        size = _rounded_up(1.1 * size)
        decision = _verdict(interval(size, round(b / n * size), round(c / n * size)), margin)
        if decision != "cannot tell":
            return size, decision
    return None, None


def _rounded_up(value: float) -> int:
    unit = 10 ** max(0, len(str(int(value))) - 2)
    return int(-(-value // unit) * unit)


def percent(share: float) -> str:
    """Format with two digits behind the point."""
    return f"{100 * share:.2f} %"
