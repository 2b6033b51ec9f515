"""NIR neurons to Program neurons: from time constants to one step.

With k = dt/τ, computed in the precision the file stores τ in (as the frameworks do):

- LI, LIF, ``euler``: v ← (1−k)·v + k·r·x + k·v_leak
- LI, LIF, ``exp``:   v ← a·v + x + (1−a)·v_leak with a = e^(−k)
- I, IF:              v ← v + dt·r·x
- CubaLI, CubaLIF:    i ← (1−k_syn)·i + k_syn·w_in·x, then as LIF on i (``euler``);
                      i ← (i + w_in·x)·a_syn, v ← a_mem·v + i (``exp_add``)
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import GraphError
from stl_deploy.graph.dialect import Dialect
from stl_deploy.graph.lower._fields import fit, numbers
from stl_deploy.graph.program import Floats, Neuron, Shape, Source, Synapse


def lower_neuron(name: str, node: nir.NIRNode, shape: Shape, sources: tuple[Source, ...], dialect: Dialect) -> Neuron:
    """Lower I, IF, LI, LIF, CubaLI, CubaLIF or Threshold; raises GraphError naming the node."""
    read = _Reader(name, node, shape)
    if isinstance(node, nir.Threshold):
        return Neuron(
            name=name, shape=shape, sources=sources, decay=None, threshold=read("threshold"), compare=dialect.compare
        )
    synapse = _synapse(read, dialect) if isinstance(node, nir.CubaLI | nir.CubaLIF) else None
    decay, gain, leak = _membrane(read, dialect, synapse)
    common: dict[str, Any] = dict(
        name=name, shape=shape, sources=sources, decay=decay, gain=gain, leak=leak, synapse=synapse
    )
    if not isinstance(node, nir.IF | nir.LIF | nir.CubaLIF):
        return Neuron(threshold=None, **common)
    threshold = read("v_threshold")
    if (threshold <= 0).any():
        raise GraphError(
            f"v_threshold is {float(threshold.min()):g} at {_where(threshold, threshold <= 0)}; "
            "a neuron needs a threshold above 0",
            node=name,
            slug="threshold-not-positive",
        )
    v_reset = read("v_reset") if getattr(node, "v_reset", None) is not None else np.zeros((), np.float32)
    return Neuron(
        threshold=threshold,
        compare=dialect.compare,
        reset=dialect.reset,
        many=dialect.spikes_per_step == "many",
        v_reset=_unless(v_reset, 0) if dialect.reset == "value" else None,
        v_start=_unless(v_reset, 0) if dialect.start == "v_reset" else None,
        v_min=_v_min(dialect, threshold),
        **common,
    )


class _Reader:
    """Reads a field of one node, checked and fitted to the node's shape."""

    def __init__(self, name: str, node: Any, shape: Shape) -> None:
        self.name, self.node, self.shape = name, node, shape

    def raw(self, field: str) -> NDArray[Any]:
        return fit(self.name, field, numbers(self.name, self.node, field), self.shape)

    def __call__(self, field: str) -> Floats:
        return self.raw(field).astype(np.float32)

    def rate(self, field: str, dt: float) -> NDArray[Any]:
        """dt/τ in τ's own precision; raises GraphError unless τ > 0."""
        tau = self.raw(field)
        if (tau <= 0).any():
            raise GraphError(
                f"{field} is {float(tau.min()):g} at {_where(tau, tau <= 0)}; a time constant must be above 0",
                node=self.name,
                slug="tau-not-positive",
            )
        return np.asarray(tau.dtype.type(dt) / tau)


def _membrane(read: _Reader, dialect: Dialect, synapse: Synapse | None) -> tuple[Floats, Floats | None, Floats | None]:
    """Decay, gain and leak of the potential."""
    if isinstance(read.node, nir.I | nir.IF):
        r = read.raw("r")
        return np.ones((), np.float32), _unless(np.asarray(r * r.dtype.type(dialect.dt)), 1), None
    cuba = synapse is not None
    k = read.rate("tau_mem" if cuba else "tau", dialect.dt)
    v_leak = read.raw("v_leak")
    if dialect.leak == "exp" or (synapse is not None and synapse.rule == "exp_add"):
        a = np.exp(-k.astype(np.float64))
        return _f32(a), None, _unless(np.asarray((1 - a) * v_leak), 0)
    return _f32(1 - k), _unless(np.asarray(read.raw("r") * k), 1), _unless(np.asarray(k * v_leak), 0)


def _synapse(read: _Reader, dialect: Dialect) -> Synapse:
    k, w_in = read.rate("tau_syn", dialect.dt), read.raw("w_in")
    if dialect.synapse == "exp_add":
        return Synapse("exp_add", _f32(np.exp(-k.astype(np.float64))), _unless(w_in, 1))
    return Synapse("euler", _f32(1 - k), _unless(np.asarray(w_in * k), 1))


def _v_min(dialect: Dialect, threshold: Floats) -> Floats | None:
    if dialect.v_min is None:
        return None
    return np.asarray(-threshold if dialect.v_min == "-threshold" else np.float32(dialect.v_min))


def _f32(array: NDArray[Any]) -> Floats:
    return np.asarray(array, np.float32)


def _unless(array: NDArray[Any], neutral: float) -> Floats | None:
    """The array as float32, or None where every value is the neutral one and the operation does nothing."""
    values = _f32(array)
    return None if (values == neutral).all() else values


def _where(array: NDArray[Any], mask: NDArray[np.bool_]) -> str:
    return f"index {np.argwhere(mask)[0].tolist()}" if array.ndim else "every neuron"
