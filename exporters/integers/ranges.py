"""How far u and v go, against the 24 bits that hold them: in the worst case, and on calibration data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.integers.net import DECAY_ONE
from stl_deploy.exporters.loihi.net import ConvLayer, DenseLayer, FlattenLayer, InputLayer, IntegerNet, SpikingLayer
from stl_deploy.exporters.loihi.simulate import run_layer
from stl_deploy.exporters.integers.step import STATE_SHIFT
from stl_deploy.exporters.integers.sums import adder, blocks
from stl_deploy.exporters.loihi.weights import stored_weights

STATE_TOP = 2**23
"""u wraps past it, v saturates below it."""

Bounds = tuple[int, int]


@dataclass(frozen=True)
class LayerRange:
    """(least, greatest) u and v of a layer, in 64ths as the registers hold them.

    worst: no input within the given bounds and of the given number of steps goes further. seen: on calibration.
    """

    node: str
    key: str
    u_worst: Bounds
    v_worst: Bounds
    u_seen: Bounds
    v_seen: Bounds

    @property
    def holds(self) -> bool:
        """Whether no input at all can overflow."""
        return _within(self.u_worst) and _within(self.v_worst)


def measure_ranges(net: IntegerNet, x: NDArray[Any]) -> tuple[LayerRange, ...]:
    """Ranges of every layer for whole-number calibration input ``x`` ``[T, B, *shape]``; its extremes bound inputs."""
    found = []
    bounds = (min(0, int(x.min())), max(0, int(x.max())))
    for index, layer in enumerate(net.layers):
        if isinstance(layer, InputLayer):
            continue
        if isinstance(layer, FlattenLayer):
            x = x.reshape(*x.shape[:2], -1)
            continue
        found.append(_layer_range(f"layer{index}", layer, x, bounds))
        x, bounds = run_layer(layer, x), (0, 1)
    return tuple(found)


def require_seen(ranges: Iterable[LayerRange]) -> None:
    """Raise UnsupportedError for the first layer that overflowed on calibration data."""
    for found in ranges:
        for what, (low, high) in (("u", found.u_seen), ("v", found.v_seen)):
            if not _within((low, high)):
                raise UnsupportedError(
                    f"{what} runs from {low} to {high} on calibration data, 24 bits hold ±{STATE_TOP - 1}",
                    node=found.node,
                    slug=f"{what}-overflow",
                    remedy="use fewer input levels (a coarser input grid), smaller weights, or a faster decay",
                )


def _within(bounds: Bounds) -> bool:
    return max(-bounds[0], bounds[1]) < STATE_TOP


def _layer_range(key: str, layer: SpikingLayer, x: NDArray[Any], bounds: Bounds) -> LayerRange:
    low, high = _worst_sums(layer, bounds)
    steps = x.shape[0]
    u_worst = tuple(_series(extreme << STATE_SHIFT, layer.neuron.i_decay, steps) for extreme in (low, high))
    bias = np.zeros(1, np.int64) if layer.bias is None else layer.bias.astype(np.int64)
    drive = (u_worst[0] + (int(bias.min()) << STATE_SHIFT), u_worst[1] + (int(bias.max()) << STATE_SHIFT))
    kept = (DECAY_ONE - layer.neuron.v_decay) / DECAY_ONE
    top = int(int(layer.neuron.threshold.max()) * 2**STATE_SHIFT * kept) + drive[1]
    v_worst = (min(0, _series(drive[0], layer.neuron.v_decay, steps)), max(0, top))
    u_seen, v_seen = _seen(layer, x)
    return LayerRange(layer.node or key, key, (u_worst[0], u_worst[1]), v_worst, u_seen, v_seen)


def _worst_sums(layer: SpikingLayer, bounds: Bounds) -> Bounds:
    """Least and greatest synaptic sum for inputs within ``bounds`` (which include 0)."""
    weight, bits = stored_weights(layer.weight) if isinstance(layer, DenseLayer) else (layer.weight, 0)
    rows = weight.reshape(weight.shape[0], -1).astype(np.int64)
    positive, negative = np.maximum(rows, 0).sum(axis=1), np.minimum(rows, 0).sum(axis=1)
    high = int((positive * bounds[1] + negative * bounds[0]).max())
    low = int((positive * bounds[0] + negative * bounds[1]).min())
    return low >> bits, high >> bits


def _series(step: int, decay: int, steps: int) -> int:
    """What the same step comes to after ``steps`` of them, with this decay (its magnitude is never rounded down)."""
    kept = (DECAY_ONE - decay) / DECAY_ONE
    factor = steps if kept == 1 else (1 - kept**steps) / (1 - kept)
    return int(np.sign(step)) * int(np.ceil(abs(step) * factor))


def _seen(layer: SpikingLayer, x: NDArray[Any]) -> tuple[Bounds, Bounds]:
    """Extremes of u and v on ``x``, where neither wraps nor saturates."""
    add_up = adder(layer, x)
    bias = np.zeros(1, np.int64) if layer.bias is None else layer.bias.astype(np.int64) << STATE_SHIFT
    if isinstance(layer, ConvLayer) and bias.ndim == 1 and layer.bias is not None:
        bias = bias[:, None, None]
    threshold = layer.neuron.threshold.astype(np.int64) << STATE_SHIFT
    extremes = np.zeros(4, np.int64)
    for part in blocks(layer, x):
        u = v = np.zeros((x[:, part].shape[1], *layer.shape), np.int64)
        for now in add_up(x[:, part]):
            u = _leak(u, layer.neuron.i_decay) + (now.astype(np.int64) << STATE_SHIFT)
            v = _leak(v, layer.neuron.v_decay) + u + bias
            extremes[::2] = np.minimum(extremes[::2], (u.min(), v.min()))
            extremes[1::2] = np.maximum(extremes[1::2], (u.max(), v.max()))
            v = np.where(v > threshold, 0, v)
    return (int(extremes[0]), int(extremes[1])), (int(extremes[2]), int(extremes[3]))


def _leak(state: NDArray[np.int64], decay: int) -> NDArray[np.int64]:
    product = state * (DECAY_ONE - decay)
    left: NDArray[np.int64] = np.sign(product) * (np.abs(product) >> 12)
    return left
