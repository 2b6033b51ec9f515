"""A priced list of counts: one line per term, what has no price by name, and the total only if nothing is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stl_deploy.energy.prices.price_list import Price, PriceList, Range

if TYPE_CHECKING:
    from stl_deploy.energy.prices.static import Static


@dataclass(frozen=True)
class Line:
    """``count`` of ``what`` (per inference, a mean over the samples) at ``price``."""

    term: str
    what: str
    count: float
    price: Price

    @property
    def joules(self) -> Range:
        """Energy of one inference, from the low to the high end of the price."""
        return self.count * self.price.low, self.count * self.price.high

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "term": self.term,
            "what": self.what,
            "count_per_inference": self.count,
            "price": self.price.text,
            "joules": list(self.joules),
        }


@dataclass(frozen=True)
class Bill:
    """The energy of one inference under one price list. ``unpriced``: what was counted and has no price."""

    lines: tuple[Line, ...]
    unpriced: tuple[str, ...] = ()

    @property
    def priced(self) -> Range:
        """The sum of the lines: a lower bound if something is unpriced."""
        return sum(line.joules[0] for line in self.lines), sum(line.joules[1] for line in self.lines)

    @property
    def total(self) -> Range | None:
        """The sum, or None (withheld) if something counted has no price."""
        return None if self.unpriced else self.priced

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; ``total_J`` is null where it is withheld, ``at_least_J`` always stands."""
        return {
            "lines": [line.as_dict() for line in self.lines],
            "total_J": None if self.total is None else list(self.total),
            "at_least_J": self.priced[0],
            "unpriced": list(self.unpriced),
        }


@dataclass(frozen=True)
class Priced:
    """Both sides of the comparison under one price list; a side it cannot price is None.

    outside: what the list does not cover by its scope, whatever the network. static: static power x time,
    never added to the events. placements: the network's bill under each placement, where the list needs one; ``snn``
    is that of the first.
    """

    prices: PriceList
    snn: Bill | None
    ann: Bill | None
    outside: tuple[str, ...]
    static: Static | None = None
    placements: Mapping[str, Bill] = field(default_factory=dict)

    @property
    def ratio(self) -> Range | None:
        """ANN over SNN, from the least to the most; None unless both totals stand and are not 0."""
        if self.snn is None or self.ann is None or self.snn.total is None or self.ann.total is None:
            return None
        (snn_low, snn_high), (ann_low, ann_high) = self.snn.total, self.ann.total
        return (ann_low / snn_high, ann_high / snn_low) if snn_low else None

    def as_dict(self) -> dict[str, Any]:
        """One entry of the energy JSON's ``energy`` list."""
        p = self.prices
        return {
            "price": p.name,
            "title": p.title,
            "label": "modelled",
            "scope": p.scope,
            "node": p.node,
            "year": p.year,
            "evidence": p.evidence,
            "source": p.source,
            "caveat": p.caveat,
            "snn": None if self.snn is None else self.snn.as_dict(),
            "ann": None if self.ann is None else self.ann.as_dict(),
            "ratio_ann_over_snn": None if self.ratio is None else list(self.ratio),
            "static": None if self.static is None else self.static.as_dict(),
            "placements": {name: bill.as_dict() for name, bill in self.placements.items()},
            "outside": list(self.outside),
        }


class Biller:
    """Collects lines and unpriced terms for one price list, per inference."""

    def __init__(self, prices: PriceList, batch: int) -> None:
        self._prices = prices
        self._batch = batch
        self._lines: list[Line] = []
        self._unpriced: list[str] = []

    def add(self, term: str, what: str, count: float, *, instead: Sequence[str] = ()) -> None:
        """Price ``count`` of ``what`` at the first of ``term`` and ``instead`` listed, or name it as unpriced."""
        found = next((name for name in (term, *instead) if name in self._prices.terms), None)
        if found is not None:
            self._lines.append(Line(found, what, count / self._batch, self._prices.terms[found]))
        elif count:
            self.miss(f"{count / self._batch:g} {what} per inference: the list has no price '{term}'")

    def mean(self, count: float) -> float:
        """Per inference."""
        return count / self._batch

    def miss(self, what: str) -> None:
        """Name something that cannot be priced."""
        self._unpriced.append(what)

    def bill(self) -> Bill:
        """What was collected."""
        return Bill(tuple(self._lines), tuple(self._unpriced))
