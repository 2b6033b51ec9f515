"""Generate candidates for one layer in integers, scaling weights, bias and threshold together.

Multiplying a row (a neuron of a dense layer, a channel of a conv layer) and its threshold by the same s > 0 changes no
spike except by rounding. Three forms choose the rows' scales:

- ``folded``: s = K/θ of the row, so that one threshold serves the whole population (netx's documented contract);
- ``per-layer``: one s = K/mean(θ) and one threshold: learned differences between thresholds are lost;
- ``per-neuron``: each row uses the full 8 bits, thresholds in an array (Lava's CPU simulation only).

**Comparison.** Lava fires where v > vth with integer vth and v in 64ths; the model fires where v >= θ. With t = s·θ,
``vth = ceil(t) − 1`` is exact for integer v. A leaking v has fractions: v > m is v >= m + 1/64, so for K just above an
integer m, ``vth = m`` is exact. Both kinds of K are candidates; spikes on calibration data decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import option
from stl_deploy.config.options import ThresholdForm
from stl_deploy.graph.program import Conv, Doubles, Floats, Linear, Neuron, Node
from stl_deploy.graph.threads import map_parts
from stl_deploy.integers.fields import refuse
from stl_deploy.integers.net import (
    DECAY_ONE,
    MAX_BIAS,
    MAX_THRESHOLD,
    RAISED_TOP,
    STATE_SHIFT,
    IntegerAdaptation,
    IntegerNeuron,
    Ints,
)
from stl_deploy.integers.real_population import RealPopulation
from stl_deploy.passes.base import by_row

WEIGHT_TOP = 127
"""8-bit weights with sign: netx doubles them at exponent -1 and loses nothing."""

FEW, SHORTLIST = 64, 6
"""Candidates are tried on about so many samples first, and as many of them as the second on all."""

_ROUNDED_AT_ONCE = 2**15
"""Weights, so that they stay in the cache."""
_JUST_ABOVE = 1 / 128
RATIOS = np.geomspace(1.5, 0.2, 18).round(12)  # the last bits of a power differ between processors
"""Scales tried, relative to the largest at which nothing is clipped (above 1, outliers are)."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A population in integers, and its rows' factors before rounding."""

    weights: tuple[NDArray[np.int8], ...]
    bias: Ints | None
    neuron: IntegerNeuron
    scale: Doubles


def candidates(
    real: RealPopulation, form: ThresholdForm, top: int = WEIGHT_TOP, most: int = MAX_THRESHOLD
) -> Iterator[Candidate]:
    """Yield the layer in integers at many scales, the largest first; every one is within netx's widths.

    top: the largest weight. most: the largest threshold.

    A layer that needs no rounding is the only candidate itself.
    """
    unrounded = list(_unrounded(real, form, top, most))
    yield from unrounded
    if unrounded and (not _leaks(real.neuron) or _is_trained(real)):
        return
    if form == "per-neuron":
        limits = _row_limits(real, top, most)
        for ratio in RATIOS:
            target = real.level * by_row(ratio * limits, real.theta.ndim)
            yield from _candidates(real, ratio * limits, (np.ceil(target) - 1, np.round(target)), top, most)
        return
    theta = _one_threshold(real, form)
    limit = float((_row_limits(real, top, most, theta) * theta).min())
    wholes = dict.fromkeys(max(0, int(ratio * limit)) for ratio in RATIOS)  # small limits give some twice
    for whole in wholes:
        for aim in (whole + 1, whole + _JUST_ABOVE):
            if whole or aim >= 1:
                yield from _candidates(real, aim / theta, [np.array(float(whole))], top, most)


