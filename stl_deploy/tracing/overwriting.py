"""Trace writes into parts of a tensor: ``v[t + 1] = ...``, ``y[..., 1:] = x[..., :-1]``."""

from __future__ import annotations

from stl_deploy.errors import CaptureError
from stl_deploy.tracing.elementwise import fit
from stl_deploy.tracing.layout import TIME, Layout, axis_of, of_shape, without_time
from stl_deploy.tracing.operations import Op
from stl_deploy.tracing.pieces import as_one, pieces_of
from stl_deploy.tracing.shape_rules import in_order, moved, order_of, slice_arguments, to_shape, with_layout
from stl_deploy.tracing.unroll import Flow, Unroller, refuse


def scatter(unroller: Unroller, op: Op) -> Flow:
    """``op.args[1]`` in the place of what the view would take out of ``op.args[0]``."""
    whole, part = (unroller.flow(value) for value in op.args[:2])
    shape = op.outputs[0].shape
    if op.name in ("detach", "alias", "view", "_unsafe_view", "unsqueeze", "squeeze", "lift_fresh"):
        constant = part.constant
        return unroller.constant(part.tensor.reshape(shape)) if constant else to_shape(unroller, op, part, shape)
    rank = len(shape)
    if op.name in ("t", "transpose", "permute"):
        order = order_of(op.name, op.args[2:], rank)
        inverse = [order.index(i) for i in range(rank)]
        return in_order(unroller, op, part, inverse)
    if op.name == "select":
        dim, index = op.args[2] % rank, op.args[3]
        return _put(unroller, op, whole, part, dim, index, shape)
    if op.name == "slice":
        dim, start, end, stride = slice_arguments(op.args[2:], op.kwargs, rank)
        if range(shape[dim])[slice(start, end, stride)] == range(shape[dim]):
            return part
        if axis_of(part.layout, TIME) == dim and part.layout[dim] == (TIME,):
            nodes = list(_over_time(unroller, op, whole, without_time(part.layout), dim).nodes)
            nodes[slice(start, end, stride)] = part.nodes
            return Flow(tuple(nodes), part.layout)
        if stride == 1:
            start, end, _ = slice(start, end).indices(shape[dim])
            return _put_between(unroller, op, whole, part, dim, start, end)
    raise _overwritten(op)


def _overwritten(op: Op) -> CaptureError:
    return refuse(
        f"'{op.name}' selects a part of a tensor that is written into, across time steps or samples or with a stride; "
        "build the tensor with torch.cat or torch.stack in its place",
        op,
    )


def _over_time(unroller: Unroller, op: Op, whole: Flow, step: Layout, dim: int) -> Flow:
    """A tensor of a value for each time step, and for what was before them, along ``dim``."""
    if whole.timed:
        if whole.layout[dim] != (TIME,):
            raise _overwritten(op)
        return whole
    if not whole.constant or whole.tensor.shape[dim] < unroller.steps:
        raise _overwritten(op)
    nodes = [with_layout(unroller, unroller.constant(t), step, op) for t in whole.tensor.unbind(dim)]
    return Flow(tuple(nodes), (*step[:dim], (TIME,), *step[dim:]))


def _put(unroller: Unroller, op: Op, whole: Flow, part: Flow, dim: int, index: int, shape: tuple[int, ...]) -> Flow:
    if whole.constant and not whole.timed and part.constant:
        tensor = whole.tensor.clone()
        tensor.select(dim, index).copy_(part.tensor)
        return unroller.constant(tensor)
    if shape[dim] == 1 and not part.constant:
        return moved(unroller, op, part, (*part.layout[:dim], (), *part.layout[dim:]))
    if part.timed or not _holds_steps(unroller, whole, dim):
        wide = moved(unroller, op, part, (*part.layout[:dim], (), *part.layout[dim:]))
        return _put_between(unroller, op, whole, wide, dim, index % shape[dim], index % shape[dim] + 1)
    whole = _over_time(unroller, op, whole, part.layout, dim)
    nodes = list(whole.nodes)
    nodes[index] = part.nodes[0] if not part.constant else with_layout(unroller, part, without_time(whole.layout), op)
    return Flow(tuple(nodes), whole.layout)


def _holds_steps(unroller: Unroller, whole: Flow, dim: int) -> bool:
    """Whether an axis may be one of time steps, and of what was before them, that a loop writes one by one."""
    if whole.timed:
        return whole.layout[dim] == (TIME,)
    return whole.constant and whole.tensor.shape[dim] >= unroller.steps


def _put_between(unroller: Unroller, op: Op, whole: Flow, part: Flow, dim: int, start: int, end: int) -> Flow:
    """``whole`` with ``part`` in the place of its entries from start to end along an axis of each step."""
    signals = [flow for flow in (whole, part) if not flow.constant]
    model = next((flow for flow in signals if flow.timed), signals[0])
    size = op.outputs[0].shape[dim]
    layout = tuple(of_shape([size])[0] if i == dim else d for i, d in enumerate(model.layout))
    alike = all(f.layout[:dim] + f.layout[dim + 1 :] == layout[:dim] + layout[dim + 1 :] for f in signals)
    if not alike or any(isinstance(factor, str) for factor in model.layout[dim]):
        raise _overwritten(op)
    axis = dim - sum(d == (TIME,) for d in layout[:dim])
    made = []
    for t in range(len(model.nodes)):
        around, put = (fit(unroller, flow, layout, t, op) for flow in (whole, part))
        pieces = [
            *pieces_of(unroller, op, around, axis, 0, start),
            put,
            *pieces_of(unroller, op, around, axis, end, size),
        ]
        made.append(as_one(unroller, op, pieces, axis, op.outputs[0].dtype))
    return Flow(tuple(made), layout)
