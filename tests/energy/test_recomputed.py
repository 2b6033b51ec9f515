"""The quoted joules once more, by numpy on weights, spikes and published prices alone, for batches of 1 and 16."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stl_deploy as stl
from benchmarks import frontiers
from stl_deploy.energy import measure_energy
from stl_deploy.energy.models.frontier import ann_joules_of_counts
from stl_deploy.energy.models.grid import quoted
from stl_deploy.energy.prices.price_list import middle
from stl_deploy.graph.program import MaxPool, Neuron, Operand, Pool, Program, Reshape
from tests.energy.nets import conv, f32, linear, program, start

Array = Any
AC, MAC, MUL, ADD, MUL_STATE, SHIFT = 0.1, 0.3, 0.2, 0.1, 3.1, 0.05
"""Picojoules at 45 nm, of 8-bit weights and 32-bit sums; a shift is between wiring and an addition."""
LEAK = MUL_STATE * 12 / 32
"""A 32-bit state times a decay of 12 bits."""
T, WEIGHT, STATE = 6, 8, 32
SOFT, HALF = 0.8, 0.5


def word(bits: int, values: float) -> float:
    """One of so many packed words, of a memory between 8 KB, 32 KB and 1 MB."""
    size = ceil(values * bits / 8)
    return float(np.interp(size, [0, 2**13, 2**15, 2**20], [0, 10, 20, 100])) * bits / 64


def address(places: int) -> int:
    return max(1, ceil(np.log2(places)))


class Ledger:
    """Picojoules of all samples of a batch, for weights that are fetched once per inference or once per step."""

    def __init__(self, *, once: bool) -> None:
        self.once, self.pj = once, 0.0

    def layer(
        self, weights: int, events: Array, reached: Array, *, accesses: int, bias: int, loop: bool = False
    ) -> None:
        """Charge a layer. events: ``[T, B, ...]``; reached: weights that they meet, ``[T, B, synapse]``."""
        samples, inputs, once = events.shape[1], int(np.prod(events.shape[2:])), self.once and not loop
        self.pj += float(reached.sum()) * AC
        met = (reached > 0).any(0) if once else reached > 0
        self.pj += met.sum() * word(WEIGHT, weights)
        passes = samples if once else samples * T
        outputs, biases = (bias, bias) if np.ndim(bias) == 0 else bias
        self.pj += outputs * T * samples * ADD + min(outputs * T * samples, biases * passes) * word(STATE, biases)
        bits = address(inputs)
        self.pj += accesses * float(events.sum()) * word(bits, inputs * (T if once else 1))

    def neurons(self, spikes: Array, decay: float, *, soft: bool, loop: bool = False) -> None:
        """Charge a leak, the sum, the comparison, a subtraction for each spike, and the states."""
        updates, each = spikes.size, int(np.prod(spikes.shape[2:]))
        self.pj += updates * ((SHIFT if decay == HALF else LEAK) + 2 * ADD) + (float(spikes.sum()) * ADD if soft else 0)
        if not self.once or loop:
            self.pj += 2 * updates * word(STATE, each)


def dense_ann(
    weights: int, macs: float, inputs: int, outputs: int, biases: int, *, writes: int = 1, bits: int = WEIGHT
) -> float:
    """One dense pass of a layer. writes: whether its outputs are written, once for layers of the same sums."""
    pj = macs * (MUL + AC) + weights * word(bits, weights) + (outputs * ADD if biases else 0)
    pj += biases * word(STATE, biases) + inputs * word(WEIGHT, inputs)
    return pj + writes * outputs * word(WEIGHT, outputs)


def relus(neurons: int) -> float:
    """A comparison each, and a multiply, a shift and a clip to 8 bits."""
    return neurons * (ADD + MUL_STATE + SHIFT + ADD)


def meets(events: Array, outputs: int) -> Array:
    """Synapses of a dense layer that each input's event crosses, ``[T, B, in · out]``."""
    return np.repeat(events, outputs, axis=2)


def fire(currents: Callable[[int, Array], Array], shape: tuple[int, ...], decay: float, *, soft: bool) -> Array:
    """Spikes ``[T, B, ...]`` of leaky neurons at threshold 1. currents: of a step, given the spikes of the last one."""
    v, s, found = np.zeros(shape, np.float32), np.zeros(shape, np.float32), []
    for t in range(T):
        v = np.float32(decay) * v + currents(t, s)
        s = (v >= 1).astype(np.float32)
        v = v - s if soft else v * (1 - s)
        found.append(s)
    return np.stack(found)


