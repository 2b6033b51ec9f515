"""Make a step's node of values that come from places of other nodes: picked, joined, or delayed each otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stl_deploy.tracing.recording.operations import Op
from stl_deploy.tracing.unrolling.layout import BATCH, Layout, of_shape, shape_of
from stl_deploy.tracing.unrolling.nodes import MOVED, Node
from stl_deploy.tracing.unrolling.unroll import Unroller

_MOVES = ("reshape", "cat", MOVED)
NONE = -1
"""No source: the number 0."""
Ints = NDArray[np.int64]


@dataclass
class Content:
    """Values of one sample of one step: which of several nodes each is of, and at which place there."""

    nodes: list[Node]
    which: Ints
    place: Ints


def node_of(unroller: Unroller, op: Op, content: Content, layout: Layout) -> Node:
    """Return the node with a content. layout: of the step; the content has a value for each place of a sample.

    Whole nodes stay themselves; parts of what is joined are those of its parts, so that a buffer of delayed values
    shows the values.
    """
    levels = [content]
    while (opened := _opened(unroller, levels[-1])) is not None:
        levels.append(opened)
    inner = levels[-1]
    used = _used(inner.which)
    if not used:
        return unroller.nodes.constant(torch.zeros(own_shape(layout), dtype=op.outputs[0].dtype))
    whole = _whole(unroller, op, content, layout) or _whole(unroller, op, inner, layout)
    if whole is not None:
        return whole
    if len(used) == 1 or all(inner.nodes[k].constant for k in used):
        return _summed(unroller, op, inner, layout)
    chosen = all(_size(inner.nodes[k]) == inner.which.size for k in used) and _in_order(inner.place)
    several = len(_used(content.which)) > 1
    made = None
    if op.scatter or not chosen:
        if several or any(len(_used(level.which)) < len(level.nodes) for level in levels):
            made = next((made for level in levels if (made := _joined(unroller, op, level, layout))), None)
        elif not chosen:
            made = _summed(unroller, op, content, layout)
    return made or _summed(unroller, op, inner if chosen or several else content, layout)


def _opened(unroller: Unroller, content: Content) -> Content | None:
    """Return a content in terms of the nodes that its nodes are made of by moving values; None if none is."""
    used = _used(content.which)
    if all(content.nodes[k].name not in _MOVES for k in used):
        return None
    nodes: list[Node] = []
    which, place = np.full_like(content.which, NONE), np.zeros_like(content.place)
    for k in used:
        source = _content(unroller, content.nodes[k])
        mine = content.which == k
        at = content.place[mine]
        which[mine] = np.where(source.which[at] < 0, NONE, source.which[at] + len(nodes))
        place[mine] = source.place[at]
        nodes += source.nodes
    return Content(nodes, which, place) if nodes != [content.nodes[k] for k in used] else None


def _content(unroller: Unroller, node: Node) -> Content:
    """Return what a node is made of by moving values; itself if it does more."""
    made = unroller.contents.get(node)
    if made is None:
        made = unroller.contents[node] = _read(unroller, node)
    return made


def _read(unroller: Unroller, node: Node) -> Content:
    size = _size(node)
    first, counted = np.zeros(size, dtype=np.int64), np.arange(size)
    if node.name == "reshape" and _size(node.args[0]) == size:
        return Content([node.args[0]], first, counted)
    if node.name == MOVED:
        places = node.args[3].tensor.numpy()
        return Content([node.args[0]], np.where(places < 0, NONE, 0), places)
    if node.name != "cat":
        return Content([node], first, counted)
    arrays = []
    parts, axis = _entries(unroller, *node.args), node.args[1]
    shape = list(own_shape(node.layout))
    for k, part in enumerate(parts):
        own = own_shape(part.layout) if part.tensor is None else tuple(part.tensor.shape)
        shape[axis] = own[axis]
        arrays.append((np.full(shape, k), np.broadcast_to(np.arange(prod(own)).reshape(own), shape)))
    which, place = (np.concatenate(each, axis).reshape(-1) for each in zip(*arrays, strict=True))
    return Content(parts, which, place)


def _entries(unroller: Unroller, parts: Sequence[Node], axis: int) -> list[Node]:
    """Return what is joined; of a buffer of one entry for each step, the constants before the first by entry."""
    if any(part.tensor is None and part.layout[axis] for part in parts):
        return list(parts)
    entries = (
        [part]
        if part.tensor is None
        else map(unroller.nodes.constant, (entry.unsqueeze(axis) for entry in part.tensor.unbind(axis)))
        for part in parts
    )
    return [entry for each in entries for entry in each]


def own_shape(layout: Layout) -> tuple[int, ...]:
    """Return the shape of one sample; the axis of samples is one of size 1."""
    return tuple(1 if BATCH in dim else size for dim, size in zip(layout, shape_of(layout, {BATCH: 1}), strict=True))


def _size(node: Node) -> int:
    return prod(own_shape(node.layout)) if node.tensor is None else node.tensor.numel()


def _used(which: Ints) -> list[int]:
    return [int(k) for k in np.unique(which) if k >= 0]


def _in_order(place: Ints) -> bool:
    return np.array_equal(place, np.arange(place.size))


def _whole(unroller: Unroller, op: Op, content: Content, layout: Layout) -> Node | None:
    """Return the node of which all values are, in their order."""
    k = content.which[0]
    if k < 0 or (content.which != k).any() or not _in_order(content.place):
        return None
    node = content.nodes[k]
    alike = node.constant or _before(node.layout) == _before(layout)
    return unroller.reshaped(node, layout, op.place) if alike and _size(node) == content.place.size else None


def _before(layout: Layout) -> int:
    """Return the number of values of one sample in front of the axis of samples."""
    axis = next(axis for axis, dim in enumerate(layout) if BATCH in dim)
    return prod(own_shape(layout)[:axis])


def _summed(unroller: Unroller, op: Op, content: Content, layout: Layout) -> Node:
    """Return a sum of nodes, of which each value is of one: as delays by channel are."""
    samples_first: Layout = ((BATCH,), *((size,) for size in own_shape(layout) if size > 1))
    used = _used(content.which)
    if len(used) == 1:
        return _picked(unroller, op, content, used[0], layout)
    total = None
    for k in used:
        term = _picked(unroller, op, content, k, samples_first)
        total = term if total is None else _pointwise(unroller, op, "add", total, term, samples_first)
    assert total is not None
    whole = Content([total], np.zeros_like(content.which), np.arange(content.which.size))
    return _whole(unroller, op, whole, layout) or _picked(unroller, op, whole, 0, layout)


def _picked(unroller: Unroller, op: Op, content: Content, k: int, layout: Layout) -> Node:
    """Return the values of one node, with zeros in the places of others'."""
    node, mine = content.nodes[k], content.which == k
    shape = tuple(-1 if BATCH in dim else size for dim, size in zip(layout, own_shape(layout), strict=True))
    if node.tensor is not None:
        taken_values = node.tensor.reshape(-1)[torch.from_numpy(np.where(mine, content.place, 0))]
        values = torch.where(torch.from_numpy(mine), taken_values, 0)  # memory without content holds NaN
        return unroller.nodes.constant(values.to(node.dtype).reshape(own_shape(layout)))
    own = Content([node], np.zeros_like(content.which), content.place)
    same = None if mine.all() else _whole(unroller, op, own, layout)
    if same is not None:
        mask = torch.from_numpy(mine.reshape(own_shape(layout))).to(node.dtype)
        return _pointwise(unroller, op, "mul", same, unroller.nodes.constant(mask), layout)
    places = unroller.nodes.constant(torch.from_numpy(np.where(mine, content.place, NONE)))
    memory = op.outputs[0].memory if len(op.outputs[0].shape) == len(shape) else ()
    args = node, _before(node.layout), _size(node), places, _before(layout), shape, memory
    return unroller.untimed(MOVED, taken, args, {}, layout, node.dtype, op.place, written=op.name)


