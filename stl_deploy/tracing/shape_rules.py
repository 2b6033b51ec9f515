"""Rules for operations that only rearrange: views, stacks and slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from stl_deploy._util.remedies import option
from stl_deploy.errors import CaptureError
from stl_deploy.tracing.elementwise import fit, one_sample
from stl_deploy.tracing.gathers import diagonal, gathered
from stl_deploy.tracing.layout import BATCH, TIME, Dim, Layout, regroup, shape_of, without_time
from stl_deploy.tracing.operations import Op
from stl_deploy.tracing.pieces import entry, joined, permuted, rolled, slice_of_join, sliced
from stl_deploy.tracing.steps import shifts
from stl_deploy.tracing.unroll import Flow, Unroller, refuse

_ALL = 2**63 - 1
"""The end of a slice that has none."""
_OTHER_RATE = (
    "the model runs several steps for each of x's, or repeats them; a graph runs once for each step of x: repeat them "
    "before, x.repeat_interleave(2, 0), and give capture that"
)


def moved(unroller: Unroller, op: Op, flow: Flow, layout: Layout) -> Flow:
    """The same factors in the same order in other dimensions."""
    step = without_time(layout)
    return Flow(tuple(unroller.reshaped(node, step, op.place) for node in flow.nodes), layout)


def _same(unroller: Unroller, op: Op) -> list[Flow]:
    return [unroller.flow(op.args[0])]


def _reshape(unroller: Unroller, op: Op) -> list[Flow]:
    return [to_shape(unroller, op, unroller.flow(op.args[0]), op.outputs[0].shape)]


def to_shape(unroller: Unroller, op: Op, flow: Flow, shape: tuple[int, ...]) -> Flow:
    """A flow in another shape; raises CaptureError if that splits time steps or samples."""
    if 0 in shape:
        raise refuse(f"a reshape to {list(shape)} of an empty tensor; leave it out", op)
    layout = regroup(flow.layout, shape, unroller.sizes(flow))
    if layout is None:
        raise refuse(f"a reshape to {list(shape)} splits time steps or samples", op)
    return moved(unroller, op, flow, layout)


def _permute(unroller: Unroller, op: Op) -> list[Flow]:
    flow = unroller.flow(op.args[0])
    return [in_order(unroller, op, flow, order_of(op.name, op.args[1:], len(flow.layout)))]


def order_of(name: str, args: Sequence[Any], rank: int) -> list[int]:
    """Where each axis of a permutation comes from."""
    if name == "permute":
        return [dim % rank for dim in args[0]]
    order = list(range(rank))
    a, b = (0, rank - 1) if name == "t" else (args[0] % rank, args[1] % rank)
    order[a], order[b] = order[b], order[a]
    return order


def in_order(unroller: Unroller, op: Op, flow: Flow, order: list[int]) -> Flow:
    """A flow with its axes permuted."""
    layout = tuple(flow.layout[dim] for dim in order)
    kept = [dim for dim in order if flow.layout[dim] != (TIME,)]
    ranks = sorted(kept)
    step_order = [ranks.index(dim) for dim in kept]
    # Axes of size 1 may change places without anything being moved.
    large = [dim for dim in step_order if flow.nodes[0].layout[dim] != ()]
    if large == sorted(large):
        return moved(unroller, op, flow, layout)
    return permuted(unroller, op, flow, layout, step_order)


def _unsqueeze(unroller: Unroller, op: Op) -> list[Flow]:
    flow = unroller.flow(op.args[0])
    dim = op.args[1] % (len(flow.layout) + 1)
    return [moved(unroller, op, flow, (*flow.layout[:dim], (), *flow.layout[dim:]))]


def _expand(unroller: Unroller, op: Op) -> list[Flow]:
    flow = unroller.flow(op.args[0])
    shape = op.outputs[0].shape
    layout: list[Dim] = [()] * (len(shape) - len(flow.layout)) + list(flow.layout)
    flow = moved(unroller, op, flow, tuple(layout))
    if op.name == "repeat":
        grown = [i for i, count in enumerate(op.args[1]) if count > 1]
    else:
        grown = [i for i, size in enumerate(shape) if layout[i] == () and size > 1]
    if not grown:
        if shape_of(flow.layout, unroller.sizes(flow)) != tuple(shape):
            raise refuse(
                "one time step is repeated over the others; give forward one input, [B, ...], that loops over it",
                op,
            )
        return [flow]
    if len(grown) == 1 and layout[grown[0]] == () and shape[grown[0]] == unroller.steps and not flow.timed:
        layout[grown[0]] = (TIME,)
        node = unroller.reshaped(flow.nodes[0], without_time(tuple(layout)), op.place)
        return [Flow((node,) * unroller.steps, tuple(layout))]
    if any(TIME in layout[i] for i in grown):
        raise refuse(_OTHER_RATE, op)
    if any(layout[i] != () for i in grown):
        raise refuse("a signal is repeated along an axis that it has already", op)
    for i in grown:
        layout[i] = (shape[i],)
    assert shape_of(tuple(layout), unroller.sizes(flow)) == tuple(shape)
    step = without_time(tuple(layout))
    nodes = tuple(unroller.untimed("expand", None, (n,), {}, step, n.dtype, op.place) for n in flow.nodes)
    return [Flow(nodes, tuple(layout))]


def _select(unroller: Unroller, op: Op) -> list[Flow]:
    flow = unroller.flow(op.args[0])
    return [_taken(unroller, op, flow, op.args[1] % len(flow.layout), op.args[2])]


def _taken(unroller: Unroller, op: Op, flow: Flow, dim: int, index: int) -> Flow:
    layout = tuple(d for i, d in enumerate(flow.layout) if i != dim)
    factors = flow.layout[dim]
    if factors == (TIME,):
        return Flow((flow.nodes[index],), layout)
    if factors == ():
        return moved(unroller, op, flow, layout)
    if TIME in factors and BATCH not in factors:
        raise refuse(_OTHER_RATE, op)
    if any(isinstance(factor, str) for factor in factors):
        raise refuse(
            "one sample is taken out of the batch; a model must treat all samples alike, and where forward takes "
            f"[B, T, ...], say so by {option('time', 'second')}",
            op,
        )
    axis = dim - sum(d == (TIME,) for d in flow.layout[:dim])
    place = index % shape_of((factors,), unroller.sizes(flow))[0]
    return Flow(tuple(entry(unroller, op, node, axis, place) for node in flow.nodes), layout)


def _slice(unroller: Unroller, op: Op) -> list[Flow]:
    flow = unroller.flow(op.args[0])
    dim, start, end, stride = slice_arguments(op.args[1:], op.kwargs, len(flow.layout))
    factors = flow.layout[dim]
    if factors == (TIME,):
        if len(flow.nodes) < (end or 0) < _ALL or (start or 0) < -len(flow.nodes):
            raise refuse(
                f"of {len(flow.nodes)} steps this slice takes all, and of more it would leave some out; take all ([:]) "
                "and cut x before it is given, or give capture an x of more steps",
                op,
            )
        return [_some_steps(unroller, op, flow, dim, slice(start, end, stride))]
    size = shape_of((factors,), unroller.sizes(flow))[0]
    if range(size)[slice(start, end, stride)] == range(size):
        return [flow]
    if any(isinstance(factor, str) for factor in factors):
        raise _cut(op, factors, dim, "part of the batch is taken")
    if stride == 1 and not flow.constant and all(node.name == "cat" for node in flow.nodes):
        return [slice_of_join(unroller, op, flow, dim, *slice(start, end).indices(size)[:2])]
    return [sliced(unroller, op, flow, dim, op.outputs[0].shape[dim], start, end, stride)]


def _cut(op: Op, factors: Dim, dim: int, what: str) -> CaptureError:
    """Return a refusal of a part of an axis that has samples or time steps among its factors."""
    if BATCH in factors:
        return refuse(f"{what}; a model must treat all samples alike", op)
    sizes = ", ".join("T" if factor == TIME else str(factor) for factor in factors)
    return refuse(
        f"'{op.name}' cuts an axis that holds time steps and channels; give time an axis of its own: "
        f"y.unflatten({dim}, ({sizes})).unbind({dim + factors.index(TIME)})",
        op,
    )


def _some_steps(unroller: Unroller, op: Op, flow: Flow, dim: int, steps: slice) -> Flow:
    """Part of the steps along the axis of time, which is one of size 1 where a single step is left."""
    nodes = flow.nodes[steps]
    if len(nodes) == unroller.steps and all(node.constant for node in nodes) and not flow.constant:
        raise refuse(
            f"of {len(nodes)} steps a delay leaves none; give x of more steps than the longest delay",
            op,
        )
    if len(nodes) != 1:
        return Flow(nodes, flow.layout)
    layout = tuple(() if i == dim else d for i, d in enumerate(flow.layout))
    return Flow((unroller.reshaped(nodes[0], without_time(layout), op.place),), layout)


def slice_arguments(args: Any, kwargs: Any, rank: int) -> tuple[int, int | None, int | None, int]:
    """Axis, start, end and stride of a slice; an end of None is the axis's."""
    given: tuple[Any, ...] = (*args, *(0, None, None, 1)[len(args) :])
    dim, start, end, stride = given
    end = None if end is not None and end > 2**60 else end
    return dim % rank, start, end, stride


