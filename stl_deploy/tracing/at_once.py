"""Read immediate resets of code that compares the remaining potential again at the next step.

With P the potential after the reset, r = [P > θ] one step ago and s = [h > θ], snnTorch's ``reset_delay=False``
computes::

    h = β·P + x - θ·r       P = h - (s - r)·θ       reset "subtract"
    h = β·(1 - r)·P + x     P = h - (s - r)·h       reset "zero"

The first is the Program's reset ``snntorch_subtract_now``. In the second r is always 0, because P is h without a spike
and 0 after one; so it is the reset ``value``, and the code's behaviour for r = 1 does not matter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stl_deploy.graph.program import Reset
from stl_deploy.tracing.coefficients import Affine, FittedUpdate, close
from stl_deploy.tracing.evaluation import Evaluation, Unknown
from stl_deploy.tracing.steps import NoNeuronError, Signal
from stl_deploy.tracing.thresholds import Threshold

_PROBES = (0.7312, -1.5193, 2.2749)


def reset_at_once(reading: FittedUpdate, off: Affine, on: Affine, start: Tensor | None) -> tuple[Reset, Tensor | None]:
    """Return the reset of a core with two comparisons, and the value it resets to, if it does.

    off, on: the potential's coefficients where what was left a step ago is not, and is, above the threshold. start:
    what is left before step 0. Raises CaptureError, with the line, for a reset that no neuron of the Program has.
    """
    threshold = reading.core.threshold
    assert threshold is not None
    theta = reading.full(threshold.theta)
    if bool(_fires(torch.zeros(()) if start is None else start, theta, threshold).any()):
        raise NoNeuronError(reading.state)
    kept, same = _left(reading, s=0, r=0)
    scale, value = _left(reading, s=1, r=0)
    zeros = torch.zeros_like(theta)
    if close(kept, zeros + 1) and close(same, zeros):
        if close(scale, zeros) and not bool(_fires(value, theta, threshold).any()):
            return "value", value
        late_subtracts = (
            close(on.decay, off.decay)
            and all(close(a, b) for a, b in zip(on.gains, off.gains, strict=True))
            and close(on.constant - off.constant, -theta, theta)
        )
        if threshold.compare == "gt" and late_subtracts and _subtracts(reading, theta):
            return "snntorch_subtract_now", None
    raise NoNeuronError(reading.state)


def _fires(potential: Tensor, theta: Tensor, threshold: Threshold) -> Tensor:
    return potential > theta if threshold.compare == "gt" else potential >= theta


def _subtracts(reading: FittedUpdate, theta: Tensor) -> bool:
    """Return whether P = h - (s - r)·θ."""
    for s, r in ((1, 0), (0, 1), (1, 1)):
        scale, constant = _left(reading, s=s, r=r)
        if not close(scale, torch.ones_like(theta)) or not close(constant, (r - s) * theta, theta):
            return False
    return True


def _left(reading: FittedUpdate, *, s: int, r: int) -> tuple[Tensor, Tensor]:
    """Return the remainder of a potential h, as scale·h + constant; raise CaptureError if it is no such sum."""
    constant = _left_of(reading, 0.0, s, r)
    scale = _left_of(reading, 1.0, s, r) - constant
    for h in _PROBES:
        if not torch.allclose(_left_of(reading, h, s, r), scale * h + constant, rtol=1e-9, atol=1e-9):
            raise NoNeuronError(reading.state)
    return scale, constant


def _left_of(reading: FittedUpdate, h: float, s: int, r: int) -> Tensor:
    core = reading.core
    assert core.threshold is not None
    fixed = {(reading.state, 0): reading.full(h), (core.threshold.signal, 0): reading.full(s) != 0}
    if reading.spike is not None:
        fixed[reading.spike, 1] = reading.full(r) != 0

    def given(signal: Signal, lag: int) -> Tensor | None:
        return fixed.get((signal, lag))

    try:
        return reading.full(Evaluation(given)(reading.carried, 0))
    except Unknown:
        raise NoNeuronError(reading.state) from None
