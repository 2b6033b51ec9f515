"""Hold the energy of the SNN and of its ANN under one rule; every ratio of a report is one of these.

A rule is a dataflow of `grid`, a convention of published ratios, or a published model. Each
module of rules returns a tuple of `Ratio`; a report keeps them in one list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stl_deploy._util.units import between, prefix_of
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.models.dataflow import Dataflow
from stl_deploy.energy.models.ledger import Item, dominating
from stl_deploy.energy.prices.comparison import Comparison, exactly
from stl_deploy.energy.prices.price_list import PriceList, Range
from stl_deploy.graph.program import Program

Kind = Literal["dataflow", "bookkeeping", "physics", "model"]
"""Of the rule: ``bookkeeping`` and ``physics`` are conventions."""
Zeros = Literal["computed", "skipped"]
"""Handling of MACs on zero inputs in the ANN."""
Side = Callable[[Program, Counts, PriceList], tuple[Item, ...]]


@dataclass(frozen=True)
class Ratio:
    """Both sides of one inference under one rule and one price list.

    comparison: None if the rule does not apply. ann_zeros: ``skipped`` only if the twin's were measured. flow: of a
    dataflow. source, snn, ann: of a published model, the items of both sides; spiking: its rule for the SNN, to price
    other counts by.
    """

    kind: Kind
    prices: PriceList
    comparison: Comparison | None
    name: str = ""
    text: str = ""
    ann_zeros: Zeros = "computed"
    flow: Dataflow | None = None
    source: str = ""
    snn: tuple[Item, ...] = ()
    ann: tuple[Item, ...] = ()
    spiking: Side | None = None

    @property
    def energy(self) -> Comparison:
        """Both sides, of a rule that applies."""
        assert self.comparison is not None
        return self.comparison

    @property
    def ratio(self) -> float:
        """SNN over ANN."""
        assert self.energy.snn_over_ann is not None
        return self.energy.snn_over_ann

    def as_dict(self) -> dict[str, Any]:
        """Return the rule's entry of the energy JSON."""
        if self.kind in ("bookkeeping", "physics"):
            return self._convention()
        priced = {"price": self.prices.name, "ann_zeros": self.ann_zeros, **self.energy.as_dict()}
        if self.kind == "model":
            items = {"snn": self.snn, "ann": self.ann}
            listed = {side: [item.as_dict() for item in dominating(each)] for side, each in items.items()}
            return {"name": self.name, "text": self.text, "source": self.source, **priced, **listed}
        assert self.flow is not None
        return {
            "dataflow": self.flow.fetch,
            "sums": self.flow.sums,
            "width": self.prices.width,
            "prices": self.prices.name,
            "ann_zeros": self.ann_zeros,
            **self.energy.as_dict(),
        }

    def _convention(self) -> dict[str, Any]:
        """Return one value for each key; the comparison's are null if the rule does not apply."""
        # any comparison serves: only its keys are kept where the rule does not apply
        entries = (self.comparison or exactly(1.0, 1.0)).as_dict().items()
        return {
            "name": self.name,
            "text": self.text,
            "kind": self.kind,
            "price": self.prices.name,
            "ann_zeros": None if self.comparison is None else self.ann_zeros,
            **{key: None if self.comparison is None else value for key, value in entries if "range" not in key},
            "label": "modelled",
        }


class ByRule:
    """Gives a report's ratios by kind of rule."""

    ratios: tuple[Ratio, ...]

    def _of(self, *kinds: str) -> tuple[Ratio, ...]:
        return tuple(ratio for ratio in self.ratios if ratio.kind in kinds)

    @property
    def comparisons(self) -> tuple[Ratio, ...]:
        """The grid of dataflows and prices."""
        return self._of("dataflow")

    @property
    def conventions(self) -> tuple[Ratio, ...]:
        """The accounting conventions."""
        return self._of("bookkeeping", "physics")

    @property
    def models(self) -> tuple[Ratio, ...]:
        """The published models."""
        return self._of("model")


def si(values: Range, unit: str) -> str:
    """Format a range with one prefix, two digits at each end."""
    factor, prefix = prefix_of(values[1])
    low, high = (f"{float(f'{value / factor:.2g}'):g}" for value in values)
    return f"{between(low, high)} {prefix}{unit}"


def number(ratio: float) -> str:
    """Format with two digits, three next to 1, without an exponent where plain digits are short."""
    if 0.95 <= ratio < 1.095:
        return f"{ratio:.3g}" if ratio < 0.9995 else f"{ratio:.2f}"
    return f"{ratio:#.2g}".rstrip(".") if ratio < 99.5 else f"{ratio:,.0f}"


def percent(rate: float) -> str:
    """Format a share with two digits."""
    return f"{100 * rate:.2g} %"


_RATIOS = ("snn_over_ann", "snn_over_ann_range", "model_range")
_UNDEFINED: dict[Any, Any] = {
    **dict.fromkeys(("scale", "spikes_per_synapse", "spike_rate")),
    "text": "the network decides nothing on this input",
    "verdict": "not defined",
}
"""Break-even of a network that decides nothing."""


def without_ratios(data: Any) -> Any:
    """Return energy.json, or a part of it, of a network that decides nothing: ratios and break-evens are null."""
    if isinstance(data, list | tuple):
        return [without_ratios(item) for item in data]
    if not isinstance(data, Mapping):
        return data
    kept = {key: None if key in _RATIOS else without_ratios(value) for key, value in data.items()}
    if "spikes_per_synapse" in data:
        return kept | _UNDEFINED
    return kept | {"verdict": "not defined"} if "this_network" in data else kept
