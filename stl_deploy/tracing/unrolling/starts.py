"""Derive layers' outputs before step 0, which a run shows only after further operations.

With ``v = 0.8 * v + x + 0.3 * r(k)``, read a step late, the run of step 0 has no layer ``r``, for spikes that are still
zeros are the same whatever the input; it has the number that ``0.3 * r(k)`` is then: of zeros (a bias times 0.3), or
zeros where the code let the recurrence start from them. To tell which, both are computed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stl_deploy._util.reachable import reachable
from stl_deploy.graph.program import Floats
from stl_deploy.tracing.recording.operations import COMPARES, map_tree
from stl_deploy.tracing.unrolling.layout import BATCH, shape_of
from stl_deploy.tracing.unrolling.nodes import replace_nodes
from stl_deploy.tracing.unrolling.steps import NoNeuronError, Ref, Signal, Steps

if TYPE_CHECKING:
    from stl_deploy.tracing.recognition.readings import Population


def start_layers(steps: Steps) -> None:
    """Give the layers of ``steps`` that are scaled, and only then read late, their values before step 0."""
    for signal in steps.signals:
        tensor = signal.before[0].tensor if signal.before else None
        if tensor is not None and _is_scaling(signal):
            with torch.device(tensor.device):
                _start_layer(steps, signal)


def _start_layer(steps: Steps, signal: Signal) -> None:
    path = [signal]
    while _is_scaling(path[-1]):
        path.append(path[-1].reads()[0].signal)
        if not _is_unknown(path[-1]):
            return
    layers = _layers(path.pop())
    if not layers or any(each.node.axis for each in layers):
        return
    ordered = [each for each in steps.signals if each in layers or each in path]
    starts: list[dict[Signal, Tensor]] = []
    for before in signal.before:
        of_zeros = _run(ordered, {})
        zeros = _run(ordered, {each: _zeros(each) for each in layers})
        made = next((made for made in (of_zeros, zeros) if _are_close(made[signal], before.tensor)), None)
        if made is None:
            return
        starts.append(made)
    for each in ordered:
        if each is not signal:
            each.before = tuple(replace(each.node, tensor=made[each]) for made in starts)


def _are_close(computed: Tensor, recorded: Tensor | None) -> bool:
    """Return whether values agree up to kernels' rounding for another number of samples."""
    assert recorded is not None
    computed, recorded = computed.double(), recorded.double()  # gates may be bool
    return bool(((computed - recorded).abs() <= 1e-5 * recorded.abs().max()).all())


def _is_scaling(signal: Signal) -> bool:
    """Return whether a signal is made of one other by arithmetic."""
    reads = signal.reads()
    return signal.node.pointwise and signal.node.name not in COMPARES and len(reads) == 1 and not reads[0].lag


def _is_unknown(signal: Signal) -> bool:
    return not (signal.before or signal.first is not None or signal.still or signal.node.name == "input")


def _layers(last: Signal) -> set[Signal]:
    """Return a layer and those before it, in the same step; none without a layer."""

    def is_layer(signal: Signal) -> bool:
        return not signal.node.pointwise and _is_unknown(signal)

    def before(signal: Signal) -> list[Signal]:
        return [ref.signal for ref in signal.reads() if not ref.lag] if is_layer(signal) else []

    return {signal for signal in reachable([last], before) if is_layer(signal)}


def _run(signals: list[Signal], known: Mapping[Signal, Tensor]) -> dict[Signal, Tensor]:
    """Return the values of signals whose other inputs are all zeros."""
    made = dict(known)
    for signal in signals:
        if signal not in made:
            args, kwargs = map_tree(
                (signal.args, signal.kwargs), Ref, lambda ref: made.get(ref.signal, _zeros(ref.signal))
            )
            args, kwargs = replace_nodes((args, kwargs), lambda node: node.tensor)
            made[signal] = signal.node.run(args, kwargs, {BATCH: 1})
    return made


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
    return _run([signal], made)[signal]
