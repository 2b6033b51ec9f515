"""The spiking network against its ANN twin at equal accuracy: at how many time steps, and what it costs there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stl_deploy.energy.models.verdict import number
from stl_deploy.report.pareto import Point

_Z = 1.96
"""Standard errors of the difference of two shares within which they are told as equal (95 %)."""


@dataclass(frozen=True)
class IsoAccuracy:
    """The fewest steps at which the SNN is as accurate as its twin, or all of them if it never is.

    reached: to within the sampling error of the difference, at 95 %. ratio: SNN over ANN at these steps, as quoted.
    """

    reached: bool
    steps: int
    snn: float
    ann: float
    samples: int
    ratio: float

    @property
    def text(self) -> str:
        """One sentence."""
        both = f"{100 * self.snn:.2f} % against {100 * self.ann:.2f} % on {self.samples:,} samples, measured"
        costs = f"costs {number(self.ratio)} times as much (modelled)"
        if self.reached:
            return (
                f"At T = {self.steps} the SNN is within sampling error of its ANN twin's accuracy ({both}) and {costs}."
            )
        return f"The SNN does not reach its ANN twin's accuracy ({both}); at T = {self.steps} it {costs}."

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return vars(self) | {"text": self.text}


def iso_accuracy(points: Sequence[Point], samples: int) -> IsoAccuracy | None:
    """Where the SNN's points meet the ANN's; None without a twin."""
    twin = next((p for p in points if p.kind == "ANN"), None)
    spiking = sorted((p for p in points if p.kind == "SNN" and p.margin is None), key=lambda p: p.steps)
    if twin is None or not spiking:
        return None
    found = next((p for p in spiking if _as_good(p.accuracy, twin.accuracy, samples)), spiking[-1])
    reached = _as_good(found.accuracy, twin.accuracy, samples)
    return IsoAccuracy(reached, int(found.steps), found.accuracy, twin.accuracy, samples, found.joules / twin.joules)


def _as_good(snn: float, ann: float, samples: int) -> bool:
    error = np.sqrt((snn * (1 - snn) + ann * (1 - ann)) / samples)
    return bool(ann - snn <= _Z * error)


def at_its_accuracy(verdict: str, iso: IsoAccuracy | None) -> str:
    """The energy's one sentence, with a warning in front where the SNN is less accurate than its twin."""
    if iso is None or iso.reached:
        return verdict
    return f"Not at equal accuracy ({100 * iso.snn:.2f} %, the ANN twin {100 * iso.ann:.2f} %). {verdict}"
