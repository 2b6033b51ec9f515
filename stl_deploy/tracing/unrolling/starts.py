"""Derive a state's value before step 0, which a run shows only after further operations."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stl_deploy.graph.program import Floats
from stl_deploy.tracing.unrolling.layout import BATCH, shape_of
from stl_deploy.tracing.unrolling.steps import NoNeuronError, Signal

if TYPE_CHECKING:
    from stl_deploy.tracing.recognition.readings import Population


def _zeros(signal: Signal) -> Tensor:
    return torch.zeros(shape_of(signal.node.layout, {BATCH: 1}), dtype=signal.node.dtype)


def start_before(population: Population, steps: int, states: Container[Signal]) -> Floats | None:
    """Return the start of a state that begins ``steps`` steps before the first, when no spike has arrived yet.

    states: potentials and spikes of all neurons. None: the state starts from 0.

    Raises:
        CaptureError: With the line, if the values recorded before the first step are others than zeros as input make.
    """
    known = [node.tensor for node in population.state.before[:steps]]
    decay, driven = population.decay, population.constant
    for ref, gain in zip(population.currents, population.gains, strict=True):
        driven = driven + gain * _of_zeros(ref.signal, states).double()
    earlier = [value.double() for value in known if value is not None]
    shape = shape_of(population.state.node.layout, {BATCH: 1})[1:]
    starts = torch.where(decay == 0, 0.0, (earlier[-1] - driven) / decay)
    coarse = 1e-5 * max(float(value.abs().max()) for value in (*earlier, driven))
    starts = torch.where(starts.abs() * decay <= coarse, 0.0, starts)
    for sooner, later in zip([*earlier[1:], starts], earlier, strict=True):
        if bool(((decay * sooner + driven - later).abs() > coarse).any()):
            raise NoNeuronError(population.state)
    array: Floats = starts.expand((1, *shape))[0].float().numpy()
    return array if array.any() else None


def _of_zeros(signal: Signal, states: Container[Signal]) -> Tensor:
    """Return the value of a signal while all neurons that it reads put out zeros."""
    if signal in states or signal.node.name == "input":
        return _zeros(signal)
    made = {ref.signal: _of_zeros(ref.signal, states) for ref in signal.reads()}
    return signal.made_of(lambda ref: made[ref.signal], {BATCH: 1})
