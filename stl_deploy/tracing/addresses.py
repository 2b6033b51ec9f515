"""Trace operations that only move values, whatever their name: run torch's own kernel on addresses.

Each value of the input gets a number; where the operation puts that number is where it puts the value. If each step and
each sample keeps its place, and all are treated alike, one step's addresses are the operation of every step.
"""

from __future__ import annotations

from functools import partial
from math import prod

import torch
from torch import Tensor

from stl_deploy.tracing.layout import BATCH, TIME, Layout, of_shape, shape_of, without_time
from stl_deploy.tracing.operations import Op, Value
from stl_deploy.tracing.shape_rules import slice_arguments
from stl_deploy.tracing.unroll import Flow, Unroller

NAME = "rearranged"
_MOST = 2**24
"""Values that are given addresses at most: their kernels then hold 1 GB."""
_FAILURES = (RuntimeError, TypeError, ValueError, IndexError)


def rearranged(unroller: Unroller, op: Op) -> list[Flow] | None:
    """Return the outputs of an operation that only moves values of one signal, or adds zeros; None for others."""
    signals = {value for value in op.inputs if not value.constant}
    if len(signals) != 1:
        return None
    (signal,) = signals
    flow = unroller.flow(signal)
    if op.name == "slice" and _is_over_steps(op, flow):  # of 12 steps y[:200] takes all: x's size hides the end
        return None
    shape = shape_of(flow.layout, unroller.sizes(flow))
    if flow.constant or not 0 < prod(shape) <= _MOST:
        return None
    flows = [_traced(unroller, op, flow, shape, addresses) for addresses in _addresses(op, signal, shape)]
    traced = [each for each in flows if each is not None]
    return traced if traced and len(traced) == len(flows) else None


def _is_over_steps(op: Op, flow: Flow) -> bool:
    """Return whether a slice is along time."""
    arguments = op.args[2:] if op.scatter else op.args[1:]  # of a write the second argument is what is written
    dim, *_ = slice_arguments(arguments, op.kwargs, len(flow.layout))
    return TIME in flow.layout[dim]


def _addresses(op: Op, signal: Value, shape: tuple[int, ...]) -> list[Tensor]:
    """Return the flat place, from 1 on, of the value at each place of each output (0: none, the number 0).

    Two numberings, in opposite orders, of opposite signs, one with fractions, tell moving from adding up, rounding,
    bounding and choosing the largest. Empty for an operation that does more than moving.
    """
    count = prod(shape)
    numbers = torch.arange(1, count + 1, dtype=torch.float64).reshape(shape)
    others = -(numbers.square() + count + 0.25)

    def given(labels: Tensor, value: Value) -> Tensor:
        if value is signal:
            return labels
        constant = value.tensor()
        return constant.double() if constant.is_floating_point() else constant

    try:
        numbered, check = op.outputs_on(partial(given, numbers)), op.outputs_on(partial(given, others))
    except _FAILURES:
        return []
    addresses = []
    for at, other in zip(numbered, check, strict=True):
        if at.dtype != torch.float64 or not bool(((at >= 0) & (at <= count)).all()):
            return []
        places = at.long()
        expected = torch.cat([torch.zeros(1, dtype=torch.float64), others.reshape(-1)])[places]
        if not torch.equal(places.double(), at) or not torch.equal(expected, other):
            return []
        addresses.append(places)
    return addresses


def _traced(unroller: Unroller, op: Op, flow: Flow, shape: tuple[int, ...], addresses: Tensor) -> Flow | None:
    """Return the flow of values from addresses; None where steps or samples are moved, or treated each otherwise."""
    named = [axis for axis, dim in enumerate(flow.layout) if any(isinstance(factor, str) for factor in dim)]
    samples = [axis for axis in named if BATCH in flow.layout[axis]]
    if len(samples) != 1 or any(len(flow.layout[axis]) > 1 and axis not in samples for axis in named):
        return None
    to: dict[int, int] = {}
    for axis in named:
        index = _looked_up(torch.arange(shape[axis]), [axis], shape, addresses)
        kept = next((k for k in range(index.dim()) if k not in to.values() and _counts(index, k, shape[axis])), None)
        if kept is None:
            return None
        to[axis] = kept
    own = [axis for axis in range(len(shape)) if axis not in named]
    places = _looked_up(torch.arange(prod(shape[axis] for axis in own)), own, shape, addresses)
    of_one = places
    for axis in to.values():
        of_one = of_one.narrow(axis, 0, 1)
    if not torch.equal(of_one.expand_as(places), places):
        return None
    sizes = of_shape(places.shape)
    back = {kept: axis for axis, kept in to.items()}
    layout = tuple(flow.layout[back[k]] if k in back else dim for k, dim in enumerate(sizes))
    bare = of_one.reshape([size for k, size in enumerate(places.shape) if k not in back])
    (batch,) = samples
    axes = _in_step(flow.layout, batch), unroller.nodes.constant(bare), _in_step(layout, to[batch])
    step, dtype = without_time(layout), op.outputs[0].dtype
    made = (unroller.untimed(NAME, taken, (node, *axes), {}, step, dtype, op.place) for node in flow.nodes)
    return Flow(tuple(made), layout)


def _looked_up(numbers: Tensor, axes: list[int], shape: tuple[int, ...], addresses: Tensor) -> Tensor:
    """Return numbers that lie along some axes of the input at the addressed places; -1 where nothing is."""
    spread = numbers.reshape([size if axis in axes else 1 for axis, size in enumerate(shape)]).expand(shape)
    return torch.cat([torch.tensor([-1]), spread.reshape(-1)])[addresses]


def _counts(index: Tensor, axis: int, size: int) -> bool:
    """Whether an index is the position along an axis."""
    if index.shape[axis] != size:
        return False
    position = torch.arange(size).reshape([size if k == axis else 1 for k in range(index.dim())])
    return bool(((index == position) | (index < 0)).all())


def _in_step(layout: Layout, axis: int) -> int:
    return axis - sum(dim == (TIME,) for dim in layout[:axis])


def taken(x: Tensor, batch: int, places: Tensor, to: int) -> Tensor:
    """Return each sample's values at places, 0 at -1. batch, to: axes of the samples, before and after.

    Neighbours stay a view, as torch's slices are: sigmoid and the like round by how values lie in memory.
    """
    flat, index = x.movedim(batch, 0).reshape(x.shape[batch], -1), places.reshape(-1)
    if len(index) and index[0] >= 0 and torch.equal(index, index[0] + torch.arange(len(index))):
        values = flat.narrow(1, int(index[0]), len(index))
    else:
        values = torch.cat([flat.new_zeros(len(flat), 1), flat], 1)[:, index + 1]
    return values.reshape(len(flat), *places.shape).movedim(0, to)
