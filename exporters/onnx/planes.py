"""Sum in integers: the same bits as the float network, faster and in half the bytes.

For spike inputs and sums proved exact (`stl_deploy.graph.exact`), a weight is 2^-f times an integer of up to 24 bits,
w = Σ 256^p·plane[p] with 8-bit planes, -128…127. One MatMulInteger multiplies the spikes, as uint8, by all planes side
by side. Their sums are combined in int32 and scaled by 2^-f, and the bias is added in float32. Both forms compute the
exact sum, so they agree bit for bit. Processors multiply 8-bit integers several times as fast as float32, and two
planes take half the bytes.

A convolution becomes such a product over its windows (slices, side by side). Gathering windows is slower below
`_MANY_TAPS` weights per output (measured, docs/onnx.md), so such convolutions are not converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from stl_deploy._util.remedies import remedy
from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx.int8 import spikes_arrive
from stl_deploy.exporters.onnx.scope import Planes, Scope
from stl_deploy.graph.exact import MANTISSA_BITS, Grid, fraction_bits, grids
from stl_deploy.graph.program import Conv, Linear, Program

_MANY_TAPS = 256
_MOST_PLANES = 3
"""24 bits and a sign, at most."""
_MOST_FRACTION_BITS = 100
"""Of a scale that is a normal float32 number, and whose products are."""
_MOST_TAPS = 2**15
"""Sums of so many products of at most 2^7·2^7 leave room in int32 for what they are put together to."""


def to_planes(program: Program) -> dict[str, Planes]:
    """Return the weights that can be summed in integers, by node.

    Raises InputError where there is none, with a reason.
    """
    known = grids(program)
    nodes = [node for node in program.nodes if isinstance(node, Linear | Conv)]
    weights = {node.name: split(node.weight) for node in nodes if _suits(program, node, known)}
    kept = {name: weight for name, weight in weights.items() if len(weight.values) <= _MOST_PLANES}
    if not kept:
        raise InputError(
            "no layer's sums can be made in integers: spikes must arrive, and weights lie on the exact grid that "
            f"'fold' rounds to, in a linear layer or a convolution of at least {_MANY_TAPS} weights an output; "
            + "export it without "
            + remedy(cli="--integer", python="precision='integer'")
        )
    return kept


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
    spikes = scope.op("Cast", [x], f"{node.name}/spikes", to=TensorProto.UINT8)
    return _product(scope, node, spikes, kept)


def integer_conv(scope: Scope, node: Conv, x: str, kept: Planes) -> str:
    """Add ``node`` on ``x`` ``[N, channels, *spatial]``; returns the name of the result, with the bias."""
    name, kernel, sizes = node.name, node.weight.shape[2:], node.shape[1:]
    rank = len(kernel)
    spikes = scope.op("Cast", [x], f"{name}/spikes", to=TensorProto.UINT8)
    spikes = scope.op("Transpose", [spikes], f"{name}/channels_last", perm=[0, *range(2, 2 + rank), 1])
    if any(before or after for before, after in node.padding):
        before, after = ([side[i] for side in node.padding] for i in (0, 1))
        zero = scope.weight(f"{name}.silence", np.zeros((), np.uint8))
        spikes = scope.op("Pad", [spikes, scope.integers(0, *before, 0, 0, *after, 0), zero], f"{name}/pad")
    axes, steps = scope.integers(*range(1, 1 + rank)), scope.integers(*node.stride)
    windows = []
    for place in product(*map(range, kernel)):
        first = [i * step for i, step in zip(place, node.dilation, strict=True)]
        last = [a + (size - 1) * step + 1 for a, size, step in zip(first, sizes, node.stride, strict=True)]
        ends = (scope.integers(*first), scope.integers(*last), axes, steps)
        windows.append(scope.op("Slice", [spikes, *ends], f"{name}/window"))
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
        scope.add_node("Split", [y], parts, f"{name}/planes", axis=1, num_outputs=count)
        y, *lower = parts
        for part in lower:
            y = scope.op("Add", [scope.op("Mul", [y, base], f"{name}/shifted"), part], f"{name}/together")
    y = scope.op("Cast", [y], f"{name}/float", to=TensorProto.FLOAT)
    y = scope.op("Mul", [y, scope.weight(f"{name}.step", np.float32(2.0**-kept.fraction_bits))], f"{name}/scaled")
    if node.bias is None:
        return y
    return scope.op("Add", [y, scope.weight(f"{name}.bias", node.bias)], f"{name}/add_bias")


def _suits(program: Program, node: Linear | Conv, known: Mapping[str, Grid | None]) -> bool:
    grid, taps = known.get(node.name), node.weight[0].size
    if grid is None or grid.bits > MANTISSA_BITS or not spikes_arrive(program, node, known):
        return False
    if abs(fraction_bits(node.weight)) > _MOST_FRACTION_BITS or taps > _MOST_TAPS:
        return False
    return isinstance(node, Linear) or (node.groups == 1 and taps >= _MANY_TAPS)
