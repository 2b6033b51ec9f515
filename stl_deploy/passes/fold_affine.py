"""Fold a scale and an offset of each value into the weights right behind them: W·(s·x + t) + b = (W·s)·x + (b + W·t).

An input's normalisation, ``(x - mean) / std``, goes into the first layer this way. The rule holds in real arithmetic.
In float32 W·t brings back the cancellation that a subtracted mean avoids, so an offset is folded only if the input's
grid, and so its magnitude, is known. A scale of channels also goes through pools.
A convolution that pads its input with zeros takes no offset: padding has none.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from stl_deploy.graph.exact import Grid, grids
from stl_deploy.graph.program import Conv, Doubles, Linear, MaxPool, Node, Pool, Program, Reshape, Scale
from stl_deploy.graph.segments import looped
from stl_deploy.passes.base import Nodes, Pass, Rewritten, by_row, bypassed, reads_one, row_factors, with_nodes


class _Affine(NamedTuple):
    """A node as s·x + t, elementwise, ``[*shape]``."""

    scale: Doubles
    offset: Doubles


class _Weights(NamedTuple):
    weight: Doubles
    bias: Doubles


def _fold(program: Program) -> Rewritten:
    in_loops = looped(program)  # whose edges' delays stay
    known, merged, gone = grids(program), dict[str, _Weights](), set[str]()
    # From the end, so that weights have taken in the nearest scale before they are asked for the next.
    for node in reversed(program.nodes):
        if node.name in in_loops or not reads_one(node):
            continue
        affine = _affine(node)
        if affine is None or (affine.offset.any() and not _is_bounded(program, node, known)):
            continue
        readers = _weights_behind(program, node, affine, gone)
        if readers is None:
            continue
        made = {reader.name: _merged(reader, arriving, merged) for reader, arriving in readers}
        if all(each is not None for each in made.values()):
            merged |= {name: each for name, each in made.items() if each is not None}
            gone.add(node.name)
    nodes: Nodes = dict(program.by_name)
    for name in merged.keys() - gone:
        nodes[name] = _with_weights(nodes[name], merged[name])
    return Rewritten(with_nodes(program, bypassed(nodes, gone)), removed=tuple(sorted(gone)))


def _is_bounded(program: Program, node: Node, known: Mapping[str, Grid | None]) -> bool:
    """Return whether what arrives at a node, through scales, has a known magnitude."""
    while reads_one(node) and known.get(node.operands[0].node) is None:
        node = program.by_name[node.operands[0].node]
        if not isinstance(node, Scale):
            return False
    return reads_one(node)


def _affine(node: Node) -> _Affine | None:
    """Return the affine form of scales, 1x1 depthwise convolutions and diagonal weights; None for other nodes."""
    if isinstance(node, Scale):
        return _Affine(np.broadcast_to(node.scale.astype(np.float64), node.shape), np.zeros(node.shape))
    scale = row_factors(node) if isinstance(node, Linear | Conv) else None
    if scale is None or not isinstance(node, Linear | Conv):
        return None
    rank = len(node.shape) if isinstance(node, Conv) else 1
    offset = np.zeros(len(scale)) if node.bias is None else node.bias
    values = (np.broadcast_to(by_row(each, rank).astype(np.float64), node.shape) for each in (scale, offset))
    return _Affine(*values)


def _pads(node: Conv) -> bool:
    return any(before or after for before, after in node.padding)


def _weights_behind(
    program: Program, node: Node, affine: _Affine, gone: Container[str]
) -> list[tuple[Linear | Conv, _Affine]] | None:
    """Return all readers of a node, through reshapes and pools, each with the affine form of what arrives there.

    None if one is no weights, or reads another node besides. gone: nodes that what is behind them has taken in.
    """
    layers: list[tuple[Linear | Conv, _Affine]] = []
    waiting = [(node, affine)]
    while waiting:
        at, values = waiting.pop()
        readers = program.readers[at.name]
        for reader in readers:
            if not reads_one(reader):
                return None
            if isinstance(reader, Linear | Conv) and reader.name not in gone:
                layers.append((reader, values))
                continue
            passed = values if reader.name in gone else _passed(reader, values)
            if passed is None:
                return None
            waiting.append((reader, passed))
        if not readers:
            return None
    return layers


def _passed(node: Node, affine: _Affine) -> _Affine | None:
    """Return the affine form behind a reshape, or behind a pool of channels with a scale each; None for other nodes.

    A sum of s·x is s times the sum of x, and a maximum likewise where s > 0.
    """
    if isinstance(node, Reshape):
        return _Affine(*(values.reshape(node.shape) for values in affine))
    if not isinstance(node, Pool | MaxPool):
        return None
    scale = affine.scale.reshape(len(affine.scale), -1)
    if affine.offset.any() or (scale != scale[:, :1]).any() or (isinstance(node, MaxPool) and (scale <= 0).any()):
        return None
    return _Affine(np.broadcast_to(by_row(scale[:, 0], len(node.shape)), node.shape), np.zeros(node.shape))


def _merged(reader: Linear | Conv, affine: _Affine, merged: Mapping[str, _Weights]) -> _Weights | None:
    """Merge a reader's weights with the node before it; None if values share them, or float32 cannot hold them.

    merged: the weights of readers that took something in already.
    """
    scale, offset = (values.reshape(reader.input_shape) for values in affine)
    bias = np.zeros(len(reader.weight)) if reader.bias is None else reader.bias.astype(np.float64)
    weight, bias = merged.get(reader.name, _Weights(reader.weight.astype(np.float64), bias))
    axis = -1 if isinstance(reader, Linear) else 0
    scale, offset = (np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1) for values in (scale, offset))
    if (scale != scale[:, :1]).any() or (offset != offset[:, :1]).any():
        return None
    scale, offset = scale[:, 0], offset[:, 0]
    if isinstance(reader, Linear):
        return _held(weight * scale, bias + weight @ offset)
    if offset.any() and _pads(reader):
        return None
    groups = np.repeat(np.arange(reader.groups), len(weight) // reader.groups)
    scale, offset = (values.reshape(reader.groups, -1)[groups] for values in (scale, offset))
    kernel = (..., *(None,) * (weight.ndim - 2))
    shift = (weight * offset[kernel]).reshape(len(weight), -1).sum(axis=1)
    return _held(weight * scale[kernel], bias + shift)


def _held(weight: Doubles, bias: Doubles) -> _Weights | None:
    with np.errstate(over="ignore"):
        finite = all(np.isfinite(values.astype(np.float32)).all() for values in (weight, bias))
    return _Weights(weight, bias) if finite else None


def _with_weights(node: Any, made: _Weights) -> Node:
    bias = made.bias if node.bias is not None or made.bias.any() else None
    merged: Node = replace(node, weight=made.weight, bias=bias)
    return merged


PASS = Pass("fold_affine", _fold, "real")
