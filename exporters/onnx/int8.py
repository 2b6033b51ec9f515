"""Choose 8-bit weights, and store them in the file.

Each output of a layer has its own scale, the smallest power of two that fits its largest weight into -127…127. The
rounded weights lie on a grid (`stl_deploy.graph.exact`), so every runtime computes the same bits, whether it multiplies
integers or their float32 values: the int8 file is exactly the network with rounded weights, and rounding is the only
loss. Restricting scales to powers of two costs at most one bit.

A weight is stored as int8 with a DequantizeLinear along its output axis. Incoming spikes (or sums of up to 127 spikes,
so that 16-bit sums of products cannot overflow) pass as uint8 between a QuantizeLinear and a DequantizeLinear of scale
1, the form that runtimes turn into integer products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import remedy
from stl_deploy.errors import InputError
from stl_deploy.exporters.onnx.scope import Int8Weight, Scope
from stl_deploy.graph.exact import MANTISSA_BITS, Grid, grids, round_to_grid
from stl_deploy.graph.program import Conv, Floats, Linear, Node, Operand, Program, is_binary
from stl_deploy.passes.base import by_row

LARGEST = 127
_MIN_EXPONENT = -100


def to_int8(program: Program) -> tuple[Program, dict[str, Int8Weight]]:
    """Round every weight of ``program`` to 8 bits (and biases to the finest grid that keeps sums exact).

    Returns the rounded Program, which is what the int8 file computes, and the int8 weights by node.
    Raises InputError for a graph without weights.
    """
    known = grids(program)
    weights: dict[str, Int8Weight] = {}
    nodes: list[Node] = []
    for node in program.nodes:
        if isinstance(node, Linear | Conv):
            values, scale = quantise(node.weight)
            weights[node.name] = Int8Weight(values, scale, spikes_arrive(program, node, known))
            rounded = dequantise(values, scale)
            node = replace(node, weight=rounded, bias=_bias(node, rounded, known))
        nodes.append(node)
    if not weights:
        raise InputError(
            "the graph has no weights, so there is no int8 form; export it without "
            + remedy(cli="--int8", python="precision='int8'")
        )
    return Program(tuple(nodes), program.dt, program.metadata), weights


def quantise(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Return int8 values of ``weight``'s shape, and the power of two of each output (first axis).

    Halves are rounded to even.
    """
    largest = np.abs(weight.reshape(len(weight), -1).astype(np.float64)).max(axis=1)
    fraction, exponent = np.frexp(largest)  # largest = fraction · 2^exponent, with a fraction from 0.5 to 1
    exponent = exponent - 7 + (fraction > LARGEST / 2**7)
    scale = 2.0 ** np.where(largest > 0, np.maximum(exponent, _MIN_EXPONENT), 0)
    values = np.rint(weight.astype(np.float64) / by_row(scale, weight.ndim))
    return values.astype(np.int8), scale.astype(np.float32)


def dequantise(values: NDArray[np.int8], scale: Floats) -> Floats:
    """Return the float32 numbers of int8 ``values``."""
    product: Floats = values.astype(np.float32) * by_row(scale, values.ndim)
    return product


def int8_conv_inputs(scope: Scope, node: Conv, x: str, kept: Int8Weight) -> list[str]:
    """Return the names of the input and the weight of a convolution."""
    arriving = _as_uint8(scope, node.name, x) if kept.spikes else x
    return [arriving, _weight(scope, node.name, kept.values, kept.scale, axis=0)]


def int8_linear(scope: Scope, node: Linear, x: str, kept: Int8Weight) -> str:
    """Add ``node`` on ``x`` ``[N, inputs]``; returns the name of the result.

    Where spikes arrive, a MatMul with weights ``[inputs, outputs]``: ONNX Runtime makes an integer product of that,
    but reads a Gemm's weights back into float32 at every call. Elsewhere a Gemm: to a MatMul it would apply inputs
    that it rounded to 8 bits.
    """
    bias = scope.bias(node)
    if not kept.spikes:
        weight = _weight(scope, node.name, kept.values, kept.scale, axis=0)
        return scope.op("Gemm", [x, weight, *bias], node.name, transB=1)
    weight = _weight(scope, node.name, np.ascontiguousarray(kept.values.T), kept.scale, axis=1)
    y = scope.op("MatMul", [_as_uint8(scope, node.name, x), weight], node.name)
    return scope.op("Add", [y, *bias], f"{node.name}/add_bias") if bias else y


def _weight(scope: Scope, name: str, values: NDArray[np.int8], scale: Floats, axis: int) -> str:
    inputs = [scope.weight(f"{name}.weight", values), scope.weight(f"{name}.scale", scale)]
    return scope.op("DequantizeLinear", inputs, f"{name}/weight", axis=axis)


def _as_uint8(scope: Scope, name: str, x: str) -> str:
    one = scope.weight(f"{name}.one", np.float32(1))
    zero = scope.weight(f"{name}.zero_point", np.zeros((), np.uint8))
    spikes = scope.op("QuantizeLinear", [x, one, zero], f"{name}/spikes")
    return scope.op("DequantizeLinear", [spikes, one, zero], f"{name}/spikes_float")


def spikes_arrive(program: Program, node: Node, known: Mapping[str, Grid | None]) -> bool:
    """Return whether the input is spikes, or sums of at most 127 of them, by the graph's structure alone."""
    if not all(_from_spikes(program, source) for source in node.operands):
        return False
    bounds = [known.get(source.node) for source in node.operands]
    return sum(np.inf if grid is None else grid.bound for grid in bounds) <= LARGEST


def _from_spikes(program: Program, source: Operand) -> bool:
    if is_binary(program, source.node):
        return True
    node = program.by_name[source.node]
    pooled = getattr(node, "divisor", None) == 1
    return pooled and all(is_binary(program, inner.node) for inner in node.operands)


def _bias(node: Linear | Conv, weight: Floats, known: Mapping[str, Grid | None]) -> Floats | None:
    """Return the bias on the finest grid with exact sums, if the input is on a grid."""
    arriving = [known.get(source.node) for source in node.operands]
    if node.bias is None or None in arriving:
        return node.bias
    bound = sum(grid.bound for grid in arriving if grid is not None)
    rows = np.abs(weight.reshape(len(weight), -1).astype(np.float64)).sum(axis=1)
    largest = float((rows * bound + np.abs(node.bias.astype(np.float64))).max())
    if largest == 0:
        return node.bias
    # one bit less than float32 holds, for the rounding of the biases themselves
    return round_to_grid(node.bias, MANTISSA_BITS - 1 - int(np.ceil(np.log2(largest))))
