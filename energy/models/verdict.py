"""The verdict: one sentence that a person can quote, with its dataflow and price list named."""

from __future__ import annotations

from collections.abc import Sequence

from stl_deploy._util.units import between, prefix_of
from stl_deploy.energy.chips.lines import GIVEN, ChipLine
from stl_deploy.energy.models.break_even import BreakEven
from stl_deploy.energy.models.grid import QUOTED, QUOTED_PRICE, Cell, beside, quoted
from stl_deploy.energy.prices.price_list import Range

CHIP = "loihi1"
"""The chip that the sentence names: the one whose floor, events and time are all published."""


def verdict(
    cells: Sequence[Cell],
    break_even: BreakEven,
    chips: Sequence[ChipLine] = (),
    *,
    placed: bool = True,
    each_step: bool = False,
) -> str:
    """One sentence: the ratio over the grid, the number to quote, where both sides would cost the same, and one chip.

    The twin's zeros count the same way throughout: skipped where they were measured. placed: false where the
    network was found not to fit the chip as it is. each_step: labels are of each step, which the twin does not decide.
    """
    cell = quoted(cells)
    if cell is None:
        return "The SNN has no weights, so there is no ANN twin to compare it with."
    if each_step:
        return (
            "No ratio to an ANN is told, for labels are of each step and an ANN twin of one pass decides once; "
            f"all steps of an inference take {si(cell.comparison.snn_J, 'J')}, memory included "
            f"({cell.flow.text}, int8 at 45 nm){on_chip(chips, placed=placed)}."
        )
    ratios = [each.ratio for each in beside(cells, cell)]
    spread = between(number(min(ratios)), number(max(ratios)))
    zeros = ", the ANN's zeros skipped as measured" if cell.ann_zeros == "skipped" else ""
    return (
        f"The SNN costs {spread} times its ANN twin, memory included, by dataflow and prices; "
        f"to quote: {number(cell.ratio)} times ({cell.flow.text}, int8 at 45 nm{zeros}; "
        f"{equal_at(break_even)}){on_chip(chips, placed=placed)}."
    )


def on_chip(chips: Sequence[ChipLine], *, placed: bool = True) -> str:
    """Energy and time of an inference on Loihi 1, if they can be told."""
    line = next((line for line in chips if line.chip == CHIP and line.latency is not None), None)
    if line is None or line.latency is None:
        return ""
    scope = "" if line.step_source == GIVEN else " (neurocores only)"
    takes = "it takes" if placed else "where it could not be placed, it would take"
    return f"; on {line.title}{'' if placed else ','} {takes} {si(line.total, 'J')} and {si(line.latency, 's')}{scope}"


def si(values: Range, unit: str) -> str:
    """A range with one prefix, two digits at each end."""
    factor, prefix = prefix_of(values[1])
    low, high = (f"{float(f'{value / factor:.2g}'):g}" for value in values)
    return f"{between(low, high)} {prefix}{unit}"


def number(ratio: float) -> str:
    """Two digits, without an exponent for what a person would write out."""
    return f"{ratio:#.2g}".rstrip(".") if ratio < 100 else f"{ratio:,.0f}"


def equal_at(break_even: BreakEven) -> str:
    """Where the quoted comparison would be 1, or that there are no spikes."""
    if not break_even.spike_rate:
        return "no neuron of it spikes" if break_even.spike_rate is None else "no neuron fires on this input"
    found = next((m for m in break_even.models if (m.flow, m.price) == (QUOTED, QUOTED_PRICE)), None)
    if found is None or found.scale is None or found.spike_rate is None:
        return {
            "above": "more at every spike rate",
            "below": "less at every spike rate",
        }.get("not defined" if found is None else found.verdict, "its spikes decide nothing")
    at = sum(found.spike_rate) / 2
    return f"equal at {percent(at)} spikes per neuron and step, here {percent(break_even.spike_rate)}"


def percent(rate: float) -> str:
    """Two digits."""
    return f"{100 * rate:.2g} %"
