"""Knobs against counts of other runs where proportion is exact, and break-even under the memory models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stl_deploy.energy import load_prices, measure_energy
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.models import dataflow
from stl_deploy.energy.models.ledger import total
from stl_deploy.energy.models.what_if import highest_rate, scaled, with_bits
from stl_deploy.errors import ConfigError
from stl_deploy.graph.program import Program
from tests.energy.close import approx
from tests.energy.nets import f32, lif, linear, pool, program, start

PJ = 1e-12


def net() -> Program:
    return program(
        start((2,)),
        linear("a", "in", np.ones((3, 2)), bias=np.zeros(3)),
        lif("hidden", "a", (3,)),
        linear("b", "hidden", np.ones((2, 3))),
        lif("out_", "b", (2,)),
    )


X = f32([[[1, 0]], [[0, 0]]])


def test_repeating_the_input_is_more_steps() -> None:
    net_, twice = net(), np.concatenate([X, X])
    counts = measure_energy(net_, X).counts
    assert scaled(net_, counts, steps=4) == measure_energy(net_, twice).counts


def test_the_rate_leaves_the_first_layer_and_the_neurons_alone() -> None:
    counts = measure_energy(net(), X).counts
    half = scaled(net(), counts, rate=0.5)
    assert half.weighted["a"] == counts.weighted["a"]
    assert half.weighted["b"].synops == 3
    assert half.neurons["hidden"].neuron_updates == counts.neurons["hidden"].neuron_updates
    assert half.totals.ann_macs_exact == counts.totals.ann_macs_exact


def test_a_pool_of_the_input_does_not_follow_the_rate() -> None:
    pooled = program(
        start((1, 4, 4)),
        pool("p", "in", (1, 4, 4)),
        lif("n", "p", (1, 2, 2)),
        pool("q", "n", (1, 2, 2)),
        lif("m", "q", (1, 1, 1)),
    )
    counts = measure_energy(pooled, np.ones((1, 1, 1, 4, 4), np.float32)).counts
    half = scaled(pooled, counts, rate=0.5)
    assert (half.pools["p"].synops, half.pools["q"].synops) == (16, 2)


def test_weight_bits_change_multiplies_and_weight_words_only() -> None:
    prices = with_bits(load_prices("horowitz45_int8_acc32"), 4)
    assert prices.terms["mac"].low == approx((0.1 + 0.1) * PJ)
    assert prices.terms["ac"].low == approx(0.1 * PJ)
    assert (prices.weight_bits, prices.accumulator_bits) == (4, 32)
    same = with_bits(load_prices("horowitz45_int8_acc32"), 8)
    assert same.terms["mac"].low == approx(load_prices("horowitz45_int8_acc32").terms["mac"].low)


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"rate": -1.0}, r"rate: expected 0 to 2 times the counted one .*; found -1"),
        ({"rate": 2.1}, r"expected 0 to 2 times .*one spike per step\); found 2.1"),
        ({"rate": float("nan")}, r"rate: .*; found nan"),
        ({"steps": 0}, r"time steps: expected an integer from 1 up; found 0"),
    ],
)
def test_knobs_out_of_range(knobs: dict[str, float], sentence: str) -> None:
    counts = measure_energy(net(), X).counts
    with pytest.raises(ConfigError, match=sentence):
        scaled(net(), counts, **knobs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prices", "bits", "sentence"),
    [
        ("horowitz45_int8_acc32", 0, r"weight bits: expected an integer from 1 to 64; found 0"),
        ("horowitz45_int8_acc32", 7.5, r"weight bits: .*; found 7.5"),
        ("horowitz45_fp32", 8, r"found 'horowitz45_fp32', of floats"),
    ],
)
def test_weight_bits_out_of_range(prices: str, bits: float, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        with_bits(load_prices(prices), bits)  # type: ignore[arg-type]


@pytest.mark.parametrize("decay", [0.5, 1.0])  # the second: integrators, whose states are touched where input arrives
def test_at_the_break_even_rate_both_sides_cost_the_same_with_memory(decay: float) -> None:
    weight = np.zeros((8, 4))
    weight[0] = 1
    quiet = program(
        start((4,)),
        linear("a", "in", weight),
        lif("n", "a", (8,), decay=decay),
        linear("b", "n", np.full((90, 8), 0.1)),
        lif("m", "b", (90,), decay=decay),
    )
    x = np.zeros((8, 1, 4), np.float32)
    x[0, 0, 0] = 1
    report = measure_energy(quiet, x)
    most = highest_rate(report.counts)
    solved = 0
    for even in report.break_even.models:
        if even.flow is None or even.scale is None or not even.scale[0] or even.scale[1] * most >= 1:
            continue
        prices = load_prices(even.price)
        dense = total(dataflow.ann(quiet, report.counts, prices, even.flow))
        # counts far larger, so that rounding them to whole events decides nothing
        counts = [scaled(quiet, large(report.counts), rate=scale) for scale in even.scale]
        for end in (0, 1):
            costs = [total(dataflow.snn(quiet, c, prices, even.flow))[end] for c in counts]
            assert min(abs(cost / dense[end] - 1) for cost in costs) < 1e-4
        solved += 1
    assert solved >= 3


def test_what_the_input_or_a_bias_touches_does_not_follow_the_rate() -> None:
    biased = program(
        start((2,)),
        linear("a", "in", np.ones((3, 2))),
        lif("n", "a", (3,)),
        linear("b", "n", np.ones((2, 3))),
        lif("m", "b", (2,)),
        linear("c", "m", np.ones((2, 2)), bias=np.ones(2)),
        lif("k", "c", (2,)),
    )
    counts = measure_energy(biased, X).counts
    half = scaled(biased, counts, rate=0.5)
    touched = {name: c.neuron_updates_touched for name, c in half.neurons.items()}
    assert {name: c.neuron_updates_touched for name, c in counts.neurons.items()} == {"n": 3, "m": 2, "k": 4}
    assert touched == {"n": 3, "m": 1, "k": 4}


def large(counts: Counts) -> Counts:
    """A million times the samples."""
    times = 10**6

    def times_(group: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: replace(c, **{key: getattr(c, key) * times for key in SUMMED & set(vars(c))})
            for name, c in group.items()
        }

    grown = {name: times_(getattr(counts, name)) for name in ("weighted", "pools", "neurons")}
    for name, c in grown["weighted"].items():
        met = {key: count * times for key, count in vars(c.fetched).items()}
        grown["weighted"][name] = replace(c, fetched=replace(c.fetched, **met))
    return replace(counts, batch=counts.batch * times, **grown)


SUMMED = {
    "in_nonzero",
    "synops",
    "synops_nonzero_w",
    "dense_macs_exact",
    "dense_macs_nominal",
    "bias_adds",
    "neuron_updates",
    "neuron_updates_touched",
    "spikes",
    "events",
}
