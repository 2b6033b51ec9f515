"""The fast forms (floats, blocks, threads) against Lava's rules written out in integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stl_deploy.exporters.netx.convert import run_file
from stl_deploy.exporters.netx.layers import ConvLayer
from stl_deploy.integers import simulate as simulating
from stl_deploy.integers.net import IntegerNeuron
from stl_deploy.integers.step import exact_type, leak, step_through
from stl_deploy.integers.sums import adder
from tests.drawn import examples
from tests.exporters.netx.nets import neuron, random_case

TOP = 2**23


def lava_step(lif: IntegerNeuron, sums: NDArray[Any], bias: NDArray[Any]) -> NDArray[Any]:
    """``lava.proc.lif`` bit-accurate, in int64 except where Lava uses int32."""
    spikes = np.zeros(sums.shape, np.uint8)
    u = v = np.zeros(sums.shape[1:], np.int64)
    for t, a in enumerate(sums):
        u = (_towards(u, lif.i_decay) + (a.astype(np.int32) << 6)).astype(np.int32).astype(np.int64)
        u = np.where(u > TOP, u - 2 * TOP, np.where(u <= -TOP, u + 2 * TOP, u))
        v = np.clip(_towards(v, lif.v_decay) + u + (bias << 6), 1 - TOP, TOP - 1)
        spikes[t] = v > lif.threshold.astype(np.int64) << 6
        v = np.where(spikes[t], 0, v)
    return spikes


def _towards(state: NDArray[np.int64], decay: int) -> NDArray[np.int64]:
    product = state * (4096 - decay)
    left: NDArray[np.int64] = np.sign(product) * (np.abs(product) >> 12)
    return left


DECAYS = st.sampled_from([0, 1, 1024, 2048, 3072, 4095, 4096]) | st.integers(0, 4096)


@examples(100)
@given(
    seed=st.integers(0, 2**32 - 1),
    i_decay=st.just(4096) | DECAYS,
    v_decay=DECAYS,
    bits=st.sampled_from([3, 10, *range(14, 22), 24, 25, 31]),
    steps=st.integers(1, 30),
    threshold=st.integers(0, 2**17 - 1),
    biased=st.booleans(),
)
def test_the_step_in_floats_is_the_step_in_integers(
    seed: int, i_decay: int, v_decay: int, bits: int, steps: int, threshold: int, biased: bool
) -> None:
    rng = np.random.default_rng(seed)
    top = 2**bits - 1
    sums = rng.integers(-top, top, (steps, 3, 40), endpoint=True).astype(np.int32)
    special = [value for value in (-top, top, 0, 1, -(2**17), 2**17) if abs(value) <= top]
    sums = np.where(rng.random(sums.shape) < 0.5, sums, rng.choice(special, sums.shape)).astype(np.int32)
    bias = rng.integers(-4096, 4096, 40, dtype=np.int32) if biased else None
    lif = neuron(v_decay, rng.integers(0, threshold, 40, endpoint=True), i_decay)
    given = sums.astype(np.float32) if top < 2**24 else sums.copy()
    spikes = np.empty(sums.shape, np.uint8)
    step_through(lif, given, bias, spikes, bound=top)
    np.testing.assert_array_equal(spikes, lava_step(lif, sums, np.zeros(40, np.int32) if bias is None else bias))


def test_v_stops_at_its_limit_as_soon_as_it_could_reach_it() -> None:
    sums = np.array([-(2**16)] * 3 + [2**16] * 2, np.float32).reshape(5, 1, 1)
    spikes = np.empty((5, 1, 1), np.uint8)
    step_through(neuron(0, 0), sums, None, spikes, bound=2**16)
    assert spikes.reshape(-1).tolist() == [0, 0, 0, 0, 1]


@given(decay=DECAYS, v=st.lists(st.integers(1 - TOP, TOP - 1), min_size=1, max_size=50))
def test_what_is_left_of_v(decay: int, v: list[int]) -> None:
    near = np.array([w + step for w in v for step in (-1, 0, 1) if abs(w + step) < TOP], np.int64)
    kept = leak(near.astype(exact_type(neuron(decay, 0))), decay)
    np.testing.assert_array_equal(kept, _towards(near, decay))


@given(
    seed=st.integers(0, 2**32 - 1),
    groups=st.sampled_from([1, 2, 4]),
    outputs=st.integers(1, 3),
    inputs=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    largest=st.sampled_from([1, 7, 30_000, 2**20]),
)
def test_conv_sums_tap_by_tap(seed: int, groups: int, outputs: int, inputs: int, largest: int, **shape: Any) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-256, 255, (groups * outputs, inputs, *shape.pop("kernel")), dtype=np.int32, endpoint=True)
    layer = ConvLayer(
        weight=weight, input_shape=(groups * inputs, 7, 9), groups=groups, neuron=neuron(2048, 1), **shape
    )
    x = rng.integers(-largest, largest, (2, 3, *layer.input_shape), dtype=np.int32, endpoint=True)
    total = _taps(layer, x)
    np.testing.assert_array_equal(adder(layer, x)(x), (total + TOP) % (2 * TOP) - TOP)


def _taps(layer: ConvLayer, x: NDArray[Any]) -> NDArray[np.int64]:
    (pad_h, pad_w), (dil_h, dil_w), (step_h, step_w) = layer.padding, layer.dilation, layer.stride
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (0, 0), (pad_h, pad_h), (pad_w, pad_w)))
    total = np.zeros((*x.shape[:2], *layer.shape), np.int64)
    outputs, inputs = len(layer.weight) // layer.groups, layer.weight.shape[1]
    for out, channel, i, j in np.ndindex(layer.weight.shape):
        plane = padded[:, :, out // outputs * inputs + channel, i * dil_h :: step_h, j * dil_w :: step_w]
        total[:, :, out] += layer.weight[out, channel, i, j] * plane[:, :, : layer.shape[1], : layer.shape[2]]
    return total


@pytest.mark.parametrize("seed", range(2000, 2010))
def test_threads_and_chunks_change_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = random_case(seed)
    x = np.concatenate([x, np.roll(x, 1, axis=0), x], axis=1)
    whole = run_file(net, x, record=True)
    monkeypatch.setattr("stl_deploy.graph.threads.threads", lambda: 3)
    monkeypatch.setattr(simulating, "VALUES_AT_ONCE", 300)
    parts = run_file(net, x, record=True)
    assert whole.spikes.keys() == parts.spikes.keys()
    for key, spikes in whole.spikes.items():
        np.testing.assert_array_equal(parts.spikes[key], spikes)
    np.testing.assert_array_equal(whole.y, parts.y)