def _unrounded(real: RealPopulation, form: ThresholdForm, top: int, most: int) -> Iterator[Candidate]:
    """Yield the layer at scales at which weights, biases and resets are integers.

    Without a leak v is whole, so ``v > ceil(s·θ) - 1`` is ``v >= θ``, and ``v > floor(s·θ)`` is ``v > θ``: exact for
    any θ. A leaking v has fractions: "above" is exact for a whole s·θ, and for "at or above" either s·θ - 1 or s·θ is
    closer, the less wrong the larger the scale.
    """
    scale = _whole_scale(real)
    if scale is None:
        return
    target = real.level * by_row(scale, real.theta.ndim)
    at_or_above = real.neuron.compare == "ge" or real.neuron.multi_spike
    if not _leaks(real.neuron):
        yield from _held(real, form, scale, np.ceil(target) - 1 if at_or_above else np.floor(target), top, most)
    elif _is_trained(real):
        yield from _held(real, form, scale, target, top, most)
    elif np.array_equal(target, np.trunc(target)):
        for times in (64, 32, 16, 8, 4, 2, 1):
            for threshold in (times * target - 1, times * target) if at_or_above else (times * target,):
                yield from _held(real, form, times * scale, threshold, top, most)


def _is_trained(real: RealPopulation) -> bool:
    """Return whether `stl_deploy.integers.qat.fake_quant` may have trained the layer: its leak is the integers'."""
    theta = real.theta.flat[0]
    whole = None if real.neuron.adaptation is not None else _whole_scale(real)
    return real.neuron.compare == "gt" and whole is not None and bool((real.theta == theta).all() and theta % 1 == 0)


def _held(
    real: RealPopulation, form: ThresholdForm, scale: Doubles, threshold: Doubles, top: int, most: int
) -> Iterator[Candidate]:
    """Return a candidate without rounding, if it is within the widths and its form holds the thresholds."""
    same = (threshold == threshold.flat[0]).all()
    if (scale > _row_limits(real, top, most)).any() or threshold.min() < 0 or not (form == "per-neuron" or same):
        return
    yield from _candidates(real, scale, [np.array(threshold.flat[0]) if same else threshold], top, most)


def _leaks(neuron: Neuron) -> bool:
    """Return whether v, u or the threshold can have fractions with integer input."""
    adaptation, synapse = neuron.adaptation, neuron.synapse
    decays = [neuron.decay, *(part.decay for part in (synapse, adaptation) if part is not None)]
    return any(decay is not None and not np.isin(decay, (0, 1)).all() for decay in decays)


def _whole_scale(real: RealPopulation) -> Doubles | None:
    """Return for each row the least power of two, from 1, that makes all of it whole; None if 8 bits hold none.

    With a leak it is 1 or none: v is rounded in units that depend on the scale.
    """
    rows = len(real.theta)
    own = (real.bias, real.v_reset, real.v_start, real.u_start, real.jump, real.raised)
    parts = [*real.weights, *real.also_whole, *(part for part in own if part is not None)]
    if real.neuron.reset in ("subtract", "subtract_delayed"):
        parts.append(real.theta)
    values = np.concatenate([part.reshape(rows, -1) for part in parts], axis=1)
    scale = np.ones(rows)
    for _ in range(1 if _leaks(real.neuron) else 16):
        scaled = values * scale[:, None]
        fractions = (scaled != np.trunc(scaled)).any(axis=1)
        if not fractions.any():
            return scale
        scale = np.where(fractions, 2 * scale, scale)
    return None


