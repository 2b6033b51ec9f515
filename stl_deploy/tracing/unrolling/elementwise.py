"""Trace elementwise operations, step by step."""

from __future__ import annotations

from dataclasses import replace
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
_OPPOSITE = {"lt": "ge", "le": "gt"}
_MIRRORED = {"gt": "lt", "ge": "le", "lt": "gt", "le": "ge"}
_MORE = ("masked_fill", "copy", "lerp", "index_put", "fill", "zero", "full", "rsub")


def is_elementwise(op: Op) -> bool:
    """Return whether each element of the output depends only on the elements at its own place."""
    if op.scatter or op.name == "_to_copy":
        return op.name == "_to_copy"
    tagged = torch.Tag.pointwise in getattr(op.func, "tags", ()) or op.name in _MORE
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
    if name in _MIRRORED and flows.get(args[1]) and flows[args[0]].constant and not flows[args[1]].constant:
        name, args = _MIRRORED[name], args[::-1]  # the signal first, as in ``v < θ`` for ``θ > v``
    if not kwargs and (decided := _beside_infinity(name, args, flows)) is not None:
        return unroller.constant(decided.to(dtype).expand(op.outputs[0].shape))
    through = _straight_through(unroller, op, name, args, flows) or _unchanged(op, name, args, flows)
    if through is not None:
        return through
    spikes = as_comparison(unroller, op, name, args)
    if spikes is not None:
        return Flow(tuple(cast(unroller, node, dtype, op) for node in spikes.nodes), spikes.layout)
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
        node = _without_sign(unroller, node)
        if node.name in _OPPOSITE and op.writes is None and not _is_signal(node.args[1]) and _is_signal(node.args[0]):
            made.append(_opposite(unroller, node))
            continue
        if not delayed and all(value.constant for value in fitted.values()):
            tensors = map_tree((a, k), Node, lambda node: node.tensor)
            node.tensor = node.run(tensors[0], tensors[1], sizes)
        made.append(cast(unroller, unroller.nodes.make(node, (op, t) if delayed else None), dtype, op))
    return Flow(tuple(made), layout)


def _beside_infinity(name: str, args: tuple[Any, ...], flows: dict[Value, Flow]) -> Tensor | None:
    """Return a comparison, sum or difference of a signal and infinity, as signals are finite; None for the rest."""
    if name not in (*_MIRRORED, "eq", "ne", "add", "sub") or args[0] not in flows or flows[args[0]].constant:
        return None
    level = flows.get(args[1])
    if level is not None and (not level.constant or level.timed):
        return None
    numbers = torch.tensor(args[1]) if level is None else level.tensor
    return getattr(torch, name)(torch.zeros(()), numbers) if bool(numbers.isinf().all()) else None


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


def _without_sign(unroller: Unroller, node: Node) -> Node:
    """Return ``-v < -θ`` as ``v > θ``, and ``1 - v < c`` as ``v - 1 > -c``: changing a float's sign is exact."""
    left, right = (*node.args, None, None)[:2]
    if node.name not in _MIRRORED or not _is_signal(left) or left.kwargs or not left.pointwise:
        return node
    if not left.dtype.is_floating_point or _is_signal(right) or right is None:
        return node
    if left.name == "neg":
        turned = left.args[0]
    elif left.name in ("sub", "rsub") and len(left.args) == 2 and left.place not in unroller.reduced:
        theta, v = left.args if left.name == "sub" else left.args[::-1]
        if _is_signal(theta):
            return node
        less = replace(left, name="sub", call=_kernel("sub", theta), args=(v, theta), kept=None)
        turned = unroller.nodes.make(less)
    else:
        return node
    name = _MIRRORED[node.name]
    level: Any = unroller.nodes.constant(-_as_float(right.value)) if isinstance(right, Node) else -right
    return replace(node, name=name, call=_kernel(name, level), args=(turned, level))


def _as_float(constant: Tensor) -> Tensor:
    """Return a constant as a comparison with float32 takes it: unsigned integers and bools have no negative."""
    return constant if constant.is_floating_point() else constant.to(torch.float32)


def _kernel(name: str, right: Any) -> Any:
    return getattr(getattr(torch.ops.aten, name), "Tensor" if isinstance(right, Node) else "Scalar")


def _is_signal(item: Any) -> bool:
    return isinstance(item, Node) and not item.constant


def _opposite(unroller: Unroller, node: Node) -> Node:
    """Return ``v < θ`` as not ``v >= θ``, so that one comparison decides rest and spike."""
    name = _OPPOSITE[node.name]
    spikes = unroller.nodes.make(replace(node, name=name, call=_kernel(name, node.args[1])))
    call = torch.ops.aten.logical_not.default
    return unroller.nodes.make(replace(node, name="logical_not", call=call, args=(spikes,), kwargs={}))


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


