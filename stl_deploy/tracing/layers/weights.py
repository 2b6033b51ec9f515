"""Convolutions and matrix products, and other linear operations as one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from stl_deploy.graph.convolutions import MAX_DENSE
from stl_deploy.graph.program import Conv, Floats, Linear
from stl_deploy.tracing.layers.arguments import array
from stl_deploy.tracing.layers.builder import Builder, refusal
from stl_deploy.tracing.layers.draft import Terms
from stl_deploy.tracing.layers.shapes import flat, reshaped
from stl_deploy.tracing.layout import BATCH, shape_of
from stl_deploy.tracing.nodes import replace_nodes
from stl_deploy.tracing.recorder import map_tree
from stl_deploy.tracing.steps import Ref, Signal


def convolution(build: Builder, signal: Signal) -> Terms:
    """Over one or two axes; a third, of time alone, is none of a step."""
    x, weight, bias, stride, padding, dilation, transposed, _, groups = signal.args
    if signal.node.axis:
        at = signal.node.axis - 2
        stride, padding, dilation = ([*sizes[:at], *sizes[at + 1 :]] for sizes in (stride, padding, dilation))
    if len(stride) > 2:
        raise refusal(
            signal, f"expected a convolution over 1 or 2 axes; found one over {len(stride)}; NIR has no node for it"
        )
    if transposed:
        return dense(build, signal, x)
    if not stride:
        return _of_size_one(build, signal, x, array(weight)[..., 0], bias, groups)
    return build.add(
        Conv(
            name=build.name("conv", signal.node.place.module),
            shape=build.shape(signal),
            sources=build.read(x),
            weight=array(weight).squeeze(signal.node.axis or ()),
            bias=None if bias is None else array(bias),
            stride=tuple(stride),
            padding=tuple((p, p) for p in padding),
            dilation=tuple(dilation),
            groups=groups,
            input_shape=build.shape(x.signal),
        )
    )


def _of_size_one(build: Builder, signal: Signal, x: Ref, weight: Floats, bias: Any, groups: int) -> Terms:
    """A convolution over time alone, of kernel 1: a linear layer, of blocks where it has groups."""
    parts = np.split(weight, groups)
    blocks = [[part if i == j else np.zeros_like(part) for j in range(groups)] for i, part in enumerate(parts)]
    return build.add(
        Linear(
            name=build.name("linear", signal.node.place.module),
            shape=build.shape(signal),
            sources=build.read(x),
            weight=np.block(blocks),
            bias=None if bias is None else array(bias),
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
    shape = build.shape(signal)
    return build.add(
        Linear(
            name=build.name("linear", signal.node.place.module),
            shape=shape,
            sources=build.read(x),
            weight=np.ascontiguousarray(array(weight).reshape(array(weight).shape[-2:]).T),
            bias=None if bias is None else np.broadcast_to(array(bias), shape[-1:]).copy(),
            input_shape=build.shape(x.signal),
        )
    )


def dense(build: Builder, signal: Signal, x: Ref) -> Terms:
    """A linear operation that NIR has no node for, as weights on the flat values: what it makes of unit vectors."""
    before, after = build.shape(x.signal), build.shape(signal)
    count, made = int(np.prod(before)), int(np.prod(after))
    if count * made > MAX_DENSE:
        raise refusal(
            signal,
            f"'{signal.node.name}' from {list(before)} to {list(after)} has no node in NIR: expected at most "
            f"{MAX_DENSE:,} weights in its place; found {count * made:,}; use an operation that has a node",
        )
    units = torch.cat([torch.zeros(1, count), torch.eye(count)]).to(x.signal.node.dtype)
    units = units.reshape(shape_of(x.signal.node.layout, {BATCH: count + 1}))
    args, kwargs = map_tree((signal.args, signal.kwargs), Ref, lambda ref: units)
    args, kwargs = replace_nodes((args, kwargs), lambda node: node.tensor)
    bias, *rows = signal.node.run(args, kwargs, {BATCH: count + 1}).double().reshape(count + 1, made)
    weight = (torch.stack(rows) - bias).T.float().numpy()
    terms = build.add(
        Linear(
            name=build.name("linear", signal.node.place.module),
            shape=(made,),
            sources=flat(build, signal, x),
            weight=np.ascontiguousarray(weight),
            bias=bias.float().numpy() if bool(bias.any()) else None,
            input_shape=(count,),
        )
    )
    return reshaped(build, signal, terms, (made,))
