"""Index maps: what a rearrangement does to weights, and the weights that do what a rearrangement does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import CaptureError
from stl_deploy.graph.convolutions import MAX_DENSE, pointwise
from stl_deploy.graph.program import Conv, Gather, Input, Linear, Node, Operand, Output, Pool, Program, Reshape, Shape
from stl_deploy.graph.run import run

Indices = NDArray[np.int64]


def as_gather(node: Node) -> Gather | None:
    """A rearrangement, or a reshape that is no flattening, as a Gather; None for other nodes."""
    if isinstance(node, Gather):
        return node
    if not isinstance(node, Reshape) or flattens(node.input_shape, node.shape):
        return None
    return gather_of(node, np.arange(prod(node.shape)))


def gather_of(node: Reshape, indices: Indices) -> Gather:
    """A reshape as a rearrangement."""
    return Gather(
        name=node.name,
        shape=node.shape,
        operands=node.operands,
        indices=indices.reshape(node.shape),
        input_shape=node.input_shape,
    )


def flattens(before: Shape, after: Shape) -> tuple[int, int] | None:
    """The first and last of the neighbouring axes that a reshape merges, as NIR's Flatten does; None for another."""
    for start in range(len(before)):
        for end in range(start + 1, len(before)):
            if after == (*before[:start], prod(before[start : end + 1]), *before[end + 1 :]):
                return start, end
    return None


def bijective(gather: Gather) -> bool:
    """Whether every value of the input stands at one place of the output."""
    return bool(np.array_equal(np.sort(gather.indices.reshape(-1)), np.arange(prod(gather.input_shape))))


def keeps_order(gather: Gather) -> bool:
    """Whether every value of the input stands in its order."""
    return bool(np.array_equal(gather.indices.reshape(-1), np.arange(prod(gather.input_shape))))


def inverse(gather: Gather) -> Indices:
    """The index map back."""
    return np.argsort(gather.indices.reshape(-1)).reshape(gather.input_shape)


def channel_map(gather: Gather) -> Indices | None:
    """The input channel of each output channel (-1: none), where nothing else is moved; else None."""
    before, after = gather.input_shape, gather.shape
    if len(before) not in (2, 3) or before[1:] != after[1:]:
        return None
    size = prod(before[1:])
    flat = gather.indices.reshape(after[0], size)
    first = flat[:, 0] // size
    meant = np.where(first[:, None] < 0, -1, first[:, None] * size + np.arange(size))
    return first if np.array_equal(flat, meant) else None


def columns(weight: NDArray[Any], indices: Indices, size: int) -> NDArray[Any]:
    """The weights on what a rearrangement reads, of weights ``[out, in, ...]`` on what it puts out."""
    found = np.zeros((weight.shape[0], size, *weight.shape[2:]), weight.dtype)
    flat = indices.reshape(-1)
    found[:, flat[flat >= 0]] = weight[:, flat >= 0]
    return found


def repeats(indices: Indices) -> bool:
    """Whether a value of the input stands at several places."""
    used = indices[indices >= 0]
    return len(np.unique(used)) < used.size


def selection(gather: Gather) -> Node:
    """Weights of 0 and 1 that do what a rearrangement does: of channels, or of all values as one axis."""
    channels = channel_map(gather)
    count = len(channels) if channels is not None else prod(gather.shape)
    size = gather.input_shape[0] if channels is not None else prod(gather.input_shape)
    _require_size(gather, count * size)
    rows = (channels if channels is not None else gather.indices).reshape(-1)
    weight = np.zeros((count, size), np.float32)
    weight[np.flatnonzero(rows >= 0), rows[rows >= 0]] = 1
    if channels is None:
        return Linear(
            name=gather.name, shape=(count,), operands=gather.operands, weight=weight, bias=None, input_shape=(size,)
        )
    return pointwise(gather.name, gather.operands, gather.input_shape, weight)


def dense(node: Conv | Linear | Pool) -> Linear:
    """A linear operation as weights on the flat values: what it makes of unit vectors."""
    count, made = prod(node.input_shape), prod(node.shape)
    _require_size(node, count * made)
    alone = replace(node, operands=(Operand("x"),))
    inner: tuple[Node, ...] = (Input(name="x", shape=node.input_shape, operands=()), alone)
    program = Program((*inner, Output(name="y", shape=node.shape, operands=(Operand(node.name),))), 1.0)
    units = np.eye(count, dtype=np.float32).reshape(1, count, *node.input_shape)
    bias = run(program, np.zeros((1, 1, *node.input_shape), np.float32)).y.reshape(made)
    if not isinstance(alone, Pool):
        program = Program((*inner[:1], replace(alone, bias=None), program.nodes[-1]), 1.0)
    weight = np.ascontiguousarray(run(program, units).y.reshape(count, made).T)
    return Linear(
        name=node.name,
        shape=(made,),
        operands=node.operands,
        weight=weight,
        bias=bias if bias.any() else None,
        input_shape=(count,),
    )


def _require_size(node: Node, size: int) -> None:
    if size > MAX_DENSE:
        raise CaptureError(
            f"layer '{node.name}' works on values in an order that no NIR node makes: expected at most {MAX_DENSE:,} "
            f"weights in its place; found {size:,}; keep [B, C, H, W] as convolutions have it, and "
            "flatten only before linear layers",
            layer=node.name,
        )


def arrange(values: NDArray[Any], indices: Indices | None) -> NDArray[Any]:
    """Values ``[T, B, *shape]`` of the module in the order and shape of the graph's layer."""
    if indices is None:
        return values
    flat = values.reshape(*values.shape[:2], -1)
    return np.ascontiguousarray(flat[:, :, indices.reshape(-1)].reshape(*values.shape[:2], *indices.shape))


Arranged = Mapping[str, Indices]
"""For layers whose values stand in another order than the module's: the flat place in the module's of each."""
