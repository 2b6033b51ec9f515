"""Convert input from Python (numpy arrays, torch tensors, lists) to numpy arrays; count windows along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError


def as_array(x: Any) -> NDArray[Any]:
    """Return an array of a numpy array, a torch tensor on any device, or nested lists of numbers; raise InputError."""
    if hasattr(x, "detach"):
        tensor = x.detach().cpu()
        return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())
    try:
        array = np.asarray(x)
    except (ValueError, TypeError) as error:
        raise InputError(f"expected an array of numbers; found a {type(x).__name__} ({error})") from None
    if array.dtype.hasobject or array.dtype.kind in "USmM":
        kind = f"an array of {array.dtype}" if isinstance(x, np.ndarray) else f"a {type(x).__name__}"
        raise InputError(f"expected an array of numbers; found {kind}; give a numpy array or a torch tensor")
    return array


def require_held_by_float32(x: NDArray[Any], where: str) -> None:
    """Raise InputError for integers beyond 2^24, between which float32 has gaps."""
    for bound in (int(x.min()), int(x.max())):
        if abs(bound) > 2**24:
            raise InputError(f"{where}: expected integers up to 2^24, which float32 holds exactly; found {bound}")


def output_size(size: int, reach: int, stride: int = 1, padding: int = 0) -> int:
    """Return the number of positions of a window on an axis of ``size``; below 1 if it does not fit.

    reach: elements from its first to its last, the gaps of a dilation included. padding: of both sides together.
    """
    return (size + padding - reach) // stride + 1
