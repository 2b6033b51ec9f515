"""Sum integers exactly, through the BLAS.

Sums are formed in float32 where every partial sum stays below 2^24, in float64 where it stays
below 2^53, so they are exact in any order of summation. Time is folded into the batch.
Sums come in float32 (integers below 2^24) or, where they may be larger, in int32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.integers.bounds import largest, weighted
from stl_deploy.integers.net import Conv, Dense, Ints, Shape, Synapse

Sums = NDArray[np.float32] | Ints

_BLOCK_IN, _BLOCK_OUT = 2**21, 2**19
"""About how many values over all of time go into and come out of a block, so that it stays in the cache."""


def shift_right(total: Ints, bits: int) -> Ints:
    """Divide by 2^bits, rounding down."""
    return total >> bits if bits else total


def blocks(shape: Shape, x: NDArray[Any]) -> Iterator[slice]:
    """Yield samples of ``x`` ``[T, B, ...]`` to sum at a time; shape: of the sums, without time."""
    steps = x.shape[0]
    at_once = max(1, min(_BLOCK_IN // (steps * math.prod(x.shape[2:])), _BLOCK_OUT // (steps * math.prod(shape))))
    return (slice(start, start + at_once) for start in range(0, x.shape[1], at_once))


def adder(layer: Synapse, x: NDArray[Any], *, wraps: bool = True) -> DenseSums | ConvSums:
    """Return a layer's summing function for some of the samples of ``x``. wraps: sums of convolutions, as Lava's."""
    return DenseSums(layer, x) if isinstance(layer, Dense) else ConvSums(layer, x, wraps=wraps)


class DenseSums:
    """Synaptic input ``[T, b, out]`` of a dense layer for some of the samples of integers ``x`` ``[T, B, in]``.

    A synapse with delay d adds its part d steps later; each delay's sum is shifted by itself, as in Lava.
    bound: what no sum's magnitude exceeds.
    """

    def __init__(self, layer: Dense, x: NDArray[Any]) -> None:
        self._weight, self._bits, self._enlarged = layer.weight, layer.shift, layer.enlarged
        self.bound = _bound(x, self._weight)
        self._kind = _exact_type(self.bound)
        masks = {0: None} if layer.delay is None else {int(d): layer.delay == d for d in np.unique(layer.delay)}
        self._columns = {delay: self._columns_where(mask) for delay, mask in masks.items()}

    def _columns_where(self, mask: NDArray[np.bool_] | None) -> NDArray[Any]:
        weight = self._weight if mask is None else np.where(mask, self._weight, 0)
        return np.ascontiguousarray(weight.T, self._kind)

    def __call__(self, x: NDArray[Any]) -> Sums:
        """Raises InputError where a sum is beyond Lava's 32 bits."""
        if self._columns.keys() == {0}:
            return self._sums(x, 0)
        total = np.zeros((*x.shape[:2], len(self._weight)), np.int32)
        for delay in self._columns:
            if delay < len(x):
                total[delay:] += self._sums(x[: len(x) - delay], delay).astype(np.int32)
        return total

    def _sums(self, x: NDArray[Any], delay: int) -> Sums:
        rows = x.reshape(-1, x.shape[-1]).astype(self._kind)
        # Integers within the bound; some BLAS kernels raise flags of lanes that they do not keep.
        with np.errstate(invalid="ignore"):
            total = (rows @ self._columns[delay]).reshape(*x.shape[:-1], -1)
        if self.bound << self._enlarged >= 2**31:
            _require_32_bits(total, self._enlarged)
        final = self._kind is np.float32 and self._bits == 0
        return total if final else shift_right(total.astype(np.int32), self._bits)


def _require_32_bits(total: NDArray[Any], bits: int) -> None:
    """Refuse sums beyond 32 bits: Lava sums weights enlarged by ``bits``."""
    largest = float(np.abs(total).max(initial=0)) * 2**bits
    if largest >= 2**31:
        raise InputError(
            f"a synaptic sum reaches {largest:.0f}, beyond Lava's 32 bits; use smaller input values or weights"
        )


class ConvSums:
    """Synaptic input ``[T, b, C, H, W]`` of a conv layer for some of the samples of integers ``x``.

    wraps: sums wrap at 24 bits as Lava's do. bound: what no sum's magnitude exceeds.
    """

    def __init__(self, layer: Conv, x: NDArray[Any], *, wraps: bool = True) -> None:
        bound = _bound(x, layer.weight.reshape(layer.weight.shape[0], -1))
        self._wraps = wraps and bound >= 2**23
        self.bound = min(bound, 2**23) if wraps else bound
        self._convolve = Convolution(layer, _exact_type(bound))
        self._shape = layer.shape

    def __call__(self, x: NDArray[Any]) -> Sums:
        """Sum ``[T, b, ...]`` to ``[T, b, *layer.shape]``."""
        total = self._convolve(x.reshape(-1, *x.shape[2:])).reshape(*x.shape[:2], *self._shape)
        return wrap24(total.astype(np.int64)) if self._wraps else total


def wrap24(total: NDArray[np.int64]) -> Ints:
    """Keep the lowest 24 bits of a sum, with sign, as Lava's convolution does."""
    return ((total + 2**23) % 2**24 - 2**23).astype(np.int32)


