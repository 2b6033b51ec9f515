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

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import UnsupportedError
from stl_deploy.graph.program import Doubles, Floats, Neuron, Node
from stl_deploy.graph.threads import map_parts
from stl_deploy.integers.net import DECAY_ONE, MAX_BIAS, MAX_THRESHOLD, IntegerNeuron, Ints

ThresholdForm = Literal["folded", "per-neuron", "per-layer", "projected", "unrolled"]
"""The last two are folded, after `stl_deploy.exporters.loihi.pixels` has made the thresholds foldable."""

WEIGHT_TOP = 127
"""8-bit weights with sign: netx doubles them at exponent -1 and loses nothing."""

FEW, SHORTLIST = 64, 6
"""Candidates are tried on about so many samples first, and as many of them as the second on all."""

_JUST_ABOVE = 1 / 128
RATIOS = np.geomspace(1.5, 0.2, 18)
"""Scales tried, relative to the largest at which nothing is clipped (above 1, outliers are)."""


def refuse(node: Node, slug: str, reason: str, remedy: str) -> NoReturn:
    """Raise UnsupportedError for a node."""
    raise UnsupportedError(reason, node=node.name, slug=slug, remedy=remedy)


@dataclass(frozen=True, eq=False)
class RealPopulation:
    """A population before rounding: the weights that reach it, one array ``[rows, ...]`` for each layer of synapses,
    bias ``[rows]`` added to v, theta broadcast to the population's shape; gain: what each row's weights were multiplied
    by. also_whole: what else must be whole numbers for `is_whole`.
    """

    neuron: Neuron
    weights: tuple[Doubles, ...]
    bias: Doubles | None
    theta: Doubles
    theta_rows: Doubles | None
    """theta by row, or None if it differs between the pixels of a channel."""
    gain: Doubles
    also_whole: tuple[Doubles, ...] = ()


def real_population(
    neuron: Neuron, weights: Sequence[Doubles], bias: Doubles | None, also_whole: Sequence[Doubles] = ()
) -> RealPopulation:
    """A population with its neurons' gain and drive offset absorbed; weights are for whole-number input."""
    gain = row_gain(neuron)
    weights = tuple(weight * _by_row(gain, weight.ndim) for weight in weights)
    bias = None if bias is None else bias * gain
    if neuron.offset is not None:
        offset = _rows_or_refuse(neuron, neuron.offset, "drive offset")
        bias = offset if bias is None else bias + offset
    if bias is not None and not bias.any():
        bias = None
    assert neuron.threshold is not None
    theta = np.broadcast_to(neuron.threshold, neuron.shape).astype(np.float64)
    return RealPopulation(neuron, weights, bias, theta, _rows(theta), gain, tuple(also_whole))


def row_gain(neuron: Neuron) -> Doubles:
    """What multiplies the input of each row: the neuron's gain and its synapse's."""
    gain = np.ones(neuron.shape[0])
    if neuron.gain is not None:
        gain = _rows_or_refuse(neuron, neuron.gain, "gain")
    if neuron.synapse is not None:
        if neuron.synapse.gain is not None:
            gain = gain * _rows_or_refuse(neuron, neuron.synapse.gain, "synaptic gain")
        if neuron.synapse.rule == "exp_add":
            gain = gain * _rows_or_refuse(neuron, neuron.synapse.decay, "synaptic decay")
    return gain


def _rows(values: Doubles) -> Doubles | None:
    flat = values.reshape(values.shape[0], -1)
    return flat[:, 0] if (flat == flat[:, :1]).all() else None


def _rows_or_refuse(neuron: Neuron, values: NDArray[Any], what: str) -> Doubles:
    rows = _rows(np.broadcast_to(values, neuron.shape).astype(np.float64))
    if rows is None:
        refuse(
            neuron,
            f"{what.replace(' ', '-')}-per-pixel",
            f"its {what} differs between pixels",
            "use one value per channel",
        )
    return rows


@dataclass(frozen=True, eq=False)
class Candidate:
    """A population in integers, and what its rows were multiplied by before rounding."""

    weights: tuple[Ints, ...]
    bias: Ints | None
    neuron: IntegerNeuron
    scale: Doubles


def candidates(real: RealPopulation, form: ThresholdForm) -> Iterator[Candidate]:
    """The layer in integers at many scales, the largest first; every one is within netx's widths.

    A layer that is whole numbers already, with one threshold and "fires above it", is the only candidate itself.
    """
    if is_whole(real):
        yield from _candidate(real, np.ones(len(real.theta)), np.array(real.theta.flat[0]))
        return
    if form == "per-neuron":
        limits = _row_limits(real)
        for ratio in RATIOS:
            target = real.theta * _by_row(ratio * limits, real.theta.ndim)
            for threshold in (np.ceil(target) - 1, np.round(target)):
                yield from _candidate(real, ratio * limits, threshold)
        return
    theta = _one_threshold(real, form)
    top = float((_row_limits(real, theta) * theta).min())
    wholes = dict.fromkeys(max(0, int(ratio * top)) for ratio in RATIOS)
    for whole in wholes:
        for aim in (whole + 1, whole + _JUST_ABOVE):
            if whole or aim >= 1:
                yield from _candidate(real, aim / theta, np.array(float(whole)))


