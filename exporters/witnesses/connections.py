"""Expand weights into single synapses, for simulators of connections."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pairs = tuple[tuple[int, int], ...]


class Connections(NamedTuple):
    """One entry a synapse: places in the flattened input and output (int32), and the weight."""

    source: NDArray[np.int32]
    target: NDArray[np.int32]
    weight: NDArray[Any]


def dense_connections(weight: NDArray[Any]) -> Connections:
    """Expand a dense layer: every input reaches every output; weight ``[out, in]``."""
    target, source = np.indices(weight.shape, np.int32).reshape(2, -1)
    return Connections(source, target, weight.reshape(-1))


def conv_connections(
    weight: NDArray[Any],
    input_shape: tuple[int, ...],
    *,
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
    groups: int,
) -> Connections:
    """Expand a cross-correlation as in torch, padding taps left out; weight ``[C_out, C_in/groups, *kernel]``."""
    outs, per_group, *kernel = weight.shape
    pixels = np.arange(np.prod(input_shape[1:]), dtype=np.int32).reshape(input_shape[1:])
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(pixels, padding, constant_values=-1), reach)
    windows = windows[tuple(slice(None, None, step) for step in (*stride, *dilation))].reshape(-1, np.prod(kernel))
    place, tap = np.nonzero(windows >= 0)
    first = np.arange(outs) // (outs // groups) * per_group
    channel = first[:, None] + np.arange(per_group)
    source = channel[:, :, None] * pixels.size + windows[place, tap]
    target = np.broadcast_to(np.arange(outs)[:, None, None] * len(windows) + place, source.shape)
    return Connections(
        source.reshape(-1).astype(np.int32),
        target.reshape(-1).astype(np.int32),
        weight.reshape(outs, per_group, -1)[:, :, tap].reshape(-1),
    )
