"""Derive layers' outputs before step 0, which a run shows only after further operations.

With ``v = 0.8 * v + x + 0.3 * r(k)``, read a step late, the run of step 0 has no layer ``r``, for spikes that are still
zeros are the same whatever the input; it has the number that ``0.3 * r(k)`` is then: of zeros (a bias times 0.3), or
zeros where the code let the recurrence start from them. To tell which, both are computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from stl_deploy.tracing.layout import BATCH, shape_of
from stl_deploy.tracing.nodes import replace_nodes
from stl_deploy.tracing.recorder import COMPARES, map_tree
from stl_deploy.tracing.steps import Ref, Signal, Steps


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
    layers: set[Signal] = set()
    waiting = [last]
    while waiting:
        signal = waiting.pop()
        if not signal.node.pointwise and _is_unknown(signal):
            layers.add(signal)
            waiting += [ref.signal for ref in signal.reads() if not ref.lag]
    return layers


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