def _rolled(unroller: Unroller, op: Op) -> list[Flow]:
    """A buffer of joined steps, rolled along them; what else is rolled is read by its addresses."""
    flow = unroller.flow(op.args[0])
    dims = [dim % len(flow.layout) for dim in op.args[2]] if len(op.args) > 2 else []
    own = [dim for dim in dims if not any(isinstance(factor, str) for factor in flow.layout[dim])]
    if len(dims) != 1 or not own or not all(node.name == "cat" or node.constant for node in flow.nodes):
        raise moves(unroller, op)
    axis = own[0] - sum(d == (TIME,) for d in flow.layout[: own[0]])
    return [rolled(unroller, op, flow, axis, op.args[1][0])]


def moves(unroller: Unroller, op: Op) -> CaptureError:
    """Return the refusal of an operation that takes values from other steps or samples."""
    layout = unroller.flow(op.args[0]).layout
    timed = op.name == "roll" and any(TIME in layout[dim] for dim in (op.args[2] if len(op.args) > 2 else ()))
    later = "; delay by F.pad over time: F.pad(s, (0, 0, 0, 0, 2, 0))[:T]" if timed else ""
    return refuse(f"'{op.name}' moves time steps or samples; a graph computes each by itself{later}", op)


def _indexed(unroller: Unroller, op: Op) -> list[Flow]:
    """``x[i, :, j]``, by which each channel of a buffer is delayed; other places are read by their addresses."""
    if op.name == "index" and sum(index is not None for index in op.args[1]) != 1:
        return [diagonal(unroller, op)]
    raise moves(unroller, op)


