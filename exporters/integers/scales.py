"""One layer in integers: candidates that scale weights, bias and threshold together.

A row (a neuron of a dense layer, a channel of a conv layer) may be multiplied by any s > 0 if its threshold
is too: spikes stay the same but for rounding. The three forms choose the rows' scales:

- ``folded``: s = K/θ of the row, so that one threshold serves the whole population (netx's documented contract);
- ``per-layer``: one s = K/mean(θ) and one threshold: learned differences between thresholds are lost;
- ``per-neuron``: each row as large as 8 bits hold, thresholds in an array (Lava's CPU simulation only).

**Comparison.** Lava fires where v > vth with vth whole and v in 64ths; the model fires where v >= θ. With
t = s·θ, ``vth = ceil(t) − 1`` is exact for whole v. A leaking v has fractions: v > m is v >= m + 1/64, so for K just
above a whole m, ``vth = m`` is exact for those. Both kinds of K are candidates; spikes on calibration data decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.integers.net import DECAY_ONE, Ints, IntegerNeuron
from stl_deploy.exporters.loihi.net import MAX_BIAS, MAX_THRESHOLD, ConvLayer, DenseLayer, SpikingLayer
from stl_deploy.exporters.loihi.structure import SynapseStage, refuse
from stl_deploy.graph.program import Linear, Neuron, Node

ThresholdForm = Literal["folded", "per-neuron", "per-layer", "projected", "unrolled"]
"""The last two are folded, after `stl_deploy.exporters.loihi.pixels` has made the thresholds foldable."""

Doubles = NDArray[np.float64]

WEIGHT_TOP = 127
"""8-bit weights with sign: netx doubles them at exponent -1 and loses nothing."""

_JUST_ABOVE = 1 / 128
_RATIOS = np.geomspace(1.5, 0.2, 18)
"""Scales tried, relative to the largest at which nothing is clipped (above 1, outliers are)."""


@dataclass(frozen=True, eq=False)
class RealLayer:
    """A layer before rounding: weight ``[rows, ...]``, bias ``[rows]``, theta broadcast to the layer's shape."""

    stage: SynapseStage
    weight: Doubles
    bias: Doubles | None
    theta: Doubles
    theta_rows: Doubles | None
    """theta by row, or None if it differs between the pixels of a channel."""


def real_layer(stage: SynapseStage, input_scale: float) -> RealLayer:
    """Weights for whole-number input (real input times ``input_scale``), with the neuron's gain and leak absorbed."""
    synapse, neuron = stage.synapse, stage.neuron
    weight = synapse.weight.astype(np.float64) / input_scale
    bias = None if synapse.bias is None else synapse.bias.astype(np.float64)
    if neuron.gain is not None:
        gain = _rows_or_refuse(neuron, neuron.gain, "gain")
        weight = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
        bias = None if bias is None else bias * gain
    if neuron.leak is not None:
        leak = _rows_or_refuse(neuron, neuron.leak, "leak")
        bias = leak if bias is None else bias + leak
    if bias is not None and not bias.any():
        bias = None
    assert neuron.threshold is not None
    theta = np.broadcast_to(neuron.threshold, neuron.shape).astype(np.float64)
    return RealLayer(stage, weight, bias, theta, _rows(theta))


def _rows(values: Doubles) -> Doubles | None:
    flat = values.reshape(values.shape[0], -1)
    return flat[:, 0] if (flat == flat[:, :1]).all() else None


def _rows_or_refuse(neuron: Neuron, values: NDArray[Any], what: str) -> Doubles:
    rows = _rows(np.broadcast_to(values, neuron.shape).astype(np.float64))
    if rows is None:
        refuse(neuron, f"{what}-per-pixel", f"its {what} differs between pixels", "use one value per channel")
    return rows


@dataclass(frozen=True, eq=False)
class Candidate:
    """A layer in integers, and what its rows were multiplied by before rounding."""

    layer: SpikingLayer
    scale: Doubles


def candidates(real: RealLayer, form: ThresholdForm) -> Iterator[Candidate]:
    """The layer in integers at many scales, the largest first; every one is within netx's widths.

    A layer that is whole numbers already, with one threshold and "fires above it", is the only candidate itself.
    """
    if is_whole(real):
        yield from _candidate(real, np.ones(real.weight.shape[0]), np.array(real.theta.flat[0]))
        return
    if form == "per-neuron":
        limits = _row_limits(real)
        for ratio in _RATIOS:
            target = real.theta * _by_row(ratio * limits, real.theta.ndim)
            for threshold in (np.ceil(target) - 1, np.round(target)):
                yield from _candidate(real, ratio * limits, threshold)
        return
    theta = _one_threshold(real, form)
    top = float((_row_limits(real, theta) * theta).min())
    wholes = dict.fromkeys(max(0, int(ratio * top)) for ratio in _RATIOS)
    for whole in wholes:
        for aim in (whole + 1, whole + _JUST_ABOVE):
            if whole or aim >= 1:
                yield from _candidate(real, aim / theta, np.array(float(whole)))


