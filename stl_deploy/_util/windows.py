"""Sliding windows over an axis: kernels and pools."""

from __future__ import annotations


def output_size(size: int, reach: int, stride: int = 1, padding: int = 0) -> int:
    """Return the number of positions of a window on an axis of ``size``; below 1 if it does not fit.

    reach: elements from its first to its last, the gaps of a dilation included. padding: of both sides together.
    """
    return (size + padding - reach) // stride + 1