_LOOSE = 2**23
"""A bound below it is good enough: no sum wraps, and float32 is exact."""


def _bound(x: NDArray[Any], weight: Ints) -> int:
    """Bound every partial sum of products: weights ``[out, in]``, any values between the extremes of ``x``."""
    low, high = (0, 1) if x.dtype == bool or not x.size else (min(0, int(x.min())), max(1, int(x.max())))
    loose: int = max(-low, high) * largest(weight) * weight.shape[1]
    if loose < _LOOSE:
        return loose
    least, greatest = weighted(weight, None, (low, high))
    return max(-least, greatest)


def _exact_type(bound: int) -> type[np.float32] | type[np.float64]:
    """Return the narrowest float type that holds every integer up to ``bound``."""
    if bound < 2**24:
        return np.float32
    if bound < 2**53:
        return np.float64
    raise InputError(f"synaptic sums may reach {bound}, beyond 2^53; use smaller input values")


_PATCH_BYTES = 2**20
"""Frames are unfolded as many at a time as fit here."""
_FEW_PLACES = 64
"""Images of fewer outputs per channel are multiplied by the weights together."""


class Convolution:
    """One layer's convolution in a float type that is exact for it; every partial sum is formed in that type.

    It works in buffers of its own, so it is for one thread.
    """

    def __init__(self, layer: Conv, kind: type[np.float32] | type[np.float64]) -> None:
        self._layer, self._weight = layer, layer.weight.astype(kind)
        (pad_h, pad_w), (channels, height, width) = layer.padding, layer.input_shape
        shape = (channels, *layer.weight.shape[2:], *layer.shape[1:])
        at_once = max(1, _PATCH_BYTES // (math.prod(shape) * self._weight.itemsize))
        self._together = layer.groups == 1 and math.prod(shape[3:]) < _FEW_PLACES
        frames_at = 3 if self._together else 0
        self._patches = np.moveaxis(np.empty((*shape[:frames_at], at_once, *shape[frames_at:]), kind), frames_at, 0)
        self._padded = np.zeros((at_once, channels, height + 2 * pad_h, width + 2 * pad_w), kind)
        self._inside = self._padded[:, :, pad_h : pad_h + height, pad_w : pad_w + width]
        self._rows = self._weight.reshape(len(self._weight), -1)

    def __call__(self, frames: NDArray[Any]) -> NDArray[Any]:
        """Convolve ``[N, C, H, W]`` to ``[N, C_out, H', W']``."""
        shape = self._layer.shape
        total = np.empty((len(frames), shape[0], shape[1] * shape[2]), self._rows.dtype)
        at_once = len(self._padded)
        for start in range(0, len(frames), at_once):
            part = frames[start : start + at_once]
            n = len(part)
            self._inside[:n] = part
            self._unfold(self._padded[:n], self._patches[:n])
            self._multiply(self._patches[:n], total[start : start + n])
        return total.reshape(-1, *shape)

    def _unfold(self, padded: NDArray[Any], patches: NDArray[Any]) -> None:
        """Copy the inputs of each output, tap by tap: ``[N, C, kh, kw, H', W']``."""
        (dil_h, dil_w), (step_h, step_w) = self._layer.dilation, self._layer.stride
        taps_h, taps_w, height, width = patches.shape[2:]
        for i in range(taps_h):
            for j in range(taps_w):
                rows = slice(i * dil_h, i * dil_h + (height - 1) * step_h + 1, step_h)
                columns = slice(j * dil_w, j * dil_w + (width - 1) * step_w + 1, step_w)
                patches[:, :, i, j] = padded[:, :, rows, columns]

    def _multiply(self, patches: NDArray[Any], total: NDArray[Any]) -> None:
        groups, n = self._layer.groups, len(patches)
        if self._weight.shape[1] == 1 and groups > 1:
            _depthwise(self._weight, patches, total)
            return
        if self._together:  # one product, not one for each frame that reads all weights
            sums = self._rows @ np.moveaxis(patches, 0, 3).reshape(self._rows.shape[1], -1)
            total[...] = np.moveaxis(sums.reshape(-1, n, total.shape[2]), 1, 0)
            return
        outputs, inputs = len(self._rows) // groups, self._weight.shape[1]
        for group in range(groups):
            out, into = slice(group * outputs, (group + 1) * outputs), slice(group * inputs, (group + 1) * inputs)
            np.matmul(self._rows[out], patches[:, into].reshape(n, -1, total.shape[2]), out=total[:, out])


def _depthwise(weight: NDArray[Any], patches: NDArray[Any], total: NDArray[Any]) -> None:
    """Convolve with one input channel per group: tap by tap, elementwise."""
    n, channels, kernel_h, kernel_w = patches.shape[:4]
    by_channel = total.reshape(n, channels, -1, total.shape[2])
    by_channel[...] = 0
    taps = weight.reshape(channels, -1, kernel_h, kernel_w)
    for i in range(kernel_h):
        for j in range(kernel_w):
            by_channel += patches[:, :, i, j].reshape(n, channels, 1, -1) * taps[:, :, i, j, None]
