"""Reading the fields of a NIR node: types, sizes and values checked, errors naming node and field."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import GraphError
from stl_deploy.graph.program import Floats, Shape


def numbers(name: str, node: Any, field: str) -> NDArray[Any]:
    """A field as a finite float array in its own precision (integers become float64).

    Raises GraphError if the field is missing, not numeric, or holds NaN or infinity.
    """
    value = getattr(node, field, None)
    array = np.asarray(value)
    if value is None or array.dtype.kind not in "fiub":
        raise GraphError(f"field '{field}' is {_kind(value, array)}; numbers are accepted", node=name, slug="bad-field")
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0].tolist()
        raise GraphError(
            f"field '{field}' is {array[tuple(bad)]} at index {bad}; finite numbers are accepted",
            node=name,
            slug="not-finite",
        )
    return array


def _kind(value: Any, array: NDArray[Any]) -> str:
    return "missing" if value is None else f"of type {array.dtype if array.dtype.kind != 'O' else type(value).__name__}"


def weights(name: str, node: Any, field: str = "weight") -> Floats:
    """A weight array as float32, without a copy if it is float32 already."""
    return numbers(name, node, field).astype(np.float32, copy=False)


def optional_bias(name: str, node: Any, channels: int) -> Floats | None:
    """The bias as float32 ``[channels]``; None if absent or all zero. Raises GraphError on a wrong size."""
    if getattr(node, "bias", None) is None:
        return None
    bias = weights(name, node, "bias").reshape(-1)
    if bias.size != channels:
        raise GraphError(
            f"field 'bias' has {bias.size} values; expected one for each of {channels} outputs",
            node=name,
            slug="bad-shape",
        )
    return bias if bias.any() else None


def whole(name: str, node: Any, field: str, count: int, least: int) -> Shape:
    """A field as ``count`` whole numbers >= ``least`` (one number is used for all). Raises GraphError."""
    array = numbers(name, node, field).reshape(-1)
    if array.size not in (1, count) or (array != np.round(array)).any() or (array < least).any():
        raise GraphError(
            f"field '{field}' is {array.tolist()}; expected {count} whole numbers of at least {least}",
            node=name,
            slug="bad-field",
        )
    return tuple(int(v) for v in np.broadcast_to(array, (count,)))


def fit(name: str, field: str, array: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """``array`` broadcastable to ``shape``, 0-dimensional if it holds one value only.

    Accepts the shape itself, one value, a broadcastable array of the same rank, or the same
    number of values in another arrangement. Raises GraphError otherwise.
    """
    if array.size and (array == array.flat[0]).all():
        return np.asarray(array.reshape(-1)[0])
    if array.ndim == len(shape) and all(a in (1, s) for a, s in zip(array.shape, shape, strict=True)):
        return array
    if array.size == int(np.prod(shape)):
        return array.reshape(shape)
    raise GraphError(
        f"field '{field}' has shape {list(array.shape)}, which does not fit the node's shape {list(shape)}",
        node=name,
        slug="bad-shape",
    )
