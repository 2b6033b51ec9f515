"""Compute memoryless nodes on arrays ``[N, *shape]`` with time folded into N.

Sums are in float32, or, with ``double``, in float64 from the float32 terms and then rounded once. Products of two
float32 numbers are exact in float64, and so are sums of them that need no more than 53 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stl_deploy.graph import program as ir
from stl_deploy.graph.program import Floats
from stl_deploy.graph.threads import map_parts

Sums = type[np.float32] | type[np.float64]
"""The type in which terms are added up."""
_CONVERTED = 2**18
"""So many weights are converted to the type of the sums at once, so that they stay in a cache."""
_PATCH_BYTES = 8 * 2**20
"""Convolution unfolds as many samples at a time, on each thread, as fit here: memory is bounded."""
_MOST_PATCH_BYTES = 256 * 2**20
"""Of a single sample it unfolds as many rows of the output at a time as fit here."""


@singledispatch
def apply(node: ir.Node, x: Floats, sums: Sums = np.float32) -> Floats:
    """Return the output ``[N, *node.shape]`` of a memoryless node for input ``x`` ``[N, *input shape]``, float32."""
    raise TypeError(f"{type(node).__name__} is not memoryless")


def combined(node: ir.Node, parts: Sequence[Floats], *, leading: int) -> Floats:
    """Combine a node's sources as its ``combine`` says; a sum is added up from left to right.

    leading: number of axes before those of one sample.
    """
    first, *others = parts
    if not others:
        return first
    if node.combine == "flat":
        return np.concatenate([part.reshape(*part.shape[:leading], -1) for part in parts], axis=leading)
    if node.combine == "each":
        return np.concatenate(parts, axis=leading)
    total = first + others[0]
    for other in others[1:]:
        total += other
    return total


@apply.register(ir.Input)
@apply.register(ir.Output)
@apply.register(ir.Concat)
def _pass(node: ir.Node, x: Floats, sums: Sums = np.float32) -> Floats:
    return x


@apply.register
def _linear(node: ir.Linear, x: Floats, sums: Sums = np.float32) -> Floats:
    y = _sums(x.astype(sums, copy=False), node.weight)
    if node.bias is not None:
        y += node.bias
    rounded: Floats = y.astype(np.float32, copy=False)
    return rounded


def _sums(x: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Return ``x @ weight.T`` in the type of x; weights of another type are converted a part at a time."""
    if weight.dtype == x.dtype:
        product: NDArray[Any] = x @ weight.T
        return product
    y, rows = np.empty((*x.shape[:-1], len(weight)), x.dtype), max(1, _CONVERTED // weight.shape[1])
    for start in range(0, len(weight), rows):
        part = slice(start, start + rows)
        y[..., part] = x @ weight[part].T.astype(x.dtype)
    return y


@apply.register
def _scale(node: ir.Scale, x: Floats, sums: Sums = np.float32) -> Floats:
    return x * node.scale


@apply.register
def _reshape(node: ir.Reshape, x: Floats, sums: Sums = np.float32) -> Floats:
    return x.reshape(x.shape[0], *node.shape)


@apply.register
def _norm(node: ir.Norm, x: Floats, sums: Sums = np.float32) -> Floats:
    shape = (-1, *(1,) * (len(node.shape) - 1)) if node.axis == 0 else (-1,)
    mean, scale, shift = (np.float64(0) if a is None else a.reshape(shape) for a in (node.mean, node.scale, node.shift))
    y = np.subtract(x, mean, dtype=np.float64)
    y *= scale
    y += shift
    return y.astype(np.float32)


@apply.register
def _gather(node: ir.Gather, x: Floats, sums: Sums = np.float32) -> Floats:
    flat = x.reshape(len(x), -1)[:, node.indices.reshape(-1)]
    return np.where(node.indices.reshape(-1) < 0, np.float32(0), flat).reshape(len(x), *node.shape)


def split_operands(node: ir.Product, x: Floats) -> tuple[Floats, Floats]:
    """Split what arrives at a product, ``[..., values of both]``, into its operands ``[..., *shape]``."""
    left, right = node.operand_shapes
    size = int(np.prod(left))
    return x[..., :size].reshape(*x.shape[:-1], *left), x[..., size:].reshape(*x.shape[:-1], *right)


@apply.register
def _product(node: ir.Product, x: Floats, sums: Sums = np.float32) -> Floats:
    a, b = split_operands(node, x)
    if not node.matrices:
        return a * b
    y: Floats = (a.astype(sums, copy=False) @ b.astype(sums, copy=False)).astype(np.float32, copy=False)
    return y


@apply.register
def _max_pool(node: ir.MaxPool, x: Floats, sums: Sums = np.float32) -> Floats:
    padded = np.pad(x, [(0, 0)] * (x.ndim - len(node.padding)) + list(node.padding), constant_values=-np.inf)
    windows = unfold(padded, node.kernel, node.stride, (1,) * len(node.kernel))
    largest: Floats = windows.max(axis=tuple(range(2, 2 + len(node.kernel))))
    return largest


@apply.register
def _pool(node: ir.Pool, x: Floats, sums: Sums = np.float32) -> Floats:
    x = pad(x, node.padding)
    y = np.zeros((x.shape[0], *node.shape), sums)
    rows, columns = ((size - 1) * step + 1 for size, step in zip(node.shape[-2:], node.stride, strict=True))
    for i in range(node.kernel[0]):
        for j in range(node.kernel[1]):
            y += x[..., i : i + rows : node.stride[0], j : j + columns : node.stride[1]]
    if node.divisor != 1:
        y /= sums(node.divisor)
    return y.astype(np.float32, copy=False)


@apply.register
def _conv(node: ir.Conv, x: Floats, sums: Sums = np.float32) -> Floats:
    groups, kernel = node.groups, node.weight.shape[2:]
    weight: NDArray[Any] = node.weight.reshape(groups, node.weight.shape[0] // groups, -1).astype(sums, copy=False)
    bias = None if node.bias is None else node.bias.reshape(-1, *(1,) * len(kernel))
    y = np.empty((x.shape[0], *node.shape), np.float32)
    per_row = weight.itemsize * weight.shape[2] * groups * int(np.prod(node.shape[2:]))
    at_once = max(1, _PATCH_BYTES // (per_row * node.shape[1]))
    rows = max(1, _MOST_PATCH_BYTES // per_row)

    def convolve(samples: slice) -> None:
        part = pad(x[samples], node.padding)
        every = unfold(part, kernel, node.stride, node.dilation)
        first = 2 + len(kernel)
        for row in range(0, node.shape[1], rows):
            columns = every[(*(slice(None),) * first, slice(row, row + rows))]
            shape = (part.shape[0], node.shape[0], *columns.shape[first:])
            patches = columns.reshape(part.shape[0], groups, weight.shape[2], -1).astype(sums, copy=False)
            total = (weight @ patches).reshape(shape)
            if bias is not None:
                total += bias
            y[samples, :, row : row + rows] = total

    parts = [slice(start, start + at_once) for start in range(0, x.shape[0], at_once)]
    if len(parts) == 1:
        convolve(parts[0])
    else:
        map_parts(convolve, parts)
    return y


def pad(x: Floats, padding: tuple[tuple[int, int], ...]) -> Floats:
    """Add zeros before and after each of the trailing axes."""
    if not any(before or after for before, after in padding):
        return x
    return np.pad(x, [(0, 0)] * (x.ndim - len(padding)) + list(padding))


def unfold(
    x: Floats, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return patches ``[N, C, *kernel, *out]`` of a padded ``x`` ``[N, C, *spatial]``, as a view."""
    rank = len(kernel)
    axes = tuple(range(2, 2 + rank))
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    windows = sliding_window_view(x, reach, axis=axes)
    steps = tuple(slice(None, None, s) for s in stride) + tuple(slice(None, None, d) for d in dilation)
    windows = windows[(slice(None), slice(None), *steps)]
    return np.moveaxis(windows, axes, tuple(range(2 + rank, 2 + 2 * rank)))
