"""Build the ANN frontier: the same topology at several widths, to find the cheapest ANN of equal accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stl_deploy._util.units import with_unit
from stl_deploy.energy.ann_twin import AnnTwin
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.models import dataflow
from stl_deploy.energy.models.grid import QUOTED, QUOTED_PRICE
from stl_deploy.energy.models.ledger import total
from stl_deploy.energy.models.what_if import with_bits
from stl_deploy.energy.models.wording import number
from stl_deploy.energy.paired import Paired, percent
from stl_deploy.energy.prices.load import load_prices
from stl_deploy.energy.prices.price_list import middle
from stl_deploy.graph.program import Program

WIDTHS = (1.0, 0.75, 0.5, 0.25)
_NAMES = {1.0: "full width", 0.75: "three-quarter width", 0.5: "half width", 0.25: "quarter width"}
_NARROW_BITS = 4


def width_name(width: float) -> str:
    """Width in words, as in ``half width``."""
    return _NAMES.get(width, f"{width:g} times the width")


@dataclass(frozen=True)
class FrontierPoint:
    """One trained ANN of the same topology, its zeros skipped as measured.

    width: of its hidden layers, as a share of the SNN's. joules: of one inference in 8-bit integers;
    four_bit_J: with 4-bit weights and activations, priced alone (its accuracy was not measured).
    paired: the SNN against it, on the same samples.
    """

    width: float
    accuracy: float
    macs: int
    joules: float
    four_bit_J: float
    paired: Paired

    @property
    def name(self) -> str:
        """Width in words, as in ``half width``."""
        return width_name(self.width)

    @property
    def is_equal(self) -> bool:
        """Whether it is shown to be no less accurate than the SNN, within the margin."""
        return -self.paired.interval[0] <= self.paired.margin

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "width": self.width,
            "accuracy": self.accuracy,
            "macs": self.macs,
            "int8_J": self.joules,
            "int4_J": self.four_bit_J,
            "is_equal": self.is_equal,
            "snn_against_it": self.paired.as_dict(),
            "label": "modelled",
        }


@dataclass(frozen=True)
class Frontier:
    """The ANNs of a run, and the SNN's joules of one inference, streaming and layer by layer."""

    points: tuple[FrontierPoint, ...]
    streaming_J: float
    layer_by_layer_J: float

    @property
    def cheapest(self) -> FrontierPoint | None:
        """The cheapest ANN shown to be as accurate as the SNN; if none is, the cheapest measured no worse."""
        by_cost = sorted(self.points, key=lambda point: point.joules)
        shown = next((point for point in by_cost if point.is_equal), None)
        return shown or next((point for point in by_cost if point.accuracy >= self.snn), None)

    @property
    def snn(self) -> float:
        """The SNN's accuracy on these samples."""
        return self.points[0].paired.snn

    @property
    def text(self) -> str:
        """One sentence."""
        point = self.cheapest
        if point is None:
            best = max(self.points, key=lambda each: each.accuracy)
            both = f"{percent(best.accuracy)} against {percent(self.snn)}"
            return f"No ANN of its topology is as accurate as the SNN ({both})."
        how = "equal accuracy" if point.is_equal else "no lower measured accuracy"
        return (
            f"The cheapest ANN of {how} ({point.name}, {percent(point.accuracy)} against {percent(self.snn)}) costs "
            f"{with_unit(point.joules, 'J')}: the SNN costs {number(self.streaming_J / point.joules)} times that "
            f"streaming, {number(self.layer_by_layer_J / point.joules)} layer by layer."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the energy JSON's ``frontier``."""
        point = self.cheapest
        return {
            "points": [each.as_dict() for each in self.points],
            "cheapest_width": None if point is None else point.width,
            "streaming": None if point is None else self.streaming_J / point.joules,
            "layer_by_layer": None if point is None else self.layer_by_layer_J / point.joules,
            "text": self.text,
            "label": "modelled",
        }


def ann_joules(program: Program, counts: Counts, twin: AnnTwin, bits: int | None = None) -> float:
    """Return joules of one inference of an ANN of ``program``'s topology at the quoted prices, zeros skipped.

    bits: of weights and activations (default: the list's 8).
    """
    prices = load_prices(QUOTED_PRICE)
    chosen = prices if bits is None else with_bits(prices, bits)
    return middle(total(dataflow.ann(program, counts, chosen, QUOTED, active=twin)))


def frontier_point(width: float, program: Program, counts: Counts, twin: AnnTwin, paired: Paired) -> FrontierPoint:
    """Price one trained ANN."""
    assert twin.accuracy is not None
    narrow = ann_joules(program, counts, twin, _NARROW_BITS)
    macs = twin.macs // twin.samples
    return FrontierPoint(width, twin.accuracy, macs, ann_joules(program, counts, twin), narrow, paired)
