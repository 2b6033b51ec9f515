"""Networks for the comparison with Lava: random ones, and ones built so that a single rule decides."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.netx.layers import ConvLayer, DenseLayer, FlattenLayer, InputLayer, Layer, NetxFile
from stl_deploy.integers.net import IntegerNeuron, Ints, Shape

Case = tuple[NetxFile, NDArray[Any]]


def neuron(v_decay: int, threshold: Any, i_decay: int = 4096) -> IntegerNeuron:
    return IntegerNeuron(v_decay=v_decay, threshold=np.array(threshold, np.int32), i_decay=i_decay)


def dense(weight: Any, **kwargs: Any) -> DenseLayer:
    arrays: dict[str, Any] = {k: np.array(kwargs.pop(k), np.int32) for k in ("bias", "delay") if k in kwargs}
    return DenseLayer(weight=np.array(weight, np.int32), **arrays, **kwargs)


def chain(shape: Shape, *layers: Layer) -> NetxFile:
    return NetxFile((InputLayer(shape=shape), *layers))


def _threshold(rng: np.random.Generator, shape: Shape, scale: float) -> Ints:
    size = shape if rng.random() < 0.5 else ()
    return np.maximum(1, rng.normal(scale, scale / 4, size)).astype(np.int32)


def _neuron(rng: np.random.Generator, shape: Shape, scale: float) -> IntegerNeuron:
    v_decay = int(rng.choice([2048, 4096, 0, 1024, int(rng.integers(1, 4096))]))
    i_decay = int(rng.choice([4096, 4096, int(rng.integers(500, 4096))]))
    return neuron(v_decay, _threshold(rng, shape, scale), i_decay)


def _bias(rng: np.random.Generator, shape: Shape, scale: float) -> Ints | None:
    return rng.normal(0, scale / 4, shape).astype(np.int32) if rng.random() < 0.6 else None


def _weights(rng: np.random.Generator, shape: Shape) -> Ints:
    top = int(rng.choice([5, 40, 127, 254]))
    low = rng.choice([-top, -top, -top, 0])
    return rng.integers(low, top, shape, dtype=np.int32, endpoint=True)


def random_dense(rng: np.random.Generator, inputs: int) -> DenseLayer:
    out = int(rng.integers(2, 14))
    weight = _weights(rng, (out, inputs))
    weight[0, 0] = 3
    scale = 0.4 * float(np.abs(weight).mean()) * np.sqrt(inputs) + 1
    delay = rng.integers(0, 6, weight.shape, dtype=np.int32) if rng.random() < 0.15 else None
    return DenseLayer(weight=weight, bias=_bias(rng, (out,), scale), delay=delay, neuron=_neuron(rng, (out,), scale))


def random_conv(rng: np.random.Generator, shape: Shape) -> ConvLayer:
    groups = int(rng.choice([1, 1, shape[0], 2 if shape[0] % 2 == 0 else 1]))
    out = groups * int(rng.integers(1, 4))
    kernel = [int(rng.integers(1, min(4, size) + 1)) for size in shape[1:]]
    layer: dict[str, Any] = dict(
        weight=_weights(rng, (out, shape[0] // groups, *kernel)),
        input_shape=shape,
        stride=tuple(int(v) for v in rng.integers(1, 3, 2)),
        padding=tuple(int(v) for v in rng.integers(0, 3, 2)),
        dilation=tuple(
            1 if 2 * (k - 1) >= n else int(rng.integers(1, 3)) for k, n in zip(kernel, shape[1:], strict=True)
        ),
        groups=groups,
    )
    out_shape = ConvLayer(neuron=neuron(0, 0), **layer).shape
    scale = 0.4 * float(np.abs(layer["weight"]).mean()) * np.sqrt(layer["weight"][0].size) + 1
    bias_shape = out_shape if rng.random() < 0.3 else (out,)
    return ConvLayer(bias=_bias(rng, bias_shape, scale), neuron=_neuron(rng, out_shape, scale), **layer)


def random_case(seed: int, longest: int = 60) -> Case:
    """One to four layers, convolutions first, any feature anywhere; T from 1 to ``longest``."""
    rng = np.random.default_rng(seed)
    layers: list[Layer] = []
    shape: Shape = tuple(int(v) for v in rng.integers([1, 4, 4], [4, 8, 8]))
    start = shape
    for _ in range(int(rng.integers(0, 3))):
        layers.append(random_conv(rng, shape))
        shape = layers[-1].shape  # type: ignore[union-attr]
    if rng.random() < 0.8 or not layers:
        layers.append(FlattenLayer())
        shape = (int(np.prod(shape)),)
        for _ in range(int(rng.integers(1, 3))):
            layers.append(random_dense(rng, shape[0]))
            shape = layers[-1].shape  # type: ignore[union-attr]
    steps, samples = int(rng.choice([1, 4, 12, 25, longest])), int(rng.integers(1, 4))
    x = (rng.random((steps, samples, *start)) < rng.choice([0.1, 0.3, 0.6])).astype(np.int16)
    if rng.random() < 0.3:
        x *= rng.integers(0, 17, x.shape, dtype=np.int16)
    return chain(start, *layers), x


def special_cases() -> dict[str, Case]:
    """Each built so that one rule decides the spikes."""
    rng = np.random.default_rng(1)
    ones = np.ones((40, 2, 1), np.int16)
    sparse = (rng.random((60, 3, 8)) < 0.3).astype(np.int16)
    mixed = rng.integers(-60, 60, (10, 8), dtype=np.int32)
    deep = rng.integers(-9, 8, (6, 4), dtype=np.int32)
    image = (rng.random((6, 2, 2, 6, 9)) < 0.3).astype(np.int16)
    pool = ConvLayer(
        weight=np.ones((2, 1, 2, 3), np.int32), input_shape=(2, 6, 9), stride=(2, 3), groups=2, neuron=neuron(4096, 0)
    )
    return {
        # Rounding of a negative potential as it decays through small values.
        "round_v": (chain((8,), dense(mixed, neuron=neuron(300, 30))), sparse),
        "round_u": (chain((8,), dense(mixed, neuron=neuron(1000, 60, i_decay=700))), sparse),
        "u_never_decays": (chain((8,), dense(mixed, neuron=neuron(2048, 900, i_decay=0))), sparse),
        # A tie with the threshold does not fire.
        "strict": (chain((8,), dense(np.full((4, 8), 2), neuron=neuron(0, [2, 4, 6, 8]))), sparse),
        "reset": (chain((1,), dense([[5], [7]], neuron=neuron(1024, 9))), ones),
        # 600 inputs of 254 pass 2^23 after the shift by 6.
        "wrap_u": (
            chain((600,), dense(rng.integers(200, 255, (5, 600)), neuron=neuron(2048, 20000, i_decay=2000))),
            (rng.random((12, 2, 600)) < 0.9).astype(np.int16),
        ),
        "wrap_u_negative": (
            chain((600,), dense(rng.integers(-255, -199, (5, 600)), neuron=neuron(2048, 20000, i_decay=2000))),
            (rng.random((12, 2, 600)) < 0.9).astype(np.int16),
        ),
        # v stops at 2^23 - 1 on its way down and needs fewer steps to come back.
        "saturate_v": (
            chain((2,), dense([[-240, 200], [-250, 254]], neuron=neuron(0, 60000))),
            np.concatenate([np.tile([[[250, 0]]], (40, 1, 1)), np.tile([[[0, 250]]], (60, 1, 1))]).astype(np.int16),
        ),
        # Non-positive weights with -128 are stored as -255 at exponent -1: sums are floored after the shift.
        "weight_rule": (
            chain((4,), dense([[-128, -3, 0, -127], [-7, -128, -1, 0]], bias=[200, 190], neuron=neuron(1900, 60))),
            (rng.random((60, 2, 4)) < 0.4).astype(np.int16),
        ),
        # With a 0 and an odd weight beside it, -128 is -255 at exponent -1: once -128 rounded down, twice -255.
        "weight_rule_floor": (
            chain((3,), dense([[-128, -128, -1], [-128, 0, -1]], bias=[355, 228], neuron=neuron(4096, 100))),
            np.array([[[1, 0, 0]], [[1, 1, 0]], [[0, 1, 0]], [[0, 0, 0]]] * 3, np.int16),
        ),
        # With only multiples of 64 beside it, -128 loses 6 more bits; -256 likewise.
        "weight_rule_truncated": (
            chain((3,), dense([[-128, -64, 0], [0, -128, -128]], bias=[200, 300], neuron=neuron(4096, 100))),
            (rng.random((30, 2, 3)) < 0.5).astype(np.int16),
        ),
        "weight_rule_truncated_negative": (
            chain((3,), dense([[-256, -64, -32], [-32, -256, -256]], bias=[300, 500], neuron=neuron(4096, 100))),
            (rng.random((30, 2, 3)) < 0.5).astype(np.int16),
        ),
        "weights_all_negative": (
            chain((4,), dense([[-256, -3, -5, -127], [-7, -256, -1, -9]], bias=[300, 290], neuron=neuron(1900, 60))),
            (rng.random((60, 2, 4)) < 0.4).astype(np.int16),
        ),
        "weights_positive": (chain((4,), dense(np.abs(deep), neuron=neuron(900, 9))), sparse[..., :4]),
        "weights_small": (chain((4,), dense(deep, bias=[1, -1, 2, 0, 0, 1], neuron=neuron(900, 3))), sparse[..., :4]),
        "weights_254": (
            chain((8,), dense(rng.integers(-256, 255, (6, 8)), neuron=neuron(3000, 211))),
            sparse,
        ),
        "bias_alone": (chain((1,), dense([[3], [4]], bias=[5, -4], neuron=neuron(512, 16))), ones * 0),
        "delays": (
            chain(
                (8,),
                dense(mixed, delay=rng.integers(0, 63, mixed.shape), bias=np.arange(10), neuron=neuron(700, 40)),
                dense(rng.integers(-50, 90, (4, 10)), delay=rng.integers(0, 9, (4, 10)), neuron=neuron(2048, 40)),
            ),
            sparse,
        ),
        "delays_weight_rule": (
            chain(
                (4,),
                dense(
                    [[-128, -128, 0, -127]] * 2,
                    delay=[[0, 1, 2, 3], [0, 0, 1, 1]],
                    bias=[250, 190],
                    neuron=neuron(1900, 60),
                ),
            ),
            (rng.random((60, 2, 4)) < 0.4).astype(np.int16),
        ),
        "graded_signed": (
            chain((8,), dense(mixed, neuron=neuron(1024, 300))),
            rng.integers(-9, 30, (20, 3, 8), dtype=np.int16),
        ),
        "max_pool": (chain((2, 6, 9), pool), image),
        "latency": (
            chain(
                (8,),
                *(dense(rng.integers(-40, 90, (8, 8)), bias=np.arange(8), neuron=neuron(1800, 45)) for _ in range(4)),
            ),
            sparse[:9],
        ),
        # Beyond 24 bits a conv's sum wraps by itself, before the neuron.
        "conv_wrap": (
            chain(
                (40, 3, 3),
                ConvLayer(
                    weight=rng.integers(200, 255, (3, 40, 3, 3), dtype=np.int32),
                    input_shape=(40, 3, 3),
                    padding=(1, 1),
                    neuron=neuron(1000, 3000),
                ),
            ),
            rng.integers(100, 250, (5, 2, 40, 3, 3), dtype=np.int16),
        ),
    }
