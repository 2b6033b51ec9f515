"""Fold each norm into the weights before it, or give it its own weights.

With y = W·x + b, scale s, mean μ and shift t per channel: s·(y - μ) + t = (s·W)·x + (s·(b - μ) + t). This also holds at
the borders, where padding adds zeros to neither side. Behind other nodes W = 1: the norm becomes a scale, a diagonal
linear layer, or a depthwise 1x1 convolution.

A norm behind a max pool moves before it: s·(max(y) - μ) + t = max(s·(y - μ) + t) for s >= 0, and for any s with its
sign σ behind the pool, σ·max(|s|·(y - μ) + σ·t). Behind an average pool without padding it does so for every s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stl_deploy.graph.convolutions import pointwise
from stl_deploy.graph.program import Conv, Doubles, Linear, MaxPool, Node, Norm, Operand, Pool, Scale
from stl_deploy.passes.base import Nodes, Pass, by_row, bypassed, readers_of, rewrite


def _fold(nodes: Nodes) -> Nodes:
    """Fold each norm into the weights before it if they have no other reader, else into weights of its own.

    With y = W·x + b and scale s, shift t for each channel: s·y + t = (s·W)·x + (s·b + t). A norm behind anything else
    is the same with W = 1: a depthwise 1x1 convolution, or a diagonal linear layer.
    """
    pending: dict[str, tuple[Doubles, Doubles]] = {}
    renamed: dict[str, str] = {}
    folded = dict(nodes)
    for name, layer in nodes.items():
        if not isinstance(layer, Norm):
            continue
        sources = tuple(Operand(renamed.get(s.node, s.node), s.delay) for s in layer.operands)
        before = folded.get(sources[0].node) if len(sources) == 1 and not sources[0].delay else None
        pool = before if isinstance(before, MaxPool) or (isinstance(before, Pool) and _averages(before)) else None
        before = before if pool is None else _behind(folded, pool)
        alone = len(readers_of(nodes, layer.operands[0].node)) == 1
        if alone and isinstance(before, Conv | Linear) and _same_rows(before, layer):
            weight, bias = pending.get(before.name) or _doubles(before)
            scale, shift = np.asarray(layer.scale, np.float64), np.asarray(layer.shift, np.float64)
            # max(s·y) is s·max(y) for s > 0 alone: the sign stays behind the pool.
            sign = np.where(scale < 0, -1.0, 1.0) if isinstance(pool, MaxPool) else np.ones_like(scale)
            scale, shift = scale * sign, shift * sign
            bias = scale * (bias if layer.mean is None else bias - layer.mean) + shift
            pending[before.name] = weight * by_row(scale, weight.ndim), bias
            if (sign < 0).any():
                folded[name] = _own_weights(replace(layer, scale=sign, shift=np.zeros_like(shift), mean=None))
                continue
            renamed[name] = sources[0].node
        else:
            folded[name] = _own_weights(layer)
    for name, (weight, bias) in pending.items():
        folded[name] = replace(folded[name], weight=weight, bias=bias)  # type: ignore[call-arg]
    return bypassed(folded, renamed)


def _averages(pool: Pool) -> bool:
    """Return whether a constant passes a pool unchanged."""
    return pool.divisor == pool.kernel[0] * pool.kernel[1] and not any(map(any, pool.padding))


def _behind(nodes: Nodes, pool: MaxPool | Pool) -> Node | None:
    """Return the node that a pool alone reads; None if there are others."""
    source, *others = pool.operands
    alone = not others and not source.delay and len(readers_of(nodes, source.node)) == 1
    return nodes.get(source.node) if alone else None


def _same_rows(before: Node, norm: Norm) -> bool:
    """Return whether each channel of a norm is a row of the weights before it."""
    if isinstance(before, Linear):
        return len(before.shape) == 1 or norm.axis == -1
    return isinstance(before, Conv) and norm.axis == 0


def _doubles(layer: Conv | Linear) -> tuple[Doubles, Doubles]:
    weight = layer.weight.astype(np.float64)
    return weight, np.zeros(len(weight)) if layer.bias is None else layer.bias.astype(np.float64)


def _own_weights(norm: Norm) -> Node:
    scale: Any = np.asarray(norm.scale, np.float64)
    shift: Any = np.asarray(norm.shift, np.float64)
    if norm.mean is not None:
        shift = scale * -norm.mean + shift
    if not shift.any():
        scale = by_row(scale, len(norm.shape) if norm.axis == 0 else 1)
        return Scale(name=norm.name, shape=norm.shape, operands=norm.operands, scale=scale)
    if len(norm.shape) == 1 or norm.axis == -1:
        return Linear(
            name=norm.name,
            shape=norm.shape,
            operands=norm.operands,
            weight=np.diag(scale),
            bias=shift,
            input_shape=norm.shape,
        )
    return pointwise(norm.name, norm.operands, norm.shape, scale[:, None], bias=shift, groups=norm.shape[0])


PASS = Pass("fold_norms", rewrite(_fold), "real", removes=(Norm,))
