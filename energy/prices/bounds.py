"""Bound the cost of counts without a price, so that a total is a range instead of missing.

Each bound says what it rests on; none is a price.
"""

from __future__ import annotations

from functools import cache

from stl_deploy.energy.prices.chip import COLUMNS, ROWS
from stl_deploy.energy.prices.load import list_prices
from stl_deploy.energy.prices.price_list import SYNOPS, PriceList, Range

VALUE_BITS = 8
"""Spikes that carry one value bit by bit."""
MOST_ADDS = 31
"""A multiply over an add of the same width, at most, in the arithmetic lists (32-bit integers)."""


def dearest_synop(prices: PriceList) -> float:
    """Return the high end of the dearest synaptic event of a list, in joules."""
    return max(prices.terms[term].high for term in SYNOPS if term in prices.terms)


def graded(prices: PriceList, synops: float) -> tuple[Range, str]:
    """Bound synops on graded values on a spike-only chip: from nothing (on the host) to a spike for each bit."""
    why = f"nothing if the host computes them; at most {VALUE_BITS} synaptic events each, one for each bit of a value"
    return (0.0, synops * VALUE_BITS * dearest_synop(prices)), why


def updates(prices: PriceList, count: float) -> tuple[Range, str]:
    """Bound neuron updates under a list that prices synaptic events alone."""
    ratio = dearest_update()
    why = f"from nothing to {ratio:.3g} synaptic events each, the most among the lists that price both"
    return (0.0, count * ratio * dearest_synop(prices)), why


def messages(prices: PriceList, most: float) -> tuple[Range, str]:
    """Bound messages without a placement, at most ``most`` of them."""
    return (0.0, most * prices.terms["message_out"].high), "at most one for each synaptic event and each core of a chip"


def hops(prices: PriceList, most: float) -> tuple[Range, str]:
    """Bound the hops of at most ``most`` messages: each across the mesh of its own and of another chip."""
    far = 2 * ((COLUMNS - 1) * prices.terms["hop_ew"].high + (ROWS - 1) * prices.terms["hop_ns"].high)
    return (0.0, most * far), "at most across two chips' meshes for each message; hops between chips have no price"


def operation(prices: PriceList, count: float) -> tuple[Range, str]:
    """Bound operations that an arithmetic list lacks."""
    dearest = max((price.high for term, price in prices.terms.items() if "/" not in price.unit), default=0.0)
    why = f"from nothing to {MOST_ADDS} times the dearest operation that the list prices"
    return (0.0, count * MOST_ADDS * dearest), why


@cache
def dearest_update() -> float:
    """Return the highest ratio of a neuron update to the dearest synaptic event of the same built-in list."""
    ratios = []
    for entry in list_prices():
        neuron = [
            entry.terms[term].high for term in ("neuron_active", "neuron_access", "neuron_ms") if term in entry.terms
        ]
        if neuron and entry.scope == "marginal":
            ratios.append(max(neuron) / dearest_synop(entry))
    return max(ratios)
