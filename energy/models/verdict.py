"""The verdict: one sentence that a person can quote, with its dataflow and price list named."""

from __future__ import annotations

from collections.abc import Sequence

from stl_deploy.energy.models.break_even import BreakEven, ModelBreakEven
from stl_deploy.energy.models.grid import QUOTED, QUOTED_PRICE, Cell, quoted

EQUAL = 0.005
"""Ratios this close to 1 are told as equal: two digits are printed, and prices are not known better."""


def verdict(cells: Sequence[Cell], break_even: BreakEven) -> str:
    """One sentence: the ratio over the grid, the number to quote, and the spike rate at which both cost the same."""
    cell = quoted(cells)
    if cell is None:
        return "The SNN has no weights, so there is no ANN twin to compare it with."
    low, high = min(c.ratio for c in cells), max(c.ratio for c in cells)
    zeros = ", the ANN's zeros skipped as measured" if cell.ann_zeros == "skipped" else ""
    return (
        f"The SNN costs {spread(low, high)} its ANN twin, memory included, by how often weights are fetched "
        f"({equal_at(break_even)}); to quote: {times(cell.ratio)}, {cell.flow.text}, int8 at 45 nm{zeros}."
    )


def times(ratio: float) -> str:
    """``1.3 times``, or ``as much`` where it is 1 to two digits."""
    return "as much" if abs(ratio - 1) < EQUAL else f"{number(ratio)} times"


def spread(low: float, high: float) -> str:
    """A range of ratios."""
    return f"{number(low)} to {number(high)} times"


def number(ratio: float) -> str:
    """Two digits, without an exponent for what a person would write out."""
    return f"{ratio:.2g}" if ratio < 100 else f"{ratio:,.0f}"


def equal_at(break_even: BreakEven) -> str:
    """Where the quoted comparison would be 1."""
    found = quoted_break_even(break_even)
    if found is None or found.scale is None or break_even.spike_rate is None or found.spike_rate is None:
        return {
            "above": "more at every spike rate",
            "below": "less at every spike rate",
        }.get("not defined" if found is None else found.verdict, "its spikes decide nothing")
    at = sum(found.spike_rate) / 2
    return f"equal at {percent(at)} spikes per neuron and step, here {percent(break_even.spike_rate)}"


def percent(rate: float) -> str:
    """Two digits."""
    return f"{100 * rate:.2g} %"


def quoted_break_even(break_even: BreakEven) -> ModelBreakEven | None:
    """The break-even of the dataflow and price list that are quoted."""
    return next((m for m in break_even.models if (m.flow, m.price) == (QUOTED, QUOTED_PRICE)), None)
