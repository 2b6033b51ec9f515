"""Build maximum, average and sum over windows or whole axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from stl_deploy._util.arrays import output_size
from stl_deploy.graph.convolutions import MAX_DENSE, pointwise, window_sum
from stl_deploy.graph.program import MaxPool, Neuron, Pool, Shape
from stl_deploy.tracing.layers.arguments import pair, with_defaults
from stl_deploy.tracing.layers.builder import Builder, refusal
from stl_deploy.tracing.layers.draft import Operands
from stl_deploy.tracing.layers.shapes import gathered, reshape_node, reshaped
from stl_deploy.tracing.layers.thresholds import added_and_compared, is_binary
from stl_deploy.tracing.layers.weights import along_axes, dense, fits_matrix
from stl_deploy.tracing.unrolling.steps import Ref, Signal


@dataclass(frozen=True)
class _Windows:
    """Windows over the last two axes; the sum over each is divided by ``divisor``."""

    size: Shape
    stride: Shape
    divisor: int
    pads: Shape = (0, 0)
    ceil: bool = False

    def padding(self, before: Shape) -> tuple[tuple[int, int], ...]:
        """Return (before, after) of each spatial axis of an input of shape ``before``.

        With ``ceil_mode`` the last window may reach beyond the end, as long as it starts inside the input or the
        padding before it (torch.nn.MaxPool2d): what it reaches is more padding.
        """
        axes = slice(3 - len(before), None)
        sides = zip(before[1:], self.size[axes], self.stride[axes], self.pads[axes], strict=True)
        return tuple((pad, _after(n, k, s, pad) if self.ceil else pad) for n, k, s, pad in sides)


def _after(size: int, kernel: int, stride: int, pad: int) -> int:
    """Return the padding behind an axis that ``ceil_mode`` needs, at least ``pad``."""
    last = -(-(size + 2 * pad - kernel) // stride) * stride
    if last >= size + pad:
        last -= stride
    return max(pad, last + kernel - size - pad)


def maximum(build: Builder, signal: Signal) -> Operands:
    """Build a max pool; the fold finds later whether it reads spikes."""
    x, kernel, stride, padding, dilation, ceil = with_defaults(signal.args, (None, None, [], 0, 1, False))
    if set(pair(dilation)) != {1}:
        raise refusal(
            signal,
            f"expected max pooling without dilation; found dilation={list(pair(dilation))}, for which the network has "
            "no node; pool neighbours",
        )
    return _largest(build, signal, x, _Windows(pair(kernel), pair(stride or kernel), 1, pair(padding), bool(ceil)))


def _largest(build: Builder, signal: Signal, x: Ref, windows: _Windows) -> Operands:
    terms, before = _pooled_shape(build, signal, x, windows)
    if len(terms) == 1 or not all(is_binary(build, (term,)) for term in terms):
        return _largest_of(build, signal, terms, before, windows)
    operands: Operands = ()
    for level in range(1, len(terms) + 1):  # the maximum of sums of spikes counts the levels that any of them reaches
        name = build.name("gate", "")
        threshold = np.asarray(level - 0.5, np.float32)
        reached = build.add(Neuron(name=name, shape=before, operands=terms, decay=None, threshold=threshold))
        operands += _largest_of(build, signal, reached, before, windows)
    return operands


def _largest_of(build: Builder, signal: Signal, terms: Operands, before: Shape, windows: _Windows) -> Operands:
    axes = slice(3 - len(before), None)
    node = MaxPool(
        name=build.name("pool", signal.node.place.module),
        shape=_made(before, windows),
        operands=terms,
        kernel=windows.size[axes],
        stride=windows.stride[axes],
        padding=windows.padding(before),
        input_shape=before,
    )
    return reshaped(build, signal, build.add(node), node.shape)


def _pooled_shape(build: Builder, signal: Signal, x: Ref, windows: _Windows) -> tuple[Operands, Shape]:
    """Return a pool's input shape: ``[C, H, W]``, or ``[C, L]`` where torch pools that as ``[C, 1, L]``.

    An image without channels, ``[B, H, W]``, whose samples torch takes for channels, is one of one channel; where each
    row is pooled alone, the rows are the channels of a line.
    """
    if x.signal.node.name == "reshape":
        inner = x.signal.args[0]
        shape = build.shape(inner.signal)
        high = output_size(1, windows.size[0], windows.stride[0], sum(windows.padding((1, 1, 1))[0]))
        if len(shape) == 2 and build.shape(x.signal) == (shape[0], 1, shape[1]) and high == 1:
            return build.read(Ref(inner.signal, inner.lag + x.lag)), shape
    terms, before = build.read(x), build.shape(x.signal)
    line = len(before) == 2 and (windows.size[0], windows.stride[0], windows.pads[0]) == (1, 1, 0)
    if len(before) == 3 or line:
        return terms, before
    image = (prod(before[:-2]), *before[-2:])
    return reshape_node(build, signal, terms, build.shape_of(terms) or before, image), image


def _made(before: Shape, windows: _Windows) -> Shape:
    axes = slice(3 - len(before), None)
    rules = zip(before[1:], windows.size[axes], windows.stride[axes], windows.padding(before), strict=True)
    return (before[0], *(output_size(n, k, s, sum(sides)) for n, k, s, sides in rules))


def adaptive_maximum(build: Builder, signal: Signal) -> Operands:
    """Build a max pool whose windows make a given size."""
    x, size = signal.args[:2]
    before = build.shape(x.signal)
    if any(n % k for n, k in zip(before[-2:], size, strict=True)):
        raise refusal(signal, f"expected windows of one size; found {list(before[-2:])} pooled to {list(size)}")
    window = tuple(n // k for n, k in zip(before[-2:], size, strict=True))
    return _largest(build, signal, x, _Windows(window, window, 1))


def largest_over_axes(build: Builder, signal: Signal) -> Operands:
    """Build the maximum over axes: a max pool; of spikes whether their sum is above 0."""
    x, axes, _ = signal.args
    shape = build.shape(x.signal)
    if _is_whole_image(build, x, axes):
        return _largest(build, signal, x, _Windows(shape[1:], shape[1:], 1))
    if is_binary(build, build.read(x)):
        return added_and_compared(build, signal, dense(build, signal, x), 0.5)
    return _over_line(build, signal, build.read(x), _last(build, x, axes))


def least_over_axes(build: Builder, signal: Signal) -> Operands:
    """Build the minimum over axes: minus the maximum of minus the values."""
    x, axes, _ = signal.args
    terms = build.scaled(build.read(x), -1.0, build.shape(x.signal))
    return build.scaled(_over_line(build, signal, terms, _last(build, x, axes)), -1.0, build.shape(signal))


def _own_axes(build: Builder, x: Ref, axes: Sequence[int]) -> set[int]:
    """Return axes of a value as those of one sample: of ``[1, B, C, H, W]`` 2 and 3 are 0 and 1."""
    # a leading axis of 1 is none of the sample's: a mean over (2, 3) would pass for one over rows and columns
    return {axis - len(x.signal.node.layout) + len(build.shape(x.signal)) for axis in axes}


def _is_whole_image(build: Builder, x: Ref, axes: Sequence[int]) -> bool:
    return len(build.shape(x.signal)) == 3 and _own_axes(build, x, axes) == {1, 2}


def _last(build: Builder, x: Ref, axes: Sequence[int]) -> NDArray[np.int64]:
    """Return the place of each value of one sample, ``[kept, reduced]``."""
    shape, own = build.shape(x.signal), _own_axes(build, x, axes)
    order = sorted(range(len(shape)), key=lambda axis: axis in own)
    count = prod(shape[axis] for axis in own)
    return np.arange(prod(shape)).reshape(shape).transpose(order).reshape(-1, count)


def _over_line(build: Builder, signal: Signal, terms: Operands, places: NDArray[np.int64]) -> Operands:
    """Build the largest of each row of places."""
    size = places.shape[1]
    lines = _lines(build, signal, terms, places)
    return _largest_of(build, signal, lines, places.shape, _Windows((1, size), (1, size), 1))


def _lines(build: Builder, signal: Signal, terms: Operands, places: NDArray[np.int64]) -> Operands:
    """Put values in rows of places."""
    before = build.shape_of(terms) or places.shape
    if np.array_equal(places.reshape(-1), np.arange(places.size)):
        return reshape_node(build, signal, terms, before, places.shape)
    return gathered(build, terms, before, places)


def average(build: Builder, signal: Signal) -> Operands:
    """Build an average pool, or with ``divisor_override=1`` a sum pool."""
    defaults: tuple[Any, ...] = (None, None, [], 0, False, True, None)
    x, kernel, stride, padding, ceil, counts, divisor = with_defaults(signal.args, defaults)
    size, pads = pair(kernel), pair(padding)
    area = size[0] * size[1]
    windows = _Windows(size, pair(stride or kernel), 1 if divisor == 1 else area, pads, bool(ceil))
    before = (1, *build.shape(x.signal)[-2:])
    same = windows.padding(before) == replace(windows, ceil=False).padding(before)
    if not same or (any(pads) and not counts) or divisor not in (None, 1, area):
        return _of_several_sizes(build, signal, x, windows)
    return _pooled(build, signal, x, windows)


def _of_several_sizes(build: Builder, signal: Signal, x: Ref, windows: _Windows) -> Operands:
    """Build an average over windows of several sizes: a matrix or, where that is too large, sums scaled by place."""
    shape, after = build.shape(x.signal), build.shape(signal)
    if len(shape) != 3 or fits_matrix(build, signal, x):
        return dense(build, signal, x)
    name = build.name("pool", signal.node.place.module)
    sums = window_sum(name, build.read(x), shape, windows.size, windows.stride, windows.padding(shape))
    ones = torch.ones(1, 1, *shape[1:], dtype=torch.float64)
    _, kernel, stride, padding, ceil, *_ = with_defaults(signal.args, (None, None, [], 0, False))
    counted = functional.avg_pool2d(ones, kernel, stride or None, padding, ceil_mode=ceil, divisor_override=1)
    average = functional.avg_pool2d(ones, *signal.args[1:])
    return build.scaled(build.add(sums), (average / counted)[0].float().numpy(), after)


def adaptive(build: Builder, signal: Signal) -> Operands:
    """Build an average pool whose windows make a given size."""
    x, size = signal.args[:2]
    before = build.shape(x.signal)
    if before[-2:] == tuple(size):
        return build.read(x)
    if any(n % k for n, k in zip(before[-2:], size, strict=True)):
        return along_axes(build, signal)  # windows of several sizes
    window = tuple(n // k for n, k in zip(before[-2:], size, strict=True))
    return _pooled(build, signal, x, _Windows(window, window, window[0] * window[1]))


def over_axes(build: Builder, signal: Signal) -> Operands:
    """Build the mean or sum over whole axes: a pool, weights on channels, a matrix or, where too large, over lines."""
    x, axes, _ = signal.args
    before = build.shape(x.signal)
    if prod(build.shape(signal)) == prod(before):
        return reshaped(build, signal, build.read(x), before)
    if _is_whole_image(build, x, axes):
        divisor = 1 if signal.node.name == "sum" else before[1] * before[2]
        return _pooled(build, signal, x, _Windows(before[1:], before[1:], divisor))
    places = _last(build, x, axes)
    divisor = 1 if signal.node.name == "sum" else places.shape[1]
    if _own_axes(build, x, axes) == {0} and len(before) in (2, 3):
        name, weight = build.name("pool", signal.node.place.module), np.full((1, before[0]), 1 / divisor, np.float32)
        node = pointwise(name, build.read(x), before, weight)
        return reshaped(build, signal, build.add(node), node.shape)
    if len(places) == 1 or prod(before) ** 2 <= MAX_DENSE:
        return dense(build, signal, x)
    image = x.signal.args[0] if x.signal.node.name == "reshape" else x
    shape = build.shape(image.signal)
    if len(shape) == 3 and _own_axes(build, x, axes) == {1} and before == (shape[0], shape[1] * shape[2]):
        windows = _Windows(shape[1:], shape[1:], divisor)  # all places of an image, in one axis
        return _pooled(build, signal, Ref(image.signal, image.lag + x.lag), windows)
    windows = _Windows((1, places.shape[1]), (1, places.shape[1]), divisor)
    return _along_a_line(build, signal, _lines(build, signal, build.read(x), places), places.shape, windows)


def _pooled(build: Builder, signal: Signal, x: Ref, windows: _Windows) -> Operands:
    terms, before = _pooled_shape(build, signal, x, windows)
    if len(before) == 2:
        return _along_a_line(build, signal, terms, before, windows)
    node = Pool(
        name=build.name("pool", signal.node.place.module),
        shape=_made(before, windows),
        operands=terms,
        kernel=windows.size,
        stride=windows.stride,
        padding=windows.padding(before),
        divisor=windows.divisor,
        input_shape=before,
    )
    return reshaped(build, signal, build.add(node), node.shape)


def _along_a_line(build: Builder, signal: Signal, terms: Operands, before: Shape, windows: _Windows) -> Operands:
    """Pool over one axis, which NIR lacks: a depthwise convolution."""
    name = build.name("pool", signal.node.place.module)
    kernel, stride = windows.size[1:], windows.stride[1:]
    node = window_sum(name, terms, before, kernel, stride, windows.padding(before), windows.divisor)
    return reshaped(build, signal, build.add(node), node.shape)
