"""Split an axis into parts, and join parts along one, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stl_deploy.tracing.layout import TIME, Layout, of_shape, shape_of
from stl_deploy.tracing.nodes import Node
from stl_deploy.tracing.operations import Op
from stl_deploy.tracing.unroll import Flow, Unroller


def sliced(unroller: Unroller, op: Op, flow: Flow, dim: int, size: int, *places: int | None) -> Flow:
    """Part of an axis of each step, which has ``size`` entries. places: start, end, stride."""
    axis = dim - sum(d == (TIME,) for d in flow.layout[:dim])
    layout = tuple(of_shape([size])[0] if i == dim else d for i, d in enumerate(flow.layout))
    return unroller.each(op, "slice", flow, layout, axis, *places)


def slice_of_join(unroller: Unroller, op: Op, flow: Flow, dim: int, start: int, end: int) -> Flow:
    """Part of what is joined, without the parts that are not in it (memory that was not written yet)."""
    axis = dim - sum(d == (TIME,) for d in flow.layout[:dim])
    layout = tuple(of_shape([end - start])[0] if i == dim else d for i, d in enumerate(flow.layout))
    cut = (pieces_of(unroller, op, node, axis, start, end) for node in flow.nodes)
    return Flow(tuple(as_one(unroller, op, pieces, axis, op.outputs[0].dtype) for pieces in cut), layout)


def pieces_of(unroller: Unroller, op: Op, node: Node, axis: int, start: int, end: int) -> list[Node]:
    """The entries from start to end along an axis; of what is joined along it already, those of the parts."""
    size = _size_along(node, axis)
    start, end = max(start, 0), min(end, size)
    if start >= end:
        return []
    if (start, end) == (0, size):
        return [node]
    if node.name == "cat" and node.args[1] == axis:
        pieces, at = [], 0
        for each in node.args[0]:
            pieces += pieces_of(unroller, op, each, axis, start - at, end - at)
            at += _size_along(each, axis)
        return pieces
    if node.name == "cat":
        parts, other = node.args
        cut = [pieces_of(unroller, op, each, axis, start, end) for each in parts]
        layout = tuple(of_shape([end - start])[0] if i == axis else d for i, d in enumerate(node.layout))
        whole = (tuple(as_one(unroller, op, each, axis, node.dtype) for each in cut), other)
        return [unroller.untimed("cat", joined, whole, {}, layout, node.dtype, op.place)]
    flow = Flow((node,), node.layout)
    return list(sliced(unroller, op, flow, axis, end - start, start, end, 1).nodes)


def entry(unroller: Unroller, op: Op, node: Node, axis: int, place: int) -> Node:
    """One entry of an axis, without the axis; of what is joined along it, that of the part."""
    layout = tuple(d for i, d in enumerate(node.layout) if i != axis)
    if node.name == "cat" and node.args[1] == axis:
        (piece,) = pieces_of(unroller, op, node, axis, place, place + 1)
        return unroller.reshaped(piece, layout, op.place)
    call = torch.ops.aten.select.int
    return unroller.untimed("select", call, (node, axis, place), {}, layout, node.dtype, op.place)


def rolled(unroller: Unroller, op: Op, flow: Flow, axis: int, shift: int) -> Flow:
    """Return the value joined along an axis of each step, rolled by ``shift`` entries."""
    made = []
    for node in flow.nodes:
        size = _size_along(node, axis)
        cut = size - shift % size
        ends = [pieces_of(unroller, op, node, axis, cut, size), pieces_of(unroller, op, node, axis, 0, cut)]
        made.append(as_one(unroller, op, [piece for end in ends for piece in end], axis, node.dtype))
    return Flow(tuple(made), flow.layout)


def permuted(unroller: Unroller, op: Op, flow: Flow, layout: Layout, order: Sequence[int]) -> Flow:
    """Each step's value with its axes in another order; one that is permuted back is what it was before."""
    orders = [node.args[1] for node in flow.nodes if node.name == "permute"]
    if len(orders) == len(flow.nodes) and all(
        [permutation[dim] for dim in order] == sorted(order) for permutation in orders
    ):
        return Flow(tuple(node.args[0] for node in flow.nodes), layout)
    return unroller.each(op, "permute", flow, layout, list(order))


def as_one(unroller: Unroller, op: Op, pieces: list[Node], axis: int, dtype: torch.dtype) -> Node:
    """Pieces along an axis as one node."""
    if len(pieces) == 1:
        return pieces[0]
    first = next((piece for piece in pieces if not piece.constant), pieces[0])
    size = sum(_size_along(piece, axis) for piece in pieces)
    layout = tuple(of_shape([size])[0] if i == axis else d for i, d in enumerate(first.layout))
    return unroller.untimed("cat", joined, (tuple(pieces), axis), {}, layout, dtype, op.place)


def _size_along(node: Node, axis: int) -> int:
    return node.tensor.shape[axis] if node.tensor is not None else shape_of((node.layout[axis],), {})[0]


def joined(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Parts, one behind another; constants have one sample."""
    sizes = [max(part.shape[i] for part in parts) for i in range(parts[0].dim())]
    wide = [part.expand([part.shape[i] if i == axis else size for i, size in enumerate(sizes)]) for part in parts]
    return torch.cat(wide, axis)
