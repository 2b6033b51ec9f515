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

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.exporters.xylo import layout as placed
from stl_deploy.exporters.xylo.layout import Layout, PlacedPopulation, read_layout
from stl_deploy.exporters.xylo.specification import (
    HIDDEN_CAP,
    INPUT_CAP,
    NAME,
    OUTPUT_CAP,
    STATE_LOW,
    STATE_TOP,
    Ints,
    Specification,
    read_specification,
)
from stl_deploy.graph.run import NetworkInput, Result

Progress = Callable[[int, int], None]
Doubles = NDArray[np.float64]
_WRAP = 2**16


class ChipStates(NamedTuple):
    """After each step: v ``[T, B, N]``, i ``[T, B, N, S]``, and those of outputs, ``[T, B, outputs]`` both."""

    v: NDArray[np.int16]
    i: NDArray[np.int16]
    v_out: NDArray[np.int16]
    i_out: NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class ChipRun:
    """One run, as the chip has it, skew included. T steps, B samples.

    spikes, outputs: ``[T, B, N]`` and ``[T, B, outputs]``. saturated, saturated_out: ``[N]`` and ``[outputs]``, in how
    many steps of all samples a current or a potential left 16 bits and was cut. states: None if not recorded.
    """

    spikes: NDArray[np.uint8]
    outputs: NDArray[np.uint8]
    saturated: NDArray[np.int64]
    saturated_out: NDArray[np.int64]
    states: ChipStates | None = None


