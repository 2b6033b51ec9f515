"""Expand weights into single synapses, and a netx network into rows of them, for simulators of connections."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import option
from stl_deploy.errors import InputError
from stl_deploy.exporters.netx.convert import to_graph
from stl_deploy.exporters.netx.layers import InputLayer, NetxFile
from stl_deploy.integers.graph import ConvNode, DenseNode, IntegerLIF
from stl_deploy.integers.net import Ints, Shape


def net_arrays(net: NetxFile) -> dict[str, NDArray[Any]]:
    """Return arrays by name: ``keys`` of the layers with neurons, and for each ``KEY.starts`` and so on.

    The synapses of input i are those from ``starts[i]`` to ``starts[i + 1]``: ``targets`` and ``weights``. threshold,
    bias, v_decay, i_decay: one for each neuron. Raises InputError for other layers.
    """
    keys = [key for key, _ in net.spiking]
    by_name: dict[str, NDArray[Any]] = {"keys": np.array(keys)}
    if isinstance(net.layers[0], InputLayer) and net.layers[0].neuron is not None:
        raise InputError(
            "its input layer has neurons, whose bias is the input; use our integer model "
            f"({option('backend', 'loihi')})"
        )
    graph = to_graph(net)
    for key, layer in net.spiking:
        neuron, synapse, population = layer.neuron, graph.by_name[f"{key}.weights"], graph.by_name[key]
        assert isinstance(synapse, DenseNode | ConvNode)
        assert isinstance(population, IntegerLIF)
        plain = isinstance(synapse, ConvNode) or (synapse.delay is None and synapse.shift == 0)
        if not plain or neuron.reset != "value" or neuron.v_reset is not None:
            raise InputError(
                f"'{key}': expected no delays, no shift and a reset to 0; use our integer model "
                f"({option('backend', 'loihi')})"
            )
        if isinstance(synapse, ConvNode):
            starts, targets, weights = conv_rows(synapse)
        else:
            starts, targets, weights = _by_input(dense_connections(synapse.weight), synapse.weight.shape[1])
        of_neurons = {
            "threshold": neuron.threshold,
            "bias": np.zeros((), np.int32) if population.bias is None else population.bias,
            "v_decay": np.asarray(neuron.v_decay),
            "i_decay": np.asarray(neuron.i_decay),
        }
        arrays = {"starts": starts, "targets": targets, "weights": weights} | {
            name: np.broadcast_to(values, layer.shape).reshape(-1) for name, values in of_neurons.items()
        }
        by_name |= {f"{key}.{name}": array.astype(np.int32) for name, array in arrays.items()}
    return by_name


def shapes(net: NetxFile) -> dict[str, Shape]:
    """Return the shape of each layer with neurons."""
    return {key: layer.shape for key, layer in net.spiking}


Rows = tuple[Ints, Ints, Ints]


def conv_rows(layer: ConvNode) -> Rows:
    """Return the outputs that read each input."""
    connections = conv_connections(
        layer.weight,
        layer.input_shape,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
    )
    return _by_input(connections, math.prod(layer.input_shape))


def _by_input(connections: Connections, inputs: int) -> Rows:
    order = np.argsort(connections.source, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(connections.source, minlength=inputs))]).astype(np.int32)
    return starts, connections.target[order], connections.weight[order].astype(np.int32)


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
