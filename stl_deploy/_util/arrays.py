"""Convert input from Python (numpy arrays, torch tensors, lists) to numpy arrays; count windows along an axis."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError

T = TypeVar("T", bound=np.generic)


class ShapeError(InputError):
    """Arrays have other shapes than the network."""


def as_array(x: Any) -> NDArray[Any]:
    """Return an array of a numpy array, a torch tensor (on any device, sparse too), or lists; raise InputError."""
    if hasattr(x, "detach"):
        tensor = (x.to_dense() if "strided" not in str(getattr(x, "layout", "strided")) else x).detach().cpu()
        narrow = tensor.is_floating_point() and tensor.element_size() < 4  # numpy has no bfloat16
        return np.asarray((tensor.float() if narrow else tensor).numpy())
    try:
        array = np.asarray(x)
    except (ValueError, TypeError) as error:
        raise InputError(f"expected an array of numbers; found a {type(x).__name__} ({error})") from None
    if array.dtype.hasobject or array.dtype.kind in "USmM":
        kind = f"an array of {array.dtype}" if isinstance(x, np.ndarray) else f"a {type(x).__name__}"
        raise InputError(f"expected an array of numbers; found {kind}; give a numpy array or a torch tensor")
    return array


def require_held_by_float32(x: NDArray[Any], where: str) -> None:
    """Raise InputError for integers, and float64 values, beyond 2^24 that float32 would round; it has gaps there."""
    if x.dtype.kind in "iu":
        for bound in (int(x.min()), int(x.max())):
            if abs(bound) > 2**24:
                raise InputError(f"{where}: expected integers up to 2^24, which float32 holds exactly; found {bound}")
    elif x.dtype == np.float64 and max(-x.min(), x.max()) > 2**24:
        large = x[np.isfinite(x) & (np.abs(x) > 2**24)]
        with np.errstate(over="ignore"):
            lost = large[large.astype(np.float32) != large]
        if lost.size and np.abs(lost[0]) <= np.finfo(np.float32).max:
            raise InputError(
                f"{where}: expected numbers that float32 holds, beyond 2^24 too; found {float(lost[0])!r}; subtract "
                "an offset or scale x, in the model and the input"
            )


def label_remedy(labels: NDArray[Any], samples: int, name: str = "labels") -> str | None:
    """Return how labels that are no integers ``[B]`` become so: one-hot rows, one column, floats; None for others."""
    if not labels.ndim or len(labels) != samples or labels.dtype.kind not in "fiub":
        return None
    if labels.ndim == 2 and labels.shape[1] > 1:
        one_hot = bool(((labels == 0) | (labels == 1)).all() and (np.count_nonzero(labels, axis=1) == 1).all())
        return f"these rows are one-hot: give {name}.argmax(axis=1)" if one_hot else None
    column = ", 0" * (labels.ndim - 1)
    if labels.size != samples or not bool((labels == np.round(labels)).all()):
        return None
    cast = "" if labels.dtype.kind in "iu" else " as int64"
    return f"give {name}{f'[:{column}]' if column else ''}{cast}"


def row_values(values: NDArray[T]) -> NDArray[T] | None:
    """Return one value for each row of the first axis; None if a row has several."""
    rows = values.reshape(len(values), -1)
    return rows[:, 0] if (rows == rows[:, :1]).all() else None


def output_size(size: int, reach: int, stride: int = 1, padding: int = 0) -> int:
    """Return the number of positions of a window on an axis of ``size``; below 1 if it does not fit.

    reach: elements from its first to its last, the gaps of a dilation included. padding: of both sides together.
    """
    return (size + padding - reach) // stride + 1