def taken(
    x: Tensor, before: int, own: int, places: Tensor, after: int, shape: Sequence[int], memory: Sequence[int]
) -> Tensor:
    """Return each sample's values at places, 0 at -1. own: values of a sample; before, after: in front of its axis.

    Neighbours stay a view, as torch's slices are, and transposed axes lie as torch's do: sigmoid and products of
    matrices round by how values lie in memory.
    """
    flat, first = x.reshape(before, -1, own // before).movedim(1, 0).reshape(-1, own), int(places[0])
    if first >= 0 and torch.equal(places, first + torch.arange(len(places))):
        values = flat.narrow(1, first, len(places))
    else:
        values = torch.cat([flat.new_zeros(len(flat), 1), flat], 1)[:, places + 1]
    return lying(values.reshape(len(flat), after, -1).movedim(0, 1).reshape(shape), memory)


def lying(tensor: Tensor, memory: Sequence[int]) -> Tensor:
    """Return a tensor whose axes lie in memory in the order of ``memory``."""
    back = [memory.index(axis) for axis in range(len(memory))]
    return tensor.permute(*memory).contiguous().permute(*back) if memory else tensor


def _pointwise(unroller: Unroller, op: Op, name: str, a: Node, b: Node, layout: Layout) -> Node:
    """Return an elementwise operation of two nodes of one step."""
    call = getattr(torch.ops.aten, name).Tensor
    return unroller.untimed(name, call, (a, b), {}, layout, a.dtype, op.place, pointwise=True, written=op.name)


def _joined(unroller: Unroller, op: Op, content: Content, layout: Layout) -> Node | None:
    """Return parts of several nodes along an axis; None where they do not follow one another along one."""
    shape = own_shape(layout)
    which, place = content.which.reshape(shape), content.place.reshape(shape)
    for axis, dim in enumerate(layout):
        first = which.max(axis=tuple(k for k in range(len(shape)) if k != axis), keepdims=True)
        cuts = np.flatnonzero(np.diff(first.reshape(-1))) + 1
        if BATCH in dim or (which != first).any() or not 0 < len(cuts) <= len(_used(which)):
            continue
        pieces = []
        for w, p in zip(np.split(which, cuts, axis), np.split(place, cuts, axis), strict=True):
            inner = (*layout[:axis], *of_shape([w.shape[axis]]), *layout[axis + 1 :])
            pieces.append(node_of(unroller, op, Content(content.nodes, w.reshape(-1), p.reshape(-1)), inner))
        args, dtype = (tuple(pieces), axis), op.outputs[0].dtype
        return unroller.untimed("cat", joined, args, {}, layout, dtype, op.place, written=op.name)
    return None


def joined(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Parts, one behind another; constants have one sample."""
    sizes = [max(part.shape[i] for part in parts) for i in range(parts[0].dim())]
    wide = [part.expand([part.shape[i] if i == axis else size for i, size in enumerate(sizes)]) for part in parts]
    return torch.cat(wide, axis)
