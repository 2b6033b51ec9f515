"""Prepare one layer's weights and biases for rounding: its scale, and its integer node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import option
from stl_deploy.errors import InputError
from stl_deploy.graph.program import Conv, Doubles, Linear, MaxPool, Neuron, Node, Pool, Scale
from stl_deploy.integers.fan_in import FanIn, WeightedPath
from stl_deploy.integers.graph import ConvNode, DenseNode, GainNode
from stl_deploy.integers.net import Ints
from stl_deploy.integers.rows import RowAxis, rows_first
from stl_deploy.integers.scales import WEIGHT_TOP
from stl_deploy.passes.base import by_row


def late(values: NDArray[Any]) -> NDArray[Any]:
    """Delay ``[T, ...]`` by one step, 0 at first."""
    moved = np.zeros_like(values)
    moved[1:] = values[:-1]
    return moved


def real_weights(paths: FanIn, consumer: Node) -> list[Doubles]:
    """Return the weights of every layer that reaches ``consumer``."""
    return [real_weight(leaf, consumer, paths.axis) for leaf in paths.leaves]


def real_weight(leaf: WeightedPath, consumer: Node, axis: RowAxis = "first") -> Doubles:
    """Return weights for integer input, rows first; consumer: with its rows in front."""
    rows = consumer.shape[0]
    if leaf.node is None:
        weight = np.ones((rows, *(1,) * (len(consumer.shape) - 1)))
    elif isinstance(leaf.node, Scale):
        scale = np.broadcast_to(leaf.node.scale, leaf.node.shape).astype(np.float64)
        weight = rows_first(scale, axis, leaf.node.shape)
    else:
        weight = leaf.node.weight.astype(np.float64)
    return weight * leaf.unit * by_row(leaf.factor, weight.ndim)


def split_biases(paths: FanIn, neuron: Neuron) -> tuple[Doubles | None, list[Doubles | None]]:
    """Split biases: those added to v at once, and those kept with weights (behind a filter, a pool or a delay)."""
    direct: Doubles | None = None
    apart: list[Doubles | None] = []
    for leaf in paths.leaves:
        bias = None if leaf.node is None or isinstance(leaf.node, Scale) else leaf.node.bias
        if bias is None or not bias.any():
            apart.append(None)
            continue
        real = bias.astype(np.float64) * leaf.factor
        if neuron.synapse is None and leaf.source is not None and not leaf.source.delay:
            direct = real if direct is None else direct + real
            apart.append(None)
        else:
            apart.append(real)
    return direct, apart


def real_bias(leaf: WeightedPath, scale: Doubles) -> Doubles | None:
    """Return a layer's biases times ``scale``; None without biases."""
    bias = None if leaf.node is None or isinstance(leaf.node, Scale) else leaf.node.bias
    return None if bias is None or not bias.any() else np.asarray(bias * scale, np.float64)


def rounded_bias(leaf: WeightedPath, scale: Doubles) -> Ints | None:
    """Return `real_bias`, rounded to integers."""
    bias = real_bias(leaf, scale)
    return None if bias is None else np.round(bias).astype(np.int32)


def one_scale(weights: list[Doubles], biases: Iterable[Doubles | None] = ()) -> float:
    """Return one scale for all rows, so that outputs can be compared: multiples of the least weight stay exact.

    biases: what is added to the sums. Where they are no such multiples, the least scale that makes them whole, too, or
    the greatest that 8 bits hold.
    """
    together = np.concatenate([weight.reshape(-1) for weight in weights])
    largest = float(np.abs(together).max())
    if not largest:
        return 1.0
    least = float(np.abs(together[together != 0]).min())
    multiples = together / least
    if largest / least <= WEIGHT_TOP and np.allclose(multiples, np.round(multiples), rtol=0, atol=1e-6):
        most = max(1, WEIGHT_TOP // round(largest / least))
        added = [bias / least for bias in biases if bias is not None]
        return next((times for times in range(1, most) if _whole(added, times)), most) / least
    return WEIGHT_TOP / largest


def _whole(biases: Iterable[Doubles], times: int) -> bool:
    """Return whether all are integers when multiplied, up to float32 precision."""
    return all(np.allclose(times * bias, np.round(times * bias), rtol=1e-6, atol=1e-6) for bias in biases)


def whole_weight(weight: Doubles, scale: float) -> Ints:
    """Round to the nearest integer."""
    return np.round(weight * scale).astype(np.int32)


def weighted_node(node: Linear | Conv | Scale, name: str, weight: Ints, bias: Ints | None) -> Node:
    """Return a layer of weights in integers; a convolution over one axis gets a height of 1."""
    common: dict[str, Any] = {"name": name, "shape": node.shape, "operands": node.operands}
    if isinstance(node, Linear):
        return DenseNode(weight=weight, bias=bias, **common)
    if isinstance(node, Scale):
        return GainNode(weight=weight, **common)
    weight = weight[:, :, None] if weight.ndim == 3 else weight
    return ConvNode(weight=weight, bias=bias, groups=node.groups, **over_two_axes(node, "dilation"), **common)


def over_two_axes(node: Conv | Pool | MaxPool, size: str) -> dict[str, Any]:
    """Return the fields of a node's windows, ``size`` (kernel or dilation) too; over one axis they get a height of 1.

    ``[C, L] = [4, 9]`` becomes ``[4, 1, 9]``, a stride of 2 becomes (1, 2).
    """
    height = (1,) * (2 - len(node.stride))
    channels, *sizes = node.input_shape
    return {
        size: (*height, *getattr(node, size)),
        "stride": (*height, *node.stride),
        "padding": (*((0, 0) for _ in height), *node.padding),
        "input_shape": (channels, *height, *sizes),
    }


def bits_of(input_scale: float) -> int | None:
    """Return the b of a scale 2^b, b at least 0; None for another scale."""
    mantissa, exponent = np.frexp(input_scale)
    return int(exponent) - 1 if mantissa == 0.5 and exponent > 0 else None


def to_integers(x: NDArray[Any], input_scale: float) -> NDArray[Any]:
    """Return ``x·input_scale`` in integers; raise InputError if x is not on that grid.

    int32, but bool and 8-bit integers stay as they are at a scale of 1. Steps are converted one after the other, since
    float64 takes eight times the memory of spikes.
    """
    if x.dtype.kind in "iub" and x.dtype.itemsize == 1 and input_scale == 1:
        return x
    integers = np.empty(x.shape, np.int32)
    for step, to in zip(np.atleast_2d(x), np.atleast_2d(integers), strict=True):
        scaled = np.asarray(step, np.float64) * input_scale
        whole = np.round(scaled)
        if not np.array_equal(scaled, whole):
            raise _off_grid(input_scale)
        if np.abs(whole).max(initial=0) >= 2**31:
            raise InputError("expected integer input within 32 bits; found larger values; use a coarser grid")
        to[...] = whole
    return integers


def _off_grid(input_scale: float) -> InputError:
    if input_scale == 1:
        return InputError(
            "expected integers as input, as no grid is declared for it; found fractions; give "
            f"{option('input_grid', 'BITS')}, which rounds to multiples of 2^-BITS and declares that"
        )
    return InputError(
        f"expected input on the grid of 1/{input_scale:g} that the network was exported with; found values beside "
        f"it; round them, or give {option('input_grid', 'BITS')}, which rounds to multiples of 2^-BITS"
    )
