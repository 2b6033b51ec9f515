"""Trace elementwise operations, step by step."""

from __future__ import annotations

from dataclasses import replace
from math import isinf
from typing import Any

import torch
from torch import Tensor

from stl_deploy.tracing.recording.operations import Op, Value, map_tree
from stl_deploy.tracing.recording.watched import leaves
from stl_deploy.tracing.unrolling.addresses import by_addresses
from stl_deploy.tracing.unrolling.layout import BATCH, TIME, Layout, broadcast, shape_of, without_time
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.unroll import Flow, Unroller, refuse

_BOOLEAN = ("gt", "ge", "lt", "le", "eq", "ne", "logical_not", "logical_and", "logical_or")
_FINITE = ("gt", "ge", "lt", "le", "eq", "ne", "add", "sub", "rsub")
"""Operations that are constants beside infinity, as signals are finite."""
_MASKS = ("add", "sub", "rsub", "mul", "where", "masked_fill")
_MORE = ("masked_fill", "copy", "lerp", "index_put", "fill", "zero", "full", "rsub")


def is_elementwise(op: Op) -> bool:
    """Return whether each element of the output depends only on the elements at its own place."""
    if op.scatter or op.name == "_to_copy":
        return op.name == "_to_copy"
    func = op.func
    if op.writes is not None:  # torch tags few forms that write in place
        func = getattr(getattr(torch.ops.aten, op.name, func), func._overloadname, func)
    tagged = torch.Tag.pointwise in getattr(func, "tags", ()) or op.name in _MORE
    return tagged and bool(op.inputs)


def elementwise(unroller: Unroller, op: Op) -> Flow:
    """Apply the operation to each step's values, broadcast as torch does."""
    name, args, kwargs = _functional(op)
    dtype = op.outputs[0].dtype
    if name == "rsub" and op.place in unroller.reduced and len(args) == 2 and not kwargs:
        name, args = "sub", (Value((), dtype, leaf=torch.tensor(args[1], dtype=dtype)), args[0])
    values = list(dict.fromkeys(item for item in leaves((args, kwargs)) if isinstance(item, Value)))
    flows = {value: unroller.flow(value) for value in values}
    if name in ("fill", "zero") and all(flow.constant for flow in list(flows.values())[1:]):
        fill = 0 if name == "zero" else flows[args[1]].tensor.item() if isinstance(args[1], Value) else args[1]
        return unroller.constant(torch.full(op.outputs[0].shape, fill, dtype=dtype))
    if name == "copy":
        return _copied(unroller, op, args[1], flows[args[1]])
    if name == "_to_copy" and next(iter(flows.values())).nodes[0].dtype == dtype:
        return next(iter(flows.values()))
    if name == "index_put":
        name, args = "where", _masked(op, args)
    if name in _FINITE and any(map(_is_infinite, args)):
        return unroller.constant(op.outputs_on(_finite)[0])
    through = _straight_through(unroller, op, name, args, flows) or _unchanged(op, name, args, flows)
    if through is not None:
        return through
    of_signal = not all(flow.constant for flow in flows.values())
    if of_signal and name in _MASKS and any(_is_infinite(item, somewhere=True) for item in args):
        raise refuse(f"'{op.name}' reads a constant of infinity, and a graph holds none; for a mask take -1e9", op)
    # Some code switches terms off by a factor of 0.
    if name == "mul" and any(isinstance(item, int | float) and item == 0 for item in args):
        return unroller.constant(torch.zeros(op.outputs[0].shape, dtype=dtype))
    sizes = unroller.sizes(*flows.values())
    layout = broadcast([flow.layout for flow in flows.values()], sizes)
    if layout is None:
        raise refuse(f"'{name}' combines values whose time steps or samples lie in different axes", op)
    step = without_time(layout)
    call = op.func if op.writes is None and name == op.name else getattr(torch.ops.aten, name)
    if name == "_to_copy":
        kwargs = {"dtype": dtype}
    natural = torch.bool if op.writes is not None and name in _BOOLEAN else dtype  # before it is written elsewhere
    within = op.within if op.writes == 0 and step == layout and layout[0] == (BATCH,) else ()
    delayed = any(node.constant for flow in flows.values() if not flow.constant for node in flow.nodes)
    made = []
    for t in range(sizes[TIME] if any(TIME in dim for dim in layout) else 1):
        fitted = {value: fit(unroller, flow, layout, t, op) for value, flow in flows.items()}
        a, k = map_tree((args, kwargs), Value, fitted.__getitem__)
        node = Node(name, call, a, k, step, natural, op.place, pointwise=True, within=within)
        if not delayed and all(value.constant for value in fitted.values()):
            tensors = map_tree((a, k), Node, lambda node: node.tensor)
            node.tensor = node.run(tensors[0], tensors[1], sizes)
        made.append(cast(unroller, unroller.nodes.make(node, (op, t) if delayed else None), dtype, op))
    return Flow(tuple(made), layout)


