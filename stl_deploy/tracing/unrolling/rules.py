"""Rules for the treatment of time: one for elementwise operations, one for each other family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set

import torch

from stl_deploy.errors import CaptureError
from stl_deploy.tracing.recording.operations import Op, Value, map_tree
from stl_deploy.tracing.recording.remedies import NOT_READ, no_form
from stl_deploy.tracing.recording.source_lines import Place
from stl_deploy.tracing.unrolling import along_time
from stl_deploy.tracing.unrolling.addresses import by_addresses
from stl_deploy.tracing.unrolling.elementwise import cast, elementwise, is_elementwise
from stl_deploy.tracing.unrolling.layout import BATCH, TIME, Layout, axis_of, of_shape, without_time
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.time_convolution import banded, over_time
from stl_deploy.tracing.unrolling.unroll import FEW_STEPS, Flow, Unroller, refuse

_BATCHED = (
    "convolution",
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update",
    "_native_batch_norm_legit",
    "max_pool2d_with_indices",
    "max_pool1d",
    "mkldnn_max_pool2d",
    "avg_pool2d",
    "avg_pool1d",
    "adaptive_max_pool2d",
    "_adaptive_avg_pool2d",
    "adaptive_avg_pool1d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "_upsample_bilinear2d_aa",
)
"""Operations that treat each entry of their first axis by itself."""

_PRODUCTS = {"mm": -2, "addmm": -2, "convolution": 0}
"""Layers with weights, and which of their arguments these are applied to."""

_OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("add", "sub", "rsub"), ("alpha",)),
    "addmm": ("alpha", "beta"),
    **dict.fromkeys(("addcmul", "addcdiv"), ("value",)),
    **dict.fromkeys(("clamp", "clamp_"), ("min", "max")),
    **dict.fromkeys(("sum", "mean", "amax", "amin"), ("dim", "keepdim")),
    **dict.fromkeys(("stack", "cat", "unbind", "split", "split_with_sizes", "chunk"), ("dim",)),
    "slice": ("dim", "start", "end", "step"),
    "expand": ("implicit",),
    "index_put": ("accumulate",),
    "_to_copy": ("dtype",),
}
"""The keyword options that the rules read, or that torch's own kernel applies where a neuron's arithmetic is evaluated.

