"""Windows that move over an axis: kernels and pools."""

from __future__ import annotations


def output_size(size: int, reach: int, stride: int = 1, padding: int = 0) -> int:
    """How many places a window takes on an axis of ``size``; below 1 where it does not fit.

    reach: elements from its first to its last, the gaps of a dilation included. padding: of both sides together.
    """
    return (size + padding - reach) // stride + 1
