"""Price event-driven chips: each synaptic event, neuron update, spike and message.

Rules after Davies et al. 2018 (active and inactive updates), SANA-FE (every neuron accessed at every
step, updated where input arrived; synapses dense, sparse or convolutional) and Ostrau et al. 2022
(a neuron kept for one step of 1 ms). Only spikes are events: a layer that is fed analog or graded
values has no price on such a chip, unless a sum pool in front of it folds into its addressing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from stl_deploy._util.reachable import reachable
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.counts.taps import fold_pools
from stl_deploy.energy.counts.traffic import Traffic
from stl_deploy.energy.prices import bounds
from stl_deploy.energy.prices.bill import Bill, Biller
from stl_deploy.energy.prices.chip import CORES
from stl_deploy.energy.prices.price_list import PriceList
from stl_deploy.graph.program import Conv, Linear, Neuron, Node, Pool, Program, Reshape, Scale

_INSTEAD = {
    "synop_dense": ("synop",),
    "synop_conv": ("synop",),
    "synop_one_to_one": ("synop_sparse", "synop"),
}
"""Substitute prices for a kind of synaptic event that a list has no price for."""
_WHAT = {
    "synop_dense": "synaptic events of dense layers",
    "synop_conv": "synaptic events of convolutions and pools",
    "synop_one_to_one": "synaptic events, one to one",
}


@dataclass(frozen=True)
class Events:
    """Events on an event-driven chip, summed over ``batch`` inferences (or per inference, batch 1).

    updates: neurons x steps; touched: those that input reached. messages: spike x destination core;
    hops: hop_ew and hop_ns; None where no placement is known, or it leaves the chip. unplaced: why they are None.
    messages_most: as many messages as there can be without a placement (None: each spike to each core of a chip).
    """

    synop_dense: float = 0
    synop_conv: float = 0
    synop_one_to_one: float = 0
    updates: float = 0
    touched: float = 0
    spikes: float = 0
    messages: float | None = None
    hops: tuple[float, float] | None = None
    unplaced: str = "no placement is known"
    messages_most: float | None = None

    @property
    def at_most(self) -> float:
        """Messages, or their upper bound without a placement."""
        if self.messages is not None:
            return self.messages
        return self.spikes * CORES if self.messages_most is None else self.messages_most


def placed(prices: PriceList) -> bool:
    """Return whether a list has prices that need a placement."""
    return not {"message_out", "hop_ew", "spike_in_tile"}.isdisjoint(prices.terms)


Form = Literal["dense", "sparse", "compressed"]
"""Storage of synapses: every one; those that are not zero, with their targets; or those, packed."""
_SPARSE = {"synop_dense": "synop_sparse", "synop_conv": "synop_conv", "synop_one_to_one": "synop_one_to_one"}


def event_bill(
    program: Program,
    counts: Counts,
    prices: PriceList,
    traffic: Traffic | None = None,
    why: str = Events.unplaced,
    form: Form = "dense",
) -> Bill:
    """Price the events of one inference; without ``traffic``, messages and hops are unpriced, with the reason.

    With it, what the host computes is left out: it is no event of the chip. form: other than ``dense``, synapses of
    weight zero are not stored, so no event crosses them.
    """
    biller = Biller(prices, counts.batch)
    totals = counts.totals
    if traffic is not None:  # hops have no price although there is a placement
        why = f"{len(traffic.placement.cores)} cores, one chip has {CORES}, and hops between chips have no price"
    own = [counts.neurons[node.name] for node in program.of(Neuron)]
    synops = _synops(program, counts, prices, biller, () if traffic is None else traffic.host, form)
    events = Events(
        synop_dense=synops["synop_dense"],
        synop_conv=synops["synop_conv"],
        synop_one_to_one=synops["synop_one_to_one"],
        updates=sum(counted.neuron_updates for counted in own),
        touched=sum(counted.neuron_updates_touched for counted in own),
        spikes=totals.spikes,
        messages=None if traffic is None else traffic.messages,
        hops=None if traffic is None else traffic.hops,
        unplaced=why,
        messages_most=sum(min(c.synops, c.in_nonzero * CORES) for c in counts.weighted.values()),
    )
    price_events(events, prices, biller, form)
    if others := totals.neuron_updates - events.updates:
        what = f"{others / counts.batch:g} updates of neurons that the chip does not have per inference"
        biller.miss(what, *bounds.updates(prices, others))
    if counts.maxima:
        what = f"{counts.max_compares / counts.batch:g} comparisons of max pools of currents per inference"
        biller.miss(what, *bounds.graded(prices, counts.max_compares))
    if counts.products:
        products = sum(c.synops for c in counts.products.values())
        what = f"{products / counts.batch:g} products of two signals per inference, which the chip has no event for"
        biller.miss(what, *bounds.graded(prices, products))
    return biller.bill()


def price_events(events: Events, prices: PriceList, biller: Biller, form: Form = "dense") -> None:
    """Add every event to the bill by the rules of the list; events without a price are recorded within bounds."""
    for kind, instead in _INSTEAD.items():
        if count := getattr(events, kind):
            preferred = (kind,) if form != "sparse" else (_SPARSE[kind], kind)
            biller.add(preferred[0], _WHAT[kind], count, instead=(*preferred[1:], *instead))
    if {"neuron_active", "neuron_access", "neuron_ms"} & set(prices.terms):
        _updates(events, prices, biller)
    elif events.updates:
        biller.miss(
            f"{biller.mean(events.updates):g} neuron updates per inference", *bounds.updates(prices, events.updates)
        )
    for term in ("spike", "spike_out"):
        if term in prices.terms:
            biller.add(term, "spikes", events.spikes)
    _mapped(events, prices, biller)


def _mapped(events: Events, prices: PriceList, biller: Biller) -> None:
    if "message_out" in prices.terms:
        if events.messages is None:
            what = f"messages: one for each spike and destination core, and {events.unplaced}"
            biller.miss(what, *bounds.messages(prices, events.at_most))
        else:
            biller.add("message_out", "messages", events.messages)
    if "spike_in_tile" in prices.terms:
        if events.messages is None:
            biller.add("spike_in_tile", "spikes", events.spikes)
        else:
            biller.add("spike_in_tile", "messages", events.messages)
    if "hop_ew" in prices.terms:
        if events.hops is None:
            biller.miss(f"hops between cores: {events.unplaced}", *bounds.hops(prices, events.at_most))
        else:
            biller.add("hop_ew", "hops east or west", events.hops[0])
            biller.add("hop_ns", "hops north or south", events.hops[1])


def _updates(events: Events, prices: PriceList, biller: Biller) -> None:
    updates, touched = events.updates, events.touched
    if "neuron_inactive" in prices.terms:
        biller.add("neuron_active", "neuron updates with input", touched)
        biller.add("neuron_inactive", "neuron updates without input", updates - touched)
    elif "neuron_active" in prices.terms:
        biller.add("neuron_active", "neuron updates", updates)
    if "neuron_access" in prices.terms:
        biller.add("neuron_access", "neurons accessed, each at each step", updates)
        biller.add("neuron_update", "neuron updates with input", touched)
    if "neuron_ms" in prices.terms:
        biller.add("neuron_ms", "neurons kept for one step of 1 ms", updates)


def _synops(
    program: Program, counts: Counts, prices: PriceList, biller: Biller, host: Collection[str], form: Form
) -> dict[str, float]:
    taps = {name: taps for name, taps in {**counts.weighted, **counts.pools}.items() if name not in host}
    folded = _folded(program, counts)
    dissolved = {name for name in counts.pools if _all_readers_in(program, name, folded)}
    events = dict.fromkeys(_INSTEAD, 0.0)
    for name, counted in taps.items():
        node = program.by_name[name]
        if name in dissolved:
            continue
        if name in folded:
            folds = counted.synops_pool_folded if form == "dense" else counted.folded_nonzero_w
            events[_kind(node)] += folds or 0
            continue
        synops = counted.synops if form == "dense" else counted.synops_nonzero_w
        if counted.op == "AC":
            events[_kind(node)] += synops
        elif synops:
            what = f"{synops / counts.batch:g} synops per inference on graded or analog values at '{name}'"
            biller.miss(what, *bounds.graded(prices, synops))
    return events


def _folded(program: Program, counts: Counts) -> set[str]:
    """Return weighted nodes behind a sum pool of spikes alone; the chip folds that pool."""
    nodes = set()
    for name, counted in counts.weighted.items():
        node = program.by_name[name]
        if counted.op == "MAC" and isinstance(node, Linear | Conv | Scale):
            fold = fold_pools(program, node)
            if fold is not None and not fold.max_pool and counts.pools[fold.pool].op == "AC":
                nodes.add(name)
    return nodes


def _all_readers_in(program: Program, name: str, folded: set[str]) -> bool:
    """Return whether every reader of a pool, through reshapes and further pools, is a folded node."""

    def behind(at: str) -> list[str]:
        passes_on = at == name or isinstance(program.by_name[at], Reshape | Pool)
        return [reader.name for reader in program.readers[at]] if passes_on else []

    readers = [at for at in reachable([name], behind) if at != name]
    return bool(readers) and all(at in folded or isinstance(program.by_name[at], Reshape | Pool) for at in readers)


def _kind(node: Node) -> str:
    if isinstance(node, Scale):
        return "synop_one_to_one"
    return "synop_dense" if isinstance(node, Linear) else "synop_conv"
