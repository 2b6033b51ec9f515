"""Paired comparison of two classifiers on the same samples: non-inferiority with an exact interval.

Only discordant samples, which one network alone classifies correctly, carry information. The difference in accuracy,
ANN minus SNN, is the rate of discordant samples times (2 q - 1), with q the share of them that the ANN gets right. Both
factors have exact (Clopper-Pearson) limits: q, given the number of discordant samples, at 2 %, which is McNemar's exact
test for a difference of 0; the rate at 0.5 % (a nuisance parameter, as in Berger and Boos, JASA 89(427):1012, 1994). So
each end of the interval is wrong in at most 2.5 % of cases, at any number of samples.

"Not significantly different" is not "equal": equal means that the whole interval lies below the margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError

Verdict = Literal["equal", "less", "cannot tell"]
Right = Sequence[bool] | NDArray[np.bool_]
MARGIN = 0.5
"""Percentage points that an SNN may be behind its ANN and still count as equal."""
_SHARE_ALPHA, _RATE_ALPHA = 0.02, 0.005
"""Of each side, of the two factors: 2.5 % together."""
_MOST_SAMPLES = 10_000_000


@dataclass(frozen=True)
class Paired:
    """Two networks on the same samples; accuracies and ``margin`` are shares (0.005 is half a point).

    snn_only, ann_only: samples that one alone decides right. interval: of ``ann - snn``, 95 %. enough: about how many
    samples would tell at these rates, where these do not.
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
            f"is undecided with {self.samples:,} samples; {self._would_do} would do."
        )

    @property
    def _would_do(self) -> str:
        return f"more than {_MOST_SAMPLES:,}" if self.enough is None else f"about {self.enough:,}"

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
    enough = _enough(n, b, c, margin) if verdict == "cannot tell" else None
    return Paired(n, float(snn.mean()), float(ann.mean()), b, c, margin, bounds, verdict, enough)


def interval(n: int, snn_only: int, ann_only: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference in accuracy, ANN minus SNN, of ``n`` samples."""
    return -_upper(n, ann_only, snn_only), _upper(n, snn_only, ann_only)


def _upper(n: int, b: int, c: int) -> float:
    """Return the largest difference that is not refuted."""
    share = _highest(c, b + c, _SHARE_ALPHA)
    rate = _highest(b + c, n, _RATE_ALPHA) if share > 0.5 else 1 - _highest(n - b - c, n, _RATE_ALPHA)
    return rate * (2 * share - 1)


def _highest(count: int, of: int, alpha: float) -> float:
    """Return the upper Clopper-Pearson limit of a share."""
    from scipy.special import betaincinv

    return 1.0 if count == of else float(betaincinv(count + 1, of - count, 1 - alpha))


def accuracy_interval(right: int, samples: int) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) 95 % interval of an accuracy, ``right`` of ``samples``."""
    return 1 - _highest(samples - right, samples, 0.025), _highest(right, samples, 0.025)


def _verdict(bounds: tuple[float, float], margin: float) -> Verdict:
    low, high = bounds
    return "equal" if high <= margin else "less" if low > 0 else "cannot tell"


def _enough(n: int, b: int, c: int, margin: float) -> int | None:
    """Return the samples needed for a decision at the measured rates, to two digits."""
    size = n
    while size <= _MOST_SAMPLES:
        size = _rounded_up(1.1 * size)
        if _verdict(interval(size, round(b / n * size), round(c / n * size)), margin) != "cannot tell":
            return size
    return None


def _rounded_up(value: float) -> int:
    unit = 10 ** max(0, len(str(int(value))) - 2)
    return int(-(-value // unit) * unit)


def percent(share: float) -> str:
    """Format with two digits behind the point."""
    return f"{100 * share:.2f} %"