def as_comparison(unroller: Unroller, op: Op, name: str, args: tuple[Any, ...]) -> Flow | None:
    """Return the boolean flow whose values (0 and 1) an operation has; None if it has others.

    ``where(c, 1, 0)``, ``where(v < θ, 0, 1)``, ``relu(sign(u))``, ``heaviside(u, 0)`` and ``1 - (v < θ)`` are spikes.
    """
    if name == "where" and len(args) == 3 and args[0].dtype == torch.bool and args[0].shape == op.outputs[0].shape:
        mask = unroller.flow(args[0])
        if _all(unroller, args[1], 1) and _all(unroller, args[2], 0):
            return mask
        if _all(unroller, args[1], 0) and _all(unroller, args[2], 1) and not mask.constant:
            return _twice_turned(mask) or _other_side(unroller, args[0]) or _turned(unroller, op, mask)
    if name == "heaviside":
        return _step(unroller, op, unroller.flow(args[0]), unroller.flow(args[1]))
    if name == "relu" or (name in ("clamp", "clamp_min") and _bounds(op, args) == (0, None)):
        return _positive(unroller, op, unroller.flow(args[0]))
    is_not = name == "logical_not" or (name == "bitwise_not" and op.outputs[0].dtype == torch.bool)
    if is_not or (name == "rsub" and args[1:] == (1,) and not op.kwargs):
        return _twice_turned(unroller.flow(args[0])) or _other_side(unroller, args[0])
    return None


def _turned(unroller: Unroller, op: Op, flow: Flow) -> Flow:
    """Return not c of a boolean flow."""

    def turned(node: Node) -> Node:
        if node.tensor is not None:
            return unroller.nodes.constant(~node.tensor)
        call = torch.ops.aten.logical_not.default
        made = Node("logical_not", call, (node,), {}, node.layout, torch.bool, op.place, pointwise=True)
        return unroller.nodes.make(made)

    return Flow(tuple(turned(node) for node in flow.nodes), flow.layout)


def _twice_turned(flow: Flow) -> Flow | None:
    """c where ``flow`` is not c, as it is or as numbers."""
    inner = [node.args[0] if node.name == "_to_copy" else node for node in flow.nodes]
    if any(node.name != "logical_not" for node in inner):
        return None
    return Flow(tuple(node.args[0] for node in inner), flow.layout)


def _other_side(unroller: Unroller, value: Value) -> Flow | None:
    """Return ``v >= b`` for ``not v < b`` of two signals, where nothing else reads ``v < b``; None for other values."""
    flow, compared = unroller.flow(value), value
    while unroller.readers[compared] == 1 and compared.op is not None and compared.op.name == "_to_copy":
        compared = compared.op.args[0]
    inner = [node.args[0] if node.name == "_to_copy" else node for node in flow.nodes]
    if unroller.readers[compared] != 1 or any(node.name not in _OPPOSITE or node.constant for node in inner):
        return None

    def opposite(node: Node) -> Node:
        name = _OPPOSITE[node.name]
        return unroller.nodes.make(replace(node, name=name, call=getattr(torch.ops.aten, name).Tensor, kept=None))

    return Flow(tuple(map(opposite, inner)), flow.layout)


def _bounds(op: Op, args: tuple[Any, ...]) -> tuple[Any, Any]:
    low, high = (*args[1:], None, None)[:2]
    return op.kwargs.get("min", low), op.kwargs.get("max", high)


def _all(unroller: Unroller, item: Value, number: int) -> bool:
    """Whether a branch is ``number`` everywhere."""
    flow = unroller.flow(item)
    return flow.constant and all(bool((node.value == number).all()) for node in flow.nodes)


def _positive(unroller: Unroller, op: Op, flow: Flow) -> Flow | None:
    """``u > 0`` where ``flow`` is sign(u)."""
    if any(node.name != "sign" for node in flow.nodes):
        return None
    return _beyond_zero(unroller, op, "gt", Flow(tuple(node.args[0] for node in flow.nodes), flow.layout))


def _step(unroller: Unroller, op: Op, flow: Flow, at_zero: Flow) -> Flow | None:
    """``u > 0`` where the step function is 0 at 0, ``u >= 0`` where it is 1 there."""
    if flow.constant or not at_zero.constant or at_zero.timed:
        return None
    values = set(at_zero.tensor.reshape(-1).tolist())
    return _beyond_zero(unroller, op, "ge" if values == {1} else "gt", flow) if values in ({0}, {1}) else None


def _beyond_zero(unroller: Unroller, op: Op, name: str, flow: Flow) -> Flow:
    call = getattr(torch.ops.aten, name).Scalar
    made = [Node(name, call, (zero, 0), {}, zero.layout, torch.bool, op.place, pointwise=True) for zero in flow.nodes]
    return Flow(tuple(unroller.nodes.make(node) for node in made), flow.layout)
