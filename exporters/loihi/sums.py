"""Exact synaptic sums of whole numbers, through the BLAS.

Sums are formed in float32 where every partial sum stays below 2^24, in float64 where it stays
below 2^53, so they are exact whatever the order of summation. Time is folded into the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.exporters.loihi.net import ConvLayer, DenseLayer, Ints

_PATCH_BYTES = 4 * 2**20
"""Convolution unfolds as many samples at a time as fit here."""


def stored_weights(weight: Ints) -> tuple[Ints, int]:
    """What netx makes of a dense layer's weights: (weights in the synapse, bits its sums are shifted right).

    Weights are doubled as often as they fit; Lava sums the enlarged weights and shifts the sum right, rounding
    down. Where no weight is above 0, -256 becomes -255 and then loses the low bits that are 0 in all the others
    (lava-dl 0.6 ``netx.utils``, lava 0.10 ``weightutils``). Otherwise nothing is lost, within the widths of
    `stl_deploy.exporters.loihi.net`.
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
    """floor(log2(top / bottom)) for positive whole numbers, without rounding."""
    bits = top.bit_length() - bottom.bit_length()
    fits = (top << max(0, -bits)) >= (bottom << max(0, bits))
    return bits if fits else bits - 1


def shift_right(total: Ints, bits: int) -> Ints:
    """Division by 2^bits, rounding down."""
    return total >> bits if bits else total


def dense_sums(layer: DenseLayer, x: NDArray[Any]) -> Ints:
    """Synaptic input ``[T, B, out]`` of a dense layer for whole numbers ``x`` ``[T, B, in]``.

    A synapse with delay d adds its part d steps later; each delay's sum is shifted by itself, as in Lava.
    """
    weight, bits = stored_weights(layer.weight)
    if layer.delay is None:
        return shift_right(_matmul(x, weight), bits)
    steps = x.shape[0]
    total = np.zeros((*x.shape[:2], weight.shape[0]), np.int32)
    for delay in np.unique(layer.delay):
        if delay < steps:
            part = _matmul(x[: steps - delay], np.where(layer.delay == delay, weight, 0))
            total[delay:] += shift_right(part, bits)
    return total


def conv_sums(layer: ConvLayer, x: NDArray[Any]) -> Ints:
    """Synaptic input ``[T, B, C, H, W]`` of a conv layer for whole numbers ``x``; wraps at 24 bits as Lava's does."""
    folded = x.reshape(-1, *x.shape[2:])
    bound = _bound(_largest(x), layer.weight.reshape(layer.weight.shape[0], -1))
    kind = _exact_type(bound)
    weight = layer.weight.astype(kind)
    total = np.empty((folded.shape[0], *layer.shape), np.int32)
    patch = layer.weight[0].size * layer.groups * int(np.prod(layer.shape[1:])) * np.dtype(kind).itemsize
    at_once = max(1, _PATCH_BYTES // patch)
    for start in range(0, folded.shape[0], at_once):
        part = folded[start : start + at_once].astype(kind)
        summed = _conv(layer, weight, part)
        total[start : start + at_once] = summed if bound < 2**23 else wrap24(summed.astype(np.int64))
    return total.reshape(*x.shape[:2], *layer.shape)


def wrap24(total: NDArray[np.int64]) -> Ints:
    """Lava's conv keeps the lowest 24 bits of a sum, with sign."""
    return ((total + 2**23) % 2**24 - 2**23).astype(np.int32)


def _conv(layer: ConvLayer, weight: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    (pad_h, pad_w), (dil_h, dil_w), (step_h, step_w) = layer.padding, layer.dilation, layer.stride
    kernel_h, kernel_w = weight.shape[2:]
    x = np.pad(x, ((0, 0), (0, 0), (pad_h, pad_h), (pad_w, pad_w)))
    window = ((kernel_h - 1) * dil_h + 1, (kernel_w - 1) * dil_w + 1)
    windows = sliding_window_view(x, window, axis=(2, 3))[:, :, ::step_h, ::step_w, ::dil_h, ::dil_w]
    if weight.shape[1] == 1 and layer.groups > 1:
        return _depthwise(layer, weight, windows)
    outputs = np.split(weight, layer.groups)
    inputs = np.split(windows, layer.groups, axis=1)
    return np.concatenate([_group(w, part) for w, part in zip(outputs, inputs, strict=True)], axis=1)


def _group(weight: NDArray[Any], windows: NDArray[Any]) -> NDArray[Any]:
    """One group: weights ``[O, C, kh, kw]`` times patches ``[N, C, H, W, kh, kw]``."""
    n, channels, height, width, kernel_h, kernel_w = windows.shape
    patches = np.empty((n, channels, kernel_h, kernel_w, height, width), weight.dtype)
    for i in range(kernel_h):
        for j in range(kernel_w):
            patches[:, :, i, j] = windows[..., i, j]
    total: NDArray[Any] = weight.reshape(weight.shape[0], -1) @ patches.reshape(n, -1, height * width)
    return total.reshape(n, -1, height, width)


def _depthwise(layer: ConvLayer, weight: NDArray[Any], windows: NDArray[Any]) -> NDArray[Any]:
    """One input channel per group: tap by tap, elementwise."""
    fan_out = weight.shape[0] // layer.groups
    total: NDArray[Any] = np.zeros((windows.shape[0], *layer.shape), weight.dtype)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            tap = windows[..., i, j]
            total += (np.repeat(tap, fan_out, axis=1) if fan_out > 1 else tap) * weight[:, 0, i, j, None, None]
    return total


def _matmul(x: NDArray[Any], weight: Ints) -> Ints:
    bound = _bound(_largest(x), weight)
    kind = _exact_type(bound)
    total = x.reshape(-1, x.shape[-1]).astype(kind) @ weight.T.astype(kind)
    largest = np.abs(total).max(initial=0) if bound >= 2**31 else 0
    if largest >= 2**31:
        raise InputError(
            f"a synaptic sum reaches {largest:.0f}, beyond Lava's 32 bits; use smaller input values or weights"
        )
    sums: Ints = total.astype(np.int32).reshape(*x.shape[:-1], weight.shape[0])
    return sums


def _largest(x: NDArray[Any]) -> int:
    return max(abs(int(x.min())), abs(int(x.max()))) if x.size and x.dtype != bool else 1


def _bound(largest_input: int, weight: Ints) -> int:
    """What no partial sum of products exceeds, for weights ``[out, in]``."""
    return largest_input * int(np.abs(weight.astype(np.int64)).sum(axis=1).max())


def _exact_type(bound: int) -> type[np.float32] | type[np.float64]:
    """The narrowest float type that holds every whole number up to ``bound``."""
    if bound < 2**24:
        return np.float32
    if bound < 2**53:
        return np.float64
    raise InputError(f"synaptic sums may reach {bound}, beyond 2^53; use smaller input values")
