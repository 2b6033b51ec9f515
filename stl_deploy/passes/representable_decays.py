"""Express decay factors as NIR time constants that read back as the same decay.

NIR's LIF in one Euler step is v ← (1−k)·v + k·r·x with k = dt/τ. For v ← β·v + x we need 1−k = β and k·r = 1, both in
float32. Not every β has such τ and r, so `representable_decay` gives the one that is used in its place; with float64
τ and r every float32 decay has them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.graph.program import DT, Neuron
from stl_deploy.passes.base import Pass, rewrite_each

_NEIGHBOURS = 64


class TimeConstants(NamedTuple):
    """τ and r of a node: float32, or float64 if no float32 ones give the decay back."""

    tau: np.floating[Any]
    r: np.floating[Any]


def representable_decay(beta: float) -> float:
    """Return the decay nearest to ``beta`` in [0, 1] that float32 time constants hold; 1 (no leak) stays 1.

    Raises InputError for a beta outside [0, 1].
    """
    if not 0 <= beta <= 1:
        raise InputError(f"expected a decay from 0 to 1; found {beta:g}")
    if beta == 1:
        return 1.0
    once = _nearest(beta)
    return once if once == 1 else _nearest(once)  # a search from the decay found, as graphs have always held it


def time_constants(decay: float) -> TimeConstants:
    """Return τ and r that `lower` reads back as ``decay``, a float32 in [0, 1), and a gain of 1.

    Raises InputError for a decay outside [0, 1): no leak (1) is an IF neuron, which has no τ.
    """
    if not 0 <= decay < 1:
        raise InputError(f"expected a decay from 0 to below 1, which a time constant can express; found {decay:g}")
    dt = np.float32(DT)
    for tau in _around(np.float32(DT / (1 - float(decay)))):
        k = dt / tau
        if np.float32(1) - k == np.float32(decay) and (r := _reciprocal(k)) is not None:
            return TimeConstants(tau, r)
    rate = 1 - np.float64(decay)
    return TimeConstants(DT / rate, 1 / rate)


_FASTEST, _SLOWEST = 200.0, 1e-12
"""dt/τ of decays that are 0 and 1 in float32."""


def exponential_tau(decay: NDArray[Any]) -> NDArray[np.float64]:
    """Return τ whose e^(-dt/τ), rounded to float32, is ``decay``, numbers from 0 to 1."""
    with np.errstate(divide="ignore"):
        rate = np.clip(-np.log(decay.astype(np.float64)), _SLOWEST, _FASTEST)
    return np.asarray(DT / rate)


def _nearest(beta: float) -> float:
    """Return the decay of the τ nearest to that of ``beta`` with an r that keeps a gain of 1."""
    nearest = np.float32(DT / (1 - beta))
    for tau in _around(nearest):
        k = np.float32(DT) / tau
        if _reciprocal(k) is not None:
            return float(np.float32(1) - k)
    raise AssertionError(f"no float32 time constant near {nearest} keeps a gain of 1")


def _reciprocal(k: np.float32) -> np.float32 | None:
    """Return the r for which r·k is 1; None if there is none."""
    return next((r for r in _around(np.float32(1) / k, 4) if r * k == 1), None)


def _around(x: np.float32, count: int = _NEIGHBOURS) -> list[np.float32]:
    """Return ``x`` and its float32 neighbours, nearest first."""
    neighbours = [x]
    up = down = x
    for _ in range(count):
        up, down = np.nextafter(up, np.float32(np.inf)), np.nextafter(down, np.float32(0))
        neighbours += [up, down]
    return neighbours


def _represented(node: Neuron) -> Neuron:
    if node.decay is None or (node.synapse is not None and node.synapse.rule == "exp_add"):
        return node  # exponentials in float64 hold every float32 decay
    decays = np.vectorize(representable_decay, otypes=[np.float32])(node.decay)
    return node if np.array_equal(decays, node.decay) else replace(node, decay=np.asarray(decays))


PASS = Pass("representable_decays", rewrite_each(Neuron, _represented), "grid")
