"""Other ways to write a comparison: ``where(c, 1, 0)``, ``relu(sign(u))`` and ``1 - (v < θ)`` are spikes."""

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


def _all(unroller: Unroller, item: Any, number: int) -> bool:
    """Whether a branch is ``number`` everywhere."""
    if not isinstance(item, Value):
        return bool(item == number)
    flow = unroller.flow(item)
    return flow.constant and all(bool((_tensor(node) == number).all()) for node in flow.nodes)


def _tensor(node: Node) -> Tensor:
    assert node.tensor is not None
    return node.tensor


def _positive(unroller: Unroller, op: Op, flow: Flow) -> Flow | None:
    """``u > 0`` where ``flow`` is sign(u)."""
    if any(node.name != "sign" for node in flow.nodes):
        return None
    made = [
        Node("gt", torch.ops.aten.gt.Scalar, (node.args[0], 0), {}, node.layout, torch.bool, op.place, pointwise=True)
        for node in flow.nodes
    ]
    return Flow(tuple(unroller.nodes.make(node) for node in made), flow.layout)
