"""Rules for other shapes, and for what is joined, repeated or written along time; addresses read the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import Any

from stl_deploy.tracing.recording.operations import Op
from stl_deploy.tracing.unrolling.addresses import by_addresses
from stl_deploy.tracing.unrolling.contents import joined
from stl_deploy.tracing.unrolling.elementwise import fit, one_sample
from stl_deploy.tracing.unrolling.layout import BATCH, TIME, Dim, Layout, regroup, shape_of, without_time
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import shifts
from stl_deploy.tracing.unrolling.unroll import FEW_STEPS, Flow, Unroller, refuse

_ALL = 2**60
"""Ends of slices beyond it are ends of axes."""
_OTHER_RATE = (
    "the model runs several steps for each of x's, or repeats them; a graph runs once for each step of x: repeat them "
    "before, x.repeat_interleave(2, 0), and give capture that"
)
RESHAPES = (
    *("view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "_reshape_alias", "flatten"),
    *("detach", "alias", "lift_fresh"),
)


def _same(unroller: Unroller, op: Op) -> Flow:
    return unroller.flow(op.args[0])


def _reshape(unroller: Unroller, op: Op) -> Flow:
    return _to_shape(unroller, op, unroller.flow(op.args[0]))


def _to_shape(unroller: Unroller, op: Op, flow: Flow) -> Flow:
    """A flow in the output's shape; raises CaptureError if that splits time steps or samples."""
    shape = op.outputs[0].shape
    if 0 in shape:
        raise refuse(f"a reshape to {list(shape)} of an empty tensor; leave it out", op)
    if flow.constant and not flow.timed:
        return unroller.constant(flow.tensor.expand(op.args[op.scatter].shape).reshape(shape))
    layout = regroup(flow.layout, shape, unroller.sizes(flow))
    if layout is None:
        raise refuse(f"a reshape to {list(shape)} splits time steps or samples", op)
    return moved(unroller, op, flow, layout)


def moved(unroller: Unroller, op: Op, flow: Flow, layout: Layout) -> Flow:
    """The same factors in the same order in other dimensions."""
    step = without_time(layout)
    return Flow(tuple(unroller.reshaped(node, step, op.place) for node in flow.nodes), layout)


def _expand(unroller: Unroller, op: Op) -> Flow:
    """One value shown at every step; other axes are read by their addresses."""
    flow, shape = unroller.flow(op.args[0]), op.outputs[0].shape
    layout: list[Dim] = [()] * (len(shape) - len(flow.layout)) + list(flow.layout)
    sizes = shape_of(tuple(layout), unroller.sizes(flow))
    grown = [axis for axis, size in enumerate(shape) if size != sizes[axis]]
    if any(TIME in layout[axis] for axis in grown):
        raise refuse(_OTHER_RATE, op)
    like_time = len(grown) == 1 and layout[grown[0]] == () and shape[grown[0]] == unroller.steps
    step_by_step = any(step is not None for _, _, step in unroller.inputs)  # then no tensor of the model holds time
    if like_time and not flow.timed and not step_by_step:
        layout[grown[0]] = (TIME,)
        node = unroller.reshaped(flow.nodes[0], without_time(tuple(layout)), op.place)
        return Flow((node,) * unroller.steps, tuple(layout))
    return by_addresses(unroller, op)[0]


def _slice(unroller: Unroller, op: Op) -> Flow:
    """Part of an axis; raises CaptureError for steps that x does not reach: of 12 steps y[:200] takes all."""
    flow = unroller.flow(op.args[0])
    dim, start, end = (*op.args[1:4], 0, None, None)[:3]
    count = len(flow.nodes)
    if flow.layout[dim] == (TIME,) and (count < (end or 0) < _ALL or (start or 0) < -count):
        raise refuse(
            f"of {count} steps this slice takes all, and of more it would leave some out; take all ([:]) and cut x "
            "before it is given, or give capture an x of more steps",
            op,
        )
    (part,) = by_addresses(unroller, op)
    if len(part.nodes) == unroller.steps != count and part.constant and not flow.constant:
        raise refuse(
            f"of {unroller.steps} steps a delay leaves none; give x of more steps than the longest delay",
            op,
            slug=FEW_STEPS,
        )
    return part


