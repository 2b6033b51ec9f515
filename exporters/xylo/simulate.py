"""Simulate SynSense Xylo Audio 2, Audio 3 and IMU in integers, bit for bit.

States have 16 bits and start at 0. ``sat`` limits a value to 16 bits; ``decay(a, k)`` is ``a >> k`` rounded down, but 1
if that is 0 and a > 0, so that both signs reach 0. One step of a hidden neuron::

    i  = sat(i + w·2^shift), spike by spike    channels in order, then the previous step's hidden spikes, in order
    i  = i - decay(i, dash_syn)                before it acts
    dv = sat(int16(-decay(v, dash_mem)) + Σ i)
    dv = sat(dv + bias);  v = sat(v + dv)
    n  = spikes lent by aliases;  while v >= θ and n < 31:  n += 1,  v -= θ
    the neuron's alias gets n more spikes, up to 31: before its own last line if its number is higher, else after it

An output does the same with the previous step's hidden spikes and a cap of 1. Every spike, v and i equals xylosim 0.1.3
(module v2), SynSense's simulator, which Rockpool's tests compare with the chip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.xylo.specification import (
    HIDDEN_CAP,
    INPUT_CAP,
    OUTPUT_CAP,
    STATE_LOW,
    STATE_TOP,
    Ints,
    Specification,
)

Progress = Callable[[int, int], None]
Doubles = NDArray[np.float64]
_WRAP = 2**16


@dataclass(frozen=True, eq=False)
class ChipRun:
    """One run, as the chip has it, skew included. T steps, B samples.

    spikes, outputs: ``[T, B, N]`` and ``[T, B, outputs]``. v, v_out: the same, after the step; i, i_out:
    ``[T, B, N, S]`` and ``[T, B, outputs]``; all four None if not recorded. saturated, saturated_out: ``[N]`` and
    ``[outputs]``, in how many steps of all samples a current or a potential left 16 bits and was cut.
    """

    spikes: NDArray[np.uint8]
    outputs: NDArray[np.uint8]
    saturated: NDArray[np.int64]
    saturated_out: NDArray[np.int64]
    v: NDArray[np.int16] | None = None
    i: NDArray[np.int16] | None = None
    v_out: NDArray[np.int16] | None = None
    i_out: NDArray[np.int16] | None = None


def simulate(
    spec: Specification, x: NDArray[np.integer], *, record: bool = False, progress: Progress | None = None
) -> ChipRun:
    """Run integers ``x`` ``[T, B, channels]``, none below 0, every sample from rest.

    Counts above 15 enter as 15, as on the chip. record: also v and i. progress: called with (steps done, steps).
    """
    steps, batch = x.shape[:2]
    entering = np.minimum(x, INPUT_CAP).astype(np.float64)
    hidden, outputs = _hidden(spec, batch), _outputs(spec, batch)
    run = _recording(spec, steps, batch, record)
    before = np.zeros((batch, spec.hidden))
    for t in range(steps):
        fired = hidden.step(np.concatenate([entering[t], before], axis=1))
        run.outputs[t] = outputs.step(before[:, spec.hidden - spec.heard :])
        run.spikes[t] = fired
        before = fired.astype(np.float64)
        if run.v is not None and run.i is not None and run.v_out is not None and run.i_out is not None:
            run.v[t], run.i[t], run.v_out[t], run.i_out[t] = hidden.v, hidden.i, outputs.v, outputs.i[..., 0]
        if progress is not None:
            progress(t + 1, steps)
    run.saturated[:], run.saturated_out[:] = hidden.saturated, outputs.saturated
    return run


def _recording(spec: Specification, steps: int, batch: int, record: bool) -> ChipRun:
    def empty(*axes: int) -> NDArray[np.int16] | None:
        return np.empty((steps, batch, *axes), np.int16) if record else None

    return ChipRun(
        spikes=np.empty((steps, batch, spec.hidden), np.uint8),
        outputs=np.empty((steps, batch, spec.outputs), np.uint8),
        saturated=np.zeros(spec.hidden, np.int64),
        saturated_out=np.zeros(spec.outputs, np.int64),
        v=empty(spec.hidden),
        i=empty(spec.hidden, spec.synapses),
        v_out=empty(spec.outputs),
        i_out=empty(spec.outputs),
    )


def _hidden(spec: Specification, batch: int) -> _Population:
    weights_in = np.zeros((spec.channels, spec.hidden, spec.synapses), np.int64)
    weights_in[:, : spec.hear] = spec.weights_in.astype(np.int64) << spec.weight_shift_in
    weights = np.concatenate([weights_in, spec.weights_rec.astype(np.int64) << spec.weight_shift_rec])
    dashes = [spec.dash_syn] if spec.dash_syn_2 is None else [spec.dash_syn, spec.dash_syn_2]
    return _Population(
        weights, np.stack(dashes, 1), spec.dash_mem, spec.threshold, spec.bias_hidden, HIDDEN_CAP, spec.aliases, batch
    )


def _outputs(spec: Specification, batch: int) -> _Population:
    weights = spec.weights_out.astype(np.int64)[..., None] << spec.weight_shift_out
    none = np.full(spec.outputs, -1, np.int32)
    return _Population(
        weights,
        spec.dash_syn_out[:, None],
        spec.dash_mem_out,
        spec.threshold_out,
        spec.bias_out,
        OUTPUT_CAP,
        none,
        batch,
    )


class _Population:
    """Neurons with their states ``[B, N]`` (v) and ``[B, N, S]`` (i)."""

    def __init__(
        self,
        weights: NDArray[np.int64],
        dash_syn: Ints,
        dash_mem: Ints,
        threshold: Ints,
        bias: Ints,
        cap: int,
        aliases: Ints,
        batch: int,
    ) -> None:
        sources, neurons, synapses = weights.shape
        self._weights = weights.reshape(sources, -1).astype(np.float64)
        self._sizes = np.abs(self._weights)
        self._dash_syn, self._dash_mem, self._bias = dash_syn.astype(np.int64), dash_mem.astype(np.int64), bias
        self._threshold, self._cap = threshold.astype(np.int64), cap
        self._aliases = [(int(giver), int(target)) for giver, target in enumerate(aliases) if target >= 0]
        self.v = np.zeros((batch, neurons), np.int64)
        self.i = np.zeros((batch, neurons, synapses), np.int64)
        self.saturated = np.zeros(neurons, np.int64)
        self._cut = np.zeros((batch, neurons), np.bool_)

    def step(self, arriving: Doubles) -> NDArray[np.int64]:
        """Return spikes ``[B, N]`` for the input spikes ``[B, sources]``."""
        self._cut[:] = False
        i = self._charged(arriving)
        i -= decayed(i, self._dash_syn)
        change = wrapped(-decayed(self.v, self._dash_mem))
        change = self._saturated(change + i.sum(axis=2))
        change = self._saturated(change + self._bias)
        self.i, self.v = i, self._saturated(self.v + change)
        self.saturated += self._cut.sum(axis=0)
        return self._fired()

    def _charged(self, arriving: Doubles) -> NDArray[np.int64]:
        """Add the input to the currents; spike by spike only if a partial sum could leave 16 bits."""
        flat = self.i.reshape(len(self.i), -1)
        total, size = arriving @ self._weights, arriving @ self._sizes
        summed = flat + total.astype(np.int64)
        above, below = flat + (size + total) / 2, flat - (size - total) / 2
        risky = (above > STATE_TOP) | (below < STATE_LOW)
        if risky.any():
            sample, place = np.nonzero(risky)
            one, cut = flat[sample, place], np.zeros(len(sample), np.bool_)
            for source in np.flatnonzero(arriving.any(axis=0)):
                more = one + (arriving[sample, source] * self._weights[source, place]).astype(np.int64)
                one = np.clip(more, STATE_LOW, STATE_TOP)
                cut |= one != more
            summed[sample, place] = one
            np.logical_or.at(self._cut, (sample, place // self.i.shape[2]), cut)
        return summed.reshape(self.i.shape)

    def _saturated(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        kept: NDArray[np.int64] = np.clip(values, STATE_LOW, STATE_TOP)
        self._cut |= kept != values
        return kept

    def _fired(self) -> NDArray[np.int64]:
        lent = np.zeros_like(self.v)
        if not self._aliases:
            return self._fire(slice(None), lent)
        spikes = np.zeros_like(self.v)
        starts = sorted({0, *(target for giver, target in self._aliases if target > giver)})
        aliases = dict(self._aliases)
        for first, last in zip(starts, [*starts[1:], self.v.shape[1]], strict=True):
            part = slice(first, last)
            spikes[:, part] = self._fire(part, lent[:, part])
            for giver in range(first, last):
                target = aliases.get(giver, -1)
                if target > giver:
                    lent[:, target] = np.minimum(lent[:, target] + spikes[:, giver], self._cap)
                elif target >= 0:
                    spikes[:, target] = np.minimum(spikes[:, target] + spikes[:, giver], self._cap)
        return spikes

    def _fire(self, part: slice, lent: NDArray[np.int64]) -> NDArray[np.int64]:
        v, threshold = self.v[:, part], self._threshold[part]
        room = self._cap - lent
        times = np.where(threshold > 0, np.maximum(v, 0) // np.maximum(threshold, 1), self._cap * (v >= 0))
        own = np.minimum(times, room)
        v -= own * threshold
        return lent + own


def decayed(values: NDArray[np.int64], dash: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a state's loss in a step; dash broadcasts to values."""
    lost = values >> dash
    return np.where((lost == 0) & (values > 0), 1, lost)


def wrapped(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Wrap to 16-bit numbers."""
    return (values - STATE_LOW) % _WRAP + STATE_LOW
