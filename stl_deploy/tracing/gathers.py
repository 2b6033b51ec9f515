"""Trace values taken at constant places that differ by element: ``gather`` and ``x[i, :, j]``.

Both are how delays of each channel are written: ``buffer[delay, :, channel]``, or ``gather`` along time. Each is read
as a sum over the places that are taken, of the value there times 1 for the elements that take it and 0 for the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stl_deploy.tracing.elementwise import one_sample
from stl_deploy.tracing.layout import BATCH, TIME, Layout, without_time
from stl_deploy.tracing.nodes import Node
from stl_deploy.tracing.operations import Op, Value
from stl_deploy.tracing.pieces import entry, permuted
from stl_deploy.tracing.unroll import Flow, Unroller, refuse

MOST_PLACES = 256
"""Largest number of positions read along one axis: each is a term of a sum."""


def gathered(unroller: Unroller, op: Op) -> Flow:
    """Trace ``gather(x, dim, index)`` with a constant index."""
    flow, dim = unroller.flow(op.args[0]), op.args[1] % len(op.args[0].shape)
    index = _places(unroller, op, op.args[2])
    if not _fits(index, op.args[0].shape, dim):
        raise refuse(f"'{op.name}' also shortens other axes; slice them first", op)
    if flow.layout[dim] == (TIME,):
        return _over_time(unroller, op, flow, dim, index)
    for axis, factors in enumerate(flow.layout):
        if factors == (BATCH,):
            index = one_sample(index, axis, op)
    if any(isinstance(f, str) for f in flow.layout[dim]) or any(len(d) > 1 for d in flow.layout if BATCH in d):
        raise refuse(f"'{op.name}' takes values of other samples; a graph treats each sample by itself", op)
    step_index = _without_steps(op, flow, index)
    axis = dim - sum(d == (TIME,) for d in flow.layout[:dim])
    size = op.args[0].shape[dim]
    layout = tuple(
        (() if index.shape[dim] == 1 else (index.shape[dim],)) if i == dim else d for i, d in enumerate(flow.layout)
    )
    return _sum(unroller, op, flow, axis, step_index % size, layout)


def diagonal(unroller: Unroller, op: Op) -> Flow:
    """Trace ``x[i, :, j]`` where j counts the entries of its axis: of entry n of that axis, the one at place i[n]."""
    flow = unroller.flow(op.args[0])
    given = [(dim, index) for dim, index in enumerate(op.args[1]) if index is not None]
    both = [_places(unroller, op, index).flatten() for _, index in given]
    counted = [
        n
        for n, ((dim, _), places) in enumerate(zip(given, both, strict=True))
        if torch.equal(places, torch.arange(flow_size(unroller, flow, dim)))
    ]
    if len(given) != 2 or not counted or any(len(index.shape) != 1 for _, index in given):
        raise refuse("'index' indexes several axes at once; index one after another", op)
    along, taken = given[counted[-1]][0], given[1 - counted[-1]][0]
    if any(isinstance(f, str) for dim in (along, taken) for f in flow.layout[dim]) or flow.timed:
        raise refuse("'index' takes values of other time steps or samples; index the axes of one step", op)
    index = both[1 - counted[-1]] % flow_size(unroller, flow, taken)
    places = index.reshape([-1 if dim == along else 1 for dim in range(len(flow.layout))])
    layout = tuple(() if dim == taken else d for dim, d in enumerate(flow.layout))
    summed = _sum(unroller, op, flow, taken, places, layout)
    rest = [dim for dim in range(len(layout)) if dim not in (along, taken)]
    at = min(along, taken) if abs(along - taken) == 1 else 0
    order = [*rest[:at], along, *rest[at:]]
    bare = tuple(d for dim, d in enumerate(layout) if dim != taken)
    flow = Flow(tuple(unroller.reshaped(node, without_time(bare), op.place) for node in summed.nodes), bare)
    order = [dim - (dim > taken) for dim in order]
    return flow if order == sorted(order) else permuted(unroller, op, flow, tuple(bare[dim] for dim in order), order)


def flow_size(unroller: Unroller, flow: Flow, dim: int) -> int:
    """Return the number of entries of an axis."""
    size = 1
    for factor in flow.layout[dim]:
        size *= factor if isinstance(factor, int) else unroller.sizes(flow)[factor]
    return size


def _places(unroller: Unroller, op: Op, index: Value) -> Tensor:
    places = unroller.flow(index)
    if not places.constant or places.timed or index.dtype == torch.bool:
        raise refuse(f"'{op.name}' takes values at indices that depend on the input; use constant indices", op)
    return places.tensor


def _fits(index: Tensor, shape: torch.Size | tuple[int, ...], dim: int) -> bool:
    return all(a == b for axis, (a, b) in enumerate(zip(index.shape, shape, strict=True)) if axis != dim)


def _without_steps(op: Op, flow: Flow, index: Tensor) -> Tensor:
    """Return the index of one step; raise CaptureError if that of another differs."""
    for axis, factors in enumerate(flow.layout):
        if factors == (TIME,):
            if not torch.equal(index, index.narrow(axis, 0, 1).expand_as(index)):
                raise refuse(
                    f"'{op.name}' takes values at indices that depend on the step; use the same at each step", op
                )
            return index.select(axis, 0)
    return index


def _sum(unroller: Unroller, op: Op, flow: Flow, axis: int, index: Tensor, layout: Layout) -> Flow:
    """Return each step's values at the places of an axis. layout: of the result, with time."""
    step = without_time(layout)
    nodes = []
    single = index.shape[axis] == 1
    places = index.squeeze(axis) if single else index
    inner = tuple(d for i, d in enumerate(step) if i != axis) if single else step
    for node in flow.nodes:
        kept = tuple(d for i, d in enumerate(node.layout) if i != axis)
        parts = {}
        for place in _distinct(op, index):
            wide = kept if single else (*kept[:axis], (), *kept[axis:])
            parts[place] = unroller.reshaped(entry(unroller, op, node, axis, place), wide, op.place)
        nodes.append(unroller.reshaped(_masked_sum(unroller, op, parts, places, inner), step, op.place))
    return Flow(tuple(nodes), layout)