def _stack(unroller: Unroller, op: Op) -> Flow:
    return _join(unroller, op, stacked=True)


def _cat(unroller: Unroller, op: Op) -> Flow:
    return _join(unroller, op, stacked=False)


def _join(unroller: Unroller, op: Op, *, stacked: bool) -> Flow:
    """Values along an axis: of steps, or of one step's own."""
    flows = [unroller.flow(value) for value in op.args[0]]
    dim = (*op.args[1:], op.kwargs.get("dim", 0))[0] % len(op.outputs[0].shape)
    if stacked:
        flows = [moved(unroller, op, flow, (*flow.layout[:dim], (), *flow.layout[dim:])) for flow in flows]
    dims = [flow.layout[dim] for flow in flows]
    if len(flows) == 1 and (stacked or unroller.steps > 1):
        return flows[0]
    if {TIME, BATCH} & {*chain(*dims)} or (all(each == () for each in dims) and _are_steps(unroller, op, flows)):
        return _joined_in_time(unroller, op, flows, dim)
    return _joined_along(unroller, op, flows, dim)


def _are_steps(unroller: Unroller, op: Op, flows: Sequence[Flow]) -> bool:
    """Whether values without time are one signal at successive steps (``outputs[3:]``)."""
    nodes = [flow.nodes[0] for flow in flows if not flow.constant]
    follow = [shifts(later, sooner, {}) for sooner, later in pairwise(nodes)]
    latest = {node.latest for node in nodes}
    of_one_step = len(nodes) > 1 and len(latest) == 1 and max(latest) >= 0 and not any(follow)
    if of_one_step or any(flow.timed for flow in flows):
        return False
    started = flows[0].constant and len(nodes) > 1 and all(follow)  # outputs = [start], and one of each step
    if len(flows) - unroller.steps in (0, started):
        return True
    in_front = op.name == "stack" and (*op.args[1:], op.kwargs.get("dim", 0))[0] == 0
    if in_front and len(nodes) == len(flows) < unroller.steps and all(follow):
        return True
    if in_front and len(flows) % unroller.steps == 0:
        raise refuse(_OTHER_RATE, op)
    if in_front:
        raise refuse(
            f"{len(flows)} values are stacked, which is not one for each of {unroller.steps} time steps (a burn-in, a "
            "stride, padding behind the last step?); stack the values of all steps, or channels on an axis behind the "
            "samples",
            op,
        )
    return False


def _model(flows: Sequence[Flow]) -> Flow:
    """Return the flow whose layout the others take: one with time, else a signal."""
    return max(flows, key=lambda flow: (flow.timed, not flow.constant))


def _joined_in_time(unroller: Unroller, op: Op, flows: Sequence[Flow], dim: int) -> Flow:
    """Flows of steps that follow one another, along an axis of time, or in front of samples in theirs."""
    layout = _in_time(_model(flows).layout, dim)
    return Flow(tuple(node for flow in flows for node in _steps_of(unroller, op, flow, layout, dim)), layout)


def _in_time(layout: Layout, dim: int) -> Layout:
    return (*layout[:dim], (TIME, *(f for f in layout[dim] if f != TIME)), *layout[dim + 1 :])


def _one_step(unroller: Unroller, op: Op, tensor: Any, step: Layout) -> Node:
    """A constant of one step, narrowed to one sample: all are alike."""
    for axis, dim in enumerate(step):
        if BATCH in dim:
            tensor = one_sample(tensor, axis, op)
    return unroller.nodes.constant(tensor)


