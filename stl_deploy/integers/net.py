"""Integer neurons and the synapses that feed them, in torch's order of axes.

Nothing here knows a target's limits: each target checks what it can hold (`stl_deploy.exporters.netx.layers` for netx).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import output_size
from stl_deploy.graph.program import DELAYED_RESETS, Reset, Subtracts

Ints = NDArray[np.int32]
Shape = tuple[int, ...]
Pair = tuple[int, int]

DECAY_ONE = 4096
"""Decay that forgets everything in one step (12 bits)."""
STATE_SHIFT = 6
"""Synaptic input, bias and threshold are shifted left by 6 bits to meet u and v."""
MAX_THRESHOLD = 2**17 - 1
"""The greatest threshold that a register of Loihi holds."""
STATE_TOP = 2**23
"""Loihi's u and v are 24 bits wide: u wraps past it, v saturates below it."""


@dataclass(frozen=True)
class Accumulator:
    """Width of u and v: |u| stays within u_top and |v| below v_top; past them u wraps (Loihi) or stops, and v stops.

    kept: where v of neurons that spike stops, if not at v_top: the range of the type that keeps it.
    """

    name: str
    u_top: int
    v_top: int
    wraps: bool
    kept: Pair | None = None

    @property
    def potentials(self) -> Pair:
        """Least and greatest v of neurons that spike, in 64ths."""
        return self.kept or (1 - self.v_top, self.v_top - 1)

    @property
    def threshold_top(self) -> int:
        """The greatest threshold that v can reach, at most a register's."""
        return min(MAX_THRESHOLD, self.potentials[1] >> STATE_SHIFT)


LOIHI = Accumulator("loihi", STATE_TOP, STATE_TOP, wraps=True)
"""Loihi's 24 bits: sums past 131,072 come out at the other end."""
WIDE = Accumulator("wide", 2**30, 2**29, wraps=False)
"""As much as 32 bits hold while they add u, v and a bias. Sums are exact up to 16,777,215."""
INT16 = Accumulator("int16", 2**30, 2**29, wraps=False, kept=(-(2**15), 2**15 - 1))
"""As wide, but v of neurons that spike has 16 bits: it stops at -512 and just below 512, in units of the threshold."""
ACCUMULATORS = {accumulator.name: accumulator for accumulator in (WIDE, LOIHI, INT16)}

MIN_BIAS, MAX_BIAS = -(2**12), 2**12 - 1
"""Range of a bias in Loihi's registers."""

MOST_SPIKES = 255
"""Spikes of a neuron in one step at most: they are counted in 8 bits."""
RAISED_TOP = 2**28
"""An adaptation never raises a threshold beyond it, in 64ths: a potential minus both fits in 32 bits."""
RESETS = ("value", "subtract", *DELAYED_RESETS)
"""Effects that a spike may have on v."""


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerAdaptation:
    """A threshold that rises with each spike, from the next step on, and falls back to its baseline.

    In 64ths: ``a = tz(a·(4096 − decay) / 4096) + 64·jump·s``; a neuron fires where ``v > 64·threshold + a``. decay: at
    least 1; jump: at least 0. subtracts: what a reset by subtraction takes off v, the drop or the drop and a. start: a
    in the first step, in 64ths; None: 0.
    """

    decay: int | Ints
    jump: Ints
    subtracts: Subtracts = "baseline"
    start: Ints | None = None

    @property
    def top(self) -> int:
        """Return the bound that ``a`` never exceeds."""
        jump = self.jump.astype(np.int64) << STATE_SHIFT
        settled = int((-(-jump * DECAY_ONE // np.asarray(self.decay, np.int64))).max())
        return settled if self.start is None else max(settled, int(self.start.max()))

    @property
    def least(self) -> int:
        """Return the bound that ``a`` never falls below."""
        return 0 if self.start is None else min(0, int(self.start.min()))


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerNeuron:
    """Lava's LIF (netx type CUBA), with resets beyond Lava's.

    ``u`` decays by (4096 − i_decay)/4096 each step, ``v`` by (4096 − v_decay)/4096; a neuron fires where
    ``v > threshold·64``. Arrays broadcast to the population's shape; Lava's CPU simulation takes one threshold per
    neuron, netx documents one per population.

    Attributes:
        reset: As in a Program's neuron.
        drop: Amount that subtracting resets take off v, in units of 64.
        v_reset: Value of v after other resets, in units of 64; None: 0.
        v_start, u_start: Values of v and u before the first step, in 64ths; None: 0.
        cap: Maximum spikes per step. Above 1 (reset ``subtract``, drop from 1) a neuron fires again in the same step
            while ``v > threshold·64``; each spike subtracts the drop.
        adaptation: Of the threshold; the cap is then 1.
    """

    v_decay: int | Ints
    threshold: Ints
    i_decay: int | Ints = DECAY_ONE
    reset: Reset = "value"
    drop: Ints | None = None
    v_reset: Ints | None = None
    cap: int = 1
    adaptation: IntegerAdaptation | None = None
    v_start: Ints | None = None
    u_start: Ints | None = None

    @property
    def starts(self) -> bool:
        """Whether v or u starts at other values than 0."""
        return self.v_start is not None or self.u_start is not None

    @property
    def level_top(self) -> int:
        """Return the highest level, in 64ths, above which a neuron fires."""
        return (int(self.threshold.max()) << STATE_SHIFT) + (self.adaptation.top if self.adaptation else 0)

    @property
    def delayed_reset(self) -> bool:
        """Whether a spike acts on the next step's v."""
        return self.reset in DELAYED_RESETS


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense:
    """weight ``[out, in]``, delay ``[out, in]`` in steps or None.

    shift: the sum of each delay is divided by 2^shift, rounding down. Lava holds weights enlarged by 2^enlarged
    and sums those in 32 bits.
    """

    weight: Ints
    delay: Ints | None = None
    shift: int = 0
    enlarged: int = 0

    @property
    def shape(self) -> Shape:
        """Shape of the output, without time."""
        return (self.weight.shape[0],)


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv:
    """weight ``[C_out, C_in/groups, kh, kw]``, as in torch; the same padding before and after."""

    weight: Ints
    input_shape: Shape
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def shape(self) -> Shape:
        """Shape of the output, without time."""
        spatial = zip(
            self.input_shape[1:], self.weight.shape[2:], self.stride, self.padding, self.dilation, strict=True
        )
        return (self.weight.shape[0], *(output_size(n, d * (k - 1) + 1, s, 2 * p) for n, k, s, p, d in spatial))


Synapse = Dense | Conv


def same(a: Any, b: Any) -> bool:
    """Return whether two dataclasses, or field values, are equal in every number and name."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)
    return bool(a == b)
