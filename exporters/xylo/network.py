"""Run a network on the chip's integers, in the graph's names and time frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.exporters.xylo import layout as placed
from stl_deploy.exporters.xylo.layout import Layout, PlacedPopulation, read_layout
from stl_deploy.exporters.xylo.simulate import ChipRun
from stl_deploy.exporters.xylo.specification import INPUT_CAP, NAME, Specification, read_specification
from stl_deploy.graph.run import NetworkInput, Result

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
    assert chip_run.v is not None
    assert chip_run.i is not None
    assert chip_run.v_out is not None
    assert chip_run.i_out is not None
    states = {
        f"v__{HIDDEN}": chip_run.v,
        f"i__{HIDDEN}": chip_run.i[..., 0] if chip_run.i.shape[3] == 1 else chip_run.i,
        f"v__{OUTPUT}": chip_run.v_out,
        f"i__{OUTPUT}": chip_run.i_out,
    }
    return Result(outputs, {HIDDEN: chip_run.spikes.astype(np.float32), OUTPUT: outputs[OUTPUT]}, states)


def _named(layout: Layout, chip_run: ChipRun, steps: int, record: bool) -> Result:
    """Return the run under the graph's names, in its time frame."""
    values = np.zeros((steps, chip_run.outputs.shape[1], chip_run.outputs.shape[2]), np.float32)
    recorded, states = {}, {}
    for population in layout.populations:
        spikes = _of(population, chip_run.outputs if population.output else chip_run.spikes, steps)
        potentials = chip_run.v_out if population.output else chip_run.v
        if population.output:
            values[..., list(population.neurons)] = (
                spikes if population.spikes else _of(population, potentials, steps) / population.scale
            )
        if record:
            currents = chip_run.i_out if population.output else chip_run.i
            currents = None if currents is None else currents if population.output else currents[..., 0]
            states[f"v__{population.node}"] = _of(population, potentials, steps).reshape(
                *values.shape[:2], *population.shape
            )
            states[f"i__{population.node}"] = _of(population, currents, steps).reshape(
                *values.shape[:2], *population.shape
            )
            if population.spikes:
                recorded[population.node] = spikes.astype(np.float32).reshape(*values.shape[:2], *population.shape)
    y = (values @ layout.weights.T).reshape(*values.shape[:2], *layout.output_shape)
    return Result({layout.output: y.astype(np.float32)}, recorded, states)


def _of(population: PlacedPopulation, array: NDArray[Any] | None, steps: int) -> NDArray[Any]:
    assert array is not None
    return array[population.skew : population.skew + steps][..., list(population.neurons)]
