"""Numbers of one inference: a batch and the same batch eight times give the same ones, whatever the nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.energy import measure_energy
from stl_deploy.graph.program import MaxPool, Operand, Program, Reshape
from tests.energy.close import approx
from tests.energy.nets import conv, f32, inputs, lif, linear, program, programs, start
from tests.energy.test_products import B, D, N, T, attention

OF_ONE_INFERENCE = (
    "energy",
    "comparisons",
    "quoted",
    "quoted_layer_by_layer",
    "itemised",
    "sensitivity",
    "conventions",
    "models",
    "by_layer",
    "chips",
    "neurobench",
)
"""Break-even and what-if are left out: they scale the counts of the whole batch and round them to events."""


def numbers(data: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from numbers(value, f"{path}/{key}")
    elif isinstance(data, list | tuple):
        for place, value in enumerate(data):
            yield from numbers(value, f"{path}/{place}")
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield path, float(data)


def of_one_inference(net: Program, x: np.ndarray) -> dict[str, float]:
    data = measure_energy(net, x, input_coding="analog").as_dict()
    return dict(numbers({key: data[key] for key in OF_ONE_INFERENCE}))


def same(net: Program, x: np.ndarray) -> None:
    once, often = of_one_inference(net, x), of_one_inference(net, np.concatenate([x] * 8, axis=1))
    assert once.keys() == often.keys()
    assert list(once.values()) == approx(list(often.values()))


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
