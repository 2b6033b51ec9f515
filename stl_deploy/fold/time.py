"""Decay factors as NIR time constants, so that reading the graph back gives the very same float32 decay.

NIR's LIF in one Euler step is v ← (1−k)·v + k·r·x with k = dt/τ. For v ← β·v + x we need 1−k = β and
k·r = 1, both in float32. Not every β survives the round trip; `time_constants` therefore returns the nearest one
that does, and the folded network uses it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stl_deploy.errors import InputError

DT = 1e-4
"""The time step written in our graphs: what snnTorch assumes, and close to every reader's default."""

_NEIGHBOURS = 64


@dataclass(frozen=True)
class TimeConstants:
    """τ and r (float32) for a decay β that survives the round trip through NIR."""

    tau: np.float32
    r: np.float32
    decay: np.float32


def time_constants(beta: float) -> TimeConstants:
    """τ, r and the decay that they stand for, nearest to ``beta`` in [0, 1).

    Raises InputError for a beta outside [0, 1): no leak (1) is an IF neuron, which has no τ.
    """
    if not 0 <= beta < 1:
        raise InputError(f"expected a decay from 0 to below 1, which a time constant can express; found {beta:g}")
    dt = np.float32(DT)
    nearest = np.float32(DT / (1 - float(beta)))
    for tau in _around(nearest):
        k = dt / tau
        for r in _around(np.float32(1) / k, 4):
            if r * k == 1:
                return TimeConstants(tau, r, np.float32(1) - k)
    raise AssertionError(f"no float32 time constant near {nearest} keeps a gain of 1")


def nir_decay(beta: float) -> float:
    """The decay that a NIR node made for ``beta`` in [0, 1] is read back with; 1 (no leak) stays 1."""
    return 1.0 if beta == 1 else float(time_constants(beta).decay)


def _around(x: np.float32, count: int = _NEIGHBOURS) -> list[np.float32]:
    """``x`` and its float32 neighbours, nearest first."""
    found = [x]
    up = down = x
    for _ in range(count):
        up, down = np.nextafter(up, np.float32(np.inf)), np.nextafter(down, np.float32(0))
        found += [up, down]
    return found
