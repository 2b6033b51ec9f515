"""Thresholds of a NIR graph's neurons into the weights before them.

Every neuron of NIR is linear in its input between spikes. With all that it receives, its leak potential, reset and
start divided by θ > 0 its potential is v/θ at every step, so it spikes where v/θ passes 1: the same spikes in real
arithmetic, for every leak, reset and synapse. In floats it is exact where θ is a power of two; else a tie can move.

Under ``v > θ`` a threshold stored as the float just below θ' means ``v >= θ'`` (`tests.oracles.fold.assemble` writes it
so). Of the two the one with fewer bits is divided by, so that ties of round thresholds stay ties.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Conv, Doubles, Linear, Neuron, Program, is_spike_max_pool
from tests.oracles.fold.graph_nodes import find, with_fields

_SCALED = ("v_leak", "v_reset")
_SLUG = "threshold-not-absorbable"


def absorb(graph: nir.NIRGraph, dialect: Dialect) -> nir.NIRGraph:
    """The graph with each spiking neuron's threshold 1 and its weights divided by what it was.

    Raises UnsupportedError naming the neuron where what it receives is not weights of its own, where a convolution's
    kernels are shared by pixels of different thresholds, or where the dialect bounds potentials by a number.
    """
    program = lower(graph, dialect)
    changes: dict[str, dict[str, Any]] = {}
    for neuron in program.spiking:
        if is_spike_max_pool(program, neuron):
            continue
        divisor, unit = _divisor(neuron)
        if (divisor == 1).all():
            continue
        if isinstance(dialect.v_min, int | float) and dialect.v_min != 0:
            raise _refused(neuron, f"its potential is bounded below by {dialect.v_min:g}", "keep the thresholds")
        for source in neuron.operands:
            changes[source.node] = _divided(program, graph, neuron, source.node, divisor)
        changes[neuron.name] = _neuron(find(graph, neuron.name), divisor, unit)
    return with_fields(graph, changes)


def _divisor(neuron: Neuron) -> tuple[Doubles, np.float32]:
    """What the weights are divided by, and the threshold that is stored then: 1, or the float just below it."""
    assert neuron.threshold is not None
    stored = np.asarray(neuron.threshold, np.float32)
    if neuron.compare == "gt":
        least = np.nextafter(stored, np.float32(np.inf))  # v > stored is v >= least
        if _bits(least) < _bits(stored):
            return least.astype(np.float64), np.nextafter(np.float32(1), np.float32(0))
    return stored.astype(np.float64), np.float32(1)


def _bits(values: NDArray[np.float32]) -> int:
    """Significant bits that all of ``values`` together need, added up."""
    mantissa = np.abs(np.frexp(values.astype(np.float64))[0] * 2.0**24).astype(np.int64)
    lowest = np.where(mantissa == 0, 1, mantissa & -mantissa)
    return int((24 - np.log2(lowest)).sum())


def _divided(program: Program, graph: nir.NIRGraph, neuron: Neuron, source: str, divisor: Doubles) -> dict[str, Any]:
    node = program.by_name[source]
    if not isinstance(node, Linear | Conv):
        raise _refused(
            neuron,
            f"'{source}' ({type(node).__name__}) reaches it without weights that could take them",
            "keep the thresholds for a target that takes them, or put a linear or conv layer right before the neuron",
        )
    if len(program.readers[source]) > 1:
        others = ", ".join(f"'{reader.name}'" for reader in program.readers[source] if reader is not neuron)
        raise _refused(
            neuron, f"its weights '{source}' are read by {others} too", "give each neuron weights of its own"
        )
    theta = _per_output(neuron, source, divisor, len(node.weight), isinstance(node, Conv))
    held = find(graph, source)
    weight = node.weight.astype(np.float64) / theta.reshape(-1, *(1,) * (node.weight.ndim - 1))
    changes: dict[str, Any] = {"weight": weight.astype(np.float32).reshape(np.shape(held.weight))}
    if node.bias is not None:
        changes["bias"] = (node.bias.astype(np.float64) / theta).astype(np.float32).reshape(np.shape(held.bias))
    return changes


def _per_output(neuron: Neuron, source: str, divisor: Doubles, outputs: int, behind_conv: bool) -> Doubles:
    whole = np.broadcast_to(divisor, neuron.shape)
    if not behind_conv:
        if len(neuron.shape) != 1:
            raise _refused(neuron, f"its shape is {list(neuron.shape)} behind the linear '{source}'", "flatten first")
        return np.array(whole)
    flat = whole.reshape(outputs, -1)
    if (flat != flat[:, :1]).any():
        raise _refused(
            neuron,
            f"{flat.size} thresholds, one per pixel, behind the convolution '{source}' whose {outputs} kernels all "
            "pixels share",
            "train with thresholds per channel, or keep them (thresholds='keep') for a target with one per neuron",
        )
    return np.array(flat[:, 0])


def _neuron(held: nir.NIRNode, divisor: Doubles, unit: np.float32) -> dict[str, Any]:
    field = "threshold" if isinstance(held, nir.Threshold) else "v_threshold"
    changes: dict[str, Any] = {field: np.full(np.shape(getattr(held, field)), unit, np.float32)}
    for name in _SCALED:
        value = getattr(held, name, None)
        if value is not None and np.any(value):
            changes[name] = (np.asarray(value, np.float64) / divisor).astype(np.float32)
    return changes


def _refused(neuron: Neuron, reason: str, remedy: str) -> UnsupportedError:
    return UnsupportedError(
        f"its thresholds cannot go into weights: {reason}", node=neuron.name, slug=_SLUG, remedy=remedy
    )
