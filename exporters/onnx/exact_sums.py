"""Sum in integers (the same bits as the float network, faster and in half the bytes), or in float64 off any grid.

For spike inputs and sums proved exact (`stl_deploy.graph.exact`), a weight is 2^-f times an integer of up to 24 bits,
w = Σ 256^p·plane[p] with 8-bit planes, -128…127. One MatMulInteger multiplies the spikes, as uint8, by all planes side
by side. Their sums are combined in int32 and scaled by 2^-f, and the bias is added in float32. Both forms compute the
exact sum, so they agree bit for bit. Processors multiply 8-bit integers several times as fast as float32, and two
planes take half the bytes.

A convolution becomes such a product over its windows (slices, side by side). Gathering windows is slower below
`MANY_TAPS` weights per output (measured, docs/onnx.md), so such convolutions are not converted.

Weights that lie on no grid may be summed in float64 and rounded once. ONNX Runtime multiplies float64 matrices but does
not convolve them, so a convolution is one matrix product for each place of its kernel, on the input's values under that
place, added up. Weights stay float32 in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from stl_deploy.exporters.onnx.scope import Planes, Scope
from stl_deploy.graph.exact import MANTISSA_BITS, Grid, fraction_bits, grids
from stl_deploy.graph.program import Conv, Floats, Linear, Node, Operand, Pool, Program, Shape, is_binary

MANY_TAPS = 256
_MOST_SPIKES = 127
"""Sums of so many spikes may arrive."""
_MOST_PLANES = 3
"""24 bits and a sign, at most."""
_MOST_FRACTION_BITS = 100
"""Of a scale that is a normal float32 number, and whose products are."""
_MOST_TAPS = 2**15
"""Sums of so many products of at most 2^7·2^7 leave room in int32 for what they are put together to."""


def to_planes(program: Program) -> dict[str, Planes]:
    """Return the weights that can be summed in integers, by node: behind spikes, on the exact grid, many an output."""
    known = grids(program)
    nodes = [node for node in program.nodes if isinstance(node, Linear | Conv)]
    weights = {node.name: split(node.weight) for node in nodes if _suits(program, node, known)}
    return {name: weight for name, weight in weights.items() if len(weight.values) <= _MOST_PLANES}


def split(weight: NDArray[np.float32]) -> Planes:
    """Split a weight on a grid into planes, the highest first."""
    bits = fraction_bits(weight)
    rest = np.rint(weight.astype(np.float64) * 2.0**bits).astype(np.int64)
    planes: list[NDArray[np.int8]] = []
    while not planes or rest.any():
        low = (rest + 128) % 256 - 128
        planes.insert(0, low.astype(np.int8))
        rest = (rest - low) // 256
    return Planes(np.stack(planes), bits)


def integer_linear(scope: Scope, node: Linear, x: str, kept: Planes) -> str:
    """Add ``node`` on ``x`` ``[N, inputs]``; returns the name of the result, with the bias."""
    spikes = scope.cast(x, TensorProto.UINT8, f"{node.name}/spikes")
    return _product(scope, node, spikes, kept)


def integer_conv(scope: Scope, node: Conv, x: str, kept: Planes) -> str:
    """Add ``node`` on ``x`` ``[N, channels, *spatial]``; returns the name of the result, with the bias."""
    name, kernel, sizes = node.name, node.weight.shape[2:], node.shape[1:]
    rank = len(kernel)
    spikes = scope.cast(x, TensorProto.UINT8, f"{name}/spikes")
    spikes = scope.op("Transpose", [spikes], f"{name}/channels_last", perm=[0, *range(2, 2 + rank), 1])
    spikes = _pad(scope, name, spikes, node.padding, 1)
    windows = list(_windows(scope, name, spikes, kernel, sizes, node.stride, node.dilation, 1))
    columns = scope.op("Concat", windows, f"{name}/windows", axis=1 + rank) if len(windows) > 1 else windows[0]
    taps = node.weight[0].size
    y = _product(scope, node, scope.op("Reshape", [columns, scope.integers(-1, taps)], f"{name}/rows"), kept)
    y = scope.op("Reshape", [y, scope.integers(-1, *sizes, node.shape[0])], f"{name}/map")
    return scope.op("Transpose", [y], f"{name}/channels_first", perm=[0, 1 + rank, *range(1, 1 + rank)])


def _product(scope: Scope, node: Linear | Conv, spikes: str, kept: Planes) -> str:
    """Multiply ``[M, taps]`` uint8 by all planes and combine them: float32 ``[M, outputs]``."""
    name, count = node.name, len(kept.values)
    by_tap = np.moveaxis(kept.values, 2, -1)  # [planes, outputs, *kernel, channels], as windows are laid out
    side_by_side = by_tap.reshape(count * kept.values.shape[1], -1).T
    weight = scope.weight(f"{name}.planes", np.ascontiguousarray(side_by_side))
    y = scope.op("MatMulInteger", [spikes, weight], name)
    if count > 1:
        base = scope.weight(f"{name}.base", np.array(256, np.int32))
        parts = [scope.values.fresh(f"{name}/plane") for _ in range(count)]
        sizes = scope.integers(*[kept.values.shape[1]] * count)
        scope.add_node("Split", [y, sizes], parts, f"{name}/planes", axis=1)
        y, *lower = parts
        for part in lower:
            y = scope.op("Add", [scope.op("Mul", [y, base], f"{name}/shifted"), part], f"{name}/together")
    y = scope.cast(y, TensorProto.FLOAT, f"{name}/float")
    y = scope.op("Mul", [y, scope.weight(f"{name}.step", np.float32(2.0**-kept.fraction_bits))], f"{name}/scaled")
    if node.bias is None:
        return y
    return scope.op("Add", [y, scope.weight(f"{name}.bias", node.bias)], f"{name}/add_bias")


def _suits(program: Program, node: Linear | Conv, known: Mapping[str, Grid | None]) -> bool:
    grid, taps = known.get(node.name), node.weight[0].size
    if grid is None or grid.bits > MANTISSA_BITS or not _spikes_arrive(program, node, known):
        return False
    if abs(fraction_bits(node.weight)) > _MOST_FRACTION_BITS or taps > _MOST_TAPS:
        return False
    return isinstance(node, Linear) or (node.groups == 1 and taps >= MANY_TAPS)


def _spikes_arrive(program: Program, node: Node, known: Mapping[str, Grid | None]) -> bool:
    """Return whether the input is spikes, or sums of at most 127 of them, by the graph's structure alone."""
    if not all(_from_spikes(program, source) for source in node.operands):
        return False
    bounds = [known.get(source.node) for source in node.operands]
    return sum(np.inf if grid is None else grid.bound for grid in bounds) <= _MOST_SPIKES


