"""Lower NIR neurons to Program neurons: from time constants to one step.

With k = dt/τ, in the precision of the stored τ (as in the frameworks):

- LI, LIF, ``euler``: v ← (1−k)·v + k·r·x + k·v_leak
- LI, LIF, ``exp``:   v ← a·v + x + (1−a)·v_leak with a = e^(−k)
- gain ``one_minus_decay``: in both, x is scaled by 1 minus the decay only
- I, IF:              v ← v + dt·r·x (or r·x)
- CubaLI, CubaLIF:    i ← (1−k_syn)·i + k_syn·w_in·x, then as LIF on i (``euler``);
                      i ← (1−k_syn)·i + w_in·x, then as LIF on i (``jump``);
                      i ← (i + w_in·x)·a_syn, v ← a_mem·v + i (``exp_add``)

A gain within two units in the last place of 1 becomes 1, because writers store r = τ/dt and the rounded product can
miss 1 by a unit. Infinite τ and r (snnTorch's β = 1) mean no leak and a gain of 1.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import GraphError
from stl_deploy.exporters.nir.dialect import Bound, Dialect
from stl_deploy.exporters.nir.lower._fields import ShapeConvention, fit, float32, numbers
from stl_deploy.graph.program import Floats, Neuron, Operand, Reset, Shape, Synapse

_ROUNDING = 2.0**-22


def lower_neuron(
    name: str,
    node: nir.NIRNode,
    shape: Shape,
    sources: tuple[Operand, ...],
    reading: ShapeConvention,
    dialect: Dialect,
    looped: bool,
) -> Neuron:
    """Lower I, IF, LI, LIF, CubaLI, CubaLIF or Threshold (looped: in a loop); raises GraphError naming the node."""
    read = _Reader(name, node, shape, reading.strict)
    if isinstance(node, nir.Threshold):
        return Neuron(
            name=name, shape=shape, operands=sources, decay=None, threshold=read("threshold"), compare=dialect.compare
        )
    with np.errstate(over="ignore", invalid="ignore"):
        synapse = _synapse(read, dialect) if isinstance(node, nir.CubaLI | nir.CubaLIF) else None
        decay, gain, offset = _membrane(read, dialect, synapse)
    common: dict[str, Any] = dict(
        name=name, shape=shape, operands=sources, decay=decay, gain=gain, offset=offset, synapse=synapse
    )
    common["v_start"] = None if dialect.start == "zero" else read.optional(dialect.start)
    if not isinstance(node, nir.IF | nir.LIF | nir.CubaLIF):
        return Neuron(threshold=None, **common)
    threshold = read("v_threshold")
    reset = reset_of(dialect, synapse is not None, looped)
    bound = dialect.bound(name, leaky=not isinstance(node, nir.IF))
    require_threshold(name, threshold, reset, bound, dialect)
    return Neuron(
        threshold=threshold,
        compare=dialect.compare,
        reset=reset,
        multi_spike=dialect.spikes_per_step != "one",
        cap=dialect.spikes_per_step if isinstance(dialect.spikes_per_step, int) else None,
        v_reset=read.optional("v_reset") if reset in ("value", "value_delayed") else None,
        v_min=None if bound is None else np.asarray(-threshold if bound == "-threshold" else bound, np.float32),
        **common,
    )


def require_threshold(name: str, threshold: Floats, reset: Reset, bound: Bound, dialect: Dialect) -> None:
    """Raise GraphError for θ of 0 or less (as files in mV have it) if the dialect gives it no sense."""
    if (threshold > 0).all():
        return
    reason = ""
    if dialect.spikes_per_step != "one":
        reason = "several spikes in a step, trunc(v/θ), need one above 0; use the dialect's spikes_per_step one"
    elif reset not in ("value", "value_delayed", "none"):
        reason = "to subtract it would raise v; use the dialect's reset value"
    elif bound == "-threshold":
        reason = "the lower bound -threshold would lie above it; give the dialect's v_min as a number"
    elif dialect.start == "zero":
        reason = "v starts at 0, not below it; files in mV start at v_leak or v_reset: say so in the dialect, as start"
    if reason:
        raise GraphError(
            f"v_threshold: expected thresholds above 0 here; found {float(threshold.min()):g} at "
            f"{_where(threshold <= 0)}: {reason}",
            node=name,
            slug="threshold-not-positive",
        )


def require_tau(name: str, field: str, tau: NDArray[Any]) -> None:
    """Raise GraphError unless τ > 0."""
    if (tau <= 0).any():
        raise GraphError(
            f"{field}: expected a time constant above 0; found {float(tau.min()):g} at {_where(tau <= 0)}",
            node=name,
            slug="tau-not-positive",
        )


class _Reader:
    """Read a field of one node, checked and fitted to the node's shape."""

    def __init__(self, name: str, node: Any, shape: Shape, strict: bool) -> None:
        self.name, self.node, self.shape, self.strict = name, node, shape, strict

    def raw(self, field: str) -> NDArray[Any]:
        return fit(self.name, field, numbers(self.name, self.node, field), self.shape, self.strict)

    def __call__(self, field: str) -> Floats:
        return float32(self.name, f"field '{field}'", self.raw(field))

    def f32(self, what: str, array: NDArray[Any]) -> Floats:
        """Round to float32; raise GraphError if ``what`` overflows."""
        return float32(self.name, what, np.asarray(array))

    def unless(self, what: str, array: NDArray[Any], neutral: float) -> Floats | None:
        """Return the field, or None if every value is neutral and the operation does nothing."""
        values = self.f32(what, array)
        return None if (values == neutral).all() else values

    def optional(self, field: str) -> Floats | None:
        """Return an optional field as float32; None if it is missing, or all zeros."""
        return None if getattr(self.node, field, None) is None else self.unless(field, self(field), 0)

    def gain(self, what: str, array: NDArray[Any]) -> Floats | None:
        """Return the gain, with 1 where a value is 1 up to rounding, and None if all are."""
        values = self.f32(what, array)
        return self.unless(what, np.where(np.abs(values - 1) <= _ROUNDING, np.float32(1), values), 1)

    def rate(self, field: str, dialect: Dialect) -> NDArray[Any]:
        """Return dt/τ, computed as the dialect says; raise GraphError unless τ > 0."""
        tau = self.raw(field)
        require_tau(self.name, field, tau)
        dt = tau.dtype.type(dialect.dt)
        match dialect.rate:
            case "reciprocal":
                return np.asarray(tau.dtype.type(1) / tau * dt)
            case "double":
                return np.asarray(np.float64(dt) / tau.astype(np.float64))
        return np.asarray(dt / tau)

    def scaled(self, field: str, rate: NDArray[Any]) -> NDArray[Any]:
        """Return ``rate`` times r or w_in; 1 where τ is infinite and r or w_in is, too."""
        factor = self.raw(field)
        lossless = (rate == 0) & np.isinf(factor)
        return np.asarray(np.where(lossless, np.float32(1), rate * np.where(lossless, np.float32(1), factor)))