def simulate(
    spec: Specification, x: NDArray[np.integer], record: bool = False, *, progress: Progress | None = None
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
        if run.states is not None:
            for kept, now in zip(run.states, (hidden.v, hidden.i, outputs.v, outputs.i[..., 0]), strict=True):
                kept[t] = now
        if progress is not None:
            progress(t + 1, steps)
    run.saturated[:], run.saturated_out[:] = hidden.saturated, outputs.saturated
    return run


def _recording(spec: Specification, steps: int, batch: int, record: bool) -> ChipRun:
    states = None
    if record:
        shapes = ((spec.hidden,), (spec.hidden, spec.synapses), (spec.outputs,), (spec.outputs,))
        states = ChipStates(*(np.empty((steps, batch, *shape), np.int16) for shape in shapes))
    return ChipRun(
        spikes=np.empty((steps, batch, spec.hidden), np.uint8),
        outputs=np.empty((steps, batch, spec.outputs), np.uint8),
        saturated=np.zeros(spec.hidden, np.int64),
        saturated_out=np.zeros(spec.outputs, np.int64),
        states=states,
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


Integers = Callable[[Specification, NDArray[Any], bool], ChipRun]
"""Function that runs a specification on integers ``[T, B, channels]``; the last argument: record v and i."""
HIDDEN, OUTPUT = "hidden", "output"
"""Names of a bare specification's neurons."""


@dataclass(frozen=True, eq=False)
class ChipNetwork:
    """A specification, and the positions of a graph's neurons on it; layout None: unknown."""

    spec: Specification
    layout: Layout | None = None


def load(path: Path) -> ChipNetwork:
    """Read a folder that export wrote, or a bare specification; raise InputError for a damaged file."""
    folder = path.parent if path.is_file() else path
    spec = read_specification(folder / NAME)
    if path.is_file() or not (folder / placed.NAME).exists():
        return ChipNetwork(spec)
    return ChipNetwork(spec, read_layout(folder / placed.NAME, spec))


def evolve(network: ChipNetwork, x: NDArray[Any], record: bool, integers: Integers) -> tuple[Result, ChipRun]:
    """Run integers ``x`` ``[T, B, *input shape]``; the Result has the graph's names and time frame.

    Without a layout they are the chip's. The chip runs as many steps more as its last neurons are late.
    """
    layout = network.layout
    steps, batch = x.shape[:2]
    late = 0 if layout is None else layout.skew
    entering = np.concatenate([x.reshape(steps, batch, -1), np.zeros((late, batch, network.spec.channels), x.dtype)])
    states = record or (layout is not None and not all(population.spikes for population in layout.populations))
    chip_run = integers(network.spec, entering, states)
    return (_bare(chip_run, record) if layout is None else _named(layout, chip_run, steps, record)), chip_run


def whole_counts(x: NetworkInput, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return ``x`` ``[T, B, *shape]`` as integers from 0; raise InputError for other values."""
    if isinstance(x, Mapping):
        raise InputError(f"expected one input for xylo; found {', '.join(x)}; use another target")
    x = np.asarray(x)
    if x.ndim < 2 or x.shape[2:] != shape or x.size == 0:
        raise InputError(f"expected input [T, B, {', '.join(map(str, shape))}]; found {list(x.shape)}")
    if x.dtype.kind not in "fiub":
        raise InputError(f"expected integer input; found {x.dtype}")
    if x.dtype.kind == "f" and not np.array_equal(x, np.trunc(x)):
        raise InputError(
            f"expected spike counts 0 to {INPUT_CAP} as input for xylo; found fractions; encode the input as spikes"
        )
    if x.min() < 0:
        raise InputError(
            f"expected spike counts 0 to {INPUT_CAP} as input for xylo; found {x.min():g}; give falling and rising "
            "values a channel each"
        )
    return np.minimum(x.astype(np.float64), 2**15 - 1).astype(np.int16)


def spike_counts(x: NetworkInput, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return what `whole_counts` returns; raise InputError also for more spikes than a channel takes in a step."""
    counts = whole_counts(x, shape)
    if counts.max() > INPUT_CAP:
        raise InputError(
            f"expected spike counts 0 to {INPUT_CAP} as input for xylo; found {counts.max()}; use fewer spikes a step"
        )
    return counts


def _bare(chip_run: ChipRun, record: bool) -> Result:
    outputs = {OUTPUT: chip_run.outputs.astype(np.float32)}
    if not record:
        return Result(outputs, {})
    assert chip_run.states is not None
    v, i, v_out, i_out = chip_run.states
    states: dict[str, NDArray[np.int16]] = {f"v__{HIDDEN}": v, f"i__{HIDDEN}": i[..., 0] if i.shape[3] == 1 else i}
    states |= {f"v__{OUTPUT}": v_out, f"i__{OUTPUT}": i_out}
    return Result(outputs, {HIDDEN: chip_run.spikes.astype(np.float32), OUTPUT: outputs[OUTPUT]}, states)


def _named(layout: Layout, chip_run: ChipRun, steps: int, record: bool) -> Result:
    """Return the run under the graph's names, in its time frame."""
    values = np.zeros((steps, chip_run.outputs.shape[1], chip_run.outputs.shape[2]), np.float32)
    recorded: dict[str, NDArray[np.float32]] = {}
    states: dict[str, NDArray[np.int16]] = {}
    kept = chip_run.states
    for population in layout.populations:
        spikes = _of(population, chip_run.outputs if population.output else chip_run.spikes, steps)
        whole = (*values.shape[:2], *population.shape)
        if kept is not None:  # recorded, or read by the host
            both = (kept.v_out, kept.i_out) if population.output else (kept.v, kept.i[..., 0])
            v, i = (_of(population, array, steps) for array in both)
        if population.output:
            values[..., list(population.neurons)] = spikes if population.spikes else v / population.scale
        if record:
            states |= {f"v__{population.node}": v.reshape(whole), f"i__{population.node}": i.reshape(whole)}
            if population.spikes:
                recorded[population.node] = spikes.astype(np.float32).reshape(whole)
    y = (values @ layout.weights.T).reshape(*values.shape[:2], *layout.output_shape)
    return Result({layout.output: y.astype(np.float32)}, recorded, states)


def _of(population: PlacedPopulation, array: NDArray[Any], steps: int) -> NDArray[Any]:
    return array[population.skew : population.skew + steps][..., list(population.neurons)]
