"""Run the captured step in torch's own kernels, and return what the module's layers put out and take in."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stl_deploy.graph.program import Floats
from stl_deploy.graph.run import delayed
from stl_deploy.passes.permutations import Permutations, arrange
from stl_deploy.tracing.proof.layers_and_ends import outputs_of
from stl_deploy.tracing.proof.replay import Values, replay
from stl_deploy.tracing.trace import Traced, steps_of
from stl_deploy.tracing.unrolling.layout import BATCH
from stl_deploy.tracing.unrolling.nodes import Node


def module_values(traced: Traced, x: Tensor) -> Values:
    """Return what the module's layers and Cells put out and take in, and its output, from one run of the step on x."""
    steps = steps_of(traced.call, x, traced.length)
    spikes = [signal for signals in traced.signals.values() for signal in signals]
    return replay(traced.steps, steps, [*spikes, *(ref.signal for refs in traced.operands.values() for ref in refs)])


def module_spikes(traced: Traced, values: Values, arranged: Permutations) -> tuple[dict[str, Floats], Floats]:
    """Return the module's spikes and ReLUs by layer, ``arranged`` as the graph's, and its output ``[T, B, *shape]``."""
    spikes: dict[str, Floats] = {}
    for name, signals in traced.signals.items():
        parts = [_stacked(values[signal], signal.node) for signal in signals]
        flat = [part.reshape(*part.shape[:2], -1) for part in parts]
        spikes[name] = parts[0] if len(parts) == 1 else np.concatenate(flat, axis=2)
        spikes[name] = arrange(spikes[name], arranged.get(name))
    output = traced.steps.output
    steps = len(values[output.signal])
    return spikes, _stacked(outputs_of(output, values, steps), output.signal.node)


def module_currents(traced: Traced, values: Values) -> dict[str, Floats]:
    """Return what arrives at each Cell in the module, flat, ``[T, B, values]``; 0 before the first step."""
    arriving: dict[str, Floats] = {}
    for name, refs in traced.operands.items():
        parts = [delayed(_stacked(values[r.signal], r.signal.node), 0 if r.signal.still else r.lag) for r in refs]
        arriving[name] = np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2)
    return arriving


def _stacked(values: list[Tensor], node: Node) -> Floats:
    """Return a node's values as ``[T, B, ...]``, where the axis of samples may hold others, and be behind some of 1."""
    full = np.broadcast_shapes(*(tuple(v.shape) for v in values))
    stacked: Floats = torch.stack([v.expand(full) for v in values]).float().numpy()
    layout = node.layout
    while len(layout) > 1 and not layout[0]:
        layout, full = layout[1:], full[1:]
    others = layout[0][1:] if layout and layout[0][:1] == (BATCH,) else ()
    return stacked.reshape(len(values), -1, *others, *full[1:])
