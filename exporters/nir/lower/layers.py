"""Lower NIR's memoryless nodes to Program nodes, with shapes derived from the input's shape."""

from __future__ import annotations

from math import prod
from typing import Any

import nir
import numpy as np

from stl_deploy._util.arrays import output_size
from stl_deploy.errors import GraphError
from stl_deploy.exporters.nir.lower._fields import (
    ShapeConvention,
    bad_shape,
    fit,
    float32,
    numbers,
    optional_bias,
    weights,
    whole,
)
from stl_deploy.graph.program import Conv, Delay, Linear, Operand, Pool, Reshape, Scale, Shape

Operands = tuple[Operand, ...]

_MAX_POSITIONS = 2**24
"""Of a padded map of one channel; cameras have a million."""


def lower_linear(
    name: str, node: nir.Linear | nir.Affine, shape: Shape, sources: Operands, reading: ShapeConvention
) -> Linear:
    """Lower Linear or Affine with a weight ``[out, in]`` on an input ``[in]``, or ``[..., in]`` in a lenient reading.

    Raises GraphError where the input does not fit.
    """
    weight = weights(name, node)
    if weight.ndim != 2 or 0 in weight.shape:
        raise bad_shape(name, f"expected weight [out, in]; found shape {list(weight.shape)}")
    if not shape or shape[-1] != weight.shape[1] or (reading.strict and len(shape) > 1):
        raise bad_shape(
            name, f"expected {weight.shape[1]} values as input, as its weight has it; found shape {list(shape)}"
        )
    return Linear(
        name=name,
        shape=(*shape[:-1], weight.shape[0]),
        operands=sources,
        weight=weight,
        bias=optional_bias(name, node, weight.shape[0]),
        input_shape=shape,
    )


def lower_conv(name: str, node: nir.Conv1d | nir.Conv2d, shape: Shape, sources: Operands) -> Conv:
    """Lower Conv1d or Conv2d on an input ``[C, *spatial]``; raise GraphError if channels or sizes do not fit."""
    rank = 1 if isinstance(node, nir.Conv1d) else 2
    weight = weights(name, node)
    if weight.ndim != rank + 2 or 0 in weight.shape:
        raise bad_shape(
            name,
            f"expected weight [C_out, C_in/groups, {'k' if rank == 1 else 'kh, kw'}]; found shape {list(weight.shape)}",
        )
    (groups,) = whole(name, node, "groups", 1, 1)
    if len(shape) != rank + 1 or shape[0] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise bad_shape(
            name, f"weight {list(weight.shape)} with groups {groups} does not fit an input of shape {list(shape)}"
        )
    stride = whole(name, node, "stride", rank, 1)
    dilation = whole(name, node, "dilation", rank, 1)
    kernel = weight.shape[2:]
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    pads = padding(name, node, reach, stride)
    return Conv(
        name=name,
        shape=(weight.shape[0], *_slide(name, shape[1:], reach, stride, pads)),
        operands=sources,
        weight=weight,
        bias=optional_bias(name, node, weight.shape[0]),
        stride=stride,
        padding=pads,
        dilation=dilation,
        groups=groups,
        input_shape=shape,
    )


def lower_pool(name: str, node: nir.SumPool2d | nir.AvgPool2d, shape: Shape, sources: Operands) -> Pool:
    """Lower sum or average pooling over the last 2 axes of ``[C, H, W]``."""
    if len(shape) != 3:
        raise bad_shape(name, f"expected an input [C, H, W]; found shape {list(shape)}")
    kernel = whole(name, node, "kernel_size", 2, 1)
    stride = whole(name, node, "stride", 2, 1)
    pads = tuple((p, p) for p in whole(name, node, "padding", 2, 0))
    return Pool(
        name=name,
        shape=(shape[0], *_slide(name, shape[1:], kernel, stride, pads)),
        operands=sources,
        kernel=kernel,
        stride=stride,
        padding=pads,
        divisor=kernel[0] * kernel[1] if isinstance(node, nir.AvgPool2d) else 1,
        input_shape=shape,
    )