def _joined_along(unroller: Unroller, op: Op, flows: Sequence[Flow], dim: int) -> Flow:
    """Flows concatenated along an axis that holds neither time nor samples."""
    model = _model(flows)
    if any(flow.timed != model.timed for flow in flows if not flow.constant):
        raise refuse("a value without time is concatenated with one that has it; give both a time axis", op)
    layout = tuple((op.outputs[0].shape[dim],) if i == dim else d for i, d in enumerate(model.layout))
    axis = dim - sum(d == (TIME,) for d in layout[:dim])
    nodes = []
    for t in range(len(model.nodes)):
        parts = tuple(fit(unroller, f, layout, t, op) if f.constant else f.nodes[t] for f in flows)
        step, dtype = without_time(layout), op.outputs[0].dtype
        node = unroller.untimed("cat", joined, (parts, axis), {}, step, dtype, op.place, written=op.name)
        nodes.append(node)
    return Flow(tuple(nodes), layout)


def written(unroller: Unroller, op: Op) -> Flow:
    """``op.args[1]`` in the place of what the view would take out of ``op.args[0]``."""
    part = unroller.flow(op.args[1])
    if op.name in RESHAPES:
        return _to_shape(unroller, op, part)
    if op.name in ("t", "transpose"):  # which take back what they do
        op = Op(op.name, op.func, op.args[1:], op.kwargs, op.place, outputs=op.outputs)
    over_time = _written_steps(unroller, op) if op.name in ("select", "slice") else None
    if over_time is not None:
        return over_time
    return by_addresses(unroller, op)[0]


def _written_steps(unroller: Unroller, op: Op) -> Flow | None:
    """A tensor of a value for each time step, and for what was before them, with one or more written.

    None where the axis that is written into holds no steps.
    """
    whole, part = (unroller.flow(value) for value in op.args[:2])
    shape = op.outputs[0].shape
    dim = (*op.args[2:], 0)[0] % len(shape)
    if op.name == "slice":
        start, end, stride = (*op.args[3:], None, None, None)[:3]
        places = range(shape[dim])[slice(start, end, stride)]
        if len(places) == shape[dim]:
            return part
    else:
        place = op.args[3] % shape[dim]
        places = range(place, place + 1)
        part = moved(unroller, op, part, (*part.layout[:dim], (), *part.layout[dim:]))
    holds_steps = whole.layout[dim] == (TIME,) if whole.timed else whole.constant and shape[dim] >= unroller.steps
    if not holds_steps or (part.constant and not whole.timed) or part.layout[dim] not in ((), (TIME,)):
        return None
    if part.timed != (part.layout[dim] == (TIME,)):
        return None
    layout = _in_time((whole if whole.timed else part).layout, dim)
    nodes = list(_steps_of(unroller, op, whole, layout, dim))
    for place, node in zip(places, _steps_of(unroller, op, part, layout, dim), strict=True):
        nodes[place] = node
    return Flow(tuple(nodes), layout)


def _steps_of(unroller: Unroller, op: Op, flow: Flow, layout: Layout, dim: int) -> Sequence[Node]:
    """Return a flow's nodes of single steps, which lie along an axis of a layout."""
    step = without_time(layout)
    if flow.constant and not flow.timed:
        beside = shape_of((layout[dim][1:],), unroller.sizes()) if layout[dim][1:] else ()
        parts = flow.tensor.unflatten(dim, (-1, *beside)).unbind(dim)  # type: ignore[no-untyped-call]
        return [_one_step(unroller, op, part, step) for part in parts]
    if _in_time(flow.layout, dim) != layout or flow.timed > (TIME in flow.layout[dim]):
        raise refuse("values of different samples or layouts are stacked over time", op)
    return flow.nodes if flow.timed else [unroller.reshaped(flow.nodes[0], step, op.place)]


RULES: dict[str, Callable[[Unroller, Op], Flow]] = {
    **dict.fromkeys(("clone", "contiguous", "lift", "positive"), _same),
    "native_dropout": _same,  # one that is off; the recorder refuses others
    **dict.fromkeys(RESHAPES, _reshape),
    **dict.fromkeys(("expand", "repeat"), _expand),
    "slice": _slice,
    "stack": _stack,
    "cat": _cat,
}
