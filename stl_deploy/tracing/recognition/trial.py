"""Run a core's code and the neuron that it was read as, side by side, on drawn currents from the first step on.

Normal forms are equal over the real numbers. Three things they do not show: code that treats step 0 differently
(``v = c if v is None else beta * v + g * c``), arithmetic that rounds to a grid (``(v + 1536) - 1536``), and which of
two resets has the code's own order of float32 operations. A run of the model shows the first only where something
arrives in step 0, which in a deep network may be never.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stl_deploy._util.reachable import reachable
from stl_deploy.graph import neurons
from stl_deploy.graph.program import Floats
from stl_deploy.tracing.recognition.first_step import SAMPLES, SIZES, Code
from stl_deploy.tracing.recognition.lowering import NoFormError
from stl_deploy.tracing.recognition.populations import Fitted, fits
from stl_deploy.tracing.recognition.readings import Population
from stl_deploy.tracing.unrolling.layout import shape_of
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import NoNeuronError, Ref, Signal, Steps

_STEPS = 3
_MANY_STEPS = 64
"""To tell apart two orders of operations, which give the same bits for some steps."""
_COARSE = (torch.float16, torch.bfloat16)
_ROUNDING = 64 * 2.0**-24
"""Largest deviation of a step's potential, relative to its terms: 64 roundings."""


def fit_neuron(population: Population, steps: Steps) -> Fitted:
    """Return the neuron of a population; of several the one whose potentials differ in the fewest bits from the code's.

    Raises:
        NoNeuronError: If potentials or spikes of each differ by more than rounding.
    """
    candidates = fits(population)
    signals = signals_of(population)
    if any(signal.node.dtype in _COARSE for signal in signals):
        return candidates[0]  # capture warns of coarser numbers
    many = _MANY_STEPS if len(candidates) > 1 else _STEPS
    code = Code(steps, _drawn(population, many).get)
    try:
        differing = [_differing(population, fitted, code, many) for fitted in candidates]
    except NoFormError:
        if any(signal.first is not None or any(_holds(node) for node in signal.before) for signal in signals):
            raise NoNeuronError(population.state) from None
        return candidates[0]
    counts = [count for count in differing if count is not None]
    if not counts:
        raise NoNeuronError(population.state)
    return candidates[differing.index(min(counts))]


def _holds(node: Node) -> bool:
    return node.tensor is not None and bool(node.tensor.any())


def signals_of(population: Population) -> set[Signal]:
    """Return the signals between the currents and the neuron's potential and spikes."""
    stop = {ref.signal for ref in (*population.currents, *population.silent)}
    threshold = population.core.threshold
    ends = [population.state, *([] if threshold is None else [threshold.signal])]
    return {*reachable(ends, lambda signal: (ref.signal for ref in signal.reads() if ref.signal not in stop))}


def _drawn(population: Population, steps: int) -> dict[Signal, list[Tensor]]:
    """Return values of the currents for each step: a tenth of what moves a potential to θ, to a thousand times it."""
    generator = torch.Generator().manual_seed(0)
    threshold = population.core.threshold
    theta = (0.0 if threshold is None else float(threshold.theta.abs().max())) or 1.0
    gains = {
        ref.signal: float(gain.abs().max()) for ref, gain in zip(population.currents, population.gains, strict=True)
    }
    series: dict[Signal, list[Tensor]] = {}
    for signal in dict.fromkeys(ref.signal for ref in (*population.currents, *population.silent)):
        shape = shape_of(signal.node.layout, SIZES)
        unit = theta / (gains.get(signal) or 1.0)
        strength = unit * torch.logspace(-1, 3, SAMPLES)
        scale = strength.reshape(-1, *[1] * (len(shape) - 1)) if shape and shape[0] == SAMPLES else unit
        series[signal] = [
            ((torch.randn(shape, generator=generator) + 0.5) * scale).to(signal.node.dtype) for _ in range(steps)
        ]
    return series


def _differing(population: Population, fitted: Fitted, code: Code, steps: int) -> int | None:
    """Count the potentials that differ in bits; None if one differs, or fires, otherwise than by rounding.

    A neuron is not compared any further once its potential was so near its threshold that rounding decides.
    """
    neuron, threshold = fitted.neuron, population.core.threshold
    shape = (SAMPLES, *neuron.shape)
    state, out = neurons.NeuronState(neuron, SAMPLES), np.zeros(shape, np.float32)
    decay = np.float64(0) if neuron.decay is None else np.abs(neuron.decay.astype(np.float64))
    starts = [float(node.value.double().abs().max()) for member in population.core.members for node in member.before]
    before, error = np.full(shape, max(starts, default=0.0)) + np.abs(state.v), np.zeros(shape)
    same, count = np.ones(shape, np.bool_), 0

    def value(signal_or_ref: Signal | Ref, step: int) -> Floats:
        ref = signal_or_ref if isinstance(signal_or_ref, Ref) else Ref(signal_or_ref, 0)
        return np.broadcast_to(code.read(ref, step).float().numpy(), shape)

    for step in range(steps):
        total, size = np.zeros(shape, np.float32), np.zeros(shape)
        for ref, gain in zip(population.currents, fitted.gains, strict=True):
            arriving = value(ref, step) if gain is None else value(ref, step) * gain
            total, size = total + arriving, size + np.abs(arriving)
        if fitted.recurrent is not None:
            total = total + fitted.recurrent * out
            size += np.abs(fitted.recurrent) * out
        if neuron.gain is not None:
            size *= np.abs(neuron.gain)
        state.charge(total)
        potential = value(population.state, step)
        if neuron.v_min is not None:
            potential = np.maximum(potential, neuron.v_min)
        size += decay * before + np.abs(neuron.offset if neuron.offset is not None else 0)
        size += np.abs(neuron.v_min if neuron.v_min is not None else 0)  # relu(v - v_min) + v_min rounds so
        error = decay * error + _ROUNDING * size
        apart = np.abs(state.v.astype(np.float64) - potential)
        if bool((same & (apart > error)).any()):
            return None
        count += int((same & (apart > 0)).sum())
        beside = np.zeros(shape, np.bool_)
        if neuron.threshold is not None:
            level = np.asarray(state.threshold, np.float64)
            if neuron.multi_spike:  # a count changes at each multiple of θ, or of θ/2 where it is rounded
                level = level * np.maximum(np.round(2 * potential / level), 1) / 2
            beside |= np.abs(potential - level) <= error
        before = np.abs(potential).astype(np.float64)
        state.release(out)
        if neuron.threshold is not None:
            before += np.abs(state.threshold) * out  # which is subtracted, with what adaptation has rounded
        if threshold is not None and not neuron.multi_spike:
            fired = value(threshold.signal, step) != 0
            if bool((same & ~beside & (fired != (out != 0))).any()):
                return None
        same &= ~beside
    return count
