"""Tell what a multiplication by a stored factor costs on integers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Factor = Literal["none", "shift", "shift and subtract", "multiply"]


def factor_of(value: NDArray[Any] | None) -> Factor:
    """Return the integer operations of a multiplication by ``value``."""
    if value is None or bool(np.all(value == 1)):
        return "none"
    if _powers_of_two(value):
        return "shift"
    return "shift and subtract" if _powers_of_two(1 - np.asarray(value, np.float64)) else "multiply"


def _powers_of_two(value: NDArray[Any]) -> bool:
    """Return whether every element is 2^-k for some k >= 1 (or 1, beside others)."""
    mantissa, exponent = np.frexp(value)
    return bool(np.all((mantissa == 0.5) & (exponent <= 1)))