def _over_time(unroller: Unroller, op: Op, flow: Flow, dim: int, index: Tensor) -> Flow:
    steps, nodes = index.shape[dim], []
    for axis, factors in enumerate(flow.layout):
        if factors == (BATCH,):
            index = one_sample(index, axis, op)
    for t in range(steps):
        at = index.select(dim, t)
        parts = {place: flow.nodes[place] for place in _distinct(op, at)}
        nodes.append(_masked_sum(unroller, op, parts, at, without_time(flow.layout)))
    return Flow(tuple(nodes), flow.layout)


def _distinct(op: Op, index: Tensor) -> list[int]:
    places = sorted(set(index.flatten().tolist()))
    if len(places) > MOST_PLACES:
        raise refuse(f"'{op.name}' takes values at {len(places)} places; at most {MOST_PLACES} are read", op)
    return places


def _masked_sum(unroller: Unroller, op: Op, parts: dict[int, Node], index: Tensor, layout: Layout) -> Node:
    total: Node | None = None
    for place, node in parts.items():
        term = node
        if len(parts) > 1:
            mask = unroller.nodes.constant((index == place).to(node.dtype))
            term = _pointwise(unroller, op, "mul", node, mask, layout)
        total = term if total is None else _pointwise(unroller, op, "add", total, term, layout)
    assert total is not None
    if total.layout != layout:  # one place for all elements: repeated along the axis
        ones = unroller.nodes.constant(torch.ones(index.shape, dtype=total.dtype))
        total = _pointwise(unroller, op, "mul", total, ones, layout)
    return total


def _pointwise(unroller: Unroller, op: Op, name: str, a: Node, b: Node, layout: Layout) -> Node:
    call = getattr(torch.ops.aten, name).Tensor
    return unroller.untimed(name, call, (a, b), {}, layout, a.dtype, op.place, pointwise=True)
