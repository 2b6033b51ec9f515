"""The LayerGraph: a network of named layers in discrete time, before norms are folded.

Its layers are the nodes of `stl_deploy.graph.program` - with sources, shapes and numpy arrays - and four that a
Program does not have: `Norm`, `MaxPool`, `Concat` and `Gather`. `stl_deploy.fold` turns them into nodes that it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.windows import output_size
from stl_deploy.graph.program import Conv, Floats, Node, Shape, Source

Sources = tuple[Source, ...]


MAX_DENSE = 2**25
"""Most numbers in the weights that stand for an operation NIR has no node for."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Norm(Node):
    """y = scale·x + shift, ``[C]`` each in float64: batch norm in evaluation, or arithmetic that does the same.

    axis: that of the channels, 0 or -1.
    """

    scale: Any
    shift: Any
    axis: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Node):
    """The largest value of each window of 1 or 2 spatial axes; padding never is."""

    kernel: Shape
    stride: Shape
    padding: tuple[tuple[int, int], ...]
    input_shape: Shape


def line_sum(name: str, sources: Sources, before: Shape, kernel: int, stride: int, pad: int, divisor: int) -> Conv:
    """Windows of one spatial axis added up and divided, as a convolution of each channel alone."""
    return Conv(
        name=name,
        shape=(before[0], output_size(before[1], kernel, stride, 2 * pad)),
        sources=sources,
        weight=np.full((before[0], 1, kernel), 1 / divisor, np.float32),
        bias=None,
        stride=(stride,),
        padding=((pad, pad),),
        dilation=(1,),
        groups=before[0],
        input_shape=before,
    )


def pointwise(
    name: str, sources: Sources, before: Shape, weight: Floats, *, bias: Floats | None = None, groups: int = 1
) -> Conv:
    """Weights ``[C_out, C_in/groups]`` at each place of 1 or 2 spatial axes, as a convolution of size 1."""
    ones = (1,) * (len(before) - 1)
    return Conv(
        name=name,
        shape=(len(weight), *before[1:]),
        sources=sources,
        weight=weight.reshape(*weight.shape, *ones),
        bias=bias,
        stride=ones,
        padding=((0, 0),) * len(ones),
        dilation=ones,
        groups=groups,
        input_shape=before,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Node):
    """The values of its sources behind each other on the first axis."""

    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Gather(Node):
    """Values of its input in other places: ``indices`` has the shape of the output and holds flat places, -1 for 0."""

    indices: NDArray[np.int64]
    input_shape: Shape


@dataclass(frozen=True, eq=False)
class LayerGraph:
    """Layers in an order in which every undelayed source comes before its reader.

    metadata: what the graph's author says beside it (the readout, the input's coding).
    """

    layers: tuple[Node, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