def _unbind(unroller: Unroller, op: Op) -> list[Flow]:
    flow = unroller.flow(op.args[0])
    dim = (op.args[1] if len(op.args) > 1 else op.kwargs.get("dim", 0)) % len(flow.layout)
    return [_taken(unroller, op, flow, dim, index) for index in range(len(op.outputs))]


def _split(unroller: Unroller, op: Op) -> list[Flow]:
    flow = unroller.flow(op.args[0])
    dim = (op.args[2] if len(op.args) > 2 else op.kwargs.get("dim", 0)) % len(flow.layout)
    made, start = [], 0
    for value in op.outputs:
        size = value.shape[dim]
        if flow.layout[dim] == (TIME,):
            made.append(_some_steps(unroller, op, flow, dim, slice(start, start + size)))
        elif len(op.outputs) == 1:
            made.append(flow)
        elif any(isinstance(factor, str) for factor in flow.layout[dim]):
            raise _cut(op, flow.layout[dim], dim, "the batch is split")
        else:
            made.append(sliced(unroller, op, flow, dim, size, start, start + size, 1))
        start += size
    return made


def _stack(unroller: Unroller, op: Op) -> list[Flow]:
    flows = [unroller.flow(value) for value in op.args[0]]
    rank = len(op.outputs[0].shape)
    dim = (op.args[1] if len(op.args) > 1 else op.kwargs.get("dim", 0)) % rank
    if len(flows) == 1:
        layout = flows[0].layout
        return [moved(unroller, op, flows[0], (*layout[:dim], (), *layout[dim:]))]
    if dim == 0 or (len(flows) == unroller.steps and not any(flow.timed for flow in flows)):
        return [_stacked(unroller, op, flows, dim)]
    layouts = [(*flow.layout[:dim], (), *flow.layout[dim:]) for flow in flows]
    wide = [moved(unroller, op, flow, layout) for flow, layout in zip(flows, layouts, strict=True)]
    return [_joined_along(unroller, op, wide, dim)]


def _are_steps(flows: list[Flow]) -> bool:
    """Whether flows without time are one signal at successive steps (``outputs[3:]``)."""
    nodes = [flow.nodes[0] for flow in flows if not (flow.timed or flow.constant)]
    return len(nodes) == len(flows) and all(shifts(later, sooner, {}) for sooner, later in pairwise(nodes))


