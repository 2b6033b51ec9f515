"""Step neurons in numpy: the equations of `stl_deploy.graph.program`, line by line, in float32."""

from __future__ import annotations

import numpy as np

from stl_deploy.errors import GraphError
from stl_deploy.graph.program import Floats, Neuron

_BLOCK = 2**16
"""Elements stepped together through all of time, so that a block's potential stays in the cache."""


class NeuronState:
    """The state of one population for a batch: potential, and if the node has them, current and last spikes."""

    def __init__(self, node: Neuron, batch: int) -> None:
        shape = (batch, *node.shape)
        self.node = node
        self.v = np.zeros(shape, np.float32)
        if node.v_start is not None:
            self.v += node.v_start
        self.i = np.zeros(shape, np.float32) if node.synapse is not None else None
        if self.i is not None and node.i_start is not None:
            self.i += node.i_start
        self.spikes = np.zeros(shape, np.float32) if node.delayed_reset or node.adaptation is not None else None
        self.a = np.zeros(shape, np.float32) if node.adaptation is not None else None
        if self.a is not None and node.adaptation is not None and node.adaptation.start is not None:
            self.a += node.adaptation.start
        over = node.reset == "snntorch_subtract_now" and node.decay is not None
        self._over = np.zeros(shape, np.float32) if over else None

    def step(self, x: Floats, out: Floats) -> None:
        """Advance one time step with input ``x`` ``[B, *shape]``; write the output into ``out``."""
        self.charge(x)
        self.release(out)

    def charge(self, x: Floats) -> None:
        """Add the input; ``v`` is then ready for comparison with the threshold."""
        node, v = self.node, self.v
        drive = self._drive(x)
        if self._over is not None and node.threshold is not None:
            np.greater(v, node.threshold, out=self._over)
        if node.decay is None:
            np.copyto(v, drive)
        else:
            np.multiply(v, node.decay, out=v)
            np.add(v, drive, out=v)
        if node.offset is not None:
            np.add(v, node.offset, out=v)
        if node.adaptation is not None and self.a is not None and self.spikes is not None:
            np.multiply(self.a, node.adaptation.decay, out=self.a)
            np.add(self.a, node.adaptation.jump * self.spikes, out=self.a)
        if self.spikes is not None and node.delayed_reset:
            self._reset_late(self.spikes)
        if self._over is not None and node.threshold is not None:
            np.subtract(v, node.threshold * self._over, out=v)
        if node.v_min is not None:
            np.maximum(v, node.v_min, out=v)

    def release(self, out: Floats) -> None:
        """Write the output of the charged neurons into ``out`` and reset those that fired."""
        if self.node.threshold is None:
            np.copyto(out, self.v)
            return
        fire(self.node, self.v, out, self.threshold)
        self._reset(out)

    @property
    def threshold(self) -> Floats:
        """Return the level of charged potentials: θ, with adaptation θ + a ``[B, *shape]``."""
        assert self.node.threshold is not None
        return self.node.threshold if self.a is None else self.node.threshold + self.a

    @property
    def _subtracted(self) -> Floats:
        """Return the amount that a reset by subtraction takes off."""
        adaptation = self.node.adaptation
        assert self.node.threshold is not None
        return self.threshold if adaptation is not None and adaptation.subtracts == "adapted" else self.node.threshold

    def require_finite(self) -> None:
        """Raise GraphError if the potential has left float32's range (NaN never fires, so nothing else shows it)."""
        if not np.isfinite(self.v.sum()) and not np.isfinite(self.v).all():
            raise GraphError(
                "its potential leaves float32's range; the network diverges", node=self.node.name, slug="diverges"
            )

    def _drive(self, x: Floats) -> Floats:
        node, syn = self.node, self.node.synapse
        if syn is not None and self.i is not None:
            arriving = x if syn.gain is None else x * syn.gain
            if syn.rule == "euler":
                np.multiply(self.i, syn.decay, out=self.i)
                np.add(self.i, arriving, out=self.i)
            else:
                np.add(self.i, arriving, out=self.i)
                np.multiply(self.i, syn.decay, out=self.i)
            x = self.i
        return x if node.gain is None else x * node.gain

    def _reset(self, out: Floats) -> None:
        if self.spikes is not None:
            np.copyto(self.spikes, out)
        if self.node.delayed_reset or self.node.decay is None or self.node.reset == "none":
            return
        if self.node.reset == "subtract":
            np.subtract(self.v, self._subtracted * out, out=self.v)
        elif self._over is not None:
            np.subtract(self.v, self._subtracted * (out - self._over), out=self.v)
        else:
            self._to_value(out)

    def _reset_late(self, spikes: Floats) -> None:
        if self.node.reset == "value_delayed":
            self._to_value(spikes)
        elif self.node.threshold is not None:
            np.subtract(self.v, self._subtracted * spikes, out=self.v)

    def _to_value(self, spikes: Floats) -> None:
        fired = spikes > 0
        if self.node.v_reset is None:
            bits = self.v.view(np.int32)  # those of 0.0 are 0; a masked copy takes five times as long
            np.multiply(bits, np.logical_not(fired, out=fired), out=bits)
        else:
            np.copyto(self.v, self.node.v_reset, where=fired)


def fire(node: Neuron, v: Floats, out: Floats, threshold: Floats | None = None) -> None:
    """Write the spikes of potentials ``v`` into ``out``: 0 or 1, or a count if the node fires several at once.

    threshold: as it is now, where it adapts.
    """
    theta = node.threshold if threshold is None else threshold
    assert theta is not None
    if node.multi_spike:
        np.divide(v, theta, out=out)
        rounded(node, out)
        np.clip(out, 0, node.cap, out=out)
    elif node.compare == "gt":
        np.greater(v, theta, out=out)
    else:
        np.greater_equal(v, theta, out=out)


def rounded(node: Neuron, ratio: Floats) -> None:
    """Round potentials in units of thresholds to numbers of spikes, in place."""
    if node.rounding == "half_even":
        np.rint(ratio, out=ratio)
    elif node.rounding == "half_up":
        np.add(ratio, np.float32(0.5), out=ratio)
        np.floor(ratio, out=ratio)
    else:
        np.trunc(ratio, out=ratio)


def sequence(node: Neuron, x: Floats) -> Floats:
    """Return the output ``[T, B, *shape]`` for input ``x`` of the same shape, from rest."""
    out = np.empty_like(x)
    at_once = max(1, _BLOCK // max(1, int(np.prod(node.shape))))
    for start in range(0, x.shape[1], at_once):
        part = slice(start, start + at_once)
        state = NeuronState(node, x[0, part].shape[0])
        for t in range(x.shape[0]):
            state.step(x[t, part], out[t, part])
        state.require_finite()
    return out
