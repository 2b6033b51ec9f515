"""What netx and Lava make of a dense layer's weights on their way into 8 bits and a sign."""

from __future__ import annotations

import numpy as np

from stl_deploy.exporters.netx.layers import DenseLayer, SpikingLayer
from stl_deploy.integers.net import Dense, Ints, Synapse


def lava_synapse(layer: SpikingLayer) -> Synapse:
    """A layer's synapses with the weights that Lava sums."""
    if not isinstance(layer, DenseLayer):
        return layer
    stored, bits = stored_weights(layer.weight)
    if np.array_equal(stored, layer.weight << bits):
        return Dense(weight=layer.weight, delay=layer.delay, enlarged=bits)
    return Dense(weight=stored, delay=layer.delay, shift=bits)


def stored_weights(weight: Ints) -> tuple[Ints, int]:
    """What netx makes of a dense layer's weights: (weights in the synapse, bits its sums are shifted right).

    Weights are doubled as often as they fit; Lava sums the enlarged weights and shifts the sum right, rounding
    down. Where no weight is above 0, -256 becomes -255 and then loses the low bits that are 0 in all the others
    (lava-dl 0.6 ``netx.utils``, lava 0.10 ``weightutils``). Otherwise nothing is lost, within the widths of
    `stl_deploy.exporters.netx.layers`.
    """
    low, high = int(weight.min()), int(weight.max())
    if high < 0:
        bits = _whole_log2(256, -low)
    elif low >= 0:
        bits = _whole_log2(255, high)
    else:
        bits = 1 + min(_whole_log2(128, -low), _whole_log2(127, high) if high else 16)
    stored = weight.astype(np.int32) << bits
    return (
        -truncate(np.minimum(-stored, 255), _unused_bits(weight) + bits - (high == 0)) if high <= 0 else stored
    ), bits


def truncate(magnitude: Ints, bits: int) -> Ints:
    """Lava sets the low bits of a weight's magnitude to 0 that netx says are unused."""
    return (magnitude >> bits) << bits


def _unused_bits(weight: Ints) -> int:
    """How many low bits are 0 in every weight, at most 8."""
    together = int(np.bitwise_or.reduce(np.abs(weight), axis=None))
    return min(8, (together & -together).bit_length() - 1)


def _whole_log2(top: int, bottom: int) -> int:
    """floor(log2(top / bottom)) for positive integers, without rounding."""
    bits = top.bit_length() - bottom.bit_length()
    fits = (top << max(0, -bits)) >= (bottom << max(0, bits))
    return bits if fits else bits - 1
