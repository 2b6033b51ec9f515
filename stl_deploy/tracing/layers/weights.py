"""Convolutions and matrix products, and other linear operations as one."""

from __future__ import annotations

import numpy as np
import torch

from stl_deploy.errors import CaptureError
from stl_deploy.graph.program import Conv, Linear
from stl_deploy.tracing.layers.arguments import array
from stl_deploy.tracing.layers.builder import Builder, refusal
from stl_deploy.tracing.layers.draft import Terms
from stl_deploy.tracing.layers.shapes import flat
from stl_deploy.tracing.layout import BATCH
from stl_deploy.tracing.recorder import map_tree
from stl_deploy.tracing.steps import Ref, Signal

_MAX_DENSE = 2**25
"""Most numbers in the weights that stand for an operation NIR has no node for."""


def convolution(build: Builder, signal: Signal) -> Terms:
    """Over one or two axes."""
    x, weight, bias, stride, padding, dilation, transposed, _, groups = signal.args
    if len(stride) > 2:
        raise refusal(
            signal, f"expected a convolution over 1 or 2 axes; found one over {len(stride)}; NIR has no node for it"
        )
    if transposed:
        raise refusal(
            signal,
            "expected a convolution that NIR has a node for; found a transposed one; use Conv1d or Conv2d, or a Linear",
        )
    if isinstance(weight, Ref) or isinstance(bias, Ref):
        raise _computed_weights(signal)
    return build.add(
        Conv(
            name=build.name("conv", signal.node.place.module),
            shape=build.shape(signal),
            sources=build.read(x),
            weight=array(weight),
            bias=None if bias is None else array(bias),
            stride=tuple(stride),
            padding=tuple((p, p) for p in padding),
            dilation=tuple(dilation),
            groups=groups,
            input_shape=build.shape(x.signal),
        )
    )


def linear(build: Builder, signal: Signal) -> Terms:
    """``addmm`` (bias first) or ``mm``."""
    bias, x, weight = signal.args if signal.node.name == "addmm" else (None, *signal.args)
    if signal.kwargs.get("alpha", 1) != 1 or signal.kwargs.get("beta", 1) != 1:
        raise refusal(
            signal, "expected a plain matrix product; found one with alpha or beta; scale its weights instead"
        )
    if isinstance(weight, Ref) or isinstance(bias, Ref):
        raise _computed_weights(signal)
    shape = build.shape(signal)
    return build.add(
        Linear(
            name=build.name("linear", signal.node.place.module),
            shape=shape,
            sources=build.read(x),
            weight=np.ascontiguousarray(array(weight).T),
            bias=None if bias is None else np.broadcast_to(array(bias), shape).copy(),
            input_shape=build.shape(x.signal),
        )
    )


def dense(build: Builder, signal: Signal, x: Ref) -> Terms:
    """A linear operation that NIR has no node for, as weights on the flat values: what it makes of unit vectors."""
    before, after = build.shape(x.signal), build.shape(signal)
    count, made = int(np.prod(before)), int(np.prod(after))
    if count * made > _MAX_DENSE:
        raise refusal(
            signal,
            f"'{signal.node.name}' from {list(before)} to {list(after)} has no node in NIR: expected at most "
            f"{_MAX_DENSE:,} weights in its place; found {count * made:,}; use an operation that has a node",
        )
    units = torch.eye(count).reshape(count, *before)
    args, kwargs = map_tree((signal.args, signal.kwargs), Ref, lambda ref: units)
    rows = signal.node.run(args, kwargs, {BATCH: count}).reshape(count, made)
    return build.add(
        Linear(
            name=build.name("linear", signal.node.place.module),
            shape=(made,),
            sources=flat(build, signal, x),
            weight=np.ascontiguousarray(rows.T.numpy()),
            bias=None,
            input_shape=(count,),
        )
    )


def _computed_weights(signal: Signal) -> CaptureError:
    return refusal(signal, "expected fixed weights; found the product of two signals; only a signal times weights fits")