def best_candidate(
    tried: Iterable[Candidate],
    samples: int,
    differing: Callable[[Sequence[Candidate], slice], Sequence[int]],
    node: Node,
) -> Candidate:
    """Return the candidate with the fewest differing spikes (of equals the first, which has the largest scale).

    All are tried on about `FEW` of the ``samples``, and the best of those on all. differing: spikes that differ on some
    of the samples, of each of several candidates that differ in their thresholds alone. Refuses ``node`` if there is
    no candidate.
    """
    left = list(tried)
    some = slice(None, None, max(1, samples // FEW))
    stages = [(slice(None), 1)] if some.step == 1 else [(some, SHORTLIST), (slice(None), 1)]
    for part, kept in stages:
        if len(left) > kept:
            # Candidates of one array of weights share its sums, which take most of the time.
            groups = [list(group) for _, group in groupby(left, key=lambda candidate: id(candidate.weights))]
            counted = [count for counts in map_parts(partial(_counted, differing, part), groups) for count in counts]
            left = [left[i] for i in np.argsort(counted, kind="stable")[:kept]]
    if not left:
        grid = option("input_grid", "BITS")
        instead = f"give a coarser input grid ({grid} with fewer bits), smaller biases and thresholds, or onnx"
        if isinstance(node, Linear | Conv) and not node.weight.any():
            instead = "it passes nothing on; leave it out"
        refuse(node, "all-zero-layer", "every weight rounds to 0", instead)
    return left[0]


def _counted(
    differing: Callable[[Sequence[Candidate], slice], Sequence[int]], part: slice, group: Sequence[Candidate]
) -> Sequence[int]:
    return differing(group, part)


def _one_threshold(real: RealPopulation, form: ThresholdForm) -> Doubles:
    """Return the row thresholds that rows are divided by."""
    if form == "per-layer":
        return np.full(len(real.theta), real.theta.mean())
    if real.theta_rows is None:
        refuse(
            real.neuron,
            "per-pixel-threshold",
            "its thresholds differ between the pixels of a channel, which shared kernels cannot absorb",
            f"train with per-channel thresholds, or give {option('thresholds', 'unrolled')} (dense layers, exact), "
            "projected (to channels), per-layer, or per-neuron (Lava's CPU simulation only)",
        )
    return real.theta_rows


def _row_limits(real: RealPopulation, top: int, most: int, theta_rows: Doubles | None = None) -> Doubles:
    """Return for each row the largest scale at which weights, bias and threshold all fit."""
    rows = len(real.theta)
    theta = real.theta.reshape(rows, -1).max(axis=1) if theta_rows is None else theta_rows
    largest = np.maximum.reduce([np.abs(weight).reshape(rows, -1).max(axis=1) for weight in real.weights])
    with np.errstate(divide="ignore"):
        limit: Doubles = np.minimum(top / largest, most / theta)
        if real.v_reset is not None:
            limit = np.minimum(limit, most / np.abs(real.v_reset.reshape(rows, -1)).max(axis=1))
        for start in (real.v_start, real.u_start):
            if start is not None:
                limit = np.minimum(limit, most / np.abs(start.reshape(rows, -1)).max(axis=1))
        if real.bias is not None:
            limit = np.minimum(limit, MAX_BIAS / np.abs(real.bias.reshape(rows, -1)).max(axis=1))
        if real.jump is not None:
            limit = np.minimum(limit, _raised_limit(real, real.jump))
        if real.raised is not None:
            highest = np.abs(real.raised.reshape(rows, -1)).max(axis=1) * 2**STATE_SHIFT
            limit = np.minimum(limit, RAISED_TOP / 2 / highest)
    return limit


def _raised_limit(real: RealPopulation, jump: Doubles) -> Doubles:
    """Return for each row the largest scale at which its jumps, and thresholds after many spikes, fit."""
    assert real.neuron.adaptation is not None
    decay = np.broadcast_to(twelve_bits(real.neuron.adaptation.decay), jump.shape)
    highest = np.maximum(jump * DECAY_ONE / decay * (2**STATE_SHIFT / (RAISED_TOP / 2)), jump / MAX_THRESHOLD)
    return np.asarray(1 / highest.reshape(len(jump), -1).max(axis=1))


def _candidates(
    real: RealPopulation, scale: Doubles, thresholds: Iterable[Doubles], top: int, most: int
) -> Iterator[Candidate]:
    """Yield the layer at one scale with each threshold: the same arrays of weights and bias.

    None if no weight is left, or a reset's amount or value is too wide, or one of several spikes would take nothing
    off v.
    """
    weights = tuple(_rounded(weight, scale, top) for weight in real.weights)
    if not any(weight.any() for weight in weights):
        return
    bias: Ints | None = None
    if real.bias is not None:
        scaled = np.round(real.bias * by_row(scale, real.bias.ndim))
        bias = np.clip(scaled, -MAX_BIAS - 1, MAX_BIAS).astype(np.int32)
    for threshold in thresholds:
        neuron = _neuron(real, scale, np.clip(threshold, 0, most))
        if _is_held(neuron, most):
            yield Candidate(weights, bias, neuron, scale)


def _is_held(neuron: IntegerNeuron, most: int) -> bool:
    if any(values is not None and np.abs(values).max() > most for values in (neuron.drop, neuron.v_reset)):
        return False
    if neuron.cap > 1 and (neuron.drop is None or neuron.drop.min() < 1):
        return False
    adapts = neuron.adaptation
    starts = (neuron.v_start, neuron.u_start)
    if any(start is not None and np.abs(start).max() > most << STATE_SHIFT for start in starts):
        return False
    fits = adapts is None or max(adapts.top, -adapts.least) <= RAISED_TOP
    return fits and (adapts is None or adapts.jump.max() <= MAX_THRESHOLD)


def _neuron(real: RealPopulation, scale: Doubles, threshold: Doubles) -> IntegerNeuron:
    neuron, rows = real.neuron, by_row(scale, real.theta.ndim)
    drop = v_reset = None
    if neuron.reset in ("subtract", "subtract_delayed"):
        drop = _compact(np.round(real.theta * rows))
    elif real.v_reset is not None:
        v_reset = _compact(np.round(real.v_reset * rows))
    adaptation = None
    if neuron.adaptation is not None and real.jump is not None:
        adaptation = IntegerAdaptation(
            decay=twelve_bits(neuron.adaptation.decay),
            jump=_compact(np.round(real.jump * rows)),
            subtracts=neuron.adaptation.subtracts,
            start=None if real.raised is None else _states(real.raised * rows),
        )
    return IntegerNeuron(
        v_decay=v_decay(neuron),
        threshold=np.asarray(threshold, np.int32),
        i_decay=DECAY_ONE if neuron.synapse is None else twelve_bits(neuron.synapse.decay),
        reset=neuron.reset,
        drop=drop,
        v_reset=v_reset,
        cap=neuron.cap or 1,
        adaptation=adaptation,
        v_start=None if real.v_start is None else _states(real.v_start * rows),
        u_start=None if real.u_start is None else _states(real.u_start * rows),
    )


def _states(values: Doubles) -> Ints:
    """Return states in 64ths."""
    return _compact(np.round(values * 2**STATE_SHIFT))


def _compact(values: Doubles) -> Ints:
    """Return integers; 0-dimensional if they are all the same."""
    return np.asarray(values.flat[0] if (values == values.flat[0]).all() else values, np.int32)


def _rounded(weight: Doubles, scale: Doubles, top: int) -> NDArray[np.int8]:
    """Round the scaled weights; bytes, since many candidates of a layer are kept at once."""
    rounded = np.empty(weight.shape, np.int8)
    at_once = max(1, _ROUNDED_AT_ONCE * len(weight) // max(1, weight.size))
    scaled = np.empty((min(at_once, len(weight)), *weight.shape[1:]))
    for start in range(0, len(weight), at_once):
        rows = slice(start, start + at_once)
        whole = np.multiply(weight[rows], by_row(scale[rows], weight.ndim), out=scaled[: len(weight[rows])])
        rounded[rows] = np.clip(np.rint(whole, out=whole), -top - 1, top, out=whole)
    return rounded


def v_decay(neuron: Neuron) -> int | Ints:
    """Return β in 12 bits: v keeps (4096 − v_decay)/4096."""
    return DECAY_ONE if neuron.decay is None else twelve_bits(neuron.decay)


def twelve_bits(beta: Floats) -> int | Ints:
    """Return the lost fraction, of 4096, for a kept β: one number if β is the same everywhere."""
    lost = np.round(DECAY_ONE * (1 - beta.astype(np.float64))).astype(np.int32)
    return int(lost.flat[0]) if (lost == lost.flat[0]).all() else lost
