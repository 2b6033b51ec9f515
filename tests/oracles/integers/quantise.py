"""Post-training quantisation: a Program becomes the integer network that spikes most like it on calibration data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.exporters.netx.chain import FlattenStage, PoolStage, SynapseStage, read_chain
from stl_deploy.exporters.netx.layers import (
    ConvLayer,
    DenseLayer,
    FlattenLayer,
    InputLayer,
    Layer,
    NetxFile,
    SpikingLayer,
    layer_key,
)
from stl_deploy.graph.program import Doubles, Floats, Linear, Node, Program, Shape
from stl_deploy.graph.run import run
from stl_deploy.graph.threads import map_samples
from stl_deploy.integers.net import DECAY_ONE, IntegerNeuron
from stl_deploy.integers.per_pixel import average_thresholds, unroll_convolutions
from stl_deploy.integers.ranges import LayerRange
from stl_deploy.integers.real_weights import bits_of, to_integers
from stl_deploy.integers.scales import (
    Candidate,
    RealPopulation,
    ThresholdForm,
    best_candidate,
    candidates,
    real_population,
)
from tests.oracles.integers.simulate import VALUES_AT_ONCE, Spikes, run_layer

_FOLDABLE: Mapping[str, Callable[[Program], Program]] = {
    "projected": average_thresholds,
    "unrolled": unroll_convolutions,
}


@dataclass(frozen=True)
class LayerFit:
    """How one layer came out: its thresholds' range, and spikes that differ from the reference on calibration data.

    ``beta`` is the decay asked for, ``beta_held`` the one that 12 bits hold.
    """

    node: str
    key: str
    weight_top: int
    threshold_low: int
    threshold_high: int
    beta: float
    beta_held: float
    spikes_compared: int
    spikes_differing: int


@dataclass(frozen=True, eq=False)
class LoihiModel:
    """An integer network, and what stands beside it.

    keys: the layer ``layer<i>`` of each spiking NIR node, in order. host: the readout after the last spikes,
    which the host computes in float32. Real input x is ``x·input_scale`` in integers. scales: by NIR node, what
    each row's weights, bias and threshold were multiplied by before rounding. ranges: of u and v, layer by layer.
    shapes: of the spiking NIR nodes, where the layers may be flat.
    """

    net: NetxFile
    keys: dict[str, str]
    host: tuple[Node, ...]
    input_scale: float
    thresholds: ThresholdForm
    fits: tuple[LayerFit, ...]
    scales: Mapping[str, Doubles] = field(default_factory=dict)
    ranges: tuple[LayerRange, ...] = ()
    shapes: Mapping[str, Shape] = field(default_factory=dict)


def quantise(
    program: Program, calibration: NDArray[Any], *, input_scale: float = 1.0, thresholds: ThresholdForm = "folded"
) -> LoihiModel:
    """Choose each layer's integers by spike agreement with the reference run.

    calibration: real input ``[T, B, *shape]`` on the grid of 1/input_scale; some hundred samples do. Layers are
    chosen one after the other; each sees the integer network's own spikes, so it makes up for errors before it.
    Raises UnsupportedError for what Loihi cannot hold, InputError for input off the grid or an unknown form.
    """
    if thresholds not in get_args(ThresholdForm):
        raise InputError(f"expected {', '.join(get_args(ThresholdForm))} as thresholds; found '{thresholds}'")
    shapes = {node.name: node.shape for node in program.spiking}
    x: NDArray[Any] = np.asarray(to_integers(calibration, input_scale), np.int32)
    reference = run(program, calibration, record=[node.name for node in program.spiking]).recorded
    parts = read_chain(_FOLDABLE[thresholds](program) if thresholds in _FOLDABLE else program)
    layers: list[Layer] = [InputLayer(shape=parts.input.shape, fraction_bits=bits_of(input_scale))]
    fits: list[LayerFit] = []
    scales: dict[str, Doubles] = {}
    scale = input_scale
    for stage in parts.layers:
        if isinstance(stage, FlattenStage):
            layers.append(FlattenLayer())
            x = x.reshape(*x.shape[:2], -1)
            continue
        wanted = reference[stage.neuron.name]
        wanted = wanted.reshape(*wanted.shape[:2], *stage.neuron.shape)
        if isinstance(stage, PoolStage):
            layer: SpikingLayer = max_pool_layer(stage)
        else:
            best = _best(stage, scale, thresholds, x, wanted)
            layer, scales[stage.neuron.name] = _layer(stage, best), best.scale
        spikes = _run(layer, x)
        fits.append(_fit(stage, layer, layer_key(len(layers)), spikes, wanted))
        x = spikes
        layers.append(layer)
        scale = 1.0
    keys = {fit.node: fit.key for fit in fits}
    return LoihiModel(
        NetxFile(tuple(layers)), keys, parts.readout, input_scale, thresholds, tuple(fits), scales, shapes=shapes
    )


def max_pool_layer(stage: PoolStage) -> ConvLayer:
    """A depthwise kernel of ones with memoryless neurons that fire at the first spike in their window."""
    pool = stage.pool
    channels = pool.input_shape[0]
    return ConvLayer(
        weight=np.ones((channels, 1, pool.kernel[0], pool.kernel[1]), np.int32),
        input_shape=pool.input_shape,
        stride=(pool.stride[0], pool.stride[1]),
        padding=(pool.padding[0][0], pool.padding[1][0]),
        groups=channels,
        neuron=IntegerNeuron(v_decay=DECAY_ONE, threshold=np.array(0, np.int32)),
        node=stage.neuron.name,
    )


def real_layer(stage: SynapseStage, input_scale: float) -> RealPopulation:
    """Weights for integer input (real input times ``input_scale``), the neuron's gain and offset absorbed."""
    synapse = stage.synapse
    bias = None if synapse.bias is None else synapse.bias.astype(np.float64)
    return real_population(stage.neuron, [synapse.weight.astype(np.float64) / input_scale], bias)