def _from_spikes(program: Program, source: Operand) -> bool:
    if is_binary(program, source.node):
        return True
    node = program.by_name[source.node]
    pooled = getattr(node, "divisor", None) == 1
    return pooled and all(is_binary(program, inner.node) for inner in node.operands)


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
    total = scope.op("Gemm", [x, _parameter(scope, f"{node.name}.weight", node.weight)], node.name, transB=1)
    if node.bias is None:
        return total
    bias = _parameter(scope, f"{node.name}.bias", node.bias)
    return scope.op("Add", [total, bias], f"{node.name}/bias")  # tract takes no Gemm with a bias in float64


def _conv(scope: Scope, node: Conv, x: str) -> str:
    kernel, (outputs, per_group) = node.weight.shape[2:], node.weight.shape[:2]
    flat = scope.integers(0, node.groups, per_group, int(np.prod(node.shape[1:])))
    weight = node.weight.reshape(node.groups, outputs // node.groups, per_group, -1)
    x, products = _pad(scope, node.name, x, node.padding), []
    for place, window in enumerate(_windows(scope, node.name, x, kernel, node.shape[1:], node.stride, node.dilation)):
        part = scope.op("Reshape", [window, flat], f"{node.name}/flat")
        factor = _parameter(scope, f"{node.name}.weight", np.ascontiguousarray(weight[..., place]))
        products.append(scope.op("MatMul", [factor, part], node.name))
    total = scope.sum(products, f"{node.name}/add")
    total = scope.op("Reshape", [total, scope.integers(-1, *node.shape)], f"{node.name}/result")
    if node.bias is None:
        return total
    bias = _parameter(scope, f"{node.name}.bias", node.bias.reshape(-1, *(1,) * len(kernel)))
    return scope.op("Add", [total, bias], f"{node.name}/bias")


def _pool(scope: Scope, node: Pool, x: str) -> str:
    x = _pad(scope, node.name, x, node.padding)
    total = scope.sum(_windows(scope, node.name, x, node.kernel, node.shape[-2:], node.stride, (1, 1)), node.name)
    if node.divisor == 1:
        return total
    divisor = _parameter(scope, f"{node.name}.divisor", np.array(node.divisor, np.float32))
    return scope.op("Div", [total, divisor], f"{node.name}/average")


def _windows(
    scope: Scope, name: str, x: str, kernel: Shape, sizes: Shape, stride: Shape, dilation: Shape, axis: int = 2
) -> Iterator[str]:
    """Return the padded input's values under each place of the kernel. axis: the first of those that it moves along."""
    axes, steps = scope.integers(*range(axis, axis + len(kernel))), scope.integers(*stride)
    for place in product(*map(range, kernel)):
        first = [i * step for i, step in zip(place, dilation, strict=True)]
        last = [start + (n - 1) * step + 1 for start, n, step in zip(first, sizes, stride, strict=True)]
        yield scope.op("Slice", [x, scope.integers(*first), scope.integers(*last), axes, steps], f"{name}/window")


def _pad(scope: Scope, name: str, x: str, padding: Sequence[tuple[int, int]], axis: int = 2) -> str:
    if not any(before or after for before, after in padding):
        return x
    amounts = [size for side in zip(*padding, strict=True) for size in (*[0] * axis, *side, *[0] * (2 - axis))]
    return scope.op("Pad", [x, scope.integers(*amounts)], f"{name}/pad")


def _parameter(scope: Scope, label: str, array: Floats) -> str:
    return _cast(scope, label, scope.weight(label, array), TensorProto.DOUBLE)


def _cast(scope: Scope, label: str, x: str, kind: int) -> str:
    return scope.cast(x, kind, f"{label}/{'double' if kind == TensorProto.DOUBLE else 'float'}")
