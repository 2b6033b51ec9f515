"""Xylo's integers as a Runner: of a folder that export wrote, of anyone's specification, or of a Program."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.exporters.targets import Network, Options, Runner
from stl_deploy.exporters.xylo import layout as placed
from stl_deploy.exporters.xylo.layout import Layout, PlacedPopulation, read_layout
from stl_deploy.exporters.xylo.simulate import ChipRun, simulate
from stl_deploy.exporters.xylo.specification import INPUT_CAP, NAME, Specification, read_specification
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import Readout
from stl_deploy.graph.run import NetworkInput, Result

HIDDEN, OUTPUT = "hidden", "output"
"""What a bare specification's neurons are called."""


@dataclass(frozen=True, eq=False)
class ChipNetwork:
    """A specification, and where a graph's neurons lie on it; layout None: nobody told."""

    spec: Specification
    layout: Layout | None = None


def load(path: Path) -> ChipNetwork:
    """Read a folder that export wrote, or a bare specification; raises InputError for a damaged file."""
    folder = path.parent if path.is_file() else path
    spec = read_specification(folder / NAME)
    if path.is_file() or not (folder / placed.NAME).exists():
        return ChipNetwork(spec)
    return ChipNetwork(spec, read_layout(folder / placed.NAME, spec))


class Xylo(Runner):
    """Our integer model of the chip."""

    name = "xylo"
    description = "our integer model of the Xylo chip"
    reads = ("xylo",)

    def __init__(self, network: Network, options: Options) -> None:
        self._options = options
        self.network = load(network) if isinstance(network, Path) else None
        self._program = network if isinstance(network, Program) else None

    @property
    def readout(self) -> Readout | None:
        """See `stl_deploy.exporters.targets.Decides`."""
        layout = None if self.network is None else self.network.layout
        return None if layout is None else layout.readout

    @property
    def input_bits(self) -> int:
        """See `stl_deploy.exporters.targets.OnGrid`: whole numbers alone."""
        return 0

    def of(self, program: Program) -> Self:
        """The same; raises InputError if its neurons are not those of ``program``."""
        layout = None if self.network is None else self.network.layout
        if self.network is not None:
            own = {one.node for one in layout.populations if one.spikes} if layout is not None else {HIDDEN, OUTPUT}
            names = {node.name for node in program.spiking}
            if names != own:
                raise InputError(
                    f"expected a Xylo folder whose neurons are {', '.join(sorted(names))}; found "
                    f"{', '.join(sorted(own))}; give the graph that it was exported from"
                )
        return copy.copy(self)

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        """See `stl_deploy.exporters.targets.Runner`. x: whole numbers from 0; above 15 they count as 15, and it warns.

        The Result's states are the chip's 16-bit numbers. Warns where states were cut at 16 bits.
        """
        network = self._chosen(x)
        entering = self._entering(network, x)
        skew = 0 if network.layout is None else network.layout.skew
        steps = len(entering)
        padded = np.concatenate([entering, np.zeros((skew, *entering.shape[1:]), entering.dtype)])
        needs_states = record or (network.layout is not None and not all(p.spikes for p in network.layout.populations))
        found = self.integers(network.spec, padded, needs_states)
        self._tell(found)
        if network.layout is None:
            return _bare(found, record)
        return _named(network.layout, found, steps, record)

    def integers(self, spec: Specification, x: NDArray[Any], record: bool) -> ChipRun:
        """Run the chip's integers on whole numbers ``[T, B, channels]``."""
        return simulate(spec, x, record=record, progress=self._options.progress)

    def _chosen(self, x: NetworkInput) -> ChipNetwork:
        if self.network is None:
            raise InputError("expected a Xylo folder or a specification.npz")
        return self.network

    def _entering(self, network: ChipNetwork, x: NetworkInput) -> NDArray[Any]:
        shape = (network.spec.channels,) if network.layout is None else network.layout.input_shape
        entering = whole_counts(x, shape)
        if entering.max(initial=0) > INPUT_CAP:
            share = float((entering > INPUT_CAP).mean())
            self._options.say.warn(
                f"{share:.2%} of the input is above {INPUT_CAP}, the most spikes of a channel in one step of Xylo; these "
                f"count as {INPUT_CAP}"
            )
        return entering.reshape(*entering.shape[:2], -1)

    def _tell(self, found: ChipRun) -> None:
        cut = int(found.saturated.sum() + found.saturated_out.sum())
        if cut:
            steps = found.spikes.size + found.outputs.size
            self._options.say.warn(
                f"a current or a potential left 16 bits and was cut in {cut:,} of {steps:,} neuron-steps, "
                f"at {np.count_nonzero(found.saturated) + np.count_nonzero(found.saturated_out)} neurons"
            )


def whole_counts(x: NetworkInput, shape: tuple[int, ...]) -> NDArray[Any]:
    """``x`` ``[T, B, *shape]`` as whole numbers from 0; raises InputError for anything else."""
    if isinstance(x, Mapping):
        raise InputError(f"expected one input for xylo; found {', '.join(x)}; use another target")
    x = np.asarray(x)
    if x.ndim < 2 or x.shape[2:] != shape or x.size == 0:
        raise InputError(f"expected input [T, B, {', '.join(map(str, shape))}]; found {list(x.shape)}")
    if x.dtype.kind not in "fiub":
        raise InputError(f"expected input in whole numbers; found {x.dtype}")
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


def _bare(found: ChipRun, record: bool) -> Result:
    outputs = {OUTPUT: found.outputs.astype(np.float32)}
    if not record:
        return Result(outputs, {})
    assert found.v is not None
    assert found.i is not None
    assert found.v_out is not None
    assert found.i_out is not None
    states = {
        f"v__{HIDDEN}": found.v,
        f"i__{HIDDEN}": found.i[..., 0] if found.i.shape[3] == 1 else found.i,
        f"v__{OUTPUT}": found.v_out,
        f"i__{OUTPUT}": found.i_out,
    }
    return Result(outputs, {HIDDEN: found.spikes.astype(np.float32), OUTPUT: outputs[OUTPUT]}, states)


def _named(layout: Layout, found: ChipRun, steps: int, record: bool) -> Result:
    """The run under the graph's names, in its time frame."""
    values = np.zeros((steps, found.outputs.shape[1], found.outputs.shape[2]), np.float32)
    recorded, states = {}, {}
    for one in layout.populations:
        spikes = _of(one, found.outputs if one.output else found.spikes, steps)
        potentials = found.v_out if one.output else found.v
        if one.output:
            values[..., list(one.neurons)] = spikes if one.spikes else _of(one, potentials, steps) / one.scale
        if record:
            currents = found.i_out if one.output else found.i
            currents = None if currents is None else currents if one.output else currents[..., 0]
            states[f"v__{one.node}"] = _of(one, potentials, steps).reshape(*values.shape[:2], *one.shape)
            states[f"i__{one.node}"] = _of(one, currents, steps).reshape(*values.shape[:2], *one.shape)
            if one.spikes:
                recorded[one.node] = spikes.astype(np.float32).reshape(*values.shape[:2], *one.shape)
    y = (values @ layout.weights.T).reshape(*values.shape[:2], *layout.output_shape)
    return Result({layout.output: y.astype(np.float32)}, recorded, states)


def _of(one: PlacedPopulation, array: NDArray[Any] | None, steps: int) -> NDArray[Any]:
    assert array is not None
    return array[one.skew : one.skew + steps][..., list(one.neurons)]
