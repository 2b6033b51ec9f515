"""Recompute the two quoted numbers with one assumption changed at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.models import dataflow
from stl_deploy.energy.models.dataflow import Active, Dataflow
from stl_deploy.energy.models.grid import LAYER_BY_LAYER, QUOTED, QUOTED_PRICE
from stl_deploy.energy.models.ledger import total
from stl_deploy.energy.models.what_if import with_bits
from stl_deploy.energy.prices.comparison import Comparison
from stl_deploy.energy.prices.load import load_prices
from stl_deploy.energy.prices.price_list import DECAY_BITS, Price, PriceList, state_multiply
from stl_deploy.graph.program import Program

_STATE_BITS = 16
_FREE = Price(0.0, 0.0, "pJ")


@dataclass(frozen=True)
class Variant:
    """One changed assumption: prices of both sides, and the share of the ANN's MACs that is computed."""

    assumption: str
    snn: PriceList
    ann: PriceList
    active: Active


@dataclass(frozen=True)
class Sensitivity:
    """Both numbers under one assumption."""

    assumption: str
    streaming: Comparison
    layer_by_layer: Comparison

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "assumption": self.assumption,
            "streaming": self.streaming.as_dict(),
            "layer_by_layer": self.layer_by_layer.as_dict(),
            "label": "modelled",
        }


def sensitivity(program: Program, counts: Counts, twin: AnnTwin | None = None) -> tuple[Sensitivity, ...]:
    """Return the quoted numbers, then one row per changed assumption; none for a network without weights."""
    if not counts.totals.ann_macs_exact:
        return ()
    return tuple(
        Sensitivity(v.assumption, _both(program, counts, v, QUOTED), _both(program, counts, v, LAYER_BY_LAYER))
        for v in _variants(twin)
    )


def _both(program: Program, counts: Counts, variant: Variant, flow: Dataflow) -> Comparison:
    spiking = total(dataflow.snn(program, counts, variant.snn, flow))
    return Comparison(spiking, total(dataflow.ann(program, counts, variant.ann, flow, active=variant.active)))


def _variants(twin: AnnTwin | None) -> Iterator[Variant]:
    prices = load_prices(QUOTED_PRICE)
    active = 1.0 if twin is None else twin
    yield Variant("as quoted", prices, prices, active)
    if twin is not None:
        yield Variant("the ANN computes its zeros", prices, prices, 1.0)
    yield Variant(f"{_STATE_BITS}-bit states of the SNN", with_state_bits(prices, _STATE_BITS), prices, active)
    yield Variant("decays as wide as the states", with_leak(prices, state_multiply(prices)), prices, active)
    yield Variant(
        "a leak costs an add (a shift and a subtract)", with_leak(prices, prices.terms["add"]), prices, active
    )
    by_shift = replace(prices, terms={**prices.terms, "mul_scale": _FREE})
    yield Variant("the ANN requantises by a shift alone", prices, by_shift, active)
    banked = replace(prices, terms={**prices.terms, "sram_1MB": prices.terms["sram_32KB"]})
    yield Variant("memories in banks of 32 KB", banked, banked, active)
    for mebi in (2, 64):
        larger = replace(prices, on_chip_bytes=mebi << 20)
        yield Variant(f"{mebi} MiB on chip", larger, larger, active)
    doubled = replace(prices, terms={t: p.times(2.0) if "/" in p.unit else p for t, p in prices.terms.items()})
    yield Variant("memory at twice its price", doubled, doubled, active)
    free = replace(prices, terms={t: _FREE if "/" in p.unit else p for t, p in prices.terms.items()})
    yield Variant("memory free of charge", free, free, active)
    narrow = with_bits(prices, 4)
    yield Variant("4-bit weights and activations", narrow, narrow, active)
    for name, text in (("horowitz45_fp32", "32-bit floats"), ("jouppi7_int8_acc32", "7 nm")):
        other = load_prices(name)
        yield Variant(text, other, other, active)


def with_leak(prices: PriceList, leak: Price) -> PriceList:
    """Return prices at which one multiply by a decay costs ``leak``."""
    return replace(prices, terms={**prices.terms, "mul_state": leak.times(prices.accumulator_bits / DECAY_BITS)})


def with_state_bits(prices: PriceList, bits: int) -> PriceList:
    """Return prices for states of ``bits``: memory and leaks in proportion, multiplies of two states squared.

    A leak multiplies by a decay, whose width stays. Adds are unchanged.
    """
    share = bits / prices.accumulator_bits
    multiply = prices.terms["mul_state"].times(share**2)
    return replace(prices, accumulator_bits=bits, terms={**prices.terms, "mul_state": multiply})
