"""Scale each neuron's weights so that every threshold becomes 1.

Between spikes a neuron is linear in its input. Dividing its input, offset, reset, bound and start by θ > 0 gives the
potential v/θ at every step, and spikes where v/θ passes 1: the same spikes in real arithmetic, for every leak, reset
and synapse. Floats agree exactly if θ is a power of two; otherwise a tie can move.

Under ``v > θ``, a threshold stored as the float just below θ' means ``v >= θ'`` (`strict_comparison`). The divisor is
whichever of the two has fewer bits, so that ties at round thresholds stay ties.

A neuron that also receives values without weights (the spikes of a skip connection) keeps its thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import UnsupportedError
from stl_deploy.graph.program import Conv, Doubles, Linear, MaxPool, Neuron, Program, is_spike_max_pool
from stl_deploy.passes.base import Nodes, Pass, Rewritten, divided, with_nodes

SLUG = "threshold-not-absorbable"
_AS_THEY_ARE = "export it as it is to ONNX, which takes every threshold"


def _refusals(program: Program) -> Iterator[UnsupportedError]:
    """The reasons of all neurons, where none of them can be folded; else `_fold` keeps those that cannot."""
    kept = _unfoldable(program)
    if len(kept) == len(_changed(program)):
        for error in kept.values():
            remedy = f"{error.remedy}; or fold with thresholds 'keep', the default"
            yield UnsupportedError(error.reason, node=error.node, slug=error.slug, remedy=remedy)


def _unfoldable(program: Program) -> dict[str, UnsupportedError]:
    """Return, by neuron, why its thresholds cannot go into weights."""
    kept: dict[str, UnsupportedError] = {}
    for neuron in _changed(program):
        try:
            _require_scalable(neuron)
            for source in neuron.operands:
                _theta(program, neuron, source.node)
        except UnsupportedError as error:
            kept[neuron.name] = error
    return kept


def _changed(program: Program) -> list[Neuron]:
    """Return the spiking neurons with thresholds other than 1; a max pool keeps its own."""
    spiking = [neuron for neuron in program.spiking if not is_spike_max_pool(program, neuron)]
    return [neuron for neuron in spiking if not (divisor_of(neuron)[0] == 1).all()]


def _fold(program: Program) -> Rewritten:
    nodes: Nodes = dict(program.by_name)
    kept = _unfoldable(program)
    for neuron in _changed(program):
        if neuron.name in kept:
            continue
        divisor, unit = divisor_of(neuron)
        for name in dict.fromkeys(source.node for source in neuron.operands):
            nodes[name] = divided(nodes[name], _theta(program, neuron, name))
        nodes[neuron.name] = _scaled(neuron, divisor, unit)
    return Rewritten(
        with_nodes(program, nodes), kept={name: f"{error.reason}; {error.remedy}" for name, error in kept.items()}
    )


def _scaled(neuron: Neuron, divisor: Doubles, unit: np.float32) -> Neuron:
    changes: dict[str, Any] = {"threshold": np.asarray(unit, np.float32)}
    for name in ("offset", "v_reset", "v_start", "i_start"):
        value = getattr(neuron, name)
        changes[name] = None if value is None else np.asarray(value / divisor)
    if neuron.v_min is not None and neuron.v_min.any():
        changes["v_min"] = np.asarray(-unit, np.float32)  # it is -θ, or the pass would have refused it
    if (adapts := neuron.adaptation) is not None:
        start = None if adapts.start is None else (adapts.start / divisor).astype(np.float32)
        changes["adaptation"] = replace(adapts, jump=(adapts.jump / divisor).astype(np.float32), start=start)
    return replace(neuron, **changes)


def divisor_of(neuron: Neuron) -> tuple[Doubles, np.float32]:
    """Return the divisor of the weights and the stored threshold: 1, or the float just below it."""
    assert neuron.threshold is not None
    stored = np.asarray(neuron.threshold, np.float32)
    if neuron.compare == "gt" and neuron.adaptation is None:
        least = np.nextafter(stored, np.float32(np.inf))  # v > stored is v >= least
        if _bits(least) < _bits(stored):
            return least.astype(np.float64), np.nextafter(np.float32(1), np.float32(0))
    return stored.astype(np.float64), np.float32(1)


def _bits(values: NDArray[np.float32]) -> int:
    """Return the significant bits that all of ``values`` together need, added up."""
    mantissa = np.abs(np.frexp(values.astype(np.float64))[0] * 2.0**24).astype(np.int64)
    lowest = np.where(mantissa == 0, 1, mantissa & -mantissa)
    return int((24 - np.log2(lowest)).sum())


def _require_scalable(neuron: Neuron) -> None:
    assert neuron.threshold is not None
    if (neuron.threshold <= 0).any():
        lowest = float(neuron.threshold.min())
        raise _refused(neuron, f"the lowest of them, {lowest:g}, is not above 0", _AS_THEY_ARE)
    if neuron.v_min is not None and neuron.v_min.any() and not np.array_equal(neuron.v_min, -neuron.threshold):
        low = float(neuron.v_min.min())
        raise _refused(neuron, f"its potential is bounded below by {low:g}", _AS_THEY_ARE)


def _theta(program: Program, neuron: Neuron, source: str) -> Doubles:
    """Return the divisor of each output of the weights ``source``."""
    node = program.by_name[source]
    if isinstance(node, MaxPool):
        reason = f"they are compared with the largest of each window of '{source}'"
        raise _refused(neuron, reason, "pool spikes, not currents (move the pool behind the neuron), or keep them")
    if not isinstance(node, Linear | Conv):
        raise _refused(
            neuron,
            f"'{source}' ({type(node).__name__}) reaches it without weights that could take them",
            "ONNX and energy take them as they are, and targets of integers that 'check' passes; "
            + (
                "netx (Loihi) holds chains only, no skips"
                if len(neuron.operands) > 1
                else "for netx (Loihi), put a linear or conv layer on that path"
            ),
        )
    if len(program.readers[source]) > 1:
        others = ", ".join(f"'{reader.name}'" for reader in program.readers[source] if reader is not neuron)
        raise _refused(
            neuron, f"its weights '{source}' are read by {others} too", "give each neuron weights of its own"
        )
    whole = np.broadcast_to(divisor_of(neuron)[0], neuron.shape)
    if isinstance(node, Linear):
        if len(neuron.shape) != 1:
            raise _refused(
                neuron,
                f"its shape is {list(neuron.shape)}, and its rows (tokens) share the weights of '{source}'",
                _AS_THEY_ARE,
            )
        return np.array(whole)
    flat = whole.reshape(len(node.weight), -1)
    if (flat != flat[:, :1]).any():
        raise _refused(
            neuron,
            f"{flat.size} thresholds, one per pixel, behind the convolution '{source}' whose {len(node.weight)} "
            "kernels all pixels share",
            "train with thresholds per channel (neuron.conv_granularity=channel in a configuration), or keep these "
            "for a target with one per neuron",
        )
    return np.array(flat[:, 0])


def _refused(neuron: Neuron, reason: str, remedy: str) -> UnsupportedError:
    return UnsupportedError(
        f"its thresholds cannot go into weights: {reason}", node=neuron.name, slug=SLUG, remedy=remedy
    )


PASS = Pass(
    "fold_thresholds", _fold, "real", refusals=_refusals, wanted=lambda options: options.thresholds == "weights"
)
