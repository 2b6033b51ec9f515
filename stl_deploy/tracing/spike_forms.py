"""Other ways to write a comparison.

``where(c, 1, 0)``, ``relu(sign(u))``, ``heaviside(u, 0)`` and ``1 - (v < θ)`` are spikes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stl_deploy.tracing.nodes import Node
from stl_deploy.tracing.recorder import Op, Value
from stl_deploy.tracing.unroll import Flow, Unroller


def as_comparison(unroller: Unroller, op: Op, name: str, args: tuple[Any, ...]) -> Flow | None:
    """The boolean flow that an operation has the very values of (0 and 1); None if it has others."""
    if name == "where" and len(args) == 3 and _all(unroller, args[1], 1) and _all(unroller, args[2], 0):
        mask = unroller.flow(args[0])
        return mask if args[0].dtype == torch.bool and args[0].shape == op.outputs[0].shape else None
    if name == "heaviside":
        return _step(unroller, op, unroller.flow(args[0]), unroller.flow(args[1]))
    if name == "relu" or (name in ("clamp", "clamp_min") and _bounds(op, args) == (0, None)):
        return _positive(unroller, op, unroller.flow(args[0]))
    if name in ("logical_not", "bitwise_not") or (name == "rsub" and args[1:] == (1,) and not op.kwargs):
        return _twice_turned(unroller.flow(args[0]))
    return None


def _twice_turned(flow: Flow) -> Flow | None:
    """c where ``flow`` is not c, as it is or as numbers."""
    inner = [node.args[0] if node.name == "_to_copy" else node for node in flow.nodes]
    if any(node.name != "logical_not" for node in inner):
        return None
    return Flow(tuple(node.args[0] for node in inner), flow.layout)


def _bounds(op: Op, args: tuple[Any, ...]) -> tuple[Any, Any]:
    low, high = (*args[1:], None, None)[:2]
    return op.kwargs.get("min", low), op.kwargs.get("max", high)


def _all(unroller: Unroller, item: Value, number: int) -> bool:
    """Whether a branch is ``number`` everywhere."""
    flow = unroller.flow(item)
    return flow.constant and all(bool((_tensor(node) == number).all()) for node in flow.nodes)


def _tensor(node: Node) -> Tensor:
    assert node.tensor is not None
    return node.tensor


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
    made = [Node(name, call, (one, 0), {}, one.layout, torch.bool, op.place, pointwise=True) for one in flow.nodes]
    return Flow(tuple(unroller.nodes.make(node) for node in made), flow.layout)