def neuron(name: str, shape: tuple[int, ...], *sources: Operand) -> Neuron:
    return Neuron(
        name=name, shape=shape, operands=sources, decay=f32(HALF), threshold=f32(1), compare="ge", v_reset=f32(0)
    )


def drawn(*shape: int) -> Array:
    return f32(np.random.default_rng(sum(shape)).normal(0.2, 0.6, shape))


def binary(batch: int, *shape: int) -> Array:
    return (np.random.default_rng(batch).random((T, batch, *shape)) < 0.4).astype(np.float32)


Made = tuple[Program, Array, Callable[[bool], float], float]


def pooled(batch: int) -> Made:
    """A convolution, a max pool of its currents, neurons, a dense layer."""
    w, b, out = drawn(3, 2, 3, 3), drawn(3), drawn(4, 12)
    images = binary(batch, 2, 6, 6)
    net = program(
        start((2, 6, 6)),
        conv("c", "in", w, (2, 6, 6), bias=b),
        MaxPool(
            name="m",
            shape=(3, 2, 2),
            operands=(Operand("c"),),
            kernel=(2, 2),
            stride=(2, 2),
            padding=((0, 0), (0, 0)),
            input_shape=(3, 4, 4),
        ),
        neuron("n", (3, 2, 2), Operand("m")),
        _flat("n", (3, 2, 2)),
        linear("d", "flat", out),
    )
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(3, 4))  # [T, B, C, 4, 4, 3, 3]
    currents = np.einsum("tbchwij,ocij->tbohw", windows, w, optimize=True) + b[:, None, None]
    maxima = currents.reshape(T, batch, 3, 2, 2, 2, 2).max((4, 6)).astype(np.float32)
    spikes = fire(lambda t, _: maxima[t], maxima.shape[1:], HALF, soft=False)
    crossed = windows.sum((3, 4)).reshape(T, batch, -1)  # by input channel and place of the kernel

    def snn(once: bool) -> float:
        ledger = Ledger(once=once)
        ledger.layer(w.size, images, np.repeat(crossed, 3, axis=2), accesses=1, bias=(48, 3))
        each = T * batch
        ledger.pj += each * (12 * 3 * ADD + 2 * 48 * word(STATE, 48))
        ledger.neurons(spikes, HALF, soft=False)
        flat = spikes.reshape(T, batch, 12)
        ledger.layer(out.size, flat, meets(flat, 4), accesses=2, bias=0)
        return ledger.pj

    ann = dense_ann(w.size, 54 * 16, 72, 48, 3) + relus(12)
    ann += 12 * 3 * ADD + 48 * word(WEIGHT, 48) + 12 * word(WEIGHT, 12)
    return net, images, snn, ann + dense_ann(out.size, 48, 12, 4, 0)


def _flat(source: str, shape: tuple[int, ...]) -> Any:
    return Reshape(name="flat", shape=(int(np.prod(shape)),), operands=(Operand(source),), input_shape=shape)


def recurrent(batch: int) -> Made:
    """Ten inputs, seven neurons that read their own last spikes, four outputs."""
    w, own, out = drawn(7, 10), drawn(7, 7) - 0.3, drawn(4, 7)
    x = binary(batch, 10)
    net = program(
        start((10,)),
        linear("a", "in", w),
        linear("r", "n", own, delay=1),
        neuron("n", (7,), Operand("a"), Operand("r")),
        linear("d", "n", out),
    )
    spikes = fire(lambda t, s: x[t] @ w.T + s @ own.T, (batch, 7), HALF, soft=False)

    def snn(once: bool) -> float:
        ledger = Ledger(once=once)
        ledger.layer(w.size, x, meets(x, 7), accesses=1, bias=0)
        ledger.layer(own.size, spikes[:-1], meets(spikes[:-1], 7), accesses=1, bias=0, loop=True)
        ledger.neurons(spikes, HALF, soft=False, loop=True)
        ledger.layer(out.size, spikes, meets(spikes, 4), accesses=2, bias=0)
        return ledger.pj

    ann = dense_ann(70, 70, 10, 7, 0) + dense_ann(49, 49, 7, 7, 0, writes=0) + relus(7) + dense_ann(28, 28, 7, 4, 0)
    return net, x, snn, ann


