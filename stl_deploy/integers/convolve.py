"""Convolve by matrix products over unfolded frames, in cache-sized chunks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.integers.net import Conv

_PATCH_BYTES = 2**20
"""Frames are unfolded as many at a time as fit here."""


class Convolution:
    """One layer's convolution in a float type that is exact for it; every partial sum is formed in that type.

    It works in buffers of its own, so it is for one thread.
    """

    def __init__(self, layer: Conv, kind: type[np.float32] | type[np.float64]) -> None:
        self._layer, self._weight = layer, layer.weight.astype(kind)
        (pad_h, pad_w), (channels, height, width) = layer.padding, layer.input_shape
        shape = (*layer.weight.shape[2:], channels, *layer.shape[1:])
        at_once = max(1, _PATCH_BYTES // (math.prod(shape) * self._weight.itemsize))
        self._patches = np.empty((at_once, *shape), kind)
        self._padded = np.zeros((at_once, channels, height + 2 * pad_h, width + 2 * pad_w), kind)
        self._inside = self._padded[:, :, pad_h : pad_h + height, pad_w : pad_w + width]
        self._rows = self._weight.transpose(0, 2, 3, 1).reshape(len(self._weight), -1)

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
        """Copy the inputs of each output, tap by tap: ``[N, kh, kw, C, H', W']``."""
        (dil_h, dil_w), (step_h, step_w) = self._layer.dilation, self._layer.stride
        taps_h, taps_w, _, height, width = patches.shape[1:]
        for i in range(taps_h):
            for j in range(taps_w):
                rows = slice(i * dil_h, i * dil_h + (height - 1) * step_h + 1, step_h)
                columns = slice(j * dil_w, j * dil_w + (width - 1) * step_w + 1, step_w)
                patches[:, i, j] = padded[:, :, rows, columns]

    def _multiply(self, patches: NDArray[Any], total: NDArray[Any]) -> None:
        groups, n = self._layer.groups, len(patches)
        if self._weight.shape[1] == 1 and groups > 1:
            _depthwise(self._weight, patches, total)
            return
        outputs, inputs = len(self._rows) // groups, self._weight.shape[1]
        for group in range(groups):
            out, into = slice(group * outputs, (group + 1) * outputs), slice(group * inputs, (group + 1) * inputs)
            np.matmul(self._rows[out], patches[:, :, :, into].reshape(n, -1, total.shape[2]), out=total[:, out])


def _depthwise(weight: NDArray[Any], patches: NDArray[Any], total: NDArray[Any]) -> None:
    """Convolve with one input channel per group: tap by tap, elementwise."""
    n, kernel_h, kernel_w, channels = patches.shape[:4]
    by_channel = total.reshape(n, channels, -1, total.shape[2])
    by_channel[...] = 0
    taps = weight.reshape(channels, -1, kernel_h, kernel_w)
    for i in range(kernel_h):
        for j in range(kernel_w):
            by_channel += patches[:, i, j].reshape(n, channels, 1, -1) * taps[:, :, i, j, None]