def lower_flatten(name: str, node: nir.Flatten, shape: Shape, sources: Operands, reading: ShapeConvention) -> Reshape:
    """Flatten axes start_dim…end_dim of the sample's shape (no batch axis, unless the reading says so)."""
    batch = int(reading.flatten_batch)
    start, end = (_axis(name, node, field, len(shape) + batch) - batch for field in ("start_dim", "end_dim"))
    if start < 0:
        raise bad_shape(name, "flattens the batch axis")
    if start > end:
        raise bad_shape(name, f"expected an axis to flatten to behind axis {start} of {list(shape)}; found {end}")
    flat = int(np.prod(shape[start : end + 1]))
    return Reshape(name=name, shape=(*shape[:start], flat, *shape[end + 1 :]), operands=sources, input_shape=shape)


def lower_scale(name: str, node: nir.Scale, shape: Shape, sources: Operands, reading: ShapeConvention) -> Scale:
    """Lower an elementwise scale that fits the input's shape."""
    scale = fit(name, "scale", numbers(name, node, "scale"), shape, reading.strict)
    return Scale(name=name, shape=shape, operands=sources, scale=float32(name, "field 'scale'", scale))


def lower_delay(
    name: str, node: nir.Delay, shape: Shape, sources: Operands, reading: ShapeConvention, dt: float
) -> Delay:
    """Lower a delay of an integer number of time steps; raise GraphError for a fraction of dt or a negative delay."""
    delay = fit(name, "delay", numbers(name, node, "delay"), shape, reading.strict)
    with np.errstate(over="ignore"):
        steps = np.asarray(delay.astype(np.float64) / dt)
    rounded = np.round(np.clip(steps, -1, 2.0**31))
    bad = (rounded < 0) | (np.abs(steps - rounded) > 1e-3)
    if bad.any():
        raise GraphError(
            f"expected a delay of whole time steps of dt {dt:g}, from 0 to 2^31; found {steps[bad][0]:g}; "
            "pass a dialect if dt is another",
            node=name,
            slug="delay-not-whole",
        )
    return Delay(name=name, shape=shape, operands=sources, steps=rounded.astype(np.int64))


def _axis(name: str, node: Any, field: str, rank: int) -> int:
    array = numbers(name, node, field).reshape(-1)
    if array.size != 1 or array[0] not in range(-rank, rank):
        raise bad_shape(name, f"{field}: expected one axis of an input with {rank}; found {array[:8].tolist()}")
    return int(array[0]) % rank


def padding(name: str, node: Any, reach: Shape, stride: Shape) -> tuple[tuple[int, int], ...]:
    """Return a convolution's padding (before, after) of each axis, for a window of ``reach``; raise GraphError.

    NIR has a word, a number for all axes, or one for each; a pair for each is taken for before and after.
    """
    value = getattr(node, "padding", None)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        if value == "valid":
            return tuple((0, 0) for _ in reach)
        if value != "same" or any(s != 1 for s in stride):
            raise GraphError(
                f"padding: expected numbers, 'valid' or 'same' at stride 1; found '{value}' at stride {list(stride)}",
                node=name,
                slug="bad-field",
            )
        return tuple(((r - 1) // 2, r - 1 - (r - 1) // 2) for r in reach)
    if numbers(name, node, "padding").shape == (len(reach), 2):
        sides = whole(name, node, "padding", 2 * len(reach), 0)
        return tuple(zip(sides[::2], sides[1::2], strict=True))
    return tuple((p, p) for p in whole(name, node, "padding", len(reach), 0))


def _slide(
    name: str, spatial: Shape, reach: Shape, stride: Shape, pads: tuple[tuple[int, int], ...]
) -> tuple[int, ...]:
    """Return the output size of a window of ``reach`` moved in steps of ``stride``."""
    padded = [n + lo + hi for n, (lo, hi) in zip(spatial, pads, strict=True)]
    if prod(padded) > _MAX_POSITIONS:
        raise GraphError(
            f"expected up to {_MAX_POSITIONS:,} positions of a padded input; found {prod(padded):,} of {list(spatial)} "
            f"with padding {list(pads)}",
            node=name,
            slug="too-large",
        )
    sizes = tuple(output_size(n, r, s, lo + hi) for n, r, s, (lo, hi) in zip(spatial, reach, stride, pads, strict=True))
    if any(size < 1 for size in sizes):
        raise bad_shape(
            name, f"a window of {list(reach)} does not fit an input of {list(spatial)} with padding {list(pads)}"
        )
    return sizes
