"""Price a list of counts: one line per term; counts without a price are named, with bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot
from typing import Any

from stl_deploy.energy.prices.bounds import operation
from stl_deploy.energy.prices.comparison import Comparison
from stl_deploy.energy.prices.price_list import Price, PriceList, Range, sums


@dataclass(frozen=True)
class Line:
    """``count`` of ``what`` (per inference, a mean over the samples) at ``price``."""

    term: str
    what: str
    count: float
    price: Price

    @property
    def joules(self) -> Range:
        """Return the energy of one inference, from the low to the high end of the price."""
        return self.count * self.price.low, self.count * self.price.high

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "term": self.term,
            "what": self.what,
            "count_per_inference": self.count,
            "price": self.price.text,
            "joules": list(self.joules),
        }


@dataclass(frozen=True)
class Unpriced:
    """A count without a price in the list, and bounds on its joules per inference.

    why: what the bounds rest on.
    """

    what: str
    bounds: Range
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {"what": self.what, "bounds_J": list(self.bounds), "why": self.why}


@dataclass(frozen=True)
class Bill:
    """The energy of one inference under one price list. ``unpriced``: counts without a price."""

    lines: tuple[Line, ...]
    unpriced: tuple[Unpriced, ...] = ()

    @property
    def priced(self) -> Range:
        """Return the sum of the lines alone."""
        return sums(line.joules for line in self.lines)

    @property
    def total(self) -> Range:
        """Return the sum of the lines and of the bounds of unpriced counts."""
        return sums([self.priced, sums(unpriced.bounds for unpriced in self.unpriced)])

    @property
    def sigma(self) -> float | None:
        """Return the total's standard deviation from those of the prices; None if no price has one.

        Lines at one price move together; different prices are taken to be independent.
        """
        by_price: dict[str, float] = {}
        for line in self.lines:
            if line.price.sigma is not None:
                by_price[line.term] = by_price.get(line.term, 0.0) + line.count * line.price.sigma
        return hypot(*by_price.values()) if by_price else None

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; ``total_J`` includes unpriced bounds, ``at_least_J`` is its low end."""
        return {
            "lines": [line.as_dict() for line in self.lines],
            "total_J": list(self.total),
            "at_least_J": self.total[0],
            "sigma_J": self.sigma,
            "unpriced": [unpriced.as_dict() for unpriced in self.unpriced],
        }


@dataclass(frozen=True)
class Priced:
    """Both sides of the comparison under one price list; a side without prices is None.

    outside: what the list does not cover by its scope, whatever the network. placements: the network's bill under
    each placement, where the list needs one; ``snn`` is that of the first. forms: with zero weights left out of the
    chip's synapse memory, where there are any: ``sparse`` at the list's price for indexed synapses, ``compressed`` at
    the price of the dense form.
    """

    prices: PriceList
    snn: Bill | None
    ann: Bill | None
    outside: tuple[str, ...]
    placements: Mapping[str, Bill] = field(default_factory=dict)
    forms: Mapping[str, Bill] = field(default_factory=dict)

    @property
    def comparison(self) -> Comparison | None:
        """Both totals; None unless the list prices both sides."""
        if self.snn is None or self.ann is None:
            return None
        return Comparison(self.snn.total, self.ann.total)

    def as_dict(self) -> dict[str, Any]:
        """Return one entry of the energy JSON's ``energy`` list."""
        p, compared = self.prices, self.comparison
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
            "ann_zeros": None if self.ann is None else "computed",
            "snn_over_ann": None if compared is None else compared.snn_over_ann,
            "snn_over_ann_range": None if compared is None or compared.ends is None else list(compared.ends),
            "forms": {name: bill.as_dict() for name, bill in self.forms.items()},
            "placements": {name: bill.as_dict() for name, bill in self.placements.items()},
            "outside": list(self.outside),
        }


class Biller:
    """Collect lines and unpriced terms for one price list, per inference."""

    def __init__(self, prices: PriceList, batch: int) -> None:
        self._prices = prices
        self._batch = batch
        self._lines: list[Line] = []
        self._unpriced: list[Unpriced] = []

    def add(self, term: str, what: str, count: float, *, instead: Sequence[str] = ()) -> None:
        """Price ``count`` of ``what`` at the first listed of ``term`` and ``instead``, else record it within bounds."""
        listed = next((name for name in (term, *instead) if name in self._prices.terms), None)
        if listed is not None:
            self.at(listed, what, count, self._prices.terms[listed])
        elif count:
            bounds, why = operation(self._prices, count)
            self.miss(f"{self.mean(count):g} {what} per inference: the list has no price '{term}'", bounds, why)

    def at(self, term: str, what: str, count: float, price: Price) -> None:
        """Price ``count`` of ``what`` at ``price``."""
        self._lines.append(Line(term, what, count / self._batch, price))

    def mean(self, count: float) -> float:
        """Return ``count`` per inference."""
        return count / self._batch

    def miss(self, what: str, bounds: Range, why: str) -> None:
        """Record an unpriced count, between ``bounds`` in joules over the whole batch."""
        self._unpriced.append(Unpriced(what, (bounds[0] / self._batch, bounds[1] / self._batch), why))

    def bill(self) -> Bill:
        """Return the collected bill."""
        return Bill(tuple(self._lines), tuple(self._unpriced))