def _layer(stage: SynapseStage, chosen: Candidate) -> SpikingLayer:
    synapse, name, (weight,) = stage.synapse, stage.neuron.name, chosen.weights
    if isinstance(synapse, Linear):
        return DenseLayer(weight=weight, bias=chosen.bias, neuron=chosen.neuron, node=name)
    return ConvLayer(
        weight=weight,
        bias=chosen.bias,
        neuron=chosen.neuron,
        node=name,
        input_shape=synapse.input_shape,
        stride=(synapse.stride[0], synapse.stride[1]),
        padding=(synapse.padding[0][0], synapse.padding[1][0]),
        dilation=(synapse.dilation[0], synapse.dilation[1]),
        groups=synapse.groups,
    )


def _best(stage: SynapseStage, input_scale: float, form: ThresholdForm, x: NDArray[Any], wanted: Floats) -> Candidate:
    def differing(chosen: Candidate, part: slice) -> int:
        return _differing(run_layer(_layer(stage, chosen), np.ascontiguousarray(x[:, part])), wanted[:, part])

    return best_candidate(candidates(real_layer(stage, input_scale), form), x.shape[1], differing, stage.synapse)


def _run(layer: SpikingLayer, x: NDArray[Any]) -> Spikes:
    steps, samples = x.shape[:2]
    values = steps * math.prod(layer.shape)
    return np.concatenate(
        map_samples(lambda part: run_layer(layer, x[:, part]), samples, values, VALUES_AT_ONCE), axis=1
    )


def _differing(spikes: Spikes, wanted: Floats) -> int:
    return int(np.count_nonzero(spikes != wanted))


def _fit(stage: SynapseStage | PoolStage, layer: SpikingLayer, key: str, spikes: Spikes, wanted: Floats) -> LayerFit:
    decay = stage.neuron.decay
    return LayerFit(
        node=stage.neuron.name,
        key=key,
        weight_top=int(np.abs(layer.weight).max()),
        threshold_low=int(layer.neuron.threshold.min()),
        threshold_high=int(layer.neuron.threshold.max()),
        beta=0.0 if decay is None else float(decay.flat[0]),
        beta_held=float(np.max((DECAY_ONE - layer.neuron.v_decay) / DECAY_ONE)),
        spikes_compared=wanted.size,
        spikes_differing=_differing(spikes, wanted),
    )