def _is_infinite(item: Any, *, somewhere: bool = False) -> bool:
    """Return whether an argument is a constant that is infinite everywhere, or somewhere."""
    if not isinstance(item, Value):
        return isinstance(item, float) and isinf(item)
    floats = item.constant and item.dtype.is_floating_point and 0 not in item.shape
    return floats and bool(item.tensor().isinf().any() if somewhere else item.tensor().isinf().all())


def _finite(value: Value) -> Tensor:
    """Return a constant, or a finite number for each value of a signal."""
    return value.tensor() if value.constant else torch.zeros(value.shape, dtype=value.dtype)


def _straight_through(
    unroller: Unroller, op: Op, name: str, args: tuple[Any, ...], flows: dict[Value, Flow]
) -> Flow | None:
    """Remove a straight-through gradient term: ``s + w * (v - v.detach())`` is s, since v - v is 0.

    None if the operation is another one. The zeros are recognised by their origin, as other zeros are initial states.
    """
    two = name in ("add", "sub", "mul") and len(args) == 2 and not op.kwargs
    if not two or not all(isinstance(item, Value) for item in args):
        return None
    left, right = flows[args[0]], flows[args[1]]
    nothing = unroller.nothing
    same = name == "sub" and left.layout == right.layout and left.nodes == right.nodes and not left.constant
    same = same and _are_same(*args)  # two states that start alike are one node at first
    if same or (name == "mul" and nothing & {*args}):
        nothing.add(op.outputs[0])
        return unroller.constant(torch.zeros(op.outputs[0].shape, dtype=op.outputs[0].dtype))
    kept = next((item for item in args if item not in nothing), None)
    passes = name == "add" or (name == "sub" and args[0] is kept)
    if not passes or kept is None or not nothing & {*args}:
        return None
    alike = kept.shape == op.outputs[0].shape and kept.dtype == op.outputs[0].dtype
    return flows[kept] if alike else None


def _unchanged(op: Op, name: str, args: tuple[Any, ...], flows: dict[Value, Flow]) -> Flow | None:
    """Return the flow that an operation leaves as it is: x ** 1, relu(|x|) and sign(x) · |x|, as in a sum pool."""
    read = [flows[item] for item in args if isinstance(item, Value)]
    names = [{node.name for node in flow.nodes} for flow in read]
    first = name == "pow" and args[1] == 1 and args[0].dtype == op.outputs[0].dtype
    if first or (name == "relu" and names == [{"abs"}]):
        return read[0]
    if name != "mul" or names != [{"sign"}, {"abs"}]:
        return None
    signs, sizes = (tuple(node.args[0] for node in flow.nodes) for flow in read)
    return Flow(signs, read[0].layout) if signs == sizes else None


def _are_same(a: Value, b: Value) -> bool:
    """Return whether the code makes two values by the same operations of the same values."""
    waiting, met = [(a, b)], set[tuple[Value, Value]]()
    while waiting:
        a, b = (_attached(value) for value in waiting.pop())
        if a is b or (a, b) in met:
            continue
        met.add((a, b))
        if a.op is None or b.op is None:
            if a.leaf is None or b.leaf is None or not torch.equal(a.leaf, b.leaf):
                return False
            continue
        if (a.op.func, a.index, _without_values(a.op)) != (b.op.func, b.index, _without_values(b.op)):
            return False
        waiting += zip(a.op.inputs, b.op.inputs, strict=True)
    return True


def _attached(value: Value) -> Value:
    """Return what a value is a copy of, without its gradient."""
    while value.op is not None and value.op.name in ("detach", "alias", "clone") and not value.op.scatter:
        value = value.op.args[0]
    return value


def _without_values(op: Op) -> str:
    return repr((op.scatter, op.writes, map_tree((op.args, op.kwargs), Value, lambda value: ...)))