Any other one is refused: an option that nobody reads would be captured as if it were not there.
"""
_EXTREMES = {"amax": "amax", "max": "amax", "any": "amax", "amin": "amin", "min": "amin", "all": "amin"}
"""Operations that give the largest or the least over axes, and which of both."""
_HARMLESS = ("layout", "device", "pin_memory", "non_blocking", "memory_format")
SOFTMAXES = frozenset(("_softmax", "_log_softmax"))
"""Operations of each step with which a readout may end."""
_SHAPE_ONLY = ("zeros_like", "ones_like", "full_like", "empty_like")


def read(unroller: Unroller, ops: Sequence[Op], outputs: Sequence[Value]) -> None:
    """Read the operations of a run in order.

    An operation without a rule is refused only if ``outputs`` depend on it: a firing rate that the model keeps beside
    them is ignored.
    """
    needed = _needed(ops, outputs)
    last = {(op.place, op.name): op.args[_PRODUCTS[op.name]] for op in ops if op.name in _PRODUCTS}
    unroller.arrivals.update(key for key, value in last.items() if not value.constant)
    numbers = Counter(op.place for op in ops if op.name == "rsub")
    signals = (op for op in ops if op.name == "sub" and isinstance(op.args[0], Value) and not op.args[0].constant)
    unroller.reduced.update(op.place for op in signals if numbers[op.place] < unroller.steps)
    _read(unroller, ops, needed)
    while again := unroller.waiting & unroller.repeats:
        unroller.arrivals -= again
        _read(unroller, ops, needed)
    if not all(unroller.flow(value).constant for value in outputs):
        _require_arrivals(unroller.steps, [op for op in ops if op in needed and op.name in _PRODUCTS])


def _read(unroller: Unroller, ops: Sequence[Op], needed: Set[Op]) -> None:
    unroller.begin()
    for op in ops:
        if any(not value.constant and value not in unroller.flows for value in op.inputs):
            continue  # made of indices that no rule reads; who needs it is refused
        try:
            flows = interpret(unroller, op)
        except Exception as error:
            if op not in needed:
                continue
            if isinstance(error, CaptureError):
                raise
            raise refuse(NOT_READ.format(op.name), op) from error
        for value, flow in zip(op.outputs, flows, strict=False):
            unroller.flows[value] = flow
            if value.kept is not None:
                unroller.keep(flow, value.kept)


def _require_arrivals(steps: int, layers: Sequence[Op]) -> None:
    """Raise CaptureError for a layer that reads zeros in every step: its input is delayed by more steps than x has."""
    calls: dict[Place, list[Op]] = {}
    for op in layers:
        calls.setdefault(op.place, []).append(op)
    for ops in calls.values():
        read = [op.args[_PRODUCTS[op.name]] for op in ops]
        if len(ops) >= steps and all(value.constant and not value.tensor().any() for value in read):
            raise refuse(
                f"'{ops[-1].name}' reads zeros in each of {steps} steps, as behind a longer delay; give x of more "
                "steps than the longest delay, or leave the layer out",
                ops[-1],
                slug=FEW_STEPS,
            )


def _needed(ops: Sequence[Op], outputs: Sequence[Value]) -> set[Op]:
    """Return the operations that outputs depend on."""
    values = set(outputs)
    needed = set()
    for op in reversed(ops):
        if not values.isdisjoint(op.outputs):
            needed.add(op)
            values.update(op.inputs)
    return needed


def interpret(unroller: Unroller, op: Op) -> list[Flow]:
    """Return the outputs of an operation as flows; raise CaptureError, with its line, if it has no rule."""
    if "sparse" in op.name:
        raise refuse(no_form(op.name), op)
    waits = _waits(unroller, op)
    pointwise = is_elementwise(op)
    folds = (not pointwise and not waits) or op.name == "index_put"
    if folds and all(value.constant and unroller.flow(value).constant for value in op.inputs):
        return [unroller.constant(value.tensor()) for value in op.outputs]
    if not pointwise or not all(unroller.flow(value).constant for value in op.inputs):
        _require_known_options(op)
    if op.scatter:
        return [along_time.written(unroller, op)]
    if op.name in along_time.RULES:
        return [along_time.RULES[op.name](unroller, op)]
    if pointwise:
        return [elementwise(unroller, op)]
    if op.name in _BATCHED:
        return _batched(unroller, op)
    if op.name == "constant_pad_nd":
        _require_padding(unroller.flow(op.args[0]), op)
    if op.name in SOFTMAXES:
        return [_over_classes(unroller, op)]
    if op.name == "bmm" and not any(unroller.flow(value).constant for value in op.inputs):
        return [_two_signals(unroller, op)]
    if op.name == "bmm" and op.outputs[0].shape[0] == 1:
        return [_one_product(unroller, op)]
    if op.name in ("mm", "addmm"):
        return [_matmul(unroller, op)]
    if op.name in ("sum", "mean", *_EXTREMES):
        return [_reduce(unroller, op)]
    return by_addresses(unroller, op)


def _waits(unroller: Unroller, op: Op) -> bool:
    """Return whether a layer reads a constant before anything arrives; give that samples, as every step has."""
    key = op.place, op.name
    if key not in unroller.arrivals:
        return False
    value = op.args[_PRODUCTS[op.name]]
    flow = unroller.flow(value)
    if not flow.constant or flow.timed or value.shape[0] != unroller.batch:
        return False
    tensor = flow.tensor.expand(value.shape)
    if not torch.equal(tensor[:1].expand(value.shape), tensor):
        return False
    unroller.waiting.add(key)
    unroller.flows[value] = Flow((unroller.nodes.constant(tensor[:1]),), ((BATCH,), *of_shape(value.shape[1:])))
    return True


def _require_known_options(op: Op) -> None:
    """Raise CaptureError for an option that changes what an operation computes and that no rule reads."""
    known = {*_OPTIONS.get(op.name, ()), *_HARMLESS, op.writes}
    for name, option in op.kwargs.items():
        if name == "dtype" and op.name in ("sum", "mean") and option in (None, torch.float32, torch.float64):
            continue
        if name not in known and option is not None and op.name not in _SHAPE_ONLY:
            raise refuse(
                f"'{op.name}' with {name}={_option(option)} has no form in a spiking graph; leave {name} out, or "
                "compute it by arithmetic that has one",
                op,
            )


def _option(option: object) -> str:
    return repr(option) if not isinstance(option, Value) else "a tensor"


def _batched(unroller: Unroller, op: Op) -> list[Flow]:
    flow, *others = (unroller.flow(value) for value in op.inputs)
    if not all(other.constant for other in others):
        raise refuse(f"'{op.name}' works on two signals at once; expected one signal and constant weights", op)
    first = flow.layout[0]
    if "pool" in op.name and (not {TIME, BATCH}.isdisjoint(flow.layout[1]) or any(isinstance(f, int) for f in first)):
        return [_pooled_alone(unroller, op, flow)]
    over_steps = op.name == "convolution" and (TIME,) in flow.layout[2:]
    torn = any(isinstance(f, int) for f in first) and not ("batch_norm" in op.name and len(flow.layout) == 2)
    torn = torn and not over_steps
    if BATCH not in first or torn:
        raise refuse(
            f"expected '{op.name}' on an axis of samples, or of samples and time steps; found {_shown(flow.layout)}; "
            "bring x to that by x.flatten(0, 1)",
            op,
        )
    layout = (first, *of_shape(op.outputs[0].shape[1:]))
    axis = axis_of(flow.layout, TIME)
    if axis is not None and axis > 1 and _keeps_steps_apart(op, axis):
        return [_per_step(unroller, op, flow, (*layout[:axis], flow.layout[axis], *layout[axis + 1 :]), axis)]
    if over_steps and axis is not None:
        return [over_time(unroller, op, flow, (*layout[:axis], (TIME,), *layout[axis + 1 :]), axis)]
    if any(isinstance(factor, str) for dim in flow.layout[1:] for factor in dim):
        raise _mixes(op, flow)
    return [_per_step(unroller, op, flow, layout)]


def _pooled_alone(unroller: Unroller, op: Op, flow: Flow) -> Flow:
    """Pool where samples or steps stand among channels, each of which is pooled by itself."""
    axes = -int(op.name[op.name.index("pool") + 4])
    before, sizes = flow.layout[:axes], flow.layout[axes:]
    each = sum(before, ())
    if BATCH not in each or any(isinstance(f, str) for dim in sizes for f in dim):
        raise _mixes(op, flow)
    # [B·C, H, W] = [6·2, 4, 4]: channels behind the samples, as in a pool of [B, C, D, H, W] over H and W
    count = next((at for at, f in enumerate(each) if isinstance(f, int)), len(each))
    if not {TIME, BATCH}.isdisjoint(each[count:]):
        count = len(each)
    apart = (each[:count], each[count:])
    pooled = _per_step(
        unroller,
        op,
        along_time.moved(unroller, op, flow, (*apart, *sizes)),
        (*apart, *of_shape(op.outputs[0].shape[axes:])),
    )
    return along_time.moved(unroller, op, pooled, (*before, *pooled.layout[2:]))


def _mixes(op: Op, flow: Flow) -> CaptureError:
    return refuse(
        f"'{op.name}' mixes time steps or samples: {_shown(flow.layout)}; a graph computes each step and sample by "
        "itself, and what passes from step to step are neurons' states: write it as a loop over time",
        op,
    )


def _require_padding(flow: Flow, op: Op) -> None:
    """Raise CaptureError for padding with other numbers than 0, or that takes steps away."""
    if any(op.args[2:]):
        raise refuse(f"'{op.name}' puts another number than 0 in; pad with zeros", op)
    for dim, *ends in zip(reversed(flow.layout), op.args[1][::2], op.args[1][1::2], strict=False):
        if TIME in dim and min(ends) < 0:
            raise _mixes(op, flow)


def _keeps_steps_apart(op: Op, axis: int) -> bool:
    """Return whether an operation treats each entry of an axis behind the channels separately."""
    if "batch_norm" in op.name:
        return op.name != "_native_batch_norm_legit" and not (op.name == "native_batch_norm" and op.args[5])
    if op.name != "convolution" or op.args[6]:
        return False
    at = axis - 2
    return bool(op.args[1].shape[axis] == 1 and op.args[3][at] == 1 and op.args[4][at] == 0)


def _per_step(unroller: Unroller, op: Op, flow: Flow, layout: Layout, axis: int = 0) -> Flow:
    """The operation on each step. layout: of its output; axis: the one that holds time, where the input carries it."""
    signal = op.args[_PRODUCTS.get(op.name, 0)]
    folded = layout[axis] if flow.timed else None
    step = tuple(tuple(f for f in dim if f != TIME) for dim in layout if axis == 0 or dim != (TIME,))
    delayed = any(node.constant for node in flow.nodes)
    made = []
    for t, node in enumerate(flow.nodes):
        inputs = {value: unroller.flow(value).nodes[0] for value in op.inputs} | {signal: node}
        args, kwargs = map_tree((op.args, op.kwargs), Value, inputs.__getitem__)
        each = Node(op.name, op.func, args, kwargs, step, op.outputs[0].dtype, op.place, 0, folded, axis, signal.memory)
        # Behind a delay a layer makes its bias of nothing in the first steps, each of which does as the others do.
        made.append(unroller.nodes.make(each, (op, t) if delayed else None))
        if made[-1] is not each:
            unroller.repeats.add((op.place, op.name))
    return Flow(tuple(made), layout)


def _matmul(unroller: Unroller, op: Op) -> Flow:
    flows = [unroller.flow(value) for value in op.inputs]
    rows, weight = flows[-2], flows[-1]
    if rows.constant and weight.timed and weight.layout[0] == (TIME,):
        return banded(unroller, op, weight, rows.tensor, flows[0].tensor if len(flows) > 2 else None)
    if rows.constant and not weight.constant:
        raise refuse(
            f"expected a signal times weights; found weights times a signal in '{op.name}', which mixes time steps or "
            "samples; use a linear layer",
            op,
        )
    if not all(flow.constant for flow in flows if flow is not rows):
        raise refuse(f"'{op.name}' multiplies two signals; expected one signal and constant weights", op)
    first = rows.layout[0]
    if BATCH not in first or any(isinstance(f, str) for f in rows.layout[1]):
        raise _mixes(op, rows)
    return _per_step(unroller, op, rows, (first, *of_shape(weight.tensor.shape[1:])))


def _one_product(unroller: Unroller, op: Op) -> Flow:
    """A batched product of one pair of matrices, as einsum makes them."""
    flows = [unroller.flow(value) for value in op.inputs]
    rows = next((flow for flow in flows if not flow.constant), flows[0])
    weight = flows[1]
    if not weight.constant or rows is weight or len(rows.layout[1]) == 0 or rows.layout[0] != ():
        raise refuse("'bmm' multiplies two signals, or mixes time steps; expected one signal and constant weights", op)
    if BATCH not in rows.layout[1] or any(isinstance(f, str) for f in rows.layout[2]):
        raise _mixes(op, rows)
    return _per_step(unroller, op, rows, ((), rows.layout[1], *of_shape(op.outputs[0].shape[2:])), 1)


def _two_signals(unroller: Unroller, op: Op) -> Flow:
    """A batched product of two signals, ``q @ k.transpose(-2, -1)``, step by step."""
    flows = [unroller.flow(value) for value in op.args[:2]]
    first, rows, _ = flows[0].layout
    other, _, columns = flows[1].layout
    inner = [factor for flow in flows for dim in flow.layout[1:] for factor in dim]
    if BATCH not in first or first != other or any(isinstance(factor, str) for factor in inner):
        raise _mixes(op, flows[0])
    layout: Layout = (first, rows, columns)
    step = without_time(layout)
    timed = [flow.timed for flow in flows]
    made = []
    for t in range(unroller.sizes(*flows)[TIME] if any(timed) else 1):
        pair = tuple(flow.nodes[t if flow.timed else 0] for flow in flows)
        node = Node(op.name, op.func, pair, {}, step, op.outputs[0].dtype, op.place)
        made.append(unroller.nodes.make(node))
    return Flow(tuple(made), layout)


def _over_classes(unroller: Unroller, op: Op) -> Flow:
    flow = unroller.flow(op.args[0])
    if op.args[1] % len(flow.layout) != len(flow.layout) - 1 or any(isinstance(f, str) for f in flow.layout[-1]):
        raise refuse(f"expected '{op.name.strip('_')}' over the last axis, the classes; found it over another", op)
    # Of constants, as of outputs before the first step, it stays a softmax, which the readout takes off every step.
    call, step = getattr(torch.ops.aten, op.name), without_time(flow.layout)
    args, dtype = (-1, False), op.outputs[0].dtype
    made = (Node(op.name, call, (node, *args), {}, step, dtype, op.place) for node in flow.nodes)
    return Flow(tuple(map(unroller.nodes.make, made)), flow.layout)


def _reduce(unroller: Unroller, op: Op) -> Flow:
    flow = unroller.flow(op.inputs[0])
    dims, keep = _reduced(op, len(flow.layout))
    layout = flow.layout
    dtype = op.outputs[0].dtype
    # sum(dtype=) adds up in that type: of bools a sum would be of integers
    nodes = flow.nodes if op.kwargs.get("dtype") is None else tuple(cast(unroller, n, dtype, op) for n in flow.nodes)
    if any(BATCH in layout[dim] for dim in dims):
        raise refuse(f"'{op.name}' mixes samples", op)
    timed = [dim for dim in dims if TIME in layout[dim]]
    rest = [dim for dim in dims if dim not in timed]
    if timed and layout[timed[0]] != (TIME,):
        raise refuse(f"'{op.name}' over time and something else at once: {_shown(layout)}", op)
    if rest:
        lost = [dim for dim, factors in enumerate(layout) if factors == (TIME,)]
        moved = [dim - sum(axis < dim for axis in lost) for dim in rest]
        step_layout = [d for i, d in enumerate(nodes[0].layout) if i not in moved or keep]
        step_layout = [() if keep and i in moved else d for i, d in enumerate(step_layout)]
        name, flow = _EXTREMES.get(op.name, op.name), Flow(nodes, layout)
        nodes = unroller.each(op, name, flow, tuple(step_layout), moved, keep, dtype=dtype).nodes
    if timed:
        over = {"sum": "time_sum", "mean": "time_mean", "amax": "time_max", "max": "time_max"}.get(op.name)
        if over is None:
            remedy = "return what it reads, [T, B, ...] at every step, and apply it to that"
            raise refuse(f"unsupported readout over time: '{op.name}'; {remedy}", op)
        layout_of_one = nodes[0].layout
        nodes = (unroller.untimed(over, None, tuple(nodes), {}, layout_of_one, dtype, op.place, written=op.name),)
        if keep:
            shown = list(nodes[0].layout)
            shown.insert(timed[0], ())
            nodes = (unroller.reshaped(nodes[0], tuple(shown), op.place),)
    if keep:
        return Flow(nodes, tuple(() if dim in dims else factors for dim, factors in enumerate(layout)))
    return Flow(nodes, tuple(factors for dim, factors in enumerate(layout) if dim not in dims))


def _reduced(op: Op, rank: int) -> tuple[list[int], bool]:
    """Return the reduced axes, and whether they stay as axes of size 1."""
    dims = op.args[1] if len(op.args) > 1 else op.kwargs.get("dim")
    if dims is None or dims == []:
        dims = list(range(rank))
    if isinstance(dims, int):
        dims = [dims]
    keep = bool(op.args[2]) if len(op.args) > 2 else bool(op.kwargs.get("keepdim", False))
    return sorted(dim % rank for dim in dims), keep


def _shown(layout: Layout) -> str:
    return "[" + ", ".join("·".join(str(f) for f in dim) if dim else "1" for dim in layout) + "]"