def closest(
    tried: Iterable[Candidate], samples: int, differing: Callable[[Candidate, slice], int], node: Node
) -> Candidate:
    """The candidate with the fewest differing spikes (of equals the first, which has the largest scale).

    All are tried on about `FEW` of the ``samples``, and the best of those on all. differing: spikes of a candidate that
    differ on some of the samples. Refuses ``node`` if there is no candidate.
    """
    left = list(tried)
    some = slice(None, None, max(1, samples // FEW))
    for part, kept in ((some, SHORTLIST), (slice(None), 1)):
        if len(left) > kept:
            counted = map_parts(partial(_counted, differing, part), left)
            left = [left[i] for i in np.argsort(counted, kind="stable")[:kept]]
    if not left:
        refuse(node, "all-zero-layer", "every weight rounds to 0", "it passes nothing on; leave it out")
    return left[0]


def _counted(differing: Callable[[Candidate, slice], int], part: slice, candidate: Candidate) -> int:
    return differing(candidate, part)


def is_whole(real: RealPopulation) -> bool:
    """Whether the layer needs no rounding at all: `stl_deploy.exporters.loihi.qat.fake_quant` trains such layers."""
    neuron, theta = real.neuron, real.theta.flat[0]
    parts = [*real.weights, *real.also_whole, real.theta] + ([] if real.bias is None else [real.bias])
    return (
        neuron.compare == "gt"
        and all(np.array_equal(part, np.trunc(part)) for part in parts)
        and bool((real.theta == theta).all() and theta <= MAX_THRESHOLD)
        and max(float(np.abs(weight).max()) for weight in real.weights) <= WEIGHT_TOP
        and (real.bias is None or float(np.abs(real.bias).max()) <= MAX_BIAS)
    )


def _one_threshold(real: RealPopulation, form: ThresholdForm) -> Doubles:
    """The row thresholds that rows are divided by."""
    if form == "per-layer":
        return np.full(len(real.theta), real.theta.mean())
    if real.theta_rows is None:
        refuse(
            real.neuron,
            "per-pixel-threshold",
            "its thresholds differ between the pixels of a channel, which shared kernels cannot absorb",
            "train with per-channel thresholds, or export with thresholds unrolled (dense layers, exact), "
            "projected (to channels), per-layer, or per-neuron (Lava's CPU simulation only)",
        )
    return real.theta_rows


def _row_limits(real: RealPopulation, theta_rows: Doubles | None = None) -> Doubles:
    """For each row the largest scale at which weights, bias and threshold all fit."""
    rows = len(real.theta)
    theta = real.theta.reshape(rows, -1).max(axis=1) if theta_rows is None else theta_rows
    largest = np.maximum.reduce([np.abs(weight).reshape(rows, -1).max(axis=1) for weight in real.weights])
    with np.errstate(divide="ignore"):
        limit: Doubles = np.minimum(WEIGHT_TOP / largest, MAX_THRESHOLD / theta)
        if real.neuron.v_reset is not None:
            resets = np.broadcast_to(real.neuron.v_reset, real.theta.shape).reshape(rows, -1)
            limit = np.minimum(limit, MAX_THRESHOLD / np.abs(resets).max(axis=1))
        if real.bias is not None:
            limit = np.minimum(limit, MAX_BIAS / np.abs(real.bias))
    return limit


def _by_row(values: Doubles, ndim: int) -> Doubles:
    return values.reshape(-1, *[1] * (ndim - 1))


def _candidate(real: RealPopulation, scale: Doubles, threshold: Doubles) -> Iterator[Candidate]:
    """The layer at one scale, or nothing if no weight is left, or what a reset takes off or sets is too wide."""
    weights = tuple(_rounded(weight, scale) for weight in real.weights)
    if not any(weight.any() for weight in weights):
        return
    neuron = _neuron(real, scale, np.clip(threshold, 0, MAX_THRESHOLD))
    if any(values is not None and np.abs(values).max() > MAX_THRESHOLD for values in (neuron.drop, neuron.v_reset)):
        return
    bias: Ints | None = None
    if real.bias is not None:
        bias = np.clip(np.round(real.bias * scale), -MAX_BIAS - 1, MAX_BIAS).astype(np.int32)
    yield Candidate(weights, bias, neuron, scale)


def _neuron(real: RealPopulation, scale: Doubles, threshold: Doubles) -> IntegerNeuron:
    neuron, by_row = real.neuron, _by_row(scale, real.theta.ndim)
    drop = v_reset = None
    if neuron.reset in ("subtract", "subtract_delayed"):
        drop = _compact(np.round(real.theta * by_row))
    elif neuron.v_reset is not None and neuron.v_reset.any():
        v_reset = _compact(np.round(np.broadcast_to(neuron.v_reset, neuron.shape) * by_row))
    return IntegerNeuron(
        v_decay=v_decay(neuron),
        threshold=np.asarray(threshold, np.int32),
        i_decay=DECAY_ONE if neuron.synapse is None else twelve_bits(neuron.synapse.decay),
        reset=neuron.reset,
        drop=drop,
        v_reset=v_reset,
    )


def _compact(values: Doubles) -> Ints:
    """As whole numbers; 0-dimensional if they are all the same."""
    return np.asarray(values.flat[0] if (values == values.flat[0]).all() else values, np.int32)


def _rounded(weight: Doubles, scale: Doubles) -> Ints:
    whole = np.clip(np.round(weight * _by_row(scale, weight.ndim)), -WEIGHT_TOP - 1, WEIGHT_TOP)
    return whole.astype(np.int32)


def v_decay(neuron: Neuron) -> int | Ints:
    """β in 12 bits: v keeps (4096 − v_decay)/4096."""
    return DECAY_ONE if neuron.decay is None else twelve_bits(neuron.decay)


def twelve_bits(beta: Floats) -> int | Ints:
    """What of 4096 is lost, where β is kept: one number if β is the same everywhere."""
    lost = np.round(DECAY_ONE * (1 - beta.astype(np.float64))).astype(np.int32)
    return int(lost.flat[0]) if (lost == lost.flat[0]).all() else lost
