"""NIR neurons to Program neurons: from time constants to one step.

With k = dt/τ, computed in the precision the file stores τ in (as the frameworks do):

- LI, LIF, ``euler``: v ← (1−k)·v + k·r·x + k·v_leak
- LI, LIF, ``exp``:   v ← a·v + x + (1−a)·v_leak with a = e^(−k)
- I, IF:              v ← v + dt·r·x (or r·x)
- CubaLI, CubaLIF:    i ← (1−k_syn)·i + k_syn·w_in·x, then as LIF on i (``euler``);
                      i ← (1−k_syn)·i + w_in·x, then as LIF on i (``jump``);
                      i ← (i + w_in·x)·a_syn, v ← a_mem·v + i (``exp_add``)

A gain within two units in the last place of 1 is taken for 1: writers store r = τ/dt to make it 1, and the product of
the rounded numbers misses it by a unit.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import GraphError
from stl_deploy.graph.dialect import Dialect
from stl_deploy.graph.lower._fields import fit, float32, numbers
from stl_deploy.graph.lower.readings import Reading
from stl_deploy.graph.program import Floats, Neuron, Reset, Shape, Source, Synapse

_ROUNDING = 2.0**-22


def lower_neuron(
    name: str,
    node: nir.NIRNode,
    shape: Shape,
    sources: tuple[Source, ...],
    reading: Reading,
    dialect: Dialect,
    looped: bool,
) -> Neuron:
    """Lower I, IF, LI, LIF, CubaLI, CubaLIF or Threshold (looped: in a loop); raises GraphError naming the node."""
    read = _Reader(name, node, shape, reading.strict)
    if isinstance(node, nir.Threshold):
        return Neuron(
            name=name, shape=shape, sources=sources, decay=None, threshold=read("threshold"), compare=dialect.compare
        )
    with np.errstate(over="ignore", invalid="ignore"):
        synapse = _synapse(read, dialect) if isinstance(node, nir.CubaLI | nir.CubaLIF) else None
        decay, gain, leak = _membrane(read, dialect, synapse)
    common: dict[str, Any] = dict(
        name=name, shape=shape, sources=sources, decay=decay, gain=gain, leak=leak, synapse=synapse
    )
    if not isinstance(node, nir.IF | nir.LIF | nir.CubaLIF):
        return Neuron(threshold=None, **common)
    threshold = read("v_threshold")
    require_threshold(name, threshold)
    reset = _reset(dialect, synapse is not None, looped)
    v_reset = read("v_reset") if getattr(node, "v_reset", None) is not None else np.zeros((), np.float32)
    return Neuron(
        threshold=threshold,
        compare=dialect.compare,
        reset=reset,
        many=dialect.spikes_per_step == "many",
        v_reset=read.unless("v_reset", v_reset, 0) if reset in ("value", "value_delayed") else None,
        v_start=read.unless("v_reset", v_reset, 0) if dialect.start == "v_reset" else None,
        v_min=_v_min(dialect, threshold),
        **common,
    )


def require_threshold(name: str, threshold: Floats) -> None:
    """Raise GraphError unless θ > 0."""
    if (threshold <= 0).any():
        raise GraphError(
            f"v_threshold is {float(threshold.min()):g} at {_where(threshold, threshold <= 0)}; "
            "a neuron needs a threshold above 0",
            node=name,
            slug="threshold-not-positive",
        )


def require_tau(name: str, field: str, tau: NDArray[Any]) -> None:
    """Raise GraphError unless τ > 0."""
    if (tau <= 0).any():
        raise GraphError(
            f"{field} is {float(tau.min()):g} at {_where(tau, tau <= 0)}; a time constant must be above 0",
            node=name,
            slug="tau-not-positive",
        )


class _Reader:
    """Reads a field of one node, checked and fitted to the node's shape."""

    def __init__(self, name: str, node: Any, shape: Shape, strict: bool) -> None:
        self.name, self.node, self.shape, self.strict = name, node, shape, strict

    def raw(self, field: str) -> NDArray[Any]:
        return fit(self.name, field, numbers(self.name, self.node, field), self.shape, self.strict)

    def __call__(self, field: str) -> Floats:
        return float32(self.name, f"field '{field}'", self.raw(field))

    def f32(self, what: str, array: NDArray[Any]) -> Floats:
        """Rounded to float32; raises GraphError if ``what`` overflows."""
        return float32(self.name, what, np.asarray(array))

    def unless(self, what: str, array: NDArray[Any], neutral: float) -> Floats | None:
        """The same, or None where every value is the neutral one and the operation does nothing."""
        values = self.f32(what, array)
        return None if (values == neutral).all() else values

    def gain(self, what: str, array: NDArray[Any]) -> Floats | None:
        """The same, with 1 where a value is 1 up to rounding, and None if all are."""
        values = self.f32(what, array)
        return self.unless(what, np.where(np.abs(values - 1) <= _ROUNDING, np.float32(1), values), 1)

    def rate(self, field: str, dt: float) -> NDArray[Any]:
        """dt/τ in τ's own precision; raises GraphError unless τ > 0."""
        tau = self.raw(field)
        require_tau(self.name, field, tau)
        return np.asarray(tau.dtype.type(dt) / tau)


def _membrane(read: _Reader, dialect: Dialect, synapse: Synapse | None) -> tuple[Floats, Floats | None, Floats | None]:
    """Decay, gain and leak of the potential."""
    if isinstance(read.node, nir.I | nir.IF):
        r = read.raw("r")
        step = r * r.dtype.type(dialect.dt) if dialect.integrate == "dt_r" else r
        return np.ones((), np.float32), None if dialect.gain == "one" else read.gain("dt·r", step), None
    cuba = synapse is not None
    k = read.rate("tau_mem" if cuba else "tau", dialect.dt)
    v_leak = read.raw("v_leak")
    if dialect.leak == "exp" or (synapse is not None and synapse.rule == "exp_add"):
        a = np.exp(-k.astype(np.float64))
        return read.f32("the decay", a), None, read.unless("v_leak", (1 - a) * v_leak, 0)
    gain = None if dialect.gain == "one" else read.gain("dt/τ·r", read.raw("r") * k)
    return read.f32("1 - dt/τ", 1 - k), gain, read.unless("dt/τ·v_leak", k * v_leak, 0)


def _synapse(read: _Reader, dialect: Dialect) -> Synapse:
    k, w_in = read.rate("tau_syn", dialect.dt), read.raw("w_in")
    if dialect.synapse == "exp_add":
        decay = read.f32("the synapse's decay", np.exp(-k.astype(np.float64)))
        return Synapse("exp_add", decay, read.gain("w_in", w_in))
    gain = None if dialect.gain == "one" else read.gain("dt/τ_syn·w_in", w_in * (1 if dialect.synapse == "jump" else k))
    return Synapse("euler", read.f32("1 - dt/τ_syn", 1 - k), gain)


def _reset(dialect: Dialect, cuba: bool, looped: bool) -> Reset:
    """The reset of one neuron: some dialects have several, by what the neuron is."""
    match dialect.reset:
        case "snntorch_zero":
            return "value_delayed" if cuba or looped else "value"
        case "spyx":
            return "subtract" if cuba else "subtract_delayed"
    return dialect.reset


def _v_min(dialect: Dialect, threshold: Floats) -> Floats | None:
    if dialect.v_min is None:
        return None
    return np.asarray(-threshold if dialect.v_min == "-threshold" else np.float32(dialect.v_min))


def _where(array: NDArray[Any], mask: NDArray[np.bool_]) -> str:
    return f"index {np.argwhere(mask)[0].tolist()}" if array.ndim else "every neuron"
