"""The integer network in netx's terms, and its width limits.

Everything is in torch's order: shapes ``(C, H, W)``, dense weights ``[out, in]``, kernels
``[C_out, C_in/groups, kh, kw]``; only the file uses Lava's ``(W, H, C)`` order (`stl_deploy.exporters.netx.file`). netx
runs every network that can be constructed: `NetxFile` checks shapes (InputError) and widths (UnsupportedError) of every
layer.

Widths (Lava 0.10, ``lava.proc.lif`` and ``lava.utils.weightutils``): weight 8 bits and sign, bias 13 bits,
threshold 17 bits, decay 12 bits, delay 6 bits of which netx uses 0 to 62.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.integers.net import (
    DECAY_ONE,
    MAX_BIAS,
    MAX_THRESHOLD,
    MIN_BIAS,
    Conv,
    IntegerNeuron,
    Ints,
    Shape,
    same,
)

MAX_DELAY = 62
MIN_WEIGHT, MAX_WEIGHT = -256, 255
MAX_MIXED_WEIGHT = 254
"""netx clips a dense layer of both signs to [-256, 254]."""
MIN_MIXED_WEIGHT_WITHOUT_POSITIVE = -128
"""Below it, a dense layer whose largest weight is 0 loses all its weights in Lava (a shift by a negative count)."""


MAX_CONV_WEIGHT = 2**15 - 1
"""Lava's convolutions take weights as they are; 8 bits and a sign are what the chip holds, and what we write."""


@dataclass(frozen=True, eq=False, kw_only=True)
class InputLayer:
    """Layer that takes events or integers.

    neuron: the input becomes the bias of these neurons at each step, and their spikes go on (netx's ``bias_mant``;
    lava-dl trains them on ``scale``·image + ``offset``, which netx leaves to its user).
    fraction_bits: real input times 2^fraction_bits is what enters; None: nothing says so.
    """

    shape: Shape
    fraction_bits: int | None = None
    neuron: IntegerNeuron | None = None
    scale: int = 1
    offset: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class FlattenLayer:
    """(C, H, W) to one axis, in that order."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DenseLayer:
    """weight ``[out, in]``, bias ``[out]`` or None, delay ``[out, in]`` or None; ``node`` is the NIR neuron's name."""

    weight: Ints
    neuron: IntegerNeuron
    bias: Ints | None = None
    delay: Ints | None = None
    node: str | None = None

    @property
    def shape(self) -> Shape:
        """Shape of the layer's output, without time."""
        return (self.weight.shape[0],)


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvLayer(Conv):
    """A convolution with its neurons; bias ``[C_out]`` or ``[C_out, H, W]`` or None, as in torch."""

    neuron: IntegerNeuron
    bias: Ints | None = None
    node: str | None = None


NO_NEURON = IntegerNeuron(i_decay=0, v_decay=DECAY_ONE, threshold=np.array(2**17, np.int32))
"""Neuron that netx gives a dense layer without neurons: current adds up, the potential never passes the threshold."""


SpikingLayer = DenseLayer | ConvLayer
Layer = InputLayer | FlattenLayer | SpikingLayer


