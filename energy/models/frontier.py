"""Build the ANN frontier: the same topology at several widths, to find the cheapest ANN that is no less accurate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.models import dataflow
from stl_deploy.energy.models.grid import QUOTED, QUOTED_PRICE
from stl_deploy.energy.models.ledger import total
from stl_deploy.energy.models.ratios import number
from stl_deploy.energy.models.what_if import with_bits
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
    macs: int
    joules: float
    four_bit_J: float
    paired: Paired

    @property
    def name(self) -> str:
        """Width in words, as in ``half width``."""
        return width_name(self.width)

    @property
    def accuracy(self) -> float:
        """Its accuracy on the samples of ``paired``, a share."""
        return self.paired.ann

    @property
    def is_proved(self) -> bool:
        """Whether the interval shows that it is no less accurate than the SNN, to within the margin."""
        return -self.paired.interval[0] <= self.paired.margin

    @property
    def measured_no_less(self) -> bool:
        """Whether it decided at least as many samples right as the SNN, which proves nothing of other samples."""
        return self.paired.ann >= self.paired.snn

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "width": self.width,
            "accuracy": self.accuracy,
            "macs": self.macs,
            "int8_J": self.joules,
            "int4_J": self.four_bit_J,
            "is_proved": self.is_proved,
            "measured_no_less": self.measured_no_less,
            "snn_against_it": self.paired.as_dict(),
            "label": "modelled",
        }


@dataclass(frozen=True)
class Against:
    """Comparison of the SNN with one ANN: its energy of an inference over the ANN's."""

    ann: FrontierPoint
    streaming: float
    layer_by_layer: float

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "width": self.ann.width,
            "accuracy": self.ann.accuracy,
            "joules": self.ann.joules,
            "streaming": self.streaming,
            "layer_by_layer": self.layer_by_layer,
        }


@dataclass(frozen=True)
class Frontier:
    """The ANNs of a run, and the SNN's joules of one inference, streaming and layer by layer.

    Two comparisons, never mixed: with the cheapest ANN that is proved no less accurate, to within the margin, and with
    the cheapest that measured no less accurate on these samples, proved or not.
    """

    points: tuple[FrontierPoint, ...]
    streaming_J: float
    layer_by_layer_J: float

    @property
    def proved(self) -> Against | None:
        """Comparison with the cheapest ANN proved no less accurate: the number to quote."""
        return self._against([point for point in self.points if point.is_proved])

    @property
    def measured(self) -> Against | None:
        """Comparison with the cheapest ANN that measured no less accurate."""
        return self._against([point for point in self.points if point.measured_no_less])

    def _against(self, points: Sequence[FrontierPoint]) -> Against | None:
        if not points:
            return None
        ann = min(points, key=lambda point: point.joules)
        return Against(ann, self.streaming_J / ann.joules, self.layer_by_layer_J / ann.joules)

    @property
    def snn(self) -> float:
        """The SNN's accuracy on these samples."""
        return self.points[0].paired.snn

    @property
    def text(self) -> str:
        """One sentence."""
        proved, measured = self.proved, self.measured
        if proved is None and measured is None:
            best = max(self.points, key=lambda each: each.accuracy)
            both = f"{percent(best.accuracy)} against {percent(self.snn)}"
            return f"No ANN of its topology measured as accurate as the SNN ({both})."
        if proved is None:
            assert measured is not None
            return (
                f"No ANN is proved no less accurate; against the cheapest that measured so ({self._which(measured)}) "
                f"the SNN costs {_times(measured)}."
            )
        if measured is None or measured.ann.joules >= proved.ann.joules:
            return (
                f"Against the cheapest ANN proved no less accurate ({self._which(proved)}) the SNN costs "
                f"{_times(proved)}."
            )
        return (
            f"Against the cheapest ANN proved no less accurate ({proved.ann.name}) the SNN costs {_times(proved)}; "
            f"against the cheapest that only measured so ({measured.ann.name}): {number(measured.streaming)} and "
            f"{number(measured.layer_by_layer)}."
        )

    def _which(self, against: Against) -> str:
        return f"{against.ann.name}, {percent(against.ann.accuracy)} against {percent(self.snn)}"

    def as_dict(self) -> dict[str, Any]:
        """Return the energy JSON's ``frontier``."""
        proved, measured = self.proved, self.measured
        return {
            "points": [each.as_dict() for each in self.points],
            "samples": self.points[0].paired.samples,
            "proved": None if proved is None else proved.as_dict(),
            "measured": None if measured is None else measured.as_dict(),
            "text": self.text,
            "label": "modelled",
        }


def _times(against: Against) -> str:
    return f"{number(against.streaming)} times streaming, {number(against.layer_by_layer)} layer by layer"


def ann_joules(program: Program, counts: Counts, twin: AnnTwin, bits: int | None = None) -> float:
    """Return joules of one inference of an ANN of ``program``'s topology at the quoted prices, zeros skipped.

    bits: of weights and activations (default: the list's 8).
    """
    prices = load_prices(QUOTED_PRICE)
    chosen = prices if bits is None else with_bits(prices, bits)
    return middle(total(dataflow.ann(program, counts, chosen, QUOTED, active=twin)))


def frontier_point(width: float, program: Program, counts: Counts, twin: AnnTwin, paired: Paired) -> FrontierPoint:
    """Price one trained ANN, compared with the SNN in ``paired``."""
    narrow = ann_joules(program, counts, twin, _NARROW_BITS)
    macs = twin.macs // twin.samples
    return FrontierPoint(width, macs, ann_joules(program, counts, twin), narrow, paired)
