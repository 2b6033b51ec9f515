"""Compare the first step of what is between neurons with the steps after it: code may treat step 0 differently."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from stl_deploy.tracing.recording.source_lines import in_module
from stl_deploy.tracing.unrolling.layout import BATCH, Sizes, shape_of
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import Ref, Signal, SignalError, Steps

_SIZES: Sizes = {BATCH: 16}
_COARSE = (torch.float16, torch.bfloat16)
_TOLERANCE = 1e-4
"""Of the largest value: float32 in another order; what is made otherwise differs by whole terms."""


def require_same_first_values(steps: Steps, compared: Collection[Signal]) -> None:
    """Make the first step of signals between neurons as the code does, and as every later step does, of drawn values.

    compared: signals of neurons, which `trial` compares.

    Raises:
        CaptureError: With the line, if the two differ.
    """
    for signal in steps.signals:
        if signal.first is None or signal in compared or signal.node.dtype in _COARSE:
            continue
        drawn = _Drawn(steps)
        first, later = drawn.of_node(signal.first).double(), drawn.of_signal(signal).double()
        coarse = _TOLERANCE * max(1.0, float(later.abs().max()))
        if first.shape[1:] != later.shape[1:] or bool(((first - later).abs() > coarse).any()):
            where = signal.node.place
            raise SignalError(
                signal,
                f"'{signal.node.called}'{in_module(where)} differs between step 0 and the steps after (at step 0 it is "
                f"'{signal.first.called}'); let every step do the same",
            )


class _Drawn:
    """Makes values of step 0, of drawn values of the signals that they read."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self._known: dict[Signal, Tensor] = {}
        self._generator = torch.Generator().manual_seed(0)

    def of_signal(self, signal: Signal) -> Tensor:
        """Return what later steps make in step 0."""
        return signal.made_of(self._read, _SIZES)

    def of_node(self, node: Node) -> Tensor:
        """Return the value that a node of step 0 makes."""
        if node.tensor is not None:
            return node.tensor
        signal, step = self.steps.of_node.get(node, (None, 0))
        if node.name == "input":
            signal = next(each for each in self.steps.signals if each.node.name == "input")
        if signal is not None:
            return self._read(Ref(signal, -step))
        return node.made_of(self.of_node, _SIZES)

    def _read(self, ref: Ref) -> Tensor:
        signal, shape = ref.signal, shape_of(ref.signal.node.layout, _SIZES)
        if ref.lag and not signal.still:
            before = signal.before[ref.lag - 1].tensor if len(signal.before) >= ref.lag > 0 else None
            return torch.zeros(shape, dtype=signal.node.dtype) if before is None else before
        if signal not in self._known:
            value = torch.randn(shape, generator=self._generator)
            self._known[signal] = value > 0 if signal.node.dtype == torch.bool else value.to(signal.node.dtype)
        return self._known[signal]
