"""Estimate the same network with other spike rates, time steps or weight bits.

Every count is carried over in proportion, so these are estimates: rates per step stay as counted when T
changes, and accuracy is not looked at. Counts of another run are exact; these are not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeVar

from stl_deploy.energy.counts.reads import driven_by_input
from stl_deploy.energy.counts.record import (
    Counts,
    Fetched,
    MaxPoolCounts,
    NeuronCounts,
    Population,
    ProductCounts,
    Repeating,
    TapCounts,
    populations,
)
from stl_deploy.energy.counts.taps import bias_of
from stl_deploy.energy.models.layout import Synapses, synapses
from stl_deploy.energy.prices.price_list import MAX_BITS, Price, PriceList
from stl_deploy.errors import ConfigError
from stl_deploy.graph.program import Program, feeders

C = TypeVar("C", TapCounts, NeuronCounts, MaxPoolCounts, ProductCounts, Repeating)


def with_bits(prices: PriceList, bits: int) -> PriceList:
    """Return the list for integer weights of ``bits``: memory and multiplies proportional, adds unchanged."""
    if prices.numbers == "float":
        raise ConfigError(
            f"weight bits: expected a price list of integers; found '{prices.name}', of floats; take another list"
        )
    if type(bits) is not int or not 1 <= bits <= MAX_BITS:
        raise ConfigError(f"weight bits: expected an integer from 1 to {MAX_BITS}; found {bits!r}")
    share = bits / prices.weight_bits
    mul, ac = prices.terms["mul"], prices.terms["ac"]
    times = mul.times(share)
    mac = Price(times.low + ac.low, times.high + ac.high, mul.unit)
    return replace(prices, weight_bits=bits, terms={**prices.terms, "mul": times, "mac": mac})


def scaled(program: Program, counts: Counts, *, rate: float = 1.0, steps: int | None = None) -> Counts:
    """Scale the counts: spike-driven ones by ``rate``, everything per step by steps/T.

    Layers before the first neurons see the input, which the rate of spikes inside the network does not change; nor does
    it change how often a neuron is touched that the input alone feeds, or a bias at every step.
    """
    if steps is not None and (type(steps) is not int or steps < 1):
        raise ConfigError(f"time steps: expected an integer from 1 up; found {steps!r}")
    most = highest_rate(counts)
    if not rate >= 0 or rate * most > 1:
        highest = "any" if not most else f"0 to {1 / most:.3g}"
        raise ConfigError(
            f"rate: expected {highest} times the counted one (at most one spike per step); found {rate:g}"
        )
    time = (steps or counts.T) / counts.T
    driven = driven_by_input(program)

    def each(layers: Mapping[str, C]) -> dict[str, C]:
        return {name: _grown(c, 1.0 if name in driven else rate, time) for name, c in layers.items()}

    touching = {n.name: 1.0 if _always_touched(program, n, driven) else rate for n in populations(program)}
    return replace(
        counts,
        T=steps or counts.T,
        arriving={},
        weighted={
            layer.name: _layer(layer, counts, 1.0 if layer.name in driven else rate, time)
            for layer in synapses(program)
        },
        pools=each(counts.pools),
        maxima=each(counts.maxima),
        products=each(counts.products),
        neurons={name: _neurons(c, rate, time, touching[name]) for name, c in counts.neurons.items()},
        repeating=each(counts.repeating),
    )


def highest_rate(counts: Counts) -> float:
    """Return the events per update of the neuron node that sends most: at most one."""
    return max((c.events / c.neuron_updates for c in counts.neurons.values() if c.spikes), default=0.0)


def _always_touched(program: Program, node: Population, driven: Collection[str]) -> bool:
    """Return whether the input alone reaches a neuron node, or a bias reaches all of it."""
    fed = feeders(program, node)
    biases = (bias_of(program.by_name[before]) for before in fed)
    return fed <= {*driven} or any(bias is not None and bool(bias.all()) for bias in biases)


_OF_EVENTS = (
    "in_nonzero",
    "synops",
    "synops_nonzero_w",
    "synops_pool_folded",
    "folded_nonzero_w",
    "spikes_carried",
    "spikes",
    "events",
)
_OF_STEPS = (
    "dense_macs_exact",
    "dense_macs_nominal",
    "bias_adds",
    "neuron_updates",
    "neuron_updates_touched",
    "values_read",
    "values_written",
    "max_compares",
)


def _grown(counted: C, rate: float, time: float) -> C:
    """Scale the counts of a node: events by the spikes and the steps, work at every step by the steps.

    A product of two signals grows as if the spikes of one changed.
    """
    factors = dict.fromkeys(_OF_EVENTS, rate * time) | dict.fromkeys(_OF_STEPS, time)
    known = {key: count for key, count in vars(counted).items() if key in factors and count is not None}
    return replace(counted, **{key: count * factors[key] for key, count in known.items()})


def _layer(layer: Synapses, counts: Counts, rate: float, time: float) -> TapCounts:
    """Scale the counts of a weighted layer; the weights that it fetches grow until it fetches all of them.

    An inference meets as many in any number of steps.
    """
    counted = counts.weighted[layer.name]
    met, steps = counted.fetched, counts.T * time
    fetched = Fetched(
        per_step=min(met.per_step * rate * time, layer.weights * steps * counts.batch),
        nonzero_per_step=min(met.nonzero_per_step * rate * time, layer.nonzero * steps * counts.batch),
        per_inference=min(met.per_inference * rate, layer.weights * counts.batch),
        nonzero_per_inference=min(met.nonzero_per_inference * rate, layer.nonzero * counts.batch),
    )
    return replace(_grown(counted, rate, time), fetched=fetched)


def _neurons(c: NeuronCounts, rate: float, time: float, touching: float) -> NeuronCounts:
    touched = min(c.neuron_updates, c.neuron_updates_touched * touching)
    return _grown(replace(c, neuron_updates_touched=touched), rate, time)
