"""From counts to joules per inference, one price list at a time and by the rule of its scope."""

from __future__ import annotations

from math import prod

from stl_deploy.energy.bill import Bill, Biller, Priced
from stl_deploy.energy.counts import Counts
from stl_deploy.energy.events import event_bill
from stl_deploy.energy.neuron_ops import update_ops
from stl_deploy.energy.pricelist import PriceList
from stl_deploy.energy.static import static
from stl_deploy.graph.program import Neuron, Program, is_max_pool

_OUTSIDE: dict[str, tuple[str, ...]] = {
    "arithmetic": ("memory and data movement", "control and addressing", "static power"),
    "marginal": ("static power x time (a line of its own where it can be told)", "host and input/output"),
    "all-in": (),
    "application": ("every count: the list gives power and energy of one whole task",),
}


def price(program: Program, counts: Counts, prices: PriceList) -> Priced:
    """Energy of one inference of the network, and of its ANN twin where the list can price one.

    arithmetic: every operation of the equations. marginal: every event (`event_bill`).
    all-in: synaptic events or MACs and nothing else. application: nothing.
    """
    snn: Bill | None = None
    ann: Bill | None = None
    match prices.scope:
        case "arithmetic":
            snn, ann = _arithmetic_snn(program, counts, prices), _ann(program, counts, prices)
        case "marginal":
            snn = event_bill(program, counts, prices)
        case "all-in":
            if "synop" in prices.terms:
                snn = _all_in(counts, prices)
            if "mac" in prices.terms:
                ann = _ann_macs(counts, prices)
        case "application":
            pass
    return Priced(prices, snn, ann, _OUTSIDE[prices.scope], static(program, counts, prices))


def _arithmetic_snn(program: Program, counts: Counts, prices: PriceList) -> Bill:
    totals, updates = counts.totals, update_ops(program.of(Neuron), counts.neurons)
    biller = Biller(prices, counts.batch)
    biller.add("ac", "synops on 0/1 values", totals.synops_AC)
    biller.add("mac", "synops on graded or analog values", totals.synops_MAC)
    biller.add("add", "pool adds", totals.pool_events)
    biller.add("add", "bias adds", totals.bias_adds)
    biller.add("mul", "multiplies of neuron updates", updates.muls)
    biller.add("add", "adds and compares of neuron updates", updates.adds)
    return biller.bill()


def _ann(program: Program, counts: Counts, prices: PriceList) -> Bill:
    """One dense pass of the same topology; each neuron is a ReLU: one compare."""
    biller = Biller(prices, counts.batch)
    biller.add("mac", "dense MACs of one pass", counts.totals.ann_macs_exact)
    pooled = sum(c.synapses for c in counts.pools.values()) * counts.batch
    biller.add("add", "pool adds", pooled)
    biller.add("add", "bias adds", counts.totals.bias_adds // counts.T)
    relus = sum(prod(n.shape) for n in program.of(Neuron) if n.spiking and not is_max_pool(program, n))
    biller.add("add", "compares of ReLUs", relus * counts.batch)
    return biller.bill()


def _ann_macs(counts: Counts, prices: PriceList) -> Bill:
    biller = Biller(prices, counts.batch)
    biller.add("mac", "dense MACs of one pass", counts.totals.ann_macs_exact)
    return biller.bill()


def _all_in(counts: Counts, prices: PriceList) -> Bill:
    biller = Biller(prices, counts.batch)
    biller.add("synop", "synops on 0/1 values", counts.totals.synops_AC)
    if counts.totals.synops_MAC:
        biller.miss(f"{counts.totals.synops_MAC / counts.batch:g} synops on graded or analog values per inference")
    return biller.bill()
