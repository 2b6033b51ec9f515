"""The spiking network against its ANN twin at equal accuracy: at how many time steps, and what it costs there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stl_deploy.energy.models.wording import number
from stl_deploy.energy.paired import Paired, compare
from stl_deploy.report.page.pareto import Point


@dataclass(frozen=True)
class IsoAccuracy:
    """The fewest steps at which the SNN is as accurate as its twin; all of them if it is not, or if nobody can tell.

    Steps are tested from the most down to the first that is not equal (a fixed sequence, so that no correction for
    several tests is needed). ratio: SNN over ANN at these steps when streaming; layer_by_layer_ratio: with weights
    fetched once per inference.
    """

    steps: int
    paired: Paired
    ratio: float
    layer_by_layer_ratio: float | None

    @property
    def reached(self) -> bool:
        """Whether it is as accurate, to within the margin."""
        return self.paired.verdict == "equal"

    @property
    def text(self) -> str:
        """Two sentences: accuracy, and cost at these steps."""
        batched = "" if self.layer_by_layer_ratio is None else f", {number(self.layer_by_layer_ratio)} layer by layer"
        at = f"At T = {self.steps} the SNN costs {number(self.ratio)} times its ANN twin streaming{batched} (modelled)."
        return f"{self.paired.text} {at}"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "reached": self.reached,
            "steps": self.steps,
            "ratio": self.ratio,
            "layer_by_layer_ratio": self.layer_by_layer_ratio,
            **self.paired.as_dict(),
            "text": self.text,
        }


def iso_accuracy(points: Sequence[Point], margin: float) -> IsoAccuracy | None:
    """Where the SNN's points meet the ANN's, to within ``margin``, a share; None without a twin on these samples."""
    twin = next((p for p in points if p.kind == "ANN" and p.right is not None), None)
    spiking = [p for p in points if p.kind == "SNN" and p.margin is None and p.right is not None]
    if twin is None or twin.right is None or not spiking:
        return None
    found: IsoAccuracy | None = None
    for point in sorted(spiking, key=lambda p: -p.steps):
        assert point.right is not None
        here = _at(point, twin, compare(point.right, twin.right, margin))
        if found is not None and not here.reached:
            break
        found = here
        if not here.reached:
            break
    return found


def _at(point: Point, twin: Point, paired: Paired) -> IsoAccuracy:
    batched = None
    if point.layer_by_layer_J is not None and twin.layer_by_layer_J:
        batched = point.layer_by_layer_J / twin.layer_by_layer_J
    return IsoAccuracy(int(point.steps), paired, point.joules / twin.joules, batched)
