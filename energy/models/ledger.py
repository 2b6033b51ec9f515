"""Itemise the joules of one inference: one entry per layer and term."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

from stl_deploy.energy.prices.price_list import Price, PriceList, Range, sums, word_access

Kind = Literal["transient", "states", "weights"]
"""Content of a memory: queues and activations; states, potentials and biases; weights."""
Content = Kind | Literal["operations"]


@dataclass(frozen=True)
class Item:
    """``count`` operations or word accesses of one inference (a mean over samples) in one layer."""

    layer: str
    term: str
    count: float
    joules: Range
    kind: Content = "operations"

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self) | {"joules": list(self.joules)}


@dataclass(frozen=True)
class _Access:
    """Word accesses to a memory of ``size`` bytes."""

    layer: str
    term: str
    count: float
    bits: int
    size: int
    kind: Kind


class Ledger:
    """Collect the items of one side under one price list; ``batch``: samples that the counts are summed over.

    The capacity on chip, the list's ``on_chip_bytes``, is the network's: the largest transient memory and all states
    have it first, since they are used most, and weights share what is left. What does not fit is DRAM, so that a little
    more costs a little more.
    """

    def __init__(self, prices: PriceList, batch: int = 1) -> None:
        self._prices = prices
        self._batch = batch
        self._items: list[Item | _Access] = []
        self._held: dict[tuple[str, str], tuple[Kind, int]] = {}

    def ops(self, layer: str, term: str, price: str | Price, count: float) -> None:
        """Add ``count`` operations at the list's price of that name, or at ``price``."""
        each = self._prices.terms[price] if isinstance(price, str) else price
        self._add(layer, term, count, each.ends)

    def words(
        self,
        layer: str,
        term: str,
        count: float,
        bits: int,
        size: int,
        kind: Kind = "transient",
        *,
        shared: bool = False,
    ) -> None:
        """Add ``count`` accesses of ``bits`` to a memory of ``size`` bytes. shared: another term counts its bytes."""
        if not shared:
            self._held[layer, term] = (kind, size)
        if count:
            self._items.append(_Access(layer, term, count, bits, size, kind))

    @cached_property
    def _on_chip(self) -> dict[Kind, float]:
        """Return the share of each kind of memory that fits."""
        sizes: dict[Kind, list[int]] = {kind: [] for kind in get_args(Kind)}
        for kind, size in self._held.values():
            sizes[kind].append(size)
        left, shares = float(self._prices.on_chip_bytes), dict[Kind, float]()
        needs: dict[Kind, int] = {
            "transient": max(sizes["transient"], default=0),
            "states": sum(sizes["states"]),
            "weights": sum(sizes["weights"]),
        }
        for kind, need in needs.items():
            # in the order of `needs`: what is used most has the room first
            shares[kind] = min(1.0, left / need) if need else 1.0
            left = max(0.0, left - need)
        return shares

    def _add(self, layer: str, term: str, count: float, each: Range) -> None:
        if count:
            self._items.append(self._item(layer, term, count, each, "operations"))

    def _item(self, layer: str, term: str, count: float, each: Range, kind: Content) -> Item:
        mean = count / self._batch
        return Item(layer, term, mean, (mean * each[0], mean * each[1]), kind)

    def _priced(self, entry: Item | _Access) -> Item:
        if isinstance(entry, Item):
            return entry
        each = word_access(self._prices, entry.bits, entry.size, self._on_chip[entry.kind])
        return self._item(entry.layer, entry.term, entry.count, each, entry.kind)

    def items(self) -> tuple[Item, ...]:
        """Return the collected items, summed by layer and term."""
        merged: dict[tuple[str, str], Item] = {}
        for item in map(self._priced, self._items):
            key = (item.layer, item.term)
            merged[key] = item if key not in merged else _sum(merged[key], item)
        return tuple(merged.values())


def _sum(a: Item, b: Item) -> Item:
    return replace(a, count=a.count + b.count, joules=(a.joules[0] + b.joules[0], a.joules[1] + b.joules[1]))


def total(items: Iterable[Item]) -> Range:
    """Return the sum of the items' joules."""
    return sums(item.joules for item in items)


def dominating(items: Sequence[Item]) -> tuple[Item, ...]:
    """Return the items with a nonzero cost, dearest first (by the high end)."""
    return tuple(sorted((i for i in items if i.joules[1]), key=lambda i: (-i.joules[1], i.layer, i.term)))
