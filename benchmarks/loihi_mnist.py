"""The paper's MNIST net (preset mnist) through the integer model: time and peak memory, in a process of its own.

The shapes are the preset's; weights are random and thresholds such that every layer spikes (training would not change
the time: nothing depends on the weights).
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from stl_deploy.config.load import load_config
from stl_deploy.config.schema import ConvSpec, FlattenSpec, LinearSpec, PoolSpec
from stl_deploy.exporters.netx.convert import run_file
from stl_deploy.exporters.netx.layers import ConvLayer, DenseLayer, FlattenLayer, InputLayer, Layer, NetxFile
from stl_deploy.graph.threads import threads
from stl_deploy.integers.net import DECAY_ONE, IntegerNeuron, Shape

IMAGE: Shape = (1, 28, 28)
STEPS = 4
RATE = 0.13
"""Of MNIST's pixels, drawn as spikes."""


def paper_net() -> NetxFile:
    """128C5-MP2-128C5-MP2-FC2048-FC100 in integers."""
    rng = np.random.default_rng(0)
    layers: list[Layer] = [InputLayer(shape=IMAGE)]
    shape = IMAGE
    for spec in load_config("mnist").network:
        if isinstance(spec, ConvSpec):
            layers.append(_conv(rng, spec, shape))
        elif isinstance(spec, PoolSpec):
            layers.append(_pool(spec, shape))
        elif isinstance(spec, FlattenSpec):
            layers.append(FlattenLayer())
            shape = (int(np.prod(shape)),)
            continue
        elif isinstance(spec, LinearSpec):
            layers.append(DenseLayer(weight=_weights(rng, spec.features, *shape), neuron=_neuron(2048, shape[0])))
        else:
            continue
        shape = layers[-1].shape
    return NetxFile(tuple(layers))


def _weights(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return rng.integers(-100, 100, shape, dtype=np.int32, endpoint=True)


def _neuron(v_decay: int, fan_in: int) -> IntegerNeuron:
    return IntegerNeuron(v_decay=v_decay, threshold=np.array(30 * int(np.sqrt(fan_in)), np.int32))


def _conv(rng: np.random.Generator, spec: ConvSpec, shape: Shape) -> ConvLayer:
    weight = _weights(rng, spec.channels, shape[0], spec.kernel, spec.kernel)
    padding = (spec.padding, spec.padding)
    return ConvLayer(weight=weight, input_shape=shape, padding=padding, neuron=_neuron(2048, weight[0].size))


def _pool(spec: PoolSpec, shape: Shape) -> ConvLayer:
    size = (spec.kernel, spec.kernel)
    neuron = IntegerNeuron(v_decay=DECAY_ONE, threshold=np.array(0, np.int32))
    weight = np.ones((shape[0], 1, *size), np.int32)
    return ConvLayer(weight=weight, input_shape=shape, stride=size, groups=shape[0], neuron=neuron)


def measure(images: int) -> dict[str, Any]:
    """Seconds and peak memory of ``images`` samples of 4 steps, in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_all, images).result()


def run_all(images: int) -> dict[str, Any]:
    """`measure` in this very process."""
    net, rng = paper_net(), np.random.default_rng(1)
    x = (rng.random((STEPS, images, *IMAGE), np.float32) < RATE).astype(np.uint8)
    start = time.perf_counter()
    y = run_file(net, x).y
    return {
        "net": "mnist preset",
        "steps": STEPS,
        "images": images,
        "threads": threads(),
        "seconds": time.perf_counter() - start,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "output_rate": float(y.mean()),
    }
