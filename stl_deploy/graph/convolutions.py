"""Express other layers as convolutions."""

from __future__ import annotations

import numpy as np

from stl_deploy._util.arrays import output_size
from stl_deploy.graph.program import Conv, Floats, Operand, Shape

Sources = tuple[Operand, ...]

MAX_DENSE = 2**25
"""Most numbers in the weights that stand for an operation NIR has no node for."""


def line_sum(name: str, sources: Sources, before: Shape, kernel: int, stride: int, pad: int, divisor: int) -> Conv:
    """Return a pool over one spatial axis as a depthwise convolution."""
    return Conv(
        name=name,
        shape=(before[0], output_size(before[1], kernel, stride, 2 * pad)),
        operands=sources,
        weight=np.full((before[0], 1, kernel), 1 / divisor, np.float32),
        bias=None,
        stride=(stride,),
        padding=((pad, pad),),
        dilation=(1,),
        groups=before[0],
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
