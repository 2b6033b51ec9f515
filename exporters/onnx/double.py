"""Sum synapses and pools in float64 and round once, for weights that lie on no grid.

ONNX Runtime multiplies float64 matrices but does not convolve them, so a convolution is one matrix product for each
place of its kernel, on the input's values under that place, added up. Weights stay float32 in the file.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from onnx import TensorProto

from stl_deploy.exporters.onnx.scope import Scope
from stl_deploy.graph.program import Conv, Floats, Linear, Pool, Shape


def double_sum(scope: Scope, node: Linear | Conv | Pool, x: str) -> str:
    """Add ``node`` on ``x`` ``[N, *input shape]`` (Linear: ``[N, inputs]``); returns the name of the float32 result.

    Its shape is ``[N, *shape]`` (Linear: ``[N, outputs]``; Pool: as the input, with one axis of channels).
    """
    wide = _cast(scope, node.name, x, TensorProto.DOUBLE)
    match node:
        case Linear():
            total = _linear(scope, node, wide)
        case Conv():
            total = _conv(scope, node, wide)
        case Pool():
            total = _pool(scope, node, wide)
    return _cast(scope, node.name, total, TensorProto.FLOAT)


def _linear(scope: Scope, node: Linear, x: str) -> str:
    operands = [_parameter(scope, f"{node.name}.weight", node.weight)]
    if node.bias is not None:
        operands.append(_parameter(scope, f"{node.name}.bias", node.bias))
    return scope.op("Gemm", [x, *operands], node.name, transB=1)


def _conv(scope: Scope, node: Conv, x: str) -> str:
    kernel, (outputs, per_group) = node.weight.shape[2:], node.weight.shape[:2]
    flat = scope.integers(0, node.groups, per_group, int(np.prod(node.shape[1:])))
    weight = node.weight.reshape(node.groups, outputs // node.groups, per_group, -1)
    total = None
    x = _pad(scope, node.name, x, node.padding)
    for place, window in enumerate(_windows(scope, node.name, x, kernel, node.shape[1:], node.stride, node.dilation)):
        part = scope.op("Reshape", [window, flat], f"{node.name}/flat")
        factor = _parameter(scope, f"{node.name}.weight", np.ascontiguousarray(weight[..., place]))
        product = scope.op("MatMul", [factor, part], node.name)
        total = product if total is None else scope.op("Add", [total, product], f"{node.name}/add")
    assert total is not None
    total = scope.op("Reshape", [total, scope.integers(-1, *node.shape)], f"{node.name}/result")
    if node.bias is None:
        return total
    bias = _parameter(scope, f"{node.name}.bias", node.bias.reshape(-1, *(1,) * len(kernel)))
    return scope.op("Add", [total, bias], f"{node.name}/bias")


def _pool(scope: Scope, node: Pool, x: str) -> str:
    x = _pad(scope, node.name, x, node.padding)
    total = None
    for window in _windows(scope, node.name, x, node.kernel, node.shape[-2:], node.stride, (1, 1)):
        total = window if total is None else scope.op("Add", [total, window], node.name)
    assert total is not None
    if node.divisor == 1:
        return total
    divisor = _parameter(scope, f"{node.name}.divisor", np.array(node.divisor, np.float32))
    return scope.op("Div", [total, divisor], f"{node.name}/average")


def _windows(
    scope: Scope, name: str, x: str, kernel: Shape, sizes: Shape, stride: Shape, dilation: Shape
) -> Iterator[str]:
    """Return the padded input's values under each place of the kernel, ``[N, C, *sizes]``."""
    axes, steps = scope.integers(*range(2, 2 + len(kernel))), scope.integers(*stride)
    for place in itertools.product(*map(range, kernel)):
        first = [i * step for i, step in zip(place, dilation, strict=True)]
        last = [start + (n - 1) * step + 1 for start, n, step in zip(first, sizes, stride, strict=True)]
        yield scope.op("Slice", [x, scope.integers(*first), scope.integers(*last), axes, steps], f"{name}/window")


def _pad(scope: Scope, name: str, x: str, padding: Sequence[tuple[int, int]]) -> str:
    if not any(before or after for before, after in padding):
        return x
    amounts = [0, 0, *(before for before, _ in padding), 0, 0, *(after for _, after in padding)]
    return scope.op("Pad", [x, scope.integers(*amounts)], f"{name}/pad")


def _parameter(scope: Scope, label: str, array: Floats) -> str:
    return _cast(scope, label, scope.weight(label, array), TensorProto.DOUBLE)


def _cast(scope: Scope, label: str, x: str, kind: int) -> str:
    return scope.op("Cast", [x], f"{label}/{'double' if kind == TensorProto.DOUBLE else 'float'}", to=kind)
