"""Derive operation prices from a list's widths: state multiplies, shifts, and requantisation."""

from __future__ import annotations

from stl_deploy.energy.prices.price_list import Price, PriceList


def state_multiply(prices: PriceList) -> Price:
    """Return the price of a multiply of accumulator width: the list's ``mul_state``, else ``mul`` at equal widths.

    Without either: between r and r² times the list's multiply, r the ratio of the widths (an array multiplier grows
    with the product of its operands' widths).
    """
    if "mul_state" in prices.terms:
        return prices.terms["mul_state"]
    narrow = prices.terms["mul"]
    wider = prices.accumulator_bits / prices.weight_bits
    if wider <= 1 or prices.numbers == "float":
        return narrow
    return Price(narrow.low * wider, narrow.high * wider**2, narrow.unit, f"{wider:g} to {wider**2:g} times 'mul'")


def shift(prices: PriceList) -> Price:
    """Return the price of a shift by a constant: the list's ``shift``, else from nothing (wiring) to an add."""
    add = prices.terms["add"]
    return prices.terms.get("shift", Price(0.0, add.high, add.unit, "from wiring to an add"))


def requantises(prices: PriceList) -> bool:
    """Return whether an activation is stored narrower than it is summed: integers with a wider accumulator."""
    return prices.numbers == "integer" and prices.accumulator_bits > prices.weight_bits


def requantisation(prices: PriceList) -> Price:
    """Charge one activation from accumulator to activation width: a multiply on the accumulator, a shift and a clip."""
    parts = state_multiply(prices), shift(prices), prices.terms["add"]
    low, high = sum(part.low for part in parts), sum(part.high for part in parts)
    return Price(low, high, parts[0].unit, "multiply, shift and clip")
