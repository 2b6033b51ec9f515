"""Trace operations that only move values, whatever their name: run torch's own kernel on numbers.

Each value is labelled with the signal, step, sample and place that it is of; where the operation puts these labels is
where it puts the value. `contents` makes nodes of single steps of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import product
from math import prod

import numpy as np
import torch
from torch import Tensor

from stl_deploy._util.remedies import option
from stl_deploy.errors import CaptureError
from stl_deploy.tracing.recording.operations import Op, Value
from stl_deploy.tracing.recording.remedies import no_form
from stl_deploy.tracing.unrolling.contents import NONE, Content, Ints, node_of, own_shape
from stl_deploy.tracing.unrolling.layout import BATCH, TIME, Dim, Layout, Sizes, of_shape, shape_of, without_time
from stl_deploy.tracing.unrolling.unroll import Flow, Unroller, refuse

_MOST = 2**24
"""Values of which labels are copied at most: a kernel then holds 1 GB."""
_FAILURES = (RuntimeError, TypeError, ValueError, IndexError)
_JOINS = ("index_put", "index_copy", "scatter", "slice_scatter", "select_scatter", "diagonal_scatter", "copy")
"""Operations that put values among others."""
Labels = Mapping[Value, Tensor]


def by_addresses(unroller: Unroller, op: Op) -> list[Flow]:
    """Return the outputs of an operation that only moves values, or adds zeros.

    Raises CaptureError for one that does more, or that moves values to other samples.
    """
    flows = {value: unroller.flow(value) for value in op.inputs}

    def of_constants(index: int) -> Flow:
        """Return an output in which nothing of a signal is left."""
        still = {v: f.tensor if _is_still(f) else torch.zeros(1, dtype=v.dtype) for v, f in flows.items()}
        return unroller.constant(op.outputs_on(lambda value: still[value].expand(value.shape))[index])

    if all(map(_is_still, flows.values())):
        return [of_constants(index) for index in range(len(op.outputs))]
    for value in op.outputs:
        if 0 in value.shape:
            raise refuse(f"'{op.name}' leaves an empty tensor, {list(value.shape)}; leave it out", op)
    moved = _moved(op, flows)
    labels = [_labels(unroller, value, flows[value], k) for k, value in enumerate(moved)]
    put: list[list[Ints]] = []
    if len(moved) == 1 or op.scatter or op.name in _JOINS:
        kinds = [dict(zip(moved, kind, strict=True)) for kind in zip(*labels, strict=True)]
        with suppress(*_FAILURES):
            put = [_put(op, flows, kind) for kind in kinds]
    if not put or not all(put):
        raise refuse(no_form(op.name), op)
    origins = zip(op.outputs, *put, strict=True)
    return [
        _flow(unroller, op, [flows[value] for value in moved], each, *labels)
        if int(labels[2].max()) >= 0
        else of_constants(index)
        for index, (each, *labels) in enumerate(origins)
    ]


def _moved(op: Op, flows: Mapping[Value, Flow]) -> list[Value]:
    """Return the values that an operation may move: signals, and constants of their kind among which it puts them."""
    signals = [value for value, flow in flows.items() if not _is_still(flow)]
    for value in signals:
        if value.dtype != op.outputs[0].dtype and not value.dtype.is_floating_point:
            raise refuse(f"'{op.name}' takes values at indices that depend on the input; use constant indices", op)
    joins = op.scatter or op.name in _JOINS
    return [value for value in flows if value in signals or (joins and value.dtype.is_floating_point)]


def _is_still(flow: Flow) -> bool:
    """Whether a flow is one constant for all steps."""
    return flow.constant and not flow.timed


def _labels(unroller: Unroller, value: Value, flow: Flow, number: int) -> list[Tensor]:
    """Return signal, step, sample and place of each value, counted from 1; 0 where a constant has none."""
    if _is_still(flow):
        tensor = flow.tensor.expand(value.shape)
        _, first, alike = np.unique(tensor.numpy(), return_index=True, return_inverse=True)
        place = torch.from_numpy(first[alike] + 1.0).reshape(value.shape)  # equal numbers are the same for each sample
        none = torch.zeros(1, dtype=torch.float64).expand(value.shape)
        return [none + number + 1, none, none, place]
    steps, sample, place = _of_layout(flow.layout, *unroller.sizes(flow).values())
    return [torch.full((1,), number + 1.0, dtype=torch.float64).expand(value.shape), steps, sample, place]


@lru_cache(16)
def _of_layout(layout: Layout, steps: int, samples: int) -> list[Tensor]:
    """Return the step, sample and place of each value of a layout, expanded along axes on which it does not depend.

    What is beside samples in one axis counts as samples, but for time.
    """
    sizes = {TIME: steps, BATCH: samples}
    step, sample, place = (torch.zeros((1,) * len(layout), dtype=torch.float64) for _ in range(3))
    own = 1
    for axis, dim in reversed(list(enumerate(layout))):
        at, (now, others) = [-1 if k == axis else 1 for k in range(len(layout))], _counted(dim, sizes)
        step = step + now.reshape(at)
        if BATCH in dim:
            sample = sample + others.reshape(at)
        else:
            place, own = place + own * others.reshape(at), own * (1 + int(others[-1]))
    timed = any(TIME in dim for dim in layout)
    return [label.expand(shape_of(layout, sizes)) for label in (step + timed, sample + 1, place + 1)]


def _counted(dim: Dim, sizes: Sizes) -> list[Tensor]:
    """Return the number of the step, and the number among all else, along an axis."""
    factors = shape_of(tuple((factor,) for factor in dim), sizes)
    counted = []
    for of_time in (True, False):
        own = [size if (factor == TIME) == of_time else 1 for size, factor in zip(factors, dim, strict=True)]
        counted.append(torch.arange(prod(own)).reshape(own).expand(factors).reshape(-1))
    return counted


def _put(op: Op, flows: Mapping[Value, Flow], labels: Labels) -> list[Ints]:
    """Return where an operation puts labels, counted from 0; an empty list if it does more than moving them.

    A copy is made of two sets of labels, in opposite orders, of opposite signs, one with fractions, which tell moving
    from adding up, rounding, bounding and choosing the largest.
    """

    def given(change: partial[Tensor] | None, value: Value) -> Tensor:
        if value in labels:
            return labels[value] if change is None else change(labels[value])
        constant = flows[value].tensor.expand(value.shape)
        return constant.double() if constant.is_floating_point() else constant

    copied = not _is_view(op)
    if copied and sum(prod(value.shape) for value in labels) > _MOST:
        return []
    made = op.outputs_on(partial(given, None))
    if copied:
        count = max(float(label.max()) for label in labels.values())
        for at, other in zip(made, op.outputs_on(partial(given, partial(_opposite, count))), strict=True):
            whole = at.dtype == torch.float64 and torch.equal(at, at.round().clamp(0, count))
            if not whole or not torch.equal(_opposite(count, at), other):
                return []
    return [_narrowed(each, copied) for each in made]


def _opposite(count: float, labels: Tensor) -> Tensor:
    return torch.where(labels > 0, -(labels.square() + count + 0.25), labels)


def _is_view(op: Op) -> bool:
    aliases = [returned.alias_info for returned in op.func._schema.returns]
    viewed = any(alias is not None and not alias.is_write for alias in aliases)
    return viewed and not op.scatter and op.writes is None


def _narrowed(labels: Tensor, copied: bool) -> Ints:
    """Return labels counted from 0, with each axis narrowed to one entry along which they stay the same."""
    for axis, stride in enumerate(labels.stride()):
        first = labels.narrow(axis, 0, 1)
        if not stride or (copied and labels.shape[axis] > 1 and torch.equal(labels, first.expand_as(labels))):
            labels = first
    return labels.numpy().astype(np.int64) - 1


def _flow(unroller: Unroller, op: Op, flows: Sequence[Flow], value: Value, *origin: Ints) -> Flow:
    """Return the flow of an output. origin: signal, step, sample and place of each value."""
    samples = tuple(factor for factor in next(d for flow in flows for d in flow.layout if BATCH in d) if factor != TIME)
    axis, dim, labels = _samples_apart(op, samples, value.shape, unroller.sizes(*flows), origin)
    layout: list[Dim] = list(of_shape(value.shape))
    layout[axis] = dim
    batch, time = (axis + 1, axis) if TIME in dim else (axis, None)
    first = [label.take([0], batch) for label in labels]
    signal, step, _, place = first
    if any((first[k] != labels[k]).any() for k in (0, 1, 3)):
        raise _moves(op)
    if time is None and (later := [axis for axis in range(len(layout)) if _changes(step, axis)]):
        time = max(later, key=lambda axis: value.shape[axis])
        layout[time] = (TIME,)
    if time is not None and _goes_back(step, time):
        raise _moves(op, later=True)
    inner, nodes, moved = without_time(tuple(layout)), [], (signal, step, place)
    for t in range(1 if time is None else max(label.shape[time] for label in labels)):
        now = [label if time is None else label.take(min(t, label.shape[time] - 1), time) for label in moved]
        nodes.append(node_of(unroller, op, _content(flows, own_shape(inner), *now), inner))
    return Flow(tuple(nodes), tuple(layout))


def _samples_apart(
    op: Op, samples: Dim, shape: Sequence[int], sizes: Sizes, labels: Sequence[Ints]
) -> tuple[int, Dim, Sequence[Ints]]:
    """Return the axis of samples, its factors, and labels in which the time in it is an axis of its own before it."""
    (size,) = shape_of((samples,), sizes)
    for axis, at in product(range(len(shape)), range(len(samples) + 1)):
        apart = partial(_apart, axis, shape[axis] // size, shape_of((samples[at:],), sizes)[0])
        if shape[axis] % size == 0 and _counts(apart(labels[2]), axis + 1, size):
            if shape[axis] == size:
                return axis, samples, labels
            return axis, (*samples[:at], TIME, *samples[at:]), list(map(apart, labels))
    raise _moves(op)


def _apart(axis: int, others: int, inner: int, labels: Ints) -> Ints:
    """Return labels whose axis is two: others, and what was in front of them and behind. inner: number behind them."""
    before, behind = labels.shape[:axis], labels.shape[axis + 1 :]
    if labels.shape[axis] == 1:
        return np.expand_dims(labels, axis)
    parts = np.moveaxis(labels.reshape(*before, -1, others, inner, *behind), axis + 1, axis)
    return parts.reshape(*before, others, -1, *behind)


def _counts(sample: Ints, axis: int, size: int) -> bool:
    """Whether samples follow one another along an axis."""
    if sample.shape[axis] != size:
        return False
    position = np.arange(size).reshape([-1 if k == axis else 1 for k in range(sample.ndim)])
    return bool(((sample == position) | (sample < 0)).all())


def _changes(step: Ints, axis: int) -> bool:
    """Whether several steps lie along an axis."""
    if step.shape[axis] < 2:
        return False
    least = np.where(step < 0, step.max(), step).min(axis=axis)
    return bool((step.max(axis=axis) > least).any())


def _content(flows: Sequence[Flow], shape: Sequence[int], signal: Ints, step: Ints, place: Ints) -> Content:
    """Return the content of one step, from signal, step and place of each of its values, which broadcast to a shape."""
    place = np.broadcast_to(place, shape).reshape(-1)
    if signal.size == step.size == 1 and signal.item() >= 0:
        steps = flows[signal.item()].nodes
        return Content([steps[min(max(step.item(), 0), len(steps) - 1)]], np.zeros_like(place), place)
    longest = max(len(flow.nodes) for flow in flows)
    codes = np.where(signal < 0, NONE, signal * longest + np.maximum(step, 0))
    distinct, which = np.unique(codes, return_inverse=True)
    used = [code for code in distinct.tolist() if code >= 0]
    nodes = [flows[code // longest].nodes[min(code % longest, len(flows[code // longest].nodes) - 1)] for code in used]
    which = which.reshape(codes.shape) + len(used) - len(distinct)
    return Content(nodes, np.broadcast_to(which, shape).reshape(-1), place)


def _goes_back(step: Ints, time: int) -> bool:
    """Whether a step is followed by itself, or by an earlier one."""
    later, sooner = step.take(range(1, step.shape[time]), time), step.take(range(step.shape[time] - 1), time)
    return bool(((later <= sooner) & (later >= 0)).any())


def _moves(op: Op, later: bool = False) -> CaptureError:
    """Return the refusal of an operation that takes values from other samples, or from steps in another order."""
    if not later and _is_view(op):
        return refuse(
            f"'{op.name}' takes a part of the batch; a model must treat all samples alike, and where forward takes "
            f"[B, T, ...], say so by {option('time', 'second')}",
            op,
        )
    delay = "; delay by F.pad over time: F.pad(s, (0, 0, 0, 0, 2, 0))[:T]" if later and op.name == "roll" else ""
    return refuse(f"'{op.name}' moves time steps or samples; a graph computes each by itself{delay}", op)
