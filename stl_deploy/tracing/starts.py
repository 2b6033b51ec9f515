"""What layers put out before step 0, where a run only shows what was made of it.

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
    if not layers or any(one.node.axis for one in layers):
        return
    ordered = [one for one in steps.signals if one in layers or one in path]
    found: list[dict[Signal, Tensor]] = []
    for before in signal.before:
        of_zeros = _run(ordered, {})
        zeros = _run(ordered, {one: _zeros(one) for one in layers})
        made = next((made for made in (of_zeros, zeros) if _are_close(made[signal], before.tensor)), None)
        if made is None:
            return
        found.append(made)
    for one in ordered:
        if one is not signal:
            one.before = tuple(replace(one.node, tensor=made[one]) for made in found)


def _are_close(found: Tensor, recorded: Tensor | None) -> bool:
    """Whether values are the same but for how kernels round for another number of samples."""
    assert recorded is not None
    found, recorded = found.double(), recorded.double()  # gates may be bool
    return bool(((found - recorded).abs() <= 1e-5 * recorded.abs().max()).all())


def _is_scaling(signal: Signal) -> bool:
    """Whether a signal is made of one other by arithmetic."""
    reads = signal.reads()
    return signal.node.pointwise and signal.node.name not in COMPARES and len(reads) == 1 and not reads[0].lag


def _is_unknown(signal: Signal) -> bool:
    return not (signal.before or signal.first is not None or signal.still or signal.node.name == "input")


def _layers(last: Signal) -> set[Signal]:
    """A layer and those before it, in the same step; none where there is no layer."""
    found: set[Signal] = set()
    waiting = [last]
    while waiting:
        signal = waiting.pop()
        if not signal.node.pointwise and _is_unknown(signal):
            found.add(signal)
            waiting += [ref.signal for ref in signal.reads() if not ref.lag]
    return found


def _run(signals: list[Signal], known: Mapping[Signal, Tensor]) -> dict[Signal, Tensor]:
    """What signals are where all else that they read is zeros."""
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
