"""Express decays as shifts: Xylo's states keep 1 - 2^-dash of themselves in a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import option
from stl_deploy._util.units import between
from stl_deploy.exporters.xylo.specification import DASH_TOP, Ints
from stl_deploy.graph.findings import Finding
from stl_deploy.graph.program import Neuron

_SAME = 2.0**-22
"""A decay so near to 1 - 2^-k is meant to be it: files hold time constants in float32."""


@dataclass(frozen=True, eq=False)
class Dashes:
    """A population's shifts, ``[neurons]``. moved: the most that a decay changes by."""

    mem: Ints
    syn: Ints
    moved: float


def dashes(neuron: Neuron) -> Dashes:
    """Return the nearest shifts of a population with a synapse; nearest in the logarithm of 1 - decay."""
    assert neuron.decay is not None
    assert neuron.synapse is not None
    (mem, moved_mem), (syn, moved_syn) = (
        _nearest(np.broadcast_to(decay, neuron.shape)) for decay in (neuron.decay, neuron.synapse.decay)
    )
    return Dashes(mem, syn, max(moved_mem, moved_syn))


def _nearest(decay: NDArray[np.float32]) -> tuple[Ints, float]:
    kept = decay.astype(np.float64).reshape(-1)
    with np.errstate(divide="ignore"):
        exact = -np.log2(np.maximum(1 - kept, 2.0 ** -(DASH_TOP + 1)))
    dash = np.clip(np.round(exact), 0, DASH_TOP).astype(np.int32)
    moved = np.abs(1 - 2.0**-dash - kept)
    return dash, float(np.where(moved <= _SAME, 0, moved).max())


def decay_findings(neuron: Neuron, rounds: bool) -> Iterator[Finding]:
    """Yield an error for decays that the chip lacks, or a warning if they may be rounded.

    rounds: whether the user took the nearest shifts.
    """
    if neuron.decay is None or neuron.synapse is None:
        return
    nearest_shifts = dashes(neuron)
    if not nearest_shifts.moved:
        return
    kept = f"membrane {_range(neuron.decay)}, synapse {_range(neuron.synapse.decay)}"
    nearest = f"k of {_range(nearest_shifts.mem)} and {_range(nearest_shifts.syn)}"
    reason = (
        f"its decays ({kept}) are not 1 - 2^-k with k from 0 to {DASH_TOP}; the nearest, {nearest}, move a decay by "
        f"up to {nearest_shifts.moved:.3g}"
    )
    remedy = f"train with decay_form shift, or export with the nearest, {option('round_decays')}"
    if rounds:
        yield Finding("decays-rounded", "warning", neuron.name, reason, "compare the agreement that export reports")
    else:
        yield Finding("decay-is-no-shift", "error", neuron.name, reason, remedy)


def _range(values: NDArray[np.float32] | Ints) -> str:
    return between(f"{np.min(values):.4g}", f"{np.max(values):.4g}")
