"""Compare the first step of what is between neurons with the steps after it: code may treat step 0 differently."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from stl_deploy.tracing.recognition.lowering import NoFormError
from stl_deploy.tracing.recognition.thresholds import is_affine_norm, is_elementwise
from stl_deploy.tracing.recording.source_lines import in_module
from stl_deploy.tracing.unrolling.layout import BATCH, Sizes, shape_of
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import Ref, Signal, SignalError, Steps

SAMPLES = 16
SIZES: Sizes = {BATCH: SAMPLES}
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
        code = Code(steps, _Drawn())
        first, later = code.first(signal, signal.first).double(), code.later(signal, 0).double()
        coarse = _TOLERANCE * max(1.0, float(later.abs().max()))
        if first.shape[1:] != later.shape[1:] or bool(((first - later).abs() > coarse).any()):
            where = signal.node.place
            raise SignalError(
                signal,
                f"'{signal.node.called}'{in_module(where)} differs between step 0 and the steps after (at step 0 it is "
                f"'{signal.first.called}'); let every step do the same",
            )


class _Drawn:
    """Draws values of signals in step 0."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, signal: Signal) -> tuple[Tensor]:
        dtype = signal.node.dtype
        value = torch.randn(shape_of(signal.node.layout, SIZES), generator=self._generator)
        return (value > 0 if dtype == torch.bool else value.to(dtype),)


class Code:
    """Evaluate signals at absolute steps, in the recorded operations and types.

    drawn: gives the values of a signal at each step; None for one that is made of others.
    """

    def __init__(self, steps: Steps, drawn: Callable[[Signal], Sequence[Tensor] | None]) -> None:
        self.steps, self._drawn = steps, drawn
        self._known: dict[tuple[Signal, int], Tensor] = {}

    def at(self, signal: Signal, step: int) -> Tensor:
        """Return the value of a signal in a step; raise NoFormError if it is neither arithmetic nor known."""
        key = (signal, step)
        if key not in self._known:
            self._known[key] = self._at(signal, step)
        return self._known[key]

    def read(self, ref: Ref, step: int) -> Tensor:
        """Return the value of a reference in a step; a signal that is the same at every step has one value."""
        return self.at(ref.signal, 0 if ref.signal.still else step - ref.lag)

    def first(self, signal: Signal, node: Node) -> Tensor:
        """Return the value in step 0 of a signal that ``node`` makes there."""
        return self.steps.at_first(signal, node, self.at, self.made)

    def later(self, signal: Signal, step: int) -> Tensor:
        """Return the value in a step of a signal that is made as in later ones."""
        return signal.made_of(lambda ref: self.read(ref, step), SIZES)

    def made(self, node: Node, read: Callable[[Node], Tensor]) -> Tensor:
        """Return the value of a constant, or of an operation that step 0 alone has."""
        if node.name == "input":
            return self.at(next(each for each in self.steps.signals if each.node.name == "input"), node.args[0] or 0)
        return node.made_of(read, SIZES)

    def _at(self, signal: Signal, step: int) -> Tensor:
        drawn = self._drawn(signal)
        if step < 0:
            if len(signal.before) >= -step:
                return signal.before[-step - 1].value
            if drawn is not None:
                return torch.zeros(shape_of(signal.node.layout, SIZES), dtype=signal.node.dtype)
            raise NoFormError("nothing is known before the first step")
        if drawn is not None:
            return drawn[step]
        if step == 0 and signal.first is not None:
            return self.first(signal, signal.first)
        if not is_elementwise(signal) and not is_affine_norm(signal):
            raise NoFormError(f"'{signal.node.called}' is no elementwise arithmetic")
        return self.later(signal, step)