@dataclass(frozen=True, eq=False)
class NetxFile:
    """A chain of layers, the first an input or dense. Raises InputError or UnsupportedError if netx would not run it.

    notes: further contents of the file, in sentences.
    """

    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()
    _shapes: tuple[Shape, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_shapes", _check(self.layers))

    @property
    def input_shape(self) -> Shape:
        """Shape of one step of input."""
        return self._shapes[0]

    @property
    def fraction_bits(self) -> int | None:
        """Grid of real input, see `InputLayer`; None: unknown."""
        first = self.layers[0]
        return first.fraction_bits if isinstance(first, InputLayer) else None

    @property
    def spiking(self) -> Iterator[tuple[str, SpikingLayer]]:
        """(key, layer) of every layer with neurons; the key is ``layer<i>``, i its place in the file."""
        return (
            (layer_key(i), layer) for i, layer in enumerate(self.layers) if isinstance(layer, DenseLayer | ConvLayer)
        )


def layer_key(index: int) -> str:
    """Return a layer's key in messages and in output files."""
    return f"layer{index}"


def shape_behind(layer: Layer, arriving: Shape) -> Shape:
    """Return the shape of a layer's output."""
    return (int(np.prod(arriving)),) if isinstance(layer, FlattenLayer) else layer.shape


def same_file(a: NetxFile, b: NetxFile) -> bool:
    """Return whether two networks are equal in every number and name."""
    return same(a.layers, b.layers)


def _check(layers: tuple[Layer, ...]) -> tuple[Shape, ...]:
    first = layers[0] if layers else None
    if isinstance(first, InputLayer):
        shapes = [first.shape]
        if first.neuron is not None:
            _check_neuron(layer_key(0), first.neuron, first.shape)
    elif isinstance(first, DenseLayer):
        shapes = [first.weight.shape[1:], _check_layer(layer_key(0), first, first.weight.shape[1:])]
    else:
        raise InputError("an integer network begins with an input layer that tells the input's shape, or a dense one")
    for index, layer in enumerate(layers[1:], start=1):
        shapes.append(_check_layer(layer_key(index), layer, shapes[-1]))
    if not any(isinstance(layer, DenseLayer | ConvLayer) for layer in layers):
        raise InputError("an integer network needs at least one dense or conv layer")
    return tuple(shapes)


def _check_layer(key: str, layer: Layer, arriving: Shape) -> Shape:
    if isinstance(layer, InputLayer):
        raise InputError(f"{key}: a second input layer; netx networks have one, at the front")
    if isinstance(layer, FlattenLayer):
        return shape_behind(layer, arriving)
    if isinstance(layer, DenseLayer):
        _check_dense(key, layer, arriving)
    else:
        _check_conv(key, layer, arriving)
    if layer.bias is not None:
        _check_range(key, "bias", layer.bias, MIN_BIAS, MAX_BIAS, "choose a smaller scale for the layer")
    _check_neuron(key, layer.neuron, layer.shape)
    return layer.shape


def _check_dense(key: str, layer: DenseLayer, arriving: Shape) -> None:
    if layer.weight.ndim != 2 or arriving != (layer.weight.shape[1],):
        raise InputError(
            f"{key}: expected dense weight [out, in] for the values that arrive, {list(arriving)}; found "
            f"{list(layer.weight.shape)}; add a flatten layer behind an image"
        )
    _check_shape(key, "bias", layer.bias, [layer.shape])
    _check_shape(key, "delay", layer.delay, [layer.weight.shape])
    if layer.delay is not None:
        _check_range(key, "delay", layer.delay, 0, MAX_DELAY, "shorten the delay")
    low, high = int(layer.weight.min(initial=0)), int(layer.weight.max(initial=0))
    if low == high == 0:
        raise UnsupportedError(
            "every weight is 0, which netx cannot load",
            node=key,
            slug="all-zero-layer",
            remedy="leave the layer out or choose a larger scale",
        )
    top = MAX_MIXED_WEIGHT if low < 0 else MAX_WEIGHT
    bottom = MIN_WEIGHT
    if layer.weight.max() == 0:
        bottom = MIN_MIXED_WEIGHT_WITHOUT_POSITIVE
    _check_range(key, "weight", layer.weight, bottom, top, "choose a smaller scale for the layer")


def _check_conv(key: str, layer: ConvLayer, arriving: Shape) -> None:
    weight = layer.weight
    if len(arriving) != 3 or layer.input_shape != arriving:
        raise InputError(f"{key}: a conv layer needs an input (C, H, W); {list(arriving)} arrives")
    if weight.ndim != 4 or min(weight.shape) < 1:
        raise InputError(f"{key}: expected conv weight [C_out, C_in/groups, kh, kw]; found {list(weight.shape)}")
    if min(*layer.stride, *layer.dilation, layer.groups) < 1 or min(layer.padding) < 0:
        raise InputError(
            f"{key}: expected stride, dilation and groups of 1 or more and padding of 0 or more; found less"
        )
    if max(*weight.shape[2:], *layer.stride, *layer.padding, *layer.dilation, layer.groups) > 2**15 - 1:
        raise InputError(f"{key}: expected kernel, stride, padding, dilation and groups up to {2**15 - 1}; found more")
    if weight.shape[0] % layer.groups or weight.shape[1] * layer.groups != arriving[0]:
        raise InputError(
            f"{key}: weight {list(weight.shape)} with {layer.groups} groups does not fit {arriving[0]} input channels"
        )
    if min(layer.shape) < 1:
        raise InputError(f"{key}: the kernel is larger than the padded input {list(arriving)}")
    _check_shape(key, "bias", layer.bias, [weight.shape[:1], layer.shape])
    _check_range(key, "weight", weight, -MAX_CONV_WEIGHT, MAX_CONV_WEIGHT, "choose a smaller scale for the layer")


def _check_neuron(key: str, neuron: IntegerNeuron, shape: Shape) -> None:
    if neuron is NO_NEURON:
        return
    _check_shape(key, "threshold", neuron.threshold, [(), shape])
    _check_range(key, "threshold", neuron.threshold, 0, MAX_THRESHOLD, "choose a smaller scale for the layer")
    if neuron.reset != "value" or neuron.v_reset is not None:
        raise InputError(f"{key}: neurons of netx reset to 0 at once; found a reset of another kind")
    if neuron.starts:
        raise InputError(f"{key}: neurons of netx start at 0; found another start")
    if not isinstance(neuron.i_decay, int) or not isinstance(neuron.v_decay, int):
        raise InputError(f"{key}: neurons of netx have one decay per layer; found arrays")
    decays = np.array([neuron.i_decay, neuron.v_decay], np.int64)
    _check_range(key, "decay", decays, 0, DECAY_ONE, "use a decay β from 0 to 1, that is 4096 to 0")


def _check_shape(key: str, what: str, values: Ints | None, accepted: list[Shape]) -> None:
    if values is not None and values.shape not in accepted:
        ways = " or ".join(str(list(shape)) for shape in accepted)
        raise InputError(f"{key}: expected {what} of shape {ways}; found {list(values.shape)}")


def _check_range(key: str, what: str, values: NDArray[Any], low: int, high: int, remedy: str) -> None:
    if values.dtype.kind not in "iu":
        raise InputError(f"{key}: expected {what} in integers; found {values.dtype}; round them first")
    extremes = int(values.min()), int(values.max())
    if extremes[0] < low or extremes[1] > high:
        runs = f"runs from {extremes[0]} to {extremes[1]}" if extremes[0] < extremes[1] else f"is {extremes[0]}"
        raise UnsupportedError(
            f"{what} {runs}, netx holds {low} to {high}",
            node=key,
            slug=f"{what}-out-of-range",
            remedy=remedy,
        )
