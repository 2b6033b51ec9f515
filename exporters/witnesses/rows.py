"""A netx network as rows of synapses, input by input, which simulators of single connections take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.exporters.integers.net import Conv, Dense, Ints, Shape
from stl_deploy.exporters.loihi.net import ConvLayer, InputLayer, IntegerNet
from stl_deploy.exporters.loihi.weights import lava_synapse


def net_arrays(net: IntegerNet) -> dict[str, NDArray[Any]]:
    """Arrays by name: ``keys`` of the layers with neurons, and for each ``KEY.starts`` and so on.

    The synapses of input i are those from ``starts[i]`` to ``starts[i + 1]``: ``targets`` and ``weights``. threshold,
    bias, v_decay, i_decay: one for each neuron. Raises InputError for what single connections in one step cannot be.
    """
    keys = [key for key, _ in net.spiking]
    found: dict[str, NDArray[Any]] = {"keys": np.array(keys)}
    if isinstance(net.layers[0], InputLayer) and net.layers[0].neuron is not None:
        raise InputError(
            "its input layer has neurons, whose bias is the input; use our integer model (--backend loihi)"
        )
    for key, layer in net.spiking:
        neuron = layer.neuron
        synapse = lava_synapse(layer)
        plain = isinstance(synapse, Conv) or (synapse.delay is None and synapse.shift == 0)
        if not plain or neuron.reset != "value" or neuron.v_reset is not None:
            raise InputError(
                f"'{key}': expected no delays, no shift and a reset to 0; use our integer model (--backend loihi)"
            )
        starts, targets, weights = conv_rows(synapse) if isinstance(synapse, Conv) else dense_rows(synapse)
        bias = np.zeros((), np.int32) if layer.bias is None else layer.bias
        if isinstance(layer, ConvLayer) and bias.ndim == 1:
            bias = bias.reshape(-1, 1, 1)
        of_neurons = {
            "threshold": neuron.threshold,
            "bias": bias,
            "v_decay": np.asarray(neuron.v_decay),
            "i_decay": np.asarray(neuron.i_decay),
        }
        arrays = {"starts": starts, "targets": targets, "weights": weights} | {
            name: np.broadcast_to(values, layer.shape).reshape(-1) for name, values in of_neurons.items()
        }
        found |= {f"{key}.{name}": array.astype(np.int32) for name, array in arrays.items()}
    return found


def shapes(net: IntegerNet) -> dict[str, Shape]:
    """Of each layer with neurons."""
    return {key: layer.shape for key, layer in net.spiking}


Rows = tuple[Ints, Ints, Ints]


def dense_rows(layer: Dense) -> Rows:
    """Every input reaches every output."""
    outs, ins = layer.weight.shape
    return (
        np.arange(ins + 1, dtype=np.int32) * outs,
        np.tile(np.arange(outs, dtype=np.int32), ins),
        layer.weight.T.reshape(-1),
    )


def conv_rows(layer: Conv) -> Rows:
    """Tap by tap, the outputs that read an input inside."""
    outs, per_group, taps_h, taps_w = layer.weight.shape
    channels, height, width = layer.input_shape
    _, out_h, out_w = layer.shape
    group = np.arange(outs) // (outs // layer.groups)
    sources, targets, weights = [], [], []
    place = np.arange(outs * out_h * out_w).reshape(outs, out_h, out_w)
    for i in range(taps_h):
        for j in range(taps_w):
            row = np.arange(out_h) * layer.stride[0] - layer.padding[0] + i * layer.dilation[0]
            column = np.arange(out_w) * layer.stride[1] - layer.padding[1] + j * layer.dilation[1]
            inside = np.ix_((row >= 0) & (row < height), (column >= 0) & (column < width))
            pixels = (row[:, None] * width + column)[inside]
            for k in range(per_group):
                source = (group * per_group + k)[:, None, None] * height * width + pixels
                sources.append(source.reshape(-1))
                targets.append(place[:, inside[0], inside[1]].reshape(-1))
                weights.append(np.broadcast_to(layer.weight[:, k, i, j][:, None, None], source.shape).reshape(-1))
    source = np.concatenate(sources)
    order = np.argsort(source, kind="stable")
    counts = np.bincount(source, minlength=channels * height * width)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return starts, np.concatenate(targets)[order].astype(np.int32), np.concatenate(weights)[order].astype(np.int32)