def is_whole(real: RealLayer) -> bool:
    """Whether the layer needs no rounding at all: `stl_deploy.exporters.loihi.qat.fake_quant` trains such layers."""
    neuron, theta = real.stage.neuron, real.theta.flat[0]
    parts = [real.weight, real.theta] + ([] if real.bias is None else [real.bias])
    return (
        neuron.compare == "gt"
        and all(np.array_equal(part, np.trunc(part)) for part in parts)
        and bool((real.theta == theta).all() and theta <= MAX_THRESHOLD)
        and float(np.abs(real.weight).max()) <= WEIGHT_TOP
        and (real.bias is None or float(np.abs(real.bias).max()) <= MAX_BIAS)
    )


def _one_threshold(real: RealLayer, form: ThresholdForm) -> Doubles:
    """The row thresholds that rows are divided by."""
    if form == "per-layer":
        return np.full(real.weight.shape[0], real.theta.mean())
    if real.theta_rows is None:
        refuse(
            real.stage.neuron,
            "per-pixel-threshold",
            "its thresholds differ between the pixels of a channel, which shared kernels cannot absorb",
            "train with per-channel thresholds, or export with thresholds unrolled (dense layers, exact), "
            "projected (to channels), per-layer, or per-neuron (Lava's CPU simulation only)",
        )
    return real.theta_rows


def _row_limits(real: RealLayer, theta_rows: Doubles | None = None) -> Doubles:
    """For each row the largest scale at which weights, bias and threshold all fit."""
    rows = real.weight.shape[0]
    theta = real.theta.reshape(rows, -1).max(axis=1) if theta_rows is None else theta_rows
    with np.errstate(divide="ignore"):
        limit: Doubles = np.minimum(
            WEIGHT_TOP / np.abs(real.weight).reshape(rows, -1).max(axis=1), MAX_THRESHOLD / theta
        )
        if real.bias is not None:
            limit = np.minimum(limit, MAX_BIAS / np.abs(real.bias))
    return limit


def _by_row(values: Doubles, ndim: int) -> Doubles:
    return values.reshape(-1, *[1] * (ndim - 1))


def _candidate(real: RealLayer, scale: Doubles, threshold: Doubles) -> Iterator[Candidate]:
    """The layer at one scale, or nothing if no weight is left."""
    weight = np.clip(np.round(real.weight * _by_row(scale, real.weight.ndim)), -WEIGHT_TOP - 1, WEIGHT_TOP)
    if not weight.any():
        return
    neuron = IntegerNeuron(
        v_decay=v_decay(real.stage.neuron),
        threshold=np.asarray(np.clip(threshold, 0, MAX_THRESHOLD), np.int32),
    )
    bias: Ints | None = None
    if real.bias is not None:
        bias = np.clip(np.round(real.bias * scale), -MAX_BIAS - 1, MAX_BIAS).astype(np.int32)
    yield Candidate(_layer(real.stage, weight.astype(np.int32), bias, neuron), scale)


def _layer(stage: SynapseStage, weight: Ints, bias: Ints | None, neuron: IntegerNeuron) -> SpikingLayer:
    synapse, name = stage.synapse, stage.neuron.name
    if isinstance(synapse, Linear):
        return DenseLayer(weight=weight, bias=bias, neuron=neuron, node=name)
    return ConvLayer(
        weight=weight,
        bias=bias,
        neuron=neuron,
        node=name,
        input_shape=synapse.input_shape,
        stride=(synapse.stride[0], synapse.stride[1]),
        padding=(synapse.padding[0][0], synapse.padding[1][0]),
        dilation=(synapse.dilation[0], synapse.dilation[1]),
        groups=synapse.groups,
    )


def v_decay(neuron: Neuron) -> int:
    """β in 12 bits: v keeps (4096 − v_decay)/4096."""
    beta = 0.0 if neuron.decay is None else float(neuron.decay.flat[0])
    return round(DECAY_ONE * (1 - beta))


def no_candidate(node: Node) -> NoReturn:
    """Refuse a layer whose weights all vanish."""
    refuse(node, "all-zero-layer", "every weight rounds to 0", "netx cannot load such a layer; leave it out")
