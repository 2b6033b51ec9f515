"""Read the fields of a NIR node: types, sizes and values checked, errors naming node and field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import GraphError
from stl_deploy.graph.program import Floats, Shape

MAY_BE_INFINITE = frozenset({"tau", "tau_mem", "tau_syn", "r", "w_in"})
"""Where a neuron without leak (β = 1) has infinity: τ = dt/(1 − β), r = τ/dt, w_in = τ_syn/dt."""


def bad_shape(name: str, message: str) -> GraphError:
    """Return the error for sizes that do not fit together, at a node."""
    return GraphError(message, node=name, slug="bad-shape")


def numbers(name: str, node: Any, field: str) -> NDArray[Any]:
    """Return a field as a finite float32 or float64 array, in the file's precision (integers become float64).

    Raises GraphError if the field is missing, not numeric, or holds NaN or infinity (`MAY_BE_INFINITE` has exceptions).
    """
    value = getattr(node, field, None)
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if value is None or array.dtype.kind not in "fiub":
        raise GraphError(f"field '{field}': expected numbers; found {_kind(value, array)}", node=name, slug="bad-field")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    bounded = np.where(array == np.inf, np.float32(0), array) if field in MAY_BE_INFINITE else array
    _require_finite(name, f"field '{field}'", bounded)
    return array


def _require_finite(name: str, what: str, array: NDArray[Any]) -> None:
    # Minimum and maximum carry NaN along and need no temporary of the array's size.
    if not array.size or (np.isfinite(array.min()) and np.isfinite(array.max())):
        return
    bad = np.argwhere(~np.isfinite(array))[0].tolist()
    raise GraphError(
        f"{what}: expected finite numbers; found {array[tuple(bad)]} at index {bad}",
        node=name,
        slug="not-finite",
    )


def _kind(value: Any, array: NDArray[Any]) -> str:
    if value is None:
        return "none"
    return type(value).__name__ if array.dtype.kind == "O" else str(array.dtype)


def float32(name: str, what: str, array: NDArray[Any]) -> Floats:
    """Round to float32; raise GraphError if a value is not finite there."""
    with np.errstate(over="ignore"):
        rounded = np.asarray(array).astype(np.float32, copy=False)
    _require_finite(name, f"{what} in float32", rounded)
    return rounded


def weights(name: str, node: Any, field: str = "weight") -> Floats:
    """Return a weight array as float32, without a copy if it is float32 already."""
    array = numbers(name, node, field)
    return array if array.dtype == np.float32 else float32(name, f"field '{field}'", array)


def optional_bias(name: str, node: Any, channels: int) -> Floats | None:
    """Return the bias as float32 ``[channels]``; None if absent or all zero. Raises GraphError on a wrong size."""
    if getattr(node, "bias", None) is None:
        return None
    bias = weights(name, node, "bias").reshape(-1)
    if bias.size != channels:
        raise bad_shape(name, f"field 'bias': expected a value for each of {channels} outputs; found {bias.size}")
    return bias if bias.any() else None


def whole(name: str, node: Any, field: str, count: int, least: int) -> Shape:
    """Return a field as ``count`` integers from ``least`` to 2^31 (one number is used for all). Raises GraphError."""
    array = numbers(name, node, field).reshape(-1)
    held = (array == np.round(array)) & (array >= least) & (array < 2**31)
    if array.size not in (1, count) or not held.all():
        raise GraphError(
            f"field '{field}': expected {count} integers of at least {least}; found {array[:8].tolist()}",
            node=name,
            slug="bad-field",
        )
    return tuple(int(v) for v in np.broadcast_to(array, (count,)))


def fit(name: str, field: str, array: NDArray[Any], shape: Shape, strict: bool) -> NDArray[Any]:
    """Make ``array`` broadcastable to ``shape``, 0-dimensional if it holds one value only.

    Accepts the shape itself, one value, and a broadcastable array of the same rank; if not ``strict``, also
    the same number of values in another arrangement, and ``[C]`` for a shape ``[C, ...]``.
    Raises GraphError otherwise.
    """
    array = _arranged(name, field, array, shape, strict)
    return np.asarray(array.reshape(-1)[0]) if (array == array.flat[0]).all() else array


def _arranged(name: str, field: str, array: NDArray[Any], shape: Shape, strict: bool) -> NDArray[Any]:
    if array.size == 1 or (
        array.size and array.ndim == len(shape) and all(a in (1, s) for a, s in zip(array.shape, shape, strict=True))
    ):
        return array
    if not strict and array.size and array.size == int(np.prod(shape)):
        return array.reshape(shape)
    if not strict and shape and array.shape == shape[:1]:
        return array.reshape(-1, *(1,) * (len(shape) - 1))
    raise bad_shape(
        name, f"field '{field}': expected a shape that fits the node's, {list(shape)}; found {list(array.shape)}"
    )


@dataclass(frozen=True)
class ShapeConvention:
    """One interpretation of a file's shapes, for files whose writer did not follow NIR to the letter.

    NIR's shapes have no batch axis. Real files have: a batch size written into Input's shape (from traced sample data),
    and Flatten axes counted as in torch, with the batch first. A graph is lowered under `SHAPE_CONVENTIONS` in turn
    until one fits every node, so a file that follows NIR is always read as NIR says.

    strict: neuron parameters have the shape of what arrives (or hold one value), and Affine takes one axis; else
        any arrangement of the same number of values will do, and ``[C]`` stands for channels.
    leading: so many of the first axes of Input's shape are a batch size (and a number of steps).
    flatten_batch: Flatten's axes are counted with a batch axis in front.
    """

    strict: bool = True
    leading: int = 0
    flatten_batch: bool = False

    def assumptions(self) -> tuple[str, ...]:
        """Return assumptions beyond NIR's definition, one sentence each."""
        said = (
            (self.leading == 1, "the first axis of the Input shape is taken for a batch size"),
            (self.leading == 2, "the first two axes of the Input shape are taken for batch and steps"),
            (self.flatten_batch, "Flatten's axes are taken to be counted with a batch axis in front"),
            (not self.strict, "parameters are fitted to shapes that differ from theirs"),
        )
        return tuple(sentence for holds, sentence in said if holds)


SHAPE_CONVENTIONS = tuple(
    ShapeConvention(strict, leading, flatten_batch)
    for strict in (True, False)
    for leading in (0, 1, 2)
    for flatten_batch in (False, True)
)
"""In the order they are tried."""
