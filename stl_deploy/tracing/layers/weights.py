"""Build convolutions and matrix products, and other linear operations as one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from stl_deploy.graph.convolutions import MAX_DENSE
from stl_deploy.graph.program import Conv, Floats, Linear, Shape
from stl_deploy.tracing.layers.arguments import array
from stl_deploy.tracing.layers.builder import Builder, refusal
from stl_deploy.tracing.layers.draft import Operands
from stl_deploy.tracing.layers.shapes import flat, gathered, reshaped
from stl_deploy.tracing.unrolling.layout import BATCH, Sizes, shape_of
from stl_deploy.tracing.unrolling.steps import Ref, Signal


def convolution(build: Builder, signal: Signal) -> Operands:
    """Over one or two axes, of which one of time alone is none of a step; over three as its matrix."""
    x, weight, bias, stride, padding, dilation, transposed, _, groups = signal.args
    if signal.node.axis:
        at = signal.node.axis - 2
        stride, padding, dilation = ([*sizes[:at], *sizes[at + 1 :]] for sizes in (stride, padding, dilation))
    weight = array(weight).squeeze(signal.node.axis or ())
    if len(stride) > 2 or (transposed and fits_matrix(build, signal, x)):
        return dense(build, signal, x)
    terms, before = build.read(x), build.shape(x.signal)
    if transposed:
        places, weight = _turned(before, build.shape(signal)[1:], weight, stride, padding, dilation, groups)
        terms, before = gathered(build, terms, before, places), places.shape
        stride, padding = [1] * len(stride), [0] * len(stride)
    return _weighted(build, signal, terms, before, weight, bias, (stride, padding, dilation), groups)


def _turned(
    before: Shape,
    made: Shape,
    kernel: Floats,
    strides: Sequence[int],
    paddings: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> tuple[NDArray[np.int64], Floats]:
    """Return a transposed convolution as the places of its input, -1 for zeros between and around, and a kernel.

    It puts out y[o], the sum of kernel[k]·x[i] over all o = i·stride - padding + k·dilation.
    """
    places = np.arange(prod(before)).reshape(before)
    rules = zip(made, kernel.shape[2:], strides, paddings, dilations, strict=True)
    for axis, (size, taps, stride, padding, dilation) in enumerate(rules, 1):
        reach = (taps - 1) * dilation
        at, between = np.divmod(np.arange(size + reach) + padding - reach, stride)
        is_zero = (between != 0) | (at < 0) | (at >= before[axis])
        along = is_zero.reshape(-1, *(1,) * (len(before) - axis - 1))
        places = np.where(along, -1, places.take(np.where(is_zero, 0, at), axis))
    blocks = np.flip(kernel, tuple(range(2, kernel.ndim))).reshape(groups, -1, *kernel.shape[1:]).swapaxes(1, 2)
    return places, blocks.reshape(-1, *blocks.shape[2:])


def over_time(build: Builder, signal: Signal) -> Operands:
    """Build a causal convolution over time: each tap is a layer of its own, which reads its input late."""
    taps, weight, bias, stride, padding, dilation, groups, axis = signal.args
    kernel = array(weight)
    stride, padding, dilation = ([*sizes[: axis - 2], *sizes[axis - 1 :]] for sizes in (stride, padding, dilation))
    terms: Operands = ()
    for i, tap in enumerate(taps):
        part: Floats = np.asarray(kernel.take(i, axis), np.float32)
        last = i == len(taps) - 1
        if not isinstance(tap, Ref) or not (part.any() or last):
            continue  # zeros in front of the first step, or a tap without weight
        with_bias = bias if last else None
        before = build.shape(tap.signal)
        terms += _weighted(build, signal, build.read(tap), before, part, with_bias, (stride, padding, dilation), groups)
    return terms


def _weighted(
    build: Builder,
    signal: Signal,
    terms: Operands,
    before: Shape,
    weight: Floats,
    bias: Any,
    sizes: tuple[Sequence[int], ...],
    groups: int,
) -> Operands:
    """Build a convolution; over no axis of a step, a linear layer. sizes: stride, padding and dilation."""
    stride, padding, dilation = map(tuple, sizes)
    if not stride:
        return _of_size_one(build, signal, terms, before, weight, bias, groups)
    return build.add(
        Conv(
            name=build.name("conv", signal.node.place.module),
            shape=build.shape(signal),
            operands=terms,
            weight=np.ascontiguousarray(weight),
            bias=None if bias is None else array(bias),
            stride=stride,
            padding=tuple((p, p) for p in padding),
            dilation=dilation,
            groups=groups,
            input_shape=before,
        )
    )


def _of_size_one(
    build: Builder, signal: Signal, terms: Operands, before: Shape, weight: Floats, bias: Any, groups: int
) -> Operands:
    """A convolution over time alone, of kernel 1: a linear layer, of blocks where it has groups."""
    parts = np.split(weight, groups)
    blocks = [[part if i == j else np.zeros_like(part) for j in range(groups)] for i, part in enumerate(parts)]
    return build.add(
        Linear(
            name=build.name("linear", signal.node.place.module),
            shape=build.shape(signal),
            operands=terms,
            weight=np.block(blocks),
            bias=None if bias is None else array(bias),
            input_shape=before,
        )
    )


def linear(build: Builder, signal: Signal) -> Operands:
    """``addmm``, which is beta·bias + alpha·x·weight, or ``mm``."""
    bias, x, weight = signal.args if signal.node.name == "addmm" else (None, *signal.args)
    alpha, beta = (np.float32(signal.kwargs.get(name, 1)) for name in ("alpha", "beta"))
    shape = build.shape(signal)
    return build.add(
        Linear(
            name=build.name("linear", signal.node.place.module),
            shape=shape,
            operands=build.read(x),
            weight=alpha * np.ascontiguousarray(array(weight).reshape(array(weight).shape[-2:]).T),
            bias=None if bias is None else beta * np.broadcast_to(array(bias), shape[-1:]),
            input_shape=build.shape(x.signal),
        )
    )


def along_axes(build: Builder, signal: Signal) -> Operands:
    """Interpolate or average: a matrix or, where that is too large, weighted places along each axis in turn."""
    x = signal.args[0]
    if fits_matrix(build, signal, x):
        return dense(build, signal, x)
    terms, before, after = build.read(x), build.shape(x.signal), build.shape(signal)
    for axis in range(1, len(before)):
        weights = _along(signal, x, axis - len(before))
        taps = int((weights != 0).sum(1).max())
        order = np.argsort(weights == 0, axis=1, kind="stable")[:, :taps]
        places = np.arange(prod(before)).reshape(before)
        shape = (*before[:axis], after[axis], *before[axis + 1 :])
        summed: Operands = ()
        for at in order.T:
            factor = weights[np.arange(len(at)), at].reshape(-1, *(1,) * (len(before) - axis - 1))
            summed += build.scaled(gathered(build, terms, before, places.take(at, axis)), factor, shape)
        terms, before = summed, shape
    return terms


def _along(signal: Signal, x: Ref, axis: int) -> Floats:
    """Return the weights ``[made, count]`` of one axis: the operation on values that are 1 in one row, 0 elsewhere."""
    shape = shape_of(x.signal.node.layout, {BATCH: 1})

    def column(k: int) -> Tensor:
        rows = torch.zeros(shape, dtype=torch.float64)
        rows.select(axis, k).fill_(1)
        made = signal.made_of(lambda ref: rows, {BATCH: 1})
        return made.movedim(axis, -1).reshape(-1, made.shape[axis])[0]

    weights: Floats = torch.stack([column(k) for k in range(shape[axis])], -1).float().numpy()
    return weights


def _outputs(signal: Signal, x: Ref, values: Tensor) -> Tensor:
    """Return what an operation makes of flat values ``[samples, count]`` of its input, ``[samples, made]``."""
    samples: Sizes = {BATCH: len(values)}
    shaped = values.to(x.signal.node.dtype).reshape(shape_of(x.signal.node.layout, samples))
    return signal.made_of(lambda ref: shaped, samples).double().reshape(len(values), -1)


def fits_matrix(build: Builder, signal: Signal, x: Ref) -> bool:
    """Return whether a signal made of ``x`` can be a matrix times ``x``, which NIR holds."""
    return prod(build.shape(x.signal)) * prod(build.shape(signal)) <= MAX_DENSE


def dense(build: Builder, signal: Signal, x: Ref) -> Operands:
    """Return a linear operation without a NIR node as weights on the flat values: its outputs for unit vectors."""
    before, after = build.shape(x.signal), build.shape(signal)
    count, made = int(np.prod(before)), int(np.prod(after))
    if count * made > MAX_DENSE:
        raise refusal(
            signal,
            f"'{signal.node.called}' from {list(before)} to {list(after)} has no node in NIR: expected at most "
            f"{MAX_DENSE:,} weights in its place; found {count * made:,}; use an operation that has a node",
        )
    # not all units at once: 65,536 of them would be 17 GB
    parts = torch.split(torch.arange(count), max(1, MAX_DENSE // count))
    (bias,) = _outputs(signal, x, torch.zeros(1, count))
    rows = torch.cat([_outputs(signal, x, functional.one_hot(part, count)) for part in parts])
    weight = (rows - bias).T.float().numpy()
    terms = build.add(
        Linear(
            name=build.name("linear", signal.node.place.module),
            shape=(made,),
            operands=flat(build, signal, x),
            weight=np.ascontiguousarray(weight),
            bias=bias.float().numpy() if bool(bias.any()) else None,
            input_shape=(count,),
        )
    )
    build.matrices += [term.node for term in terms]
    return reshaped(build, signal, terms, (made,))