def _functional(op: Op) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Return the operation without the argument that it writes into."""
    if isinstance(op.writes, str):
        return op.name, op.args, {key: item for key, item in op.kwargs.items() if key != op.writes}
    return op.name, op.args, dict(op.kwargs)


def cast(unroller: Unroller, node: Node, dtype: torch.dtype, op: Op) -> Node:
    """Return ``node`` in another type."""
    if node.dtype == dtype:
        return node
    made = Node("_to_copy", torch.ops.aten._to_copy, (node,), {"dtype": dtype}, node.layout, dtype, op.place)
    made.pointwise = True
    made.tensor = None if node.tensor is None else node.tensor.to(dtype)
    return unroller.nodes.make(made)


def _copied(unroller: Unroller, op: Op, value: Value, source: Flow) -> Flow:
    (made,) = op.outputs
    flow = Flow(tuple(cast(unroller, node, made.dtype, op) for node in source.nodes), source.layout)
    if value.shape == made.shape:
        return flow
    repeated = Value(value.shape, made.dtype)
    unroller.flows[repeated] = flow
    return by_addresses(unroller, replace(op, args=(op.args[0], repeated)))[0]


def _masked(op: Op, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return ``v[mask] = value`` as ``where(mask, value, v)``."""
    base, indices, value = args[0], args[1], args[2]
    accumulate = len(args) > 3 and args[3]
    if len(indices) != 1 or indices[0].dtype != torch.bool or accumulate or value.shape not in ((), (1,)):
        raise refuse(
            "values are written at computed indices; for a mask, write v * (1 - mask) + value * mask, or torch.where "
            "in a neuron's state",
            op,
        )
    return (indices[0], value, base)


def fit(unroller: Unroller, flow: Flow, layout: Layout, t: int, op: Op) -> Node:
    """Return a flow's value at step ``t``, with the dimensions that it needs beside others under ``layout``."""
    node = flow.nodes[t] if flow.timed else flow.nodes[0]
    offset = len(layout) - len(flow.layout)
    if node.constant:
        fitted = _fit_constant(flow, node, layout, offset, t, unroller, op)
        return node if fitted is node.tensor else unroller.nodes.constant(fitted)
    extra = [i for i, dim in enumerate(layout) if dim == (TIME,) and i >= offset and flow.layout[i - offset] == ()]
    if not extra:
        return node
    kept = tuple(dim for i, dim in enumerate(flow.layout) if i + offset not in extra and dim != (TIME,))
    return unroller.reshaped(node, tuple(tuple(f for f in d if f != TIME) for d in kept), op.place)


def _fit_constant(flow: Flow, node: Node, layout: Layout, offset: int, t: int, unroller: Unroller, op: Op) -> Tensor:
    tensor = node.value
    if flow.timed:
        dims = without_time(layout)
        for at in range(-tensor.dim(), 0):
            if dims[at] == (BATCH,):
                tensor = one_sample(tensor, at, op)
        return tensor
    axis = 0
    for i in range(tensor.dim()):
        wanted = layout[i + offset]
        size = tensor.shape[axis]
        if wanted == (TIME,):
            tensor = tensor.select(axis, t if size > 1 else 0)
            continue
        if size > 1 and any(isinstance(f, str) for f in wanted):
            sizes = unroller.sizes()
            (others,) = shape_of(without_time((wanted,)), sizes)
            sizes[TIME] = size // others
            spread = tensor.reshape(
                *tensor.shape[:axis],
                *(f if isinstance(f, int) else sizes[f] for f in wanted),
                *tensor.shape[axis + 1 :],
            )
            for at in reversed(range(len(wanted))):
                if wanted[at] == TIME:
                    spread = spread.select(axis + at, t)
                elif wanted[at] == BATCH:
                    spread = one_sample(spread, axis + at, op)
            rest = [f for f in wanted if isinstance(f, int)]
            tensor = spread.reshape(*tensor.shape[:axis], rest[0] if rest else 1, *tensor.shape[axis + 1 :])
        axis += 1
    return tensor


def one_sample(tensor: Tensor, axis: int, op: Op) -> Tensor:
    """Return a constant's first sample; raise CaptureError if another differs from it."""
    sample = tensor.narrow(axis, 0, 1)
    if not torch.equal(sample.expand_as(tensor).nan_to_num(), tensor.nan_to_num()):
        raise refuse(
            f"'{op.name}' reads a tensor that the model holds one value of for each sample, and these values differ (a "
            "state that an earlier call left, noise?); a graph treats all samples alike: make the tensor in forward, "
            "the same for every sample (torch.zeros_like)",
            op,
        )
    return sample