def residual(batch: int) -> Made:
    """Two populations of eight; the second reads the first's spikes through a layer and beside it."""
    w, inner, b, out = drawn(8, 10), drawn(8, 8), drawn(8), drawn(3, 8)
    x = binary(batch, 10)
    net = program(
        start((10,)),
        linear("a", "in", w),
        neuron("n", (8,), Operand("a")),
        linear("i", "n", inner, bias=b),
        neuron("m", (8,), Operand("i"), Operand("n")),
        linear("d", "m", out),
    )
    first = fire(lambda t, _: x[t] @ w.T, (batch, 8), HALF, soft=False)
    second = fire(lambda t, _: first[t] @ inner.T + b + first[t], (batch, 8), HALF, soft=False)

    def snn(once: bool) -> float:
        ledger = Ledger(once=once)
        ledger.layer(w.size, x, meets(x, 8), accesses=1, bias=0)
        ledger.layer(inner.size, first, meets(first, 8), accesses=2, bias=8)
        ledger.layer(out.size, second, meets(second, 3), accesses=2, bias=0)
        ledger.neurons(first, HALF, soft=False)
        ledger.neurons(second, HALF, soft=False)
        return ledger.pj

    ann = dense_ann(80, 80, 10, 8, 0) + dense_ann(64, 64, 8, 8, 8) + dense_ann(24, 24, 8, 3, 0) + relus(16)
    return net, x, snn, ann


class Soft(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(10, 9), nn.Linear(9, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        v, found = torch.zeros(x.shape[1], 9), []
        for current in 3 * self.enter(x):
            v = SOFT * v + current
            s = (v >= 1).float()
            v = v - s
            found.append(s)
        return self.leave(torch.stack(found))


def captured(batch: int) -> Made:
    """A torch module with a soft reset, whose decay is no power of two."""
    model, x = Soft(), binary(batch, 10)
    net = stl.capture(model, torch.from_numpy(x)).program
    w, b = (3 * each.detach().numpy() for each in (model.enter.weight, model.enter.bias))
    spikes = fire(lambda t, _: x[t] @ w.T + b, (batch, 9), SOFT, soft=True)

    def snn(once: bool) -> float:
        ledger = Ledger(once=once)
        ledger.layer(90, x, meets(x, 9), accesses=1, bias=9)
        ledger.neurons(spikes, SOFT, soft=True)
        ledger.layer(36, spikes, meets(spikes, 4), accesses=2, bias=0)
        return ledger.pj

    return net, x, snn, dense_ann(90, 90, 10, 9, 9) + relus(9) + dense_ann(36, 36, 9, 4, 0)


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("made", [pooled, recurrent, residual, captured])
def test_quoted_joules_are_those_of_numpy(made: Callable[[int], Made], batch: int) -> None:
    net, x, snn, ann = made(batch)
    data = measure_energy(net, x, input_coding="spikes").as_dict()
    for key, once in (("quoted", False), ("quoted_layer_by_layer", True)):
        cell = data[key]
        assert (cell["prices"], cell["width"]) == ("horowitz45_int8_acc32", "int8")
        assert cell["snn_J"] == pytest.approx(snn(once) * 1e-12 / batch, rel=1e-9, abs=0)
        assert cell["ann_J"] == pytest.approx(ann * 1e-12, rel=1e-9, abs=0)
        assert cell["snn_over_ann"] == pytest.approx(snn(once) / batch / ann, rel=1e-9, abs=0)


D = 3
"""Levels of the counts below: 2 bits."""


def test_counts_and_the_ann_of_their_bits_cost_what_numpy_says() -> None:
    """An image, a convolution, a max pool, counts, a sum pool, a dense layer, counts of 0 and 1, a dense layer."""
    w, b, hidden, out = drawn(3, 2, 3, 3), drawn(3), drawn(5, 3), drawn(4, 5)
    x = np.random.default_rng(0).random((1, 2, 2, 6, 6)).astype(np.float32)
    kernel = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}
    counts = {"decay": None, "threshold": f32(1), "multi_spike": True, "rounding": "half_up"}
    net = program(
        start((2, 6, 6)),
        conv("c", "in", w, (2, 6, 6), bias=b),
        MaxPool(name="m", shape=(3, 2, 2), operands=(Operand("c"),), input_shape=(3, 4, 4), **kernel),
        Neuron(name="n", shape=(3, 2, 2), operands=(Operand("m"),), cap=D, **counts),
        Pool(name="p", shape=(3, 1, 1), operands=(Operand("n"),), input_shape=(3, 2, 2), divisor=1, **kernel),
        _flat("p", (3, 1, 1)),
        linear("d", "flat", hidden),
        Neuron(name="k", shape=(5,), operands=(Operand("d"),), decay=None, threshold=f32(0.5), compare="ge"),
        linear("e", "k", out),
    )
    windows = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3), axis=(2, 3))
    sums = np.einsum("bchwij,ocij->bohw", windows, w) + b[:, None, None]
    first = np.clip(np.floor(sums.reshape(2, 3, 2, 2, 2, 2).max((3, 5)) + 0.5), 0, D)
    pooled = first.sum((2, 3))
    second = np.clip(np.floor(pooled @ hidden.T + 0.5), 0, 1)
    assert all(0 < (each > 0).mean() < 1 for each in (first, pooled, second))  # there are zeros to skip
    n, p, k = (float((each > 0).sum()) / 2 for each in (first, pooled, second))  # events of a sample
    bits = {"image": 8, "n": 2, "p": 4, "k": 1}  # of 0 to 3, of sums of four of them, of 0 and 1

    def add(width: int) -> float:
        return ADD + (MUL * width / 8 if width > 1 else 0)

    # both sides alike: arithmetic on what is not zero, weights and biases that it meets, and rounding
    same = 54 * 16 * add(8) + 54 * word(8, 54) + 48 * ADD + 3 * word(STATE, 3)
    same += 12 * 3 * ADD + n * ADD + p * 5 * add(bits["p"]) + k * 4 * ADD
    same += p * 5 * word(8, 15) + k * 4 * word(8, 20)
    same += 48 * (MUL_STATE + 2 * ADD) + 5 * ADD  # before the max pool; 0 or 1 takes a comparison
    same += 2 * 48 * word(bits["n"], 48) + 72 * word(8, 72)  # what the pool reads is written; the image is there
    # events have an address in place of zeros; a count of at most 1 is its event
    image = 72 * (word(address(72) + 8, 72) - word(8, 72))

    def queue(events: float, places: int, value: int) -> float:
        width = address(places) + (value if value > 1 else 0)
        return 2 * events * word(width, places)

    snn = same + image + queue(n, 12, bits["n"]) + queue(p, 3, bits["p"]) + queue(k, 5, bits["k"])
    # the ANN moves every value, writes its sums at the end, and shifts where it requantises
    ann = same + 2 * 12 * word(bits["n"], 12) + 2 * 3 * word(bits["p"], 3) + 2 * 5 * word(bits["k"], 5)
    ann += 4 * word(8, 4) + 48 * SHIFT
    report = measure_energy(net, x, input_coding="analog")
    chosen = quoted(report.comparisons)
    assert chosen is not None
    assert middle(chosen.comparison.snn_J) == pytest.approx(snn * 1e-12, rel=1e-9, abs=0)
    assert ann_joules_of_counts(net, report.counts) == pytest.approx(ann * 1e-12, rel=1e-9, abs=0)


