"""Where the joules of one inference go: one entry per layer and term."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stl_deploy.energy.prices.price_list import Price, PriceList, Range
from stl_deploy.energy.prices.sram import word_access


@dataclass(frozen=True)
class Item:
    """``count`` operations or word accesses of one inference (a mean over samples) in one layer."""

    layer: str
    term: str
    count: float
    joules: Range

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"layer": self.layer, "term": self.term, "count": self.count, "joules": list(self.joules)}


@dataclass(frozen=True)
class _Access:
    """Word accesses to a memory of ``size`` bytes. spills: whether it competes for the chip's capacity."""

    layer: str
    term: str
    count: float
    bits: int
    size: int
    spills: bool


class Ledger:
    """Collects the items of one side under one price list; ``batch``: samples that the counts are summed over.

    Weights, biases and states are resident: they share the list's ``on_chip_bytes``, whatever layer they are of, and
    what does not fit is DRAM. Queues and activations are transient: each has the chip for itself.
    """

    def __init__(self, prices: PriceList, batch: int = 1) -> None:
        self._prices = prices
        self._batch = batch
        self._items: list[Item | _Access] = []
        self._resident: dict[tuple[str, str], int] = {}

    def ops(self, layer: str, term: str, price: str | Price, count: float) -> None:
        """``count`` operations at the list's price of that name, or at ``price``."""
        each = self._prices.terms[price] if isinstance(price, str) else price
        self._add(layer, term, count, (each.low, each.high))

    def words(self, layer: str, term: str, count: float, bits: int, size: int) -> None:
        """``count`` accesses of ``bits`` each to a transient memory of ``size`` bytes."""
        self._move(layer, term, count, bits, size, spills=False)

    def resident_words(
        self, layer: str, term: str, count: float, bits: int, size: int, *, shared: bool = False
    ) -> None:
        """The same to a memory that must be kept. shared: another term counts its bytes."""
        if not shared:
            self._resident[layer, term] = size
        self._move(layer, term, count, bits, size, spills=True)

    def _move(self, layer: str, term: str, count: float, bits: int, size: int, *, spills: bool) -> None:
        if count:
            self._items.append(_Access(layer, term, count, bits, size, spills))

    def _add(self, layer: str, term: str, count: float, each: Range) -> None:
        if count:
            self._items.append(self._item(layer, term, count, each))

    def _item(self, layer: str, term: str, count: float, each: Range) -> Item:
        mean = count / self._batch
        return Item(layer, term, mean, (mean * each[0], mean * each[1]))

    def _priced(self, entry: Item | _Access) -> Item:
        if isinstance(entry, Item):
            return entry
        resident = sum(self._resident.values()) if entry.spills else 0
        each = word_access(self._prices, entry.bits, entry.size, resident)
        return self._item(entry.layer, entry.term, entry.count, each)

    def items(self) -> tuple[Item, ...]:
        """What was collected; items of one layer and term are added up."""
        merged: dict[tuple[str, str], Item] = {}
        for item in map(self._priced, self._items):
            key = (item.layer, item.term)
            merged[key] = item if key not in merged else _sum(merged[key], item)
        return tuple(merged.values())


def _sum(a: Item, b: Item) -> Item:
    return Item(a.layer, a.term, a.count + b.count, (a.joules[0] + b.joules[0], a.joules[1] + b.joules[1]))


def total(items: Iterable[Item]) -> Range:
    """Sum of the items' joules."""
    kept = list(items)
    return sum(item.joules[0] for item in kept), sum(item.joules[1] for item in kept)


def dominating(items: Sequence[Item]) -> tuple[Item, ...]:
    """The items that cost something, dearest first (by the high end)."""
    return tuple(sorted((i for i in items if i.joules[1]), key=lambda i: (-i.joules[1], i.layer, i.term)))
