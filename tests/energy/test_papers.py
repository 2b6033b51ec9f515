"""The published models held to their own algebra: what costs the same when, limits, and how terms scale.

Lemaire et al., arXiv 2210.13107; Dampfhoffer et al., IEEE TETCI 7(3):731, 2023; Yan et al., arXiv 2409.08290. Their
tables of results were not opened; their equations and claims that are quoted elsewhere are what is tested.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2

import numpy as np
import pytest

from stl_deploy.energy import load_prices, measure_energy
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.models import dataflow, lemaire
from stl_deploy.energy.models.conventions import IDEAL_REUSE, NO_REUSE
from stl_deploy.energy.models.dataflow import Dataflow
from stl_deploy.energy.models.layout import activation_bits
from stl_deploy.energy.models.ledger import Item, total
from stl_deploy.energy.models.what_if import scaled
from stl_deploy.energy.prices.price_list import Price, PriceList, sram_access, word_access
from stl_deploy.graph.program import Program
from tests.energy.close import approx
from tests.energy.nets import conv, f32, lif, linear, program, start

PJ = 1e-12
FP32, INT8 = load_prices("horowitz45_fp32"), load_prices("horowitz45_int8_acc32")


def dense(decay: float, inputs: int = 64, outputs: int = 48, steps: int = 16) -> tuple[Program, Counts]:
    """A fully connected layer of integrators or leaky neurons behind spiking inputs that fire once each."""
    net = program(
        start((inputs,)),
        lif("source", "in", (inputs,), decay=None),
        linear("w", "source", np.full((outputs, inputs), 1e-6)),
        lif("n", "w", (outputs,), decay=f32(decay)),
    )
    x = np.zeros((steps, 1, inputs), np.float32)
    x[np.arange(inputs) % steps, 0, np.arange(inputs)] = 2
    return net, measure_energy(net, x).counts


def of(items: tuple[Item, ...], *terms: str) -> float:
    return sum(item.joules[0] for item in items if item.term in terms)


def only(prices: PriceList, **terms: float) -> PriceList:
    """The list with every price 0 but these."""
    zero = {name: Price(0.0, 0.0, price.unit) for name, price in prices.terms.items()}
    return replace(prices, terms=zero | {name: Price(value, value, "J") for name, value in terms.items()})


# Lemaire et al.


@pytest.mark.parametrize(("size", "bits"), [(8192, 64), (8192, 32), (32768, 8), (1 << 20, 16)])
def test_lemaire_words_are_packed_into_64_bit_accesses(size: int, bits: int) -> None:
    assert word_access(FP32, bits, size)[0] == approx(sram_access(FP32, size)[0] / (64 // bits))


def test_lemaire_doubling_the_spikes_doubles_what_spikes_drive_and_nothing_else() -> None:
    net, counts = dense(0.9)
    one, two, none = (lemaire.snn(net, scaled(net, counts, rate=rate), FP32) for rate in (1, 2, 0))
    assert total(two)[0] - total(one)[0] == approx(total(one)[0] - total(none)[0])
    assert of(none, "synops", "addressing", "weight reads", "queue writes and reads") == 0
    # without a spike remain T x N_out potentials read and written, and the updates (eqs. 10, 11)
    reads = next(item for item in none if (item.layer, item.term) == ("w", "potential reads"))
    assert reads.count == 16 * 48


def test_lemaire_a_convolution_pays_two_macs_of_addressing_per_event() -> None:
    net = program(start((1, 6, 6)), conv("c", "in", np.ones((4, 1, 3, 3)), (1, 6, 6)), lif("n", "c", (4, 4, 4)))
    x = np.zeros((1, 1, 1, 6, 6), np.float32)
    x[0, 0, 0, 2, 2] = 1
    items = lemaire.snn(net, measure_energy(net, x).counts, only(FP32, mac=1.0))
    assert of(items, "addressing") == 2


# Dampfhoffer et al.


def crossing(decay: float, flow: Dataflow, ann_flow: Dataflow, active: float = 1.0) -> float:
    """Spikes per synapse and inference at which both sides cost the same, memory and operations."""
    net, counts = dense(decay)
    ann = total(dataflow.ann(net, counts, INT8, ann_flow, active=active))[0]
    still, once = (total(dataflow.snn(net, scaled(net, counts, rate=rate), INT8, flow))[0] for rate in (0, 1))
    return (ann - still) / (once - still)  # counted: one spike per synapse


def test_dampfhoffer_a_leak_leaves_less_room_for_spikes_than_integrate_and_fire() -> None:
    event_driven = Dataflow("per_event", "memory")
    integrate, leaky = (crossing(decay, event_driven, event_driven) for decay in (1.0, 0.9))
    assert leaky < integrate


def test_dampfhoffer_the_better_the_ann_reuses_and_skips_the_fewer_spikes_pay() -> None:
    event_driven = Dataflow("per_event", "memory")
    none = crossing(1.0, event_driven, NO_REUSE)
    ideal = crossing(1.0, event_driven, IDEAL_REUSE)
    skipping = crossing(1.0, event_driven, IDEAL_REUSE, active=0.3)
    assert skipping < ideal < none
    assert 0 < ideal < 1.72  # one spike per synapse costs a weight, two potentials and an add; a MAC less than twice it


def test_dampfhoffer_without_memory_the_break_even_is_mac_over_ac() -> None:
    net, counts = dense(1.0)
    arithmetic = only(INT8, mac=3.0, ac=1.0, mul=2.0)
    snn = of(dataflow.snn(net, counts, arithmetic, NO_REUSE), "synops")
    ann = of(dataflow.ann(net, counts, arithmetic, NO_REUSE), "MACs: multiply", "MACs: add")
    assert ann / snn == approx(3.0)  # so that MAC/AC spikes per synapse make both equal


# Yan et al.


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7, 8, 10, 15, 16, 100])
def test_yan_the_twin_has_as_many_levels_as_a_neuron_has_spike_counts(steps: int) -> None:
    bits = activation_bits(steps)
    assert bits == ceil(log2(steps + 1))
    assert 2 ** (bits - 1) < steps + 1 <= 2**bits


@pytest.mark.parametrize(("steps", "percent"), [(5, 7.5), (6, 6.25), (7, 5.357), (8, 6.25), (9, 5.556), (10, 5.0)])
def test_yan_comparing_weight_widths_alone_breaks_even_at_b_over_8t(steps: int, percent: float) -> None:
    # an SNN that reads an 8-bit weight per synop against a twin that reads b bits per MAC: s x T x 8 = b
    net, counts = dense(1.0, steps=steps)
    per_synapse = counts.weighted["w"].synops / counts.weighted["w"].synapses
    rate = activation_bits(steps) / 8 / steps
    assert 100 * rate == approx(percent, rel=1e-3)
    assert per_synapse == 1  # each input fires once: s = 1/T, which is where 8 bits on both sides break even
    weights = Dataflow("per_event", "registers")
    reads = [
        next(i.count for i in side(net, counts, INT8, weights) if (i.layer, i.term) == ("w", "weight reads"))
        for side in (dataflow.snn, dataflow.ann)
    ]
    assert reads[0] == reads[1]


def test_yan_a_narrower_twin_multiplies_for_less_and_adds_for_the_same() -> None:
    net, counts = dense(1.0)
    wide, narrow = (dataflow.ann(net, counts, INT8, IDEAL_REUSE, bits=bits) for bits in (8, 2))
    assert of(narrow, "MACs: multiply") == approx(of(wide, "MACs: multiply") / 4)
    assert of(narrow, "MACs: add") == of(wide, "MACs: add")
    assert of(narrow, "input reads") < of(wide, "input reads")


# Limits that hold for all of them


@pytest.mark.parametrize("flow", [NO_REUSE, IDEAL_REUSE, Dataflow("per_step", "registers")])
def test_more_steps_at_the_same_rate_cost_in_proportion_or_less(flow: Dataflow) -> None:
    net, counts = dense(0.9)
    once, twice = (total(dataflow.snn(net, scaled(net, counts, steps=t), INT8, flow))[0] for t in (16, 32))
    assert once < twice <= 2 * once * (1 + 1e-9)


def test_per_step_lies_between_per_inference_and_per_event() -> None:
    net, counts = dense(0.9)
    counts = scaled(net, counts, rate=8)  # each weight is used eight times
    for sums in ("memory", "registers"):
        costs = [
            total(dataflow.snn(net, counts, INT8, Dataflow(fetch, sums)))[0]  # type: ignore[arg-type]
            for fetch in ("per_inference", "per_step", "per_event")
        ]
        assert costs == sorted(costs)
