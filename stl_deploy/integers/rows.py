"""Find the axis of a consumer that holds the rows of its weights, and move it to the front and back.

Integers scale a row of weights with its thresholds. Behind convolutions and dense layers of vectors the rows are the
first axis. Behind a dense layer over axes (tokens) they are the last one; behind a dense layer whose outputs are
reshaped, every value is a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.reachable import reachable
from stl_deploy.errors import UnsupportedError
from stl_deploy.graph import program as ir
from stl_deploy.graph.program import Shape
from stl_deploy.integers.fields import refusal

RowAxis = Literal["first", "last", "flat"]
N = TypeVar("N", bound=ir.Node)
_PASSED = (ir.Reshape, ir.Pool, ir.MaxPool, ir.Delay, ir.Scale)


def row_axis(program: ir.Program, consumer: ir.Node) -> RowAxis:
    """Return where the rows of the weights that reach a consumer lie."""
    axis: RowAxis = "first"
    for node in _before(program, consumer):
        if isinstance(node, ir.Linear) and len(node.input_shape) > 1:
            return "last"
        if isinstance(node, ir.Reshape) and mixes_rows(node):
            layers = _layers_before(program, node)
            if layers and all(isinstance(layer, ir.Linear) for layer in layers):
                axis = "flat"
    return axis


def mixes_rows(node: ir.Reshape) -> bool:
    """Return whether a reshape puts several rows of the first axis into one, or one into several."""
    return node.shape[0] != node.input_shape[0]


def _layers_before(program: ir.Program, node: ir.Node) -> list[ir.Node]:
    """Return the layers whose weighted sums reach a node."""
    return [before for before in _before(program, node) if isinstance(before, ir.Linear | ir.Conv)]


def _before(program: ir.Program, node: ir.Node) -> Iterator[ir.Node]:
    """Yield the nodes whose values reach a node, through pools, scales, delays and reshapes."""

    def sources(name: str) -> list[str]:
        before = program.by_name[name]
        return [operand.node for operand in before.operands] if isinstance(before, _PASSED) else []

    return map(program.by_name.__getitem__, reachable((operand.node for operand in node.operands), sources))


def rows_first(values: NDArray[Any], axis: RowAxis, shape: Shape) -> NDArray[Any]:
    """Return values that broadcast to a consumer's shape with their rows in front; values of all rows stay."""
    if axis == "first" or values.ndim == 0:
        return values
    full = np.broadcast_to(values, shape)
    return np.moveaxis(full, -1, 0) if axis == "last" else full.reshape(-1)


def rows_back(values: NDArray[Any], axis: RowAxis, shape: Shape) -> NDArray[Any]:
    """Return values ``[rows, ...]`` in the consumer's own order of axes; values of all rows stay."""
    if axis == "first" or values.ndim == 0:
        return values
    if axis == "last":
        return np.moveaxis(values, 0, -1)
    return values.reshape(shape)


def with_rows_first(node: N, axis: RowAxis) -> N:
    """Return a consumer as it is with its rows in front: its shape, and the arrays of a neuron."""
    return node if axis == "first" else replace(node, shape=_front(node.shape, axis), **_moved(node, axis, node.shape))


def _front(shape: Shape, axis: RowAxis) -> Shape:
    return (shape[-1], *shape[:-1]) if axis == "last" else (int(np.prod(shape)),)


def _moved(value: Any, axis: RowAxis, shape: Shape) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for each in fields(value):
        item = getattr(value, each.name)
        if isinstance(item, np.ndarray):
            changes[each.name] = rows_first(item, axis, shape)
        elif is_dataclass(item) and not isinstance(item, type):
            changes[each.name] = replace(item, **_moved(item, axis, shape))
    return changes


def first_rows_only(program: ir.Program, target: str) -> Iterator[UnsupportedError]:
    """Refuse dense layers over axes and reshaped weighted sums, for targets that hold rows in front alone."""
    for node in program.nodes:
        if isinstance(node, ir.Linear) and len(node.input_shape) > 1:
            reason, remedy = f"its input is {list(node.input_shape)}; {target} takes vectors", "flatten before a Linear"
            yield refusal(node, "linear-over-axes", reason, f"{remedy}, or export to c")
        elif isinstance(node, ir.Reshape) and mixes_rows(node) and _layers_before(program, node):
            reason = f"it mixes rows of weighted sums, which {target} does not"
            yield refusal(node, "reshape-before-neuron", reason, "put the neuron before it, or export to c")
