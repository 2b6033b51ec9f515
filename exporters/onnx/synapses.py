"""Emit memoryless nodes, which process T·B samples at once.

Runtimes may fuse what follows a convolution or matrix product: a scale into the weights, an addition into the sum. That
rounds differently (ONNX Runtime 1.32 merges Conv and Mul, which changes a seventh of the values). In the sequence form
the reshape back to ``[T, B, ...]`` prevents it. Without a time axis `_settle` does: a lower bound at the smallest
float32, which changes no finite value, which optimisers may not drop, and which fuses into the product at no cost.

Pooling is a depthwise convolution with ones: exact for integers (an average pool times the window size is not:
49·(1/49) ≠ 1), and measured as fast as MaxPool on the CPU. Slices and additions took 4 times as long, a reduction over
reshaped windows twice, LpPool 15 times.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stl_deploy.exporters.onnx.exact_sums import double_sum, integer_conv, integer_linear
from stl_deploy.exporters.onnx.scope import Lead, Scope
from stl_deploy.graph import program as ir
from stl_deploy.graph.program import Shape

_LOWEST = np.float32(np.finfo(np.float32).min)


def memoryless(scope: Scope, node: ir.Node, x: str, lead: Lead | None) -> str:
    """Add ``node`` on the value ``x``; return the output's name.

    lead: the axes T and B of values ``[T, B, *shape]``; None if they are ``[B, *shape]``.
    """
    match node:
        case ir.Linear():
            return _linear(scope, node, x, lead)
        case ir.Conv():
            return _conv(scope, node, x, lead)
        case ir.Pool():
            return _pool(scope, node, x, lead)
        case ir.Scale():
            scale = scope.weight(f"{node.name}.scale", node.scale)
            return scope.op("Mul", [scale, x], node.name)
        case ir.Reshape():
            kept = (0,) if lead is None else (0, 0)
            return scope.op("Reshape", [x, scope.integers(*kept, *node.shape)], node.name)
        case ir.MaxPool():
            return _max_pool(scope, node, x, lead)
        case ir.Gather():
            return _gather(scope, node, x, lead)
    assert isinstance(node, ir.Output | ir.Concat | ir.Product)
    return scope.op("Identity", [x], node.name)


def _linear(scope: Scope, node: ir.Linear, x: str, lead: Lead | None) -> str:
    folded = len(node.input_shape) > 1 or lead is not None
    x = _fold(scope, node.name, x, node.input_shape[-1:]) if folded else x
    return _unfold(scope, node, _product(scope, node, x), lead, reshape=len(node.shape) > 1)


def _product(scope: Scope, node: ir.Linear, x: str) -> str:
    if scope.double:
        return double_sum(scope, node, x)
    if node.name in scope.planes:
        return integer_linear(scope, node, x, scope.planes[node.name])
    operands = [x, scope.weight(f"{node.name}.weight", node.weight), *scope.bias(node)]
    return scope.op("Gemm", operands, node.name, transB=1)


def _conv(scope: Scope, node: ir.Conv, x: str, lead: Lead | None) -> str:
    x = x if lead is None else _fold(scope, node.name, x, node.input_shape)
    if scope.double:
        return _unfold(scope, node, double_sum(scope, node, x), lead)
    if node.name in scope.planes:
        return _unfold(scope, node, integer_conv(scope, node, x, scope.planes[node.name]), lead)
    window = _window(node, node.weight.shape[2:])
    inputs = [x, scope.weight(f"{node.name}.weight", node.weight), *scope.bias(node)]
    y = scope.op("Conv", inputs, node.name, dilations=node.dilation, group=node.groups, **window)
    return _unfold(scope, node, y, lead)


def _pool(scope: Scope, node: ir.Pool, x: str, lead: Lead | None) -> str:
    channels, reshaped = math.prod(node.input_shape[:-2]), len(node.input_shape) != 3
    if lead is not None or reshaped:
        x = _fold(scope, node.name, x, (channels, *node.input_shape[-2:]))
    if scope.double:
        return _unfold(scope, node, double_sum(scope, node, x), lead, reshaped)
    ones = scope.weight(f"{node.name}.window", np.ones((channels, 1, *node.kernel), np.float32))
    y = scope.op("Conv", [x, ones], node.name, group=channels, **_window(node, node.kernel))
    y = _unfold(scope, node, y, lead, reshaped)
    if node.divisor == 1:
        return y
    divisor = scope.weight(f"{node.name}.divisor", np.float32(node.divisor))
    return scope.op("Div", [y, divisor], f"{node.name}/average")


def _max_pool(scope: Scope, node: ir.MaxPool, x: str, lead: Lead | None) -> str:
    x = x if lead is None else _fold(scope, node.name, x, node.input_shape)
    y = scope.op("MaxPool", [x], node.name, **_window(node, node.kernel))
    return y if lead is None else _unfold(scope, node, y, lead)


def _gather(scope: Scope, node: ir.Gather, x: str, lead: Lead | None) -> str:
    """Gather values by their places; empty places read one extra value, 0, behind all others."""
    kept = (0,) if lead is None else (0, 0)
    axis, size = len(kept), math.prod(node.input_shape)
    x = scope.op("Reshape", [x, scope.integers(*kept, size)], f"{node.name}/flat")
    places = node.indices.reshape(-1)
    if (places < 0).any():
        amounts = scope.integers(*(0,) * (2 * axis + 1), 1)
        x = scope.op("Pad", [x, amounts], f"{node.name}/zero")
        places = np.where(places < 0, size, places)
    indices = scope.weight(f"{node.name}.indices", places.astype(np.int32))
    y = scope.op("Gather", [x, indices], node.name, axis=axis)
    return scope.op("Reshape", [y, scope.integers(*kept, *node.shape)], f"{node.name}/shaped")


def _fold(scope: Scope, name: str, x: str, shape: Shape) -> str:
    return scope.op("Reshape", [x, scope.integers(-1, *shape)], f"{name}/fold")


def _unfold(scope: Scope, node: ir.Node, y: str, lead: Lead | None, reshape: bool = False) -> str:
    if lead is not None:
        shape = lead.sequence_shape(node.shape, f"{node.name}/shape")
        return scope.op("Reshape", [y, shape], f"{node.name}/unfold")
    if reshape:
        y = scope.op("Reshape", [y, scope.integers(-1, *node.shape)], f"{node.name}/unfold")
    return _settle(scope, node.name, y)


def _settle(scope: Scope, name: str, y: str) -> str:
    lowest = scope.number("lowest", _LOWEST)
    return scope.op("Clip", [y, lowest], f"{name}/settle")


def _window(node: ir.Conv | ir.Pool | ir.MaxPool, kernel: Shape) -> dict[str, Any]:
    pads = [before for before, _ in node.padding] + [after for _, after in node.padding]
    return {"kernel_shape": kernel, "strides": node.stride, "pads": pads}
