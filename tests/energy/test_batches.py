"""Numbers of one inference: a batch and the same batch eight times give the same ones, whatever the nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.energy import measure_energy
from stl_deploy.energy.models.dataflow import DATAFLOWS, snn
from stl_deploy.energy.models.equivalent import folded_for_pricing
from stl_deploy.energy.models.grid import QUOTED_PRICE
from stl_deploy.energy.models.ledger import total
from stl_deploy.energy.prices.load import load_prices
from stl_deploy.energy.prices.price_list import middle
from stl_deploy.graph.program import Input, MaxPool, Operand, Program, Reshape, Scale
from tests.energy.close import approx
from tests.energy.nets import conv, f32, inputs, lif, linear, program, programs, start
from tests.energy.test_products import B, D, N, T, attention

OF_THE_BATCH = ("layers", "totals", "batch")
"""Sums over the samples; every other number is of one inference."""


def numbers(data: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from numbers(value, f"{path}/{key}")
    elif isinstance(data, list | tuple):
        for place, value in enumerate(data):
            yield from numbers(value, f"{path}/{place}")
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield path, float(data)


def of_one_inference(net: Program, x: Any) -> dict[str, float]:
    data = measure_energy(net, x, input_coding="analog").as_dict()
    return dict(numbers({key: value for key, value in data.items() if key not in OF_THE_BATCH}))


def same(net: Program, x: np.ndarray) -> None:
    once, often = of_one_inference(net, x), of_one_inference(net, np.concatenate([x] * 8, axis=1))
    assert once.keys() == often.keys()
    different = {key: (value, often[key]) for key, value in once.items() if often[key] != approx(value)}
    assert not different


@given(st.data())
def test_a_batch_eight_times_costs_the_same_an_inference(data: st.DataObject) -> None:
    net = data.draw(programs())
    x = data.draw(inputs(net))
    same(net, np.concatenate([x, x], axis=1))  # of a single sample no layer is called saturated


def test_products_and_max_pools_of_currents_do_too() -> None:
    rng = np.random.default_rng(0)
    same(attention(), rng.choice(f32([0, 1]), (T, B, N, D)))
    pooled = MaxPool(
        name="m",
        shape=(4, 6, 6),
        operands=(Operand("c"),),
        kernel=(2, 2),
        stride=(2, 2),
        padding=((0, 0),) * 2,
        input_shape=(4, 12, 12),
    )
    net = program(
        start((1, 14, 14)),
        conv("c", "in", rng.normal(size=(4, 1, 3, 3)), (1, 14, 14)),
        pooled,
        lif("n", "m", (4, 6, 6)),
        Reshape(name="flat", shape=(144,), operands=(Operand("n"),), input_shape=(4, 6, 6)),
        linear("l", "flat", rng.normal(size=(10, 144))),
        lif("o", "l", (10,)),
    )
    same(net, f32(rng.random((10, 2, 1, 14, 14))))


def priced(net: Program, x: np.ndarray) -> list[float]:
    """Joules of the SNN under every dataflow at the quoted prices."""
    folded = folded_for_pricing(net, measure_energy(net, x, input_coding="analog").counts)
    prices = load_prices(QUOTED_PRICE)
    return [middle(total(snn(*folded, prices, flow))) for flow in DATAFLOWS]


def weights(*shape: int) -> st.SearchStrategy[np.ndarray]:
    sizes = st.lists(st.sampled_from([-1.0, 0.5, 1.0]), min_size=prod(shape), max_size=prod(shape))
    return sizes.map(lambda values: f32(values).reshape(shape))


@given(st.data())
def test_a_batch_costs_the_mean_of_its_samples(data: st.DataObject) -> None:
    steps, size = data.draw(st.integers(2, 4)), 5
    net = program(
        start((size,)),
        linear("first", "in", data.draw(weights(3, size)), bias=[1.0, 0.0, 1.0]),
        lif("n", "first", (3,)),
        linear("last", "n", data.draw(weights(2, 3))),
        lif("o", "last", (2,)),
    )
    still = st.lists(st.booleans(), min_size=1, max_size=4)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    samples = []
    for is_still in data.draw(still):
        sample = f32(rng.integers(0, 2, (steps, 1, size)))
        samples.append(np.repeat(sample[:1], steps, axis=0) if is_still else sample)
    apart = [priced(net, sample) for sample in samples]
    assert priced(net, np.concatenate(samples, axis=1)) == approx(np.mean(apart, axis=0))


def test_an_input_that_moves_leaves_the_price_of_the_layer_behind_another() -> None:
    second = Input(name="other", shape=(4,), operands=())
    nodes = [start((6,)), second, linear("a", "in", np.ones((3, 6))), linear("b", "other", np.ones((3, 4)))]
    both = replace(lif("n", "a", (3,)), operands=(Operand("a"), Operand("b")))
    net = program(*nodes, both)
    image = np.ones((5, 1, 6), np.float32)
    events = np.zeros((5, 1, 4), np.float32)
    events[2] = 1
    counts = {
        name: measure_energy(net, {"in": image, "other": other}).counts.at_one_step().weighted["a"].synops
        for name, other in {"moves": events, "rests": np.zeros_like(events)}.items()
    }
    assert counts == {"moves": 18, "rests": 18}


def test_a_broadcast_scale_fetches_no_more_than_its_weights() -> None:
    scaled = Scale(name="s", shape=(2, 3, 3), operands=(Operand("in"),), scale=f32([[[0.5]], [[2.0]]]))
    net = program(start((2, 3, 3)), scaled, lif("n", "s", (2, 3, 3)))
    x = np.ones((4, 3, 2, 3, 3), np.float32)
    x[0, :, 0] = 0
    fetched = measure_energy(net, x, input_coding="analog").counts.weighted["s"].fetched
    assert (fetched.per_step, fetched.per_inference) == (3 * (1 + 2 + 2 + 2), 3 * 2)
    assert (fetched.nonzero_per_step, fetched.nonzero_per_inference) == (3 * (1 + 2 + 2 + 2), 3 * 2)


def test_a_queue_is_written_once_whoever_reads_it_first() -> None:
    firing = replace(lif("n", "l", (3,)), operands=(Operand("l"), Operand("rec", 1)))
    rec, out = linear("rec", "n", np.ones((3, 3))), linear("ro", "n", np.ones((2, 3)))
    counted = []
    for readers in ((rec, out), (out, rec)):
        nodes = (start((4,)), linear("l", "in", np.ones((3, 4))), firing, *readers, lif("o", "ro", (2,)))
        report = measure_energy(program(*nodes), np.ones((5, 1, 4), np.float32)).as_dict()
        items = report["itemised"]["streaming"]["snn"]
        counted.append(sum(item["count"] for item in items if item["term"].startswith("queue")))
    written, read_by_rec, read_by_out = 15, 12, 15
    assert counted == [20 + written + read_by_rec + read_by_out] * 2


def test_the_energy_by_layer_is_of_the_dataflow_that_leads() -> None:
    net = program(start((6,)), linear("w", "in", np.ones((3, 6))), lif("n", "w", (3,)))
    image = np.ones((5, 1, 6), np.float32)
    stream = image.copy()
    stream[1] = 0
    for x, quoted in ((image, "quoted_layer_by_layer"), (stream, "quoted")):
        data = measure_energy(net, x).as_dict()
        joules = data[quoted]["snn_J"]
        assert sum(row["snn_J"] for row in data["by_layer"]) == approx(joules)
    assert data["quoted"]["snn_J"] != approx(data["quoted_layer_by_layer"]["snn_J"])


def test_one_sample_that_moves_leaves_layer_by_layer_in_the_lead() -> None:
    net = program(start((6,)), linear("w", "in", np.ones((3, 6))), lif("n", "w", (3,)))
    images = np.ones((5, 3, 6), np.float32)
    images[2:, 0] = 0
    assert measure_energy(net, images).as_dict()["leads"] == "layer_by_layer"
