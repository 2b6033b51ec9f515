"""Find every fault of a node that cannot be lowered, and its output's shape.

Lowering stops at the first error of a node. A check goes on: to the node's other fields, and to the nodes behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import fields
from typing import Any

import nir
import numpy as np

from stl_deploy.errors import GraphError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.kinds import ELEMENTWISE, LAYERS
from stl_deploy.exporters.nir.lower._fields import ShapeConvention, fit, float32, numbers, optional_bias, weights, whole
from stl_deploy.exporters.nir.lower.layers import lower_conv, padding
from stl_deploy.exporters.nir.lower.neurons import require_tau, require_threshold, reset_of
from stl_deploy.graph.program import Shape

_NOT_READ = ("input_type", "output_type", "metadata", "input_shape")


def faults(
    name: str, node: nir.NIRNode, shape: Shape | None, reading: ShapeConvention, dialect: Dialect, looped: bool
) -> Iterator[GraphError]:
    """Return one error for each field that is wrong by itself, or does not fit the input's ``shape`` if that is known.

    looped: whether the node is in a loop.
    """
    if isinstance(node, nir.Input | nir.Output) or not isinstance(node, ELEMENTWISE + LAYERS):
        return
    for field in (field.name for field in fields(node) if field.name not in _NOT_READ):
        try:
            _read(name, node, field, shape, reading)
            if field == "v_threshold":
                threshold = float32(name, "field 'v_threshold'", numbers(name, node, field))
                reset = reset_of(dialect, isinstance(node, nir.CubaLIF), looped)
                bound = dialect.bound(name, leaky=not isinstance(node, nir.IF))
                require_threshold(name, threshold, reset, bound, dialect)
        except GraphError as error:
            yield error


def shape_despite(name: str, node: nir.NIRNode, shape: Shape | None) -> Shape | None:
    """Return a faulty node's intended output shape; None if it is unknown."""
    if isinstance(node, ELEMENTWISE):
        return shape
    weight = getattr(node, "weight", None)
    if not isinstance(weight, np.ndarray) or 0 in weight.shape:
        return None
    if isinstance(node, nir.Linear | nir.Affine) and weight.ndim == 2:
        return (*(shape or (0,))[:-1], weight.shape[0])
    if isinstance(node, nir.Conv1d | nir.Conv2d) and shape and weight.ndim == len(shape) + 1:
        return _conv_shape(name, node, weight, shape)
    return None


def _conv_shape(name: str, node: Any, weight: Any, shape: Shape) -> Shape | None:
    sound = copy(node)
    sound.weight, sound.bias, sound.groups = np.zeros((weight.shape[0], 1, *weight.shape[2:]), np.float32), None, 1
    try:
        return lower_conv(name, sound, (1, *shape[1:]), ()).shape
    except GraphError:
        return None


def _read(name: str, node: Any, field: str, shape: Shape | None, reading: ShapeConvention) -> None:
    match field:
        case "weight":
            weights(name, node)
        case "bias" if isinstance(getattr(node, "weight", None), np.ndarray) and node.weight.ndim:
            optional_bias(name, node, len(node.weight))
        case "bias" | "v_reset" if getattr(node, field, None) is None:
            pass
        case "groups":
            whole(name, node, field, 1, 1)
        case "stride" | "dilation" | "kernel_size":
            whole(name, node, field, _rank(node), 1)
        case "padding":
            padding(name, node, (1,) * _rank(node), _stride(name, node))
        case "start_dim" | "end_dim":
            numbers(name, node, field)
        case _:
            array = numbers(name, node, field)
            if shape is not None:
                array = fit(name, field, array, shape, reading.strict)
            if field in ("tau", "tau_mem", "tau_syn"):
                require_tau(name, field, array)
            elif field in ("v_threshold", "v_reset", "threshold"):
                float32(name, f"field '{field}'", array)


def _stride(name: str, node: nir.NIRNode) -> Shape:
    try:
        return whole(name, node, "stride", _rank(node), 1)
    except GraphError:
        return (1,) * _rank(node)


def _rank(node: nir.NIRNode) -> int:
    return 1 if isinstance(node, nir.Conv1d) else 2
