"""A network that netx would not run as written cannot be constructed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.netx.convert import stored_weights
from stl_deploy.exporters.netx.layers import ConvLayer, FlattenLayer, InputLayer, NetxFile
from stl_deploy.integers.net import IntegerNeuron
from tests.exporters.netx.nets import chain, dense, neuron

ONE = neuron(2048, 5)


def convolved(arriving: tuple[int, ...] = (1, 2, 2), weight: tuple[int, ...] = (1, 1, 1, 1), **fields: Any) -> NetxFile:
    found = ConvLayer(weight=np.ones(weight, np.int32), input_shape=(1, 2, 2), neuron=ONE)
    return chain(arriving, replace(found, **fields))


WIDTHS: dict[str, Callable[[], NetxFile]] = {
    "weight runs from -257": lambda: chain((2,), dense([[-257, 1]], neuron=ONE)),
    "weight runs from -1 to 255, netx holds -256 to 254": lambda: chain((2,), dense([[-1, 255]], neuron=ONE)),
    "weight runs from 0 to 256": lambda: chain((2,), dense([[0, 256]], neuron=ONE)),
    "weight runs from -129 to 0, netx holds -128": lambda: chain((2,), dense([[-129, 0]], neuron=ONE)),
    "every weight is 0": lambda: chain((2,), dense([[0, 0]], neuron=ONE)),
    "bias is 4096": lambda: chain((2,), dense([[1, 2]], bias=[4096], neuron=ONE)),
    "threshold is -1": lambda: chain((2,), dense([[1, 2]], neuron=neuron(0, -1))),
    "decay runs from 4096 to 4097": lambda: chain((2,), dense([[1, 2]], neuron=neuron(4097, 1))),
    "delay runs from 0 to 63, netx holds 0 to 62": lambda: chain((2,), dense([[1, 2]], delay=[[0, 63]], neuron=ONE)),
}


@pytest.mark.parametrize("message", WIDTHS)
def test_widths(message: str) -> None:
    with pytest.raises(UnsupportedError, match=message) as error:
        WIDTHS[message]()
    assert error.value.node == "layer1"
    assert error.value.remedy


SHAPES: dict[str, Callable[[], NetxFile]] = {
    "begins with an input layer": lambda: NetxFile((FlattenLayer(),)),
    "at least one dense or conv layer": lambda: NetxFile((InputLayer(shape=(3,)),)),
    r"expected dense weight \[out, in\] for the values that arrive, \[3\]; found \[1, 2\]": lambda: chain(
        (3,), dense([[1, 2]], neuron=ONE)
    ),
    r"values that arrive, \[1, 2, 2\]; found .*flatten": lambda: chain((1, 2, 2), dense([[1, 2, 3, 4]], neuron=ONE)),
    "a second input layer": lambda: chain((3,), InputLayer(shape=(3,))),
    "kernel is larger": lambda: chain(
        (1, 2, 2), ConvLayer(weight=np.ones((1, 1, 3, 3), np.int32), input_shape=(1, 2, 2), neuron=ONE)
    ),
    "does not fit 3 input channels": lambda: chain(
        (3, 2, 2), ConvLayer(weight=np.ones((2, 1, 1, 1), np.int32), input_shape=(3, 2, 2), groups=2, neuron=ONE)
    ),
    r"a conv layer needs an input \(C, H, W\); \[4\] arrives": lambda: convolved((4,)),
    r"expected conv weight \[C_out, C_in/groups, kh, kw\]; found \[1, 0, 1, 1\]": lambda: convolved(
        weight=(1, 0, 1, 1)
    ),
    "stride, dilation and groups of 1 or more and padding of 0": lambda: convolved(padding=(-1, 0)),
    "up to 32767; found more": lambda: convolved(stride=(2**15, 1)),
    "found a reset of another kind": lambda: convolved(neuron=replace(ONE, reset="subtract")),
    "one decay per layer; found arrays": lambda: convolved(
        neuron=IntegerNeuron(v_decay=np.array([1, 2], np.int32), threshold=ONE.threshold)
    ),
    "in integers; found float64": lambda: chain(
        (1, 2, 2),
        ConvLayer(
            weight=np.ones((1, 1, 1, 1)),  # type: ignore[arg-type]
            input_shape=(1, 2, 2),
            neuron=ONE,
        ),
    ),
}


@pytest.mark.parametrize("message", SHAPES)
def test_shapes(message: str) -> None:
    with pytest.raises(InputError, match=message):
        SHAPES[message]()


def test_eight_bit_weights_are_stored_without_loss() -> None:
    for top in range(1, 128):
        stored, bits = stored_weights(np.array([[-top, top, 1]], np.int32))
        assert (stored >> bits).tolist() == [[-top, top, 1]]
        assert np.abs(stored).max() <= 256


def test_stored_weights_by_hand() -> None:
    assert stored_weights(np.array([[-128, 127]], np.int32))[0].tolist() == [[-256, 254]]
    assert stored_weights(np.array([[-128, 0]], np.int32))[0].tolist() == [[-128, 0]]
    assert stored_weights(np.array([[-128, -1, 0]], np.int32))[0].tolist() == [[-255, -2, 0]]
    assert stored_weights(np.array([[-256, -64]], np.int32))[0].tolist() == [[-192, -64]]
    assert stored_weights(np.array([[3, 1]], np.int32))[1] == 6
    assert stored_weights(np.array([[-4, -1]], np.int32))[1] == 6
