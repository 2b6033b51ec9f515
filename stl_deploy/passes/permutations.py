"""Permute values: the effect of a Gather on weights, and weights equal to a Gather."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.graph.convolutions import MAX_DENSE, pointwise
from stl_deploy.graph.program import Conv, Gather, Input, Linear, Node, Operand, Output, Pool, Program, Reshape, Shape
from stl_deploy.graph.run import run

Indices = NDArray[np.int64]


def as_gather(node: Node) -> Gather | None:
    """Return a rearrangement, or a reshape that is no flattening, as a Gather; None for other nodes."""
    if isinstance(node, Gather):
        return node
    if not isinstance(node, Reshape) or flattens(node.input_shape, node.shape):
        return None
    return Gather(
        name=node.name,
        shape=node.shape,
        operands=node.operands,
        indices=np.arange(prod(node.shape)).reshape(node.shape),
        input_shape=node.input_shape,
    )


def flattens(before: Shape, after: Shape) -> tuple[int, int] | None:
    """Return the first and last of the neighbouring axes that a reshape merges, as NIR's Flatten does; else None."""
    for start in range(len(before)):
        for end in range(start + 1, len(before)):
            if after == (*before[:start], prod(before[start : end + 1]), *before[end + 1 :]):
                return start, end
    return None


def bijective(gather: Gather) -> bool:
    """Return whether every value of the input has exactly one place in the output."""
    return bool(np.array_equal(np.sort(gather.indices.reshape(-1)), np.arange(prod(gather.input_shape))))


def keeps_order(gather: Gather) -> bool:
    """Return whether every value of the input keeps its order."""
    return bool(np.array_equal(gather.indices.reshape(-1), np.arange(prod(gather.input_shape))))


def inverse(gather: Gather) -> Indices:
    """Return the inverse index map."""
    return np.argsort(gather.indices.reshape(-1)).reshape(gather.input_shape)


def channel_map(gather: Gather) -> Indices | None:
    """Return the input channel of each output channel (-1: none), if nothing else moves; else None."""
    before, after = gather.input_shape, gather.shape
    if len(before) not in (2, 3) or before[1:] != after[1:]:
        return None
    size = prod(before[1:])
    flat = gather.indices.reshape(after[0], size)
    first = flat[:, 0] // size
    meant = np.where(first[:, None] < 0, -1, first[:, None] * size + np.arange(size))
    return first if np.array_equal(flat, meant) else None


def columns(weight: NDArray[Any], indices: Indices, size: int) -> NDArray[Any]:
    """Return weights on a rearrangement's input from weights ``[out, in, ...]`` on its output."""
    moved = np.zeros((weight.shape[0], size, *weight.shape[2:]), weight.dtype)
    flat = indices.reshape(-1)
    moved[:, flat[flat >= 0]] = weight[:, flat >= 0]
    return moved


def repeats(indices: Indices) -> bool:
    """Return whether a value of the input has several places."""
    used = indices[indices >= 0]
    return len(np.unique(used)) < used.size


def selection(gather: Gather) -> Node:
    """Return weights of 0 and 1 equal to a rearrangement: of channels, or of all values as one axis.

    Raises OverflowError where these are more than `MAX_DENSE`.
    """
    channels = channel_map(gather)
    count = len(channels) if channels is not None else prod(gather.shape)
    size = gather.input_shape[0] if channels is not None else prod(gather.input_shape)
    _require_size(count * size)
    rows = (channels if channels is not None else gather.indices).reshape(-1)
    weight = np.zeros((count, size), np.float32)
    weight[np.flatnonzero(rows >= 0), rows[rows >= 0]] = 1
    if channels is None:
        return Linear(
            name=gather.name, shape=(count,), operands=gather.operands, weight=weight, bias=None, input_shape=(size,)
        )
    return pointwise(gather.name, gather.operands, gather.input_shape, weight)


def dense(node: Conv | Linear | Pool) -> Linear:
    """Return a linear operation as weights on the flat values: its outputs for unit vectors.

    Raises OverflowError where these are more than `MAX_DENSE`.
    """
    count, made = prod(node.input_shape), prod(node.shape)
    _require_size(count * made)
    alone = replace(node, name="layer", operands=(Operand("x"),))
    inner: tuple[Node, ...] = (Input(name="x", shape=node.input_shape, operands=()), alone)
    program = Program((*inner, Output(name="y", shape=node.shape, operands=(Operand("layer"),))), 1.0)
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


def _require_size(size: int) -> None:
    if size > MAX_DENSE:
        raise OverflowError


def arrange(values: NDArray[Any], indices: Indices | None) -> NDArray[Any]:
    """Reorder the module's values ``[T, B, *shape]`` to the graph layer's order and shape."""
    if indices is None:
        return values
    flat = values.reshape(*values.shape[:2], -1)
    return np.ascontiguousarray(flat[:, :, indices.reshape(-1)].reshape(*values.shape[:2], *indices.shape))


_ARRAYS = (
    *("decay", "threshold", "gain", "offset", "v_reset", "v_min", "v_start", "i_start", "synapse", "adaptation"),
    *("scale", "steps"),
)


def arranged_fields(node: Node, indices: Indices) -> dict[str, Any]:
    """Return the parameters of an elementwise node, for its values at the flat places ``indices``, in their shape."""
    return {f.name: _ordered(getattr(node, f.name), node.shape, indices) for f in fields(node) if f.name in _ARRAYS}


def _ordered(values: Any, shape: tuple[int, ...], back: Indices) -> Any:
    """Reorder a parameter, or each of a synapse's or an adaptation's; a uniform one stays as it is."""
    if is_dataclass(values) and not isinstance(values, type):
        return replace(values, **{f.name: _ordered(getattr(values, f.name), shape, back) for f in fields(values)})
    if values is None or not isinstance(values, np.ndarray | np.generic) or np.ndim(values) == 0:
        return values
    return np.broadcast_to(values, shape).reshape(-1)[back]


Permutations = Mapping[str, Indices]
"""For layers whose values stand in another order than before: the flat place that each value had."""


def composed(first: Permutations, then: Permutations) -> Permutations:
    """Return one permutation for two consecutive ones."""
    both = {n: first[n].reshape(-1)[at] for n, at in then.items() if n in first}
    return {**first, **then, **both}
