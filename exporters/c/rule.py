"""The C form of a neuron's step, and the proved bounds that decide it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stl_deploy.graph.program import DELAYED_RESETS
from stl_deploy.integers.bounds import Interval
from stl_deploy.integers.net import DECAY_ONE, STATE_SHIFT, Accumulator, IntegerNeuron, Ints

LANES = 32
"""Neurons that vectors of 512 bits take at a time."""


@dataclass(frozen=True)
class Rule:
    """Form of a row function; equal rules share one function.

    Attributes:
        sums: C type of the incoming sums.
        keeps, filter_keeps: Decay of v and u in 4096ths; None: a table.
        narrow: Whether the product with ``keeps`` fits in 32 bits.
        passes: Behaviour of u beyond its limit, ``wrap`` or ``stop``, or '' if it stays within.
        clips: Function that limits v, or '' if it stays within its limit.
        v: C type of the stored potentials.
        spikes: Whether there is a threshold.
        threshold, bias, drop, value: C types of tables, or None without one.
        row: Neurons in a row.
        rows: Whether there are several rows.
        by_neuron: Tables that advance with the neurons.
        pooled: Number of neighbours per pooling window, or 0.
        cap: Maximum spikes per step.
        a: C type of the adaptation, or None.
        fade: Decay of the adaptation in 4096ths (None: a table).
        jump: C type of the table of adaptation per spike.
        fades_narrow: As ``narrow``, for ``fade``.
        subtracts: See `IntegerAdaptation`.
    """

    sums: str
    keeps: int | None
    filter_keeps: int | None
    filtered: bool
    narrow: bool
    passes: str
    clips: str
    v: str
    spikes: bool
    reset: str
    threshold: str | None
    bias: str | None
    drop: str | None
    value: str | None
    cap: int
    row: int
    rows: bool
    by_neuron: tuple[str, ...]
    pooled: int
    a: str | None = None
    fade: int | None = None
    fades_narrow: bool = False
    jump: str | None = None
    subtracts: str = "baseline"

    @property
    def parameters(self) -> list[str]:
        """Parameters as C declares them."""
        tables: tuple[tuple[str, str | None], ...] = (
            ("keeps", "int16_t" if self.keeps is None else None),
            ("filter", "int16_t" if self.filtered and self.filter_keeps is None else None),
            *((name, getattr(self, name)) for name in ("threshold", "bias", "drop", "value", "jump")),
            ("fade", "int16_t" if self.a and self.fade is None else None),
        )
        declarations = [f"{self.v} *STL_RESTRICT v"] if self.has_state or not self.spikes else []
        declarations += ["int32_t *STL_RESTRICT u"] if self.filtered else []
        declarations += [f"{self.a} *STL_RESTRICT a"] if self.a else []
        declarations += [f"const {self.sums} *STL_RESTRICT sums"]
        declarations += [f"const {ctype} *STL_RESTRICT {name}" for name, ctype in tables if ctype]
        declarations += ["uint8_t *STL_RESTRICT spikes"] if self.spikes else []
        declarations += ["uint8_t *STL_RESTRICT pooled"] if self.pooled else []
        return declarations + (["int32_t rows"] if self.rows else [])

    @property
    def moving(self) -> list[str]:
        """Parameters that advance from row to row."""
        names = [parameter.split("*STL_RESTRICT ")[1] for parameter in self.parameters if "*STL_RESTRICT " in parameter]
        return [name for name in names if name in (*self.by_neuron, "v", "u", "a", "sums", "spikes")]

    @property
    def has_state(self) -> bool:
        """Whether v persists after the step."""
        return self.keeps != 0

    @property
    def in_lanes(self) -> bool:
        """Whether machines with vectors of 512 bits take the rows 32 neurons at a time (`templates/lanes.j2`)."""
        plain = self.spikes and not self.filtered and self.a is None and self.cap == 1 and not self.late
        keeps = self.keeps is not None and self.keeps > 0 and (self.narrow or DECAY_ONE % self.keeps == 0)
        tables = self.bias is None and self.value is None and not self.by_neuron
        return (
            plain
            and keeps
            and tables
            and self.clips != "clip"
            and not self.passes
            and self.rows
            and self.row % LANES == 0
        )

    @property
    def late(self) -> bool:
        """Whether a spike acts on the next step."""
        return self.reset in DELAYED_RESETS


def drive_bounds(
    sums: Interval, bias: Ints | None, neuron: IntegerNeuron, accumulator: Accumulator
) -> tuple[Interval, str]:
    """Return bounds of u + 64·bias, and `Rule.passes`: ``wrap``, ``stop``, or '' if u stays within its limit."""
    low, high = float(sums[0] << STATE_SHIFT), float(sums[1] << STATE_SHIFT)
    slowest = int(np.min(neuron.i_decay))
    if slowest < DECAY_ONE:
        # u = k·u + x stays below x / (1 - k), the sum of the geometric series.
        factor = DECAY_ONE / slowest if slowest else np.inf
        low, high = (low * factor if low else 0.0), (high * factor if high else 0.0)
        if neuron.u_start is not None:
            low, high = low + min(0, int(neuron.u_start.min())), high + max(0, int(neuron.u_start.max()))
    passes = ""
    if max(-low, high) >= accumulator.u_top:
        passes, low, high = ("wrap" if accumulator.wraps else "stop"), -(2**30), 2**30
    least, greatest = (0, 0) if bias is None else (int(bias.min()), int(bias.max()))
    return (int(np.floor(low)) + (least << STATE_SHIFT), int(np.ceil(high)) + (greatest << STATE_SHIFT)), passes


def potential_bounds(neuron: IntegerNeuron, drive: Interval) -> Interval | None:
    """Return bounds of v before its limit; None without bounds. For neurons that reset to 0 at once."""
    slowest = int(np.min(neuron.v_decay))
    if slowest == DECAY_ONE and not neuron.delayed_reset:
        return drive
    if neuron.reset != "value" or neuron.v_reset is not None:
        return None
    low, high = min(0, drive[0]), max(0, drive[1])
    least, greatest = (0, 0) if neuron.v_start is None else (int(neuron.v_start.min()), int(neuron.v_start.max()))
    top = max(neuron.level_top, greatest) + high
    if slowest == 0:
        return (min(0, least), top) if low == 0 else None
    return min(0, least) - (-low * DECAY_ONE // slowest) - 1, top


def kept(decay: int | Ints) -> int | None:
    """Return the kept fraction, of 4096, if it is one number."""
    return DECAY_ONE - decay if isinstance(decay, int) else None


def kept_table(decay: int | Ints) -> Ints | None:
    """Return each neuron's kept fraction, of 4096, if they differ."""
    return None if isinstance(decay, int) else np.asarray(DECAY_ONE - decay, np.int32)