def _membrane(read: _Reader, dialect: Dialect, synapse: Synapse | None) -> tuple[Floats, Floats | None, Floats | None]:
    """Return decay, gain and drive offset of the potential."""
    if isinstance(read.node, nir.I | nir.IF):
        r = read.raw("r")
        step = r * r.dtype.type(dialect.dt) if dialect.integrate == "dt_r" else r
        return np.ones((), np.float32), None if dialect.gain == "one" else read.gain("dt·r", step), None
    cuba = synapse is not None
    k = read.rate("tau_mem" if cuba else "tau", dialect)
    v_leak = read.raw("v_leak")
    exponential = dialect.leak == "exp" or (synapse is not None and synapse.rule == "exp_add")
    a = np.exp(-k.astype(np.float64)) if exponential else 1 - k
    decay = read.f32("the decay", a)
    offset = read.unless("v_leak", ((1 - a) if exponential else k) * v_leak, 0)
    if dialect.gain == "one_minus_decay":
        return decay, read.unless("1 - decay", 1 - decay, 1), offset
    if dialect.gain == "one" or exponential:
        return decay, None, offset
    return decay, read.gain("dt/τ·r", read.scaled("r", k)), offset


def _synapse(read: _Reader, dialect: Dialect) -> Synapse:
    k = read.rate("tau_syn", dialect)
    if dialect.synapse == "exp_add":
        decay = read.f32("the synapse's decay", np.exp(-k.astype(np.float64)))
        return Synapse("exp_add", decay, read.gain("w_in", read.raw("w_in")))
    if dialect.gain != "r":
        gain = None
    elif dialect.synapse == "jump":
        gain = read.gain("w_in", read.raw("w_in"))
    else:
        gain = read.gain("dt/τ_syn·w_in", read.scaled("w_in", k))
    return Synapse("euler", read.f32("1 - dt/τ_syn", 1 - k), gain)


def reset_of(dialect: Dialect, cuba: bool, looped: bool) -> Reset:
    """Return the reset of one neuron; in some dialects it depends on the neuron's kind."""
    match dialect.reset:
        case "snntorch_zero":
            return "value_delayed" if cuba or looped else "value"
        case "snntorch_zero_now":
            return "value_delayed" if cuba and looped else "value"
        case "snntorch_subtract_now":
            return "subtract_delayed" if cuba and looped else "snntorch_subtract_now"
        case "spyx":
            return "subtract" if cuba else "subtract_delayed"
    return dialect.reset


def _where(mask: NDArray[np.bool_]) -> str:
    return "every neuron" if mask.all() else f"index {np.argwhere(mask)[0].tolist()}"