@pytest.mark.push(1)
@pytest.mark.parametrize("batch", [1, 16])
def test_quoted_joules_of_digits_are_those_of_its_raw_files(digits_run: Path, batch: int) -> None:
    layers, prices = frontiers.read_snn(digits_run / "net.nir"), frontiers.Prices.read(frontiers.PRICES)
    x = np.load(digits_run / "test.npz")["x"][:, :batch]
    inputs, fired, _ = frontiers.spikes_of(layers, x)
    ann = 0.0
    for layer, given, spikes in zip(layers, inputs, [*fired, None], strict=True):
        (bits, stored), outputs = layer.stored, layer.outputs(given.shape[2:])
        macs = float(layer.reached(np.ones((1, *given.shape[2:])))[0]) * stored / layer.weight.size
        biases = 0 if layer.bias is None else len(layer.bias)
        ann += dense_ann(stored, macs, given[0, 0].size, outputs, biases, bits=bits)
        if spikes is not None:
            ann += relus(outputs)
        if layer.pooled:  # of the twin an average: an addition for each value, all read, the means written
            ann += outputs * ADD + outputs * word(WEIGHT, outputs) + outputs / 4 * word(WEIGHT, outputs / 4)
    data = measure_energy(stl.read(digits_run / "net.nir").program, x).as_dict()
    for key, once in (("quoted", False), ("quoted_layer_by_layer", True)):
        joules = frontiers.snn_joules(layers, inputs, fired, prices, once=once)
        assert data[key]["snn_J"] == pytest.approx(joules, rel=1e-6, abs=0)  # thresholds are float32
        assert data[key]["ann_J"] == pytest.approx(ann * 1e-12, rel=1e-6, abs=0)
        assert data[key]["snn_over_ann"] == pytest.approx(joules / ann * 1e12, rel=1e-6, abs=0)
