"""Energy of one SNN and one ANN inference under the same assumptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stl_deploy.energy.prices.price_list import Range, middle


@dataclass(frozen=True)
class Comparison:
    """Joules of one inference of both sides under the same assumptions, each from the prices' low to their high end.

    >>> Comparison((2.0, 4.0), (1.0, 2.0)).snn_over_ann
    2.0
    """

    snn_J: Range
    ann_J: Range

    @property
    def snn_over_ann(self) -> float | None:
        """SNN cost over ANN cost, middle over middle; None if the ANN costs nothing."""
        return middle(self.snn_J) / middle(self.ann_J) if middle(self.ann_J) else None

    @property
    def ends(self) -> Range | None:
        """Return the ratio at the low and at the high end of the prices (same prices on both sides), smaller first."""
        if not all(self.ann_J):
            return None
        low, high = sorted(snn / ann for snn, ann in zip(self.snn_J, self.ann_J, strict=True))
        return low, high

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict: the middles, their ratio, and the ends."""
        return {
            "snn_J": middle(self.snn_J),
            "ann_J": middle(self.ann_J),
            "snn_over_ann": self.snn_over_ann,
            "snn_range_J": list(self.snn_J),
            "ann_range_J": list(self.ann_J),
            "snn_over_ann_range": None if self.ends is None else list(self.ends),
            "label": "modelled",
        }


def exactly(snn: float, ann: float) -> Comparison:
    """Return a comparison of two single values."""
    return Comparison((snn, snn), (ann, ann))
