"""Make a neuron of the Program of a core's coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stl_deploy.graph.program import Adaptation, Floats, Neuron, Shape
from stl_deploy.tracing.recognition.readings import Population
from stl_deploy.tracing.recognition.thresholds import Threshold
from stl_deploy.tracing.unrolling.layout import BATCH, shape_of
from stl_deploy.tracing.unrolling.steps import NoNeuronError


@dataclass(frozen=True, eq=False)
class Fitted:
    """A neuron, without name and sources yet, and the gain that each of its currents gets before they are added."""

    neuron: Neuron
    gains: tuple[Floats | None, ...]
    recurrent: Floats | None


def fits(population: Population) -> list[Fitted]:
    """Return the neurons that a population may be: one for each reading of its reset."""
    return [_fitted(reading) for reading in population.readings or (population,)]


def _fitted(population: Population) -> Fitted:
    shape = shape_of(population.state.node.layout, {BATCH: 1})[1:]
    threshold = population.core.threshold
    common, gains = _split_gains(population.gains, alone=population.recurrent is None)
    v_reset = None if population.v_reset is None else compact(population.v_reset, shape)
    start = None if population.start is None else compact(population.start, shape)
    neuron = Neuron(
        name="",
        shape=shape,
        operands=(),
        decay=compact(population.decay, shape),
        threshold=None if threshold is None else compact(threshold.theta.expand((1, *shape)), shape),
        gain=_unless(compact(common, shape), 1),
        offset=_unless(compact(population.constant, shape), 0),
        v_reset=None if v_reset is None else _unless(v_reset, 0),
        v_start=None if start is None else _unless(start, 0),
        v_min=None if population.v_min is None else compact(population.v_min.expand((1, *shape)), shape),
        compare="gt" if threshold is None or threshold.compare == "gt" else "ge",
        reset=population.reset if threshold is not None else "value",  # type: ignore[arg-type]
        adaptation=_adaptation(population, shape),
        **counting(threshold),
    )
    recurrent = None if population.recurrent is None else compact(population.recurrent, shape)
    return Fitted(neuron, tuple(None if g is None else _unless(compact(g, shape), 1) for g in gains), recurrent)


def _adaptation(population: Population, shape: Shape) -> Adaptation | None:
    threshold = population.core.threshold
    if threshold is None or threshold.adapts is None:
        return None
    adapts = threshold.adapts
    jump = compact((adapts.scale * adapts.jump).expand((1, *shape)), shape)
    start = None if adapts.start is None else compact(adapts.start.expand((1, *shape)), shape)
    return Adaptation(compact(adapts.decay.expand((1, *shape)), shape), jump, population.subtracts, start)


def counting(threshold: Threshold | None) -> dict[str, Any]:
    """Return fields of a neuron that fires several spikes in a step; none for others."""
    if threshold is None or threshold.count is None:
        return {}
    if threshold.count.cap == 1:  # one spike from θ on; the Threshold compares so
        if threshold.count.rounding == "down":
            return {}
        raise NoNeuronError(threshold.signal)
    return {"multi_spike": True, "cap": threshold.count.cap, "rounding": threshold.count.rounding}


def _split_gains(gains: tuple[Tensor, ...], *, alone: bool) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Return one gain for all currents if they agree and nothing else arrives; else one per current."""
    if not gains:
        return torch.ones(()), ()
    first = gains[0]
    if alone and all(torch.equal(first, gain) for gain in gains):
        return first, (None,) * len(gains)
    return torch.ones_like(first), gains


def compact(values: Tensor, shape: Shape) -> Floats:
    """Return values ``[1, *shape]`` as float32 that broadcast to ``shape``: one, ``[C, 1, 1]``, or all of them."""
    array: Floats = values.expand((1, *shape)).detach().cpu().float().numpy()[0]
    if not array.size or (array == array.flat[0]).all():
        return np.asarray(array.flat[0], np.float32)
    if array.ndim > 1:
        channels = array[(slice(None), *(slice(0, 1),) * (array.ndim - 1))]
        if (array == channels).all():
            return np.array(channels)
    return np.array(array)


def _unless(array: Floats, neutral: float) -> Floats | None:
    return None if (array == neutral).all() else array
