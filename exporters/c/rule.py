"""One neuron's step as C: which form the row function takes, decided by what the bounds prove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.integers.bounds import Interval
from stl_deploy.exporters.integers.net import DECAY_ONE, STATE_SHIFT, STATE_TOP, IntegerNeuron, Ints

NARROW = 2**31 // DECAY_ONE
"""Below it, a state times what it keeps of 4096 fits in 32 bits."""


@dataclass(frozen=True)
class Rule:
    """What a row function does; equal rules share one function.

    sums: C type of what arrives. keeps, filter_keeps: of 4096, what v and u keep; None: a table. narrow: whether that
    product fits in 32 bits. wraps, clips: whether u can pass its 24 bits, v reach its limit. spikes: has a threshold.
    threshold, bias, drop, value: C types of tables, or None where there is none.
    """

    sums: str
    keeps: int | None
    filter_keeps: int | None
    filtered: bool
    narrow: bool
    wraps: bool
    clips: bool
    spikes: bool
    reset: str
    threshold: str | None
    bias: str | None
    drop: str | None
    value: str | None

    @property
    def has_state(self) -> bool:
        """Whether v outlives the step."""
        return self.keeps != 0

    @property
    def late(self) -> bool:
        """Whether a spike acts on the next step."""
        return self.reset.endswith("delayed")


def drive_bounds(sums: Interval, bias: Ints | None, i_decay: int | Ints) -> tuple[Interval, bool]:
    """Bounds of u + 64·bias, and whether u can wrap."""
    low, high = float(sums[0] << STATE_SHIFT), float(sums[1] << STATE_SHIFT)
    slowest = int(np.min(i_decay))
    if slowest < DECAY_ONE:
        factor = DECAY_ONE / slowest if slowest else np.inf
        low, high = (low * factor if low else 0.0), (high * factor if high else 0.0)
    wraps = max(-low, high) >= STATE_TOP
    if wraps:
        low, high = -(2**30), 2**30
    least, greatest = (0, 0) if bias is None else (int(bias.min()), int(bias.max()))
    return (int(np.floor(low)) + (least << STATE_SHIFT), int(np.ceil(high)) + (greatest << STATE_SHIFT)), wraps


def potential_bounds(neuron: IntegerNeuron, drive: Interval) -> Interval | None:
    """Bounds of v before its limit, or None if it has none: for neurons that reset to 0 at once."""
    slowest = int(np.min(neuron.v_decay))
    if slowest == DECAY_ONE and not neuron.reset.endswith("delayed"):
        return drive
    if neuron.reset != "value" or neuron.v_reset is not None:
        return None
    low, high = min(0, drive[0]), max(0, drive[1])
    top = (int(neuron.threshold.max()) << STATE_SHIFT) + high
    if slowest == 0:
        return (0, top) if low == 0 else None
    return -(-low * DECAY_ONE // slowest) - 1, top


def kept(decay: int | Ints) -> int | None:
    """What of 4096 is kept if it is one number."""
    return DECAY_ONE - decay if isinstance(decay, int) else None


def kept_table(decay: int | Ints) -> NDArray[Any]:
    """What of 4096 each neuron keeps."""
    return np.asarray(DECAY_ONE - decay)
