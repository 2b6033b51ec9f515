"""Express other layers as convolutions."""

from __future__ import annotations

import numpy as np

from stl_deploy._util.arrays import output_size
from stl_deploy.graph.program import Conv, Floats, Operand, Shape

Sources = tuple[Operand, ...]

MAX_DENSE = 2**25
"""Most numbers in the weights that stand for an operation NIR has no node for."""


Padding = tuple[tuple[int, int], ...]


def window_sum(
    name: str, sources: Sources, before: Shape, kernel: Shape, stride: Shape, padding: Padding, divisor: int = 1
) -> Conv:
    """Return the sum over windows of 1 or 2 spatial axes, divided by ``divisor``, as a depthwise convolution.

    Where padding differs between sides, the kernel gets the difference in zeros and the convolution the larger padding
    on both sides, because NIR pads both sides alike.
    """
    channels, *sizes = before
    rules = zip(sizes, kernel, stride, padding, strict=True)
    zeros = [(max(0, after - first), max(0, first - after)) for first, after in padding]
    return Conv(
        name=name,
        shape=(channels, *(output_size(n, k, s, sum(sides)) for n, k, s, sides in rules)),
        operands=sources,
        weight=np.pad(np.full((channels, 1, *kernel), 1 / divisor, np.float32), [(0, 0), (0, 0), *zeros]),
        bias=None,
        stride=stride,
        padding=tuple((max(sides), max(sides)) for sides in padding),
        dilation=(1,) * len(kernel),
        groups=channels,
        input_shape=before,
    )


def pointwise(
    name: str,
    sources: Sources,
    before: Shape,
    weight: Floats,
    *,
    bias: Floats | None = None,
    groups: int = 1,
) -> Conv:
    """Return weights ``[C_out, C_in/groups]`` at each place of 1 or 2 spatial axes as a convolution of size 1."""
    ones = (1,) * (len(before) - 1)
    return Conv(
        name=name,
        shape=(len(weight), *before[1:]),
        operands=sources,
        weight=weight.reshape(*weight.shape, *ones),
        bias=bias,
        stride=ones,
        padding=((0, 0),) * len(ones),
        dilation=ones,
        groups=groups,
        input_shape=before,
    )