def _stacked(unroller: Unroller, op: Op, flows: list[Flow], dim: int) -> Flow:
    signals = [flow for flow in flows if not flow.constant]
    whole = len(flows) == unroller.steps or (len(flows) < unroller.steps and _are_steps(flows))
    if not whole or any(flow.timed for flow in flows):
        raise refuse(
            f"{len(flows)} values are stacked, which is not one for each of {unroller.steps} time steps (a burn-in, a "
            "stride?); stack the values of all steps, or channels on an axis behind the samples",
            op,
        )
    layout = (signals or flows)[0].layout
    nodes = []
    for flow in flows:
        node = flow.nodes[0]
        if flow.layout != layout:
            if not flow.constant:
                raise refuse("values of different layouts are stacked over time", op)
            node = with_layout(unroller, flow, layout, op)
        nodes.append(node)
    return Flow(tuple(nodes), (*layout[:dim], (TIME,), *layout[dim:]))


def with_layout(unroller: Unroller, flow: Flow, layout: Layout, op: Op) -> Any:
    """A constant of the shape that ``layout`` stands for, narrowed to one sample: all are alike."""
    tensor = flow.tensor
    for axis, dim in enumerate(layout):
        if dim == (BATCH,):
            tensor = one_sample(tensor, axis, op)
    return unroller.nodes.constant(tensor)


def _cat(unroller: Unroller, op: Op) -> list[Flow]:
    flows = [unroller.flow(value) for value in op.args[0]]
    dim = (op.args[1] if len(op.args) > 1 else op.kwargs.get("dim", 0)) % len(flows[0].layout)
    dims = [flow.layout[dim] for flow in flows]
    if all(d == () for d in dims) and len(flows) == unroller.steps and not any(f.timed for f in flows):
        bare = [moved(unroller, op, f, tuple(d for i, d in enumerate(f.layout) if i != dim)) for f in flows]
        return [_stacked(unroller, op, bare, dim)]
    if any(d == (TIME,) for d in dims):
        return [_joined_in_time(unroller, op, flows, dim)]
    return [_joined_along(unroller, op, flows, dim)]


def _joined_along(unroller: Unroller, op: Op, flows: list[Flow], dim: int) -> Flow:
    """Flows concatenated along an axis that holds neither time nor samples."""
    dims = [flow.layout[dim] for flow in flows]
    timed = [flow for flow in flows if flow.timed]
    if any(isinstance(f, str) for d in dims for f in d):
        raise refuse("samples or time steps are concatenated with something else", op)
    model = (timed or [flow for flow in flows if not flow.constant] or flows)[0]
    layout = tuple((op.outputs[0].shape[dim],) if i == dim else d for i, d in enumerate(model.layout))
    axis = dim - sum(d == (TIME,) for d in layout[:dim])
    step = without_time(layout)
    count = len(model.nodes) if timed else 1
    if any(flow.timed != model.timed for flow in flows if not flow.constant):
        raise refuse("a value without time is concatenated with one that has it; give both a time axis", op)
    nodes = tuple(
        unroller.untimed(
            "cat",
            joined,
            (tuple(fit(unroller, f, layout, t, op) if f.constant else f.nodes[t] for f in flows), axis),
            {},
            step,
            op.outputs[0].dtype,
            op.place,
        )
        for t in range(count)
    )
    return Flow(nodes, layout)


def _joined_in_time(unroller: Unroller, op: Op, flows: list[Flow], dim: int) -> Flow:
    model = next(flow for flow in flows if flow.timed)
    nodes: list[Any] = []
    for flow in flows:
        if flow.timed:
            nodes += flow.nodes
        elif flow.constant:
            step = without_time(model.layout)
            for part in flow.tensor.unbind(dim):
                nodes.append(with_layout(unroller, unroller.constant(part), step, op))
        else:
            nodes.append(unroller.reshaped(flow.nodes[0], without_time(model.layout), op.place))
    return Flow(tuple(nodes), model.layout)


RULES: dict[str, Callable[[Unroller, Op], list[Flow]]] = {
    **dict.fromkeys(("detach", "alias", "clone", "contiguous", "lift_fresh", "lift", "positive"), _same),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "squeeze", "_reshape_alias", "flatten"), _reshape),
    **dict.fromkeys(("permute", "t", "transpose"), _permute),
    **dict.fromkeys(("expand", "repeat"), _expand),
    "native_dropout": _same,  # one that is off; the recorder refuses others
    "unsqueeze": _unsqueeze,
    "select": _select,
    "slice": _slice,
    "roll": _rolled,
    **dict.fromkeys(("flip", "index", "index_select"), _indexed),
    "gather": lambda unroller, op: [gathered(unroller, op)],
    "unbind": _unbind,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    "stack": _stack,
    "cat": _cat,
}
