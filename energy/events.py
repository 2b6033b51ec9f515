"""Event-driven chips: a price for each synaptic event, neuron update, spike and message.

Rules after Davies et al. 2018 (active and inactive updates), SANA-FE (every neuron accessed at every
step, updated where input arrived; synapses dense, sparse or convolutional) and Ostrau et al. 2022
(a neuron kept for one step of 1 ms). Only spikes are events: a layer that is fed analog or graded
values has no price on such a chip, unless a sum pool in front of it folds into its addressing.
"""

from __future__ import annotations

from stl_deploy.energy.bill import Bill, Biller
from stl_deploy.energy.counts import Counts, TapCounts
from stl_deploy.energy.fold_pool import fold_pools
from stl_deploy.energy.pricelist import PriceList
from stl_deploy.graph.program import Conv, Linear, Node, Pool, Program, Reshape, Scale

_DENSE, _CONV = ("synop_dense", "synop"), ("synop_conv", "synop")
_ONE_TO_ONE = ("synop_one_to_one", "synop_sparse", "synop")
_KINDS = (_DENSE, _CONV, _ONE_TO_ONE)
"""Which price a node's events are charged at: the first of these that the list has."""
_MAPPED = {
    "message_out": "messages: one for each spike and destination core, and no placement is known",
    "hop_ew": "hops between cores: no placement is known",
}


def event_bill(program: Program, counts: Counts, prices: PriceList) -> Bill:
    """Energy of one inference in events; terms that need a placement are named as unpriced."""
    biller = Biller(prices, counts.batch)
    _synops(program, counts, biller)
    if "neuron_active" in prices.terms or "neuron_access" in prices.terms or "neuron_ms" in prices.terms:
        _updates(counts, prices, biller)
    else:
        biller.miss(f"{counts.totals.neuron_updates / counts.batch:g} neuron updates per inference")
    for term in ("spike", "spike_out", "spike_in_tile"):
        if term in prices.terms:
            biller.add(term, "spikes", counts.totals.spikes)
    for term, why in _MAPPED.items():
        if term in prices.terms:
            biller.miss(why)
    return biller.bill()


def _updates(counts: Counts, prices: PriceList, biller: Biller) -> None:
    updates, touched = counts.totals.neuron_updates, counts.totals.neuron_updates_touched
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


def _synops(program: Program, counts: Counts, biller: Biller) -> None:
    taps = {**counts.weighted, **counts.pools}
    folded = _folded(program, counts)
    dissolved = {name for name in counts.pools if _all_readers_in(program, name, folded)}
    events = dict.fromkeys(_KINDS, 0)
    for name, counted in taps.items():
        node = program.by_name[name]
        if name in dissolved:
            continue
        if name in folded:
            events[_kind(node)] += counted.synops_pool_folded or 0
        elif counted.op == "AC":
            events[_kind(node)] += counted.synops
        elif counted.synops:
            biller.miss(
                f"{counted.synops / counts.batch:g} synops per inference on graded or analog values at '{name}'"
            )
    for (term, *instead), count in events.items():
        if count:
            biller.add(term, "synaptic events", count, instead=instead)


def _folded(program: Program, counts: Counts) -> set[str]:
    """Weighted nodes fed graded values by a sum pool of spikes alone: the chip folds that pool."""
    found = set()
    for name, counted in counts.weighted.items():
        node = program.by_name[name]
        if counted.op == "MAC" and isinstance(node, Linear | Conv | Scale):
            fold = fold_pools(program, node)
            if fold is not None and not fold.max_pool and _binary(counts.pools[fold.pool]):
                found.add(name)
    return found


def _binary(counted: TapCounts) -> bool:
    return counted.op == "AC"


def _all_readers_in(program: Program, name: str, folded: set[str]) -> bool:
    """Whether every reader of a pool, through reshapes and further pools, is a folded node."""
    waiting = list(program.readers[name])
    if not waiting:
        return False
    while waiting:
        reader = waiting.pop()
        if isinstance(reader, Reshape | Pool):
            waiting.extend(program.readers[reader.name])
        elif reader.name not in folded:
            return False
    return True


def _kind(node: Node) -> tuple[str, ...]:
    if isinstance(node, Scale):
        return _ONE_TO_ONE
    return _DENSE if isinstance(node, Linear) else _CONV
