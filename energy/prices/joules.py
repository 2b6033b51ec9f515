"""Convert counts to joules per inference, one price list at a time, by the rule of its scope."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from stl_deploy.energy.counts.neuron_ops import UpdateOps, update_ops
from stl_deploy.energy.counts.record import Counts, firing, populations
from stl_deploy.energy.counts.traffic import Traffic
from stl_deploy.energy.prices import bounds
from stl_deploy.energy.prices.bill import Bill, Biller, Priced
from stl_deploy.energy.prices.chip import OnChip
from stl_deploy.energy.prices.events import Form, event_bill, placed
from stl_deploy.energy.prices.price_list import (
    PriceList,
    division,
    has_tables,
    leak_multiply,
    lookup,
    requantisation,
    requantises,
    shift,
    state_multiply,
)
from stl_deploy.graph.program import Program

_HOST = "host and input/output"
_OUTSIDE: dict[str, tuple[str, ...]] = {
    "arithmetic": ("memory and data movement", "control and addressing", "static power"),
    "marginal": ("static power x time (see the line of the chip)", _HOST),
    "all-in": (),
    "application": ("every count: the list gives power and energy of one whole task",),
}


def price(
    program: Program,
    counts: Counts,
    prices: PriceList,
    traffic: Sequence[Traffic] = (),
    unplaced: str = OnChip.reason,
) -> Priced:
    """Price one inference of the network, and of its ANN twin if the list can.

    arithmetic: every operation of the equations. marginal: every event (`event_bill`).
    all-in: synaptic events or MACs and nothing else. application: nothing.
    traffic: of each placement, for lists that price messages and hops; ``unplaced``: why there is none.
    """
    snn: Bill | None = None
    ann: Bill | None = None
    bills: dict[str, Bill] = {}
    forms: dict[str, Bill] = {}
    match prices.scope:
        case "arithmetic":
            snn, ann = _arithmetic_snn(program, counts, prices), _ann(program, counts, prices)
        case "marginal":
            bills = {t.placement.name: event_bill(program, counts, prices, t) for t in traffic if placed(prices)}
            snn = next(iter(bills.values()), None) or event_bill(program, counts, prices, why=unplaced)
            forms = _forms(program, counts, prices, traffic[0] if bills else None, unplaced)
        case "all-in":
            if "synop" in prices.terms:
                snn = _all_in(counts, prices)
            if "mac" in prices.terms:
                ann = _ann_macs(counts, prices)
        case "application":
            pass
    outside = _outside(program, counts, prices, traffic[0] if bills else None)
    return Priced(prices, snn, ann, outside, bills, forms)


def _forms(
    program: Program, counts: Counts, prices: PriceList, traffic: Traffic | None, unplaced: str
) -> dict[str, Bill]:
    """Price the network with zero weights left out, in both storage forms; none if every used weight is nonzero."""
    if not counts.has_zero_weights:
        return {}
    kinds: tuple[Form, ...] = ("sparse", "compressed")
    return {form: event_bill(program, counts, prices, traffic, unplaced, form) for form in kinds}


def _outside(program: Program, counts: Counts, prices: PriceList, traffic: Traffic | None) -> tuple[str, ...]:
    """Return the costs outside the list's scope; with a placement, with the host's part in numbers."""
    if traffic is None:
        return _OUTSIDE[prices.scope]
    synops = sum(counts.weighted[name].synops for name in traffic.host if name in counts.weighted)
    each = (traffic.from_input / counts.batch, traffic.read_out / counts.batch, synops / counts.batch)
    host = "{:,.6g} messages from the input, {:,.6g} spikes read out, {:,.6g} synops of the readout".format(*each)
    return tuple(f"{line}: {host} per inference" if line == _HOST else line for line in _OUTSIDE[prices.scope])


def _arithmetic_snn(program: Program, counts: Counts, prices: PriceList) -> Bill:
    totals, updates = counts.totals, update_ops(populations(program), counts.neurons, prices.numbers)
    biller = Biller(prices, counts.batch)
    biller.add("ac", "synops on 0/1 values", totals.synops_AC)
    biller.add("mac", "synops on graded or analog values", totals.synops_MAC)
    biller.add("add", "pool adds", totals.pool_events)
    if counts.maxima:
        biller.add("add", "max pool compares", counts.max_compares)
    biller.add("add", "bias adds", totals.bias_adds)
    _at_state_width(biller, prices, updates)
    biller.add("add", "adds and compares of neuron updates", updates.adds)
    return biller.bill()


def _at_state_width(biller: Biller, prices: PriceList, updates: UpdateOps) -> None:
    """Charge multiplies, divisions and shifts of neuron states at accumulator width, and look-ups."""
    # widths scale a multiply and an add; a list without both has only what it names
    if {"mul", "add"} <= set(prices.terms):
        biller.at("mul_state", "multiplies by decays", updates.leak_muls, leak_multiply(prices))
        if updates.other_muls:
            biller.at("mul_state", "other multiplies of neuron updates", updates.other_muls, state_multiply(prices))
        if updates.shifts:
            biller.at("shift", "shifts of neuron updates", updates.shifts, shift(prices))
    else:
        biller.add(
            "mul", "multiplies and shifts of neuron updates", updates.leak_muls + updates.other_muls + updates.shifts
        )
    for term, what, count, each in (
        ("lookup", "look-ups of exp, tanh and the like", updates.lookups, lookup),
        ("div", "divisions of neuron updates", updates.divs, division),
    ):
        if count and has_tables(prices):
            biller.at(term, what, count, each(prices))
        elif count:
            biller.add(term, what, count)


def _ann(program: Program, counts: Counts, prices: PriceList) -> Bill:
    """Price one dense pass of the same topology; each neuron is a ReLU: one comparison."""
    biller = Biller(prices, counts.batch)
    biller.add("mac", "dense MACs of one pass", counts.totals.ann_macs_exact)
    pooled = sum(c.synapses for c in counts.pools.values()) * counts.batch
    biller.add("add", "pool adds", pooled)
    if counts.maxima:
        biller.add("add", "max pool compares", counts.max_compares / counts.T)
    biased = sum(prod(program.by_name[name].shape) for name, c in counts.weighted.items() if c.bias_adds)
    biller.add("add", "bias adds", biased * counts.batch)
    relus = sum(counts.neurons[node.name].neurons for node in firing(program))
    biller.add("add", "compares of ReLUs", relus * counts.batch)
    if requantises(prices) and {"mul", "add"} <= set(prices.terms):
        biller.at("requantisation", "activations requantised", relus * counts.batch, requantisation(prices))
    return biller.bill()


def _ann_macs(counts: Counts, prices: PriceList) -> Bill:
    biller = Biller(prices, counts.batch)
    biller.add("mac", "dense MACs of one pass", counts.totals.ann_macs_exact)
    return biller.bill()


def _all_in(counts: Counts, prices: PriceList) -> Bill:
    biller = Biller(prices, counts.batch)
    biller.add("synop", "synops on 0/1 values", counts.totals.synops_AC)
    if counts.totals.synops_MAC:
        what = f"{counts.totals.synops_MAC / counts.batch:g} synops on graded or analog values per inference"
        biller.miss(what, *bounds.graded(prices, counts.totals.synops_MAC))
    return biller.bill()
