"""Run Xylo's integers: of a folder that export wrote, of a bare specification, or of a Program."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.exporters.integer_runner import calibration
from stl_deploy.exporters.targets import Network, Options, Runner
from stl_deploy.exporters.xylo.choose import choose
from stl_deploy.exporters.xylo.devices import find_device
from stl_deploy.exporters.xylo.simulate import HIDDEN, OUTPUT, ChipRun, evolve, load, simulate, whole_counts
from stl_deploy.exporters.xylo.specification import INPUT_CAP, Specification
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import Readout
from stl_deploy.graph.run import NetworkInput, Result


@dataclass(frozen=True, kw_only=True, eq=False)
class XyloOptions(Options):
    """Options of Xylo.

    device: ``audio2``, ``audio3`` or ``imu``; None: the first that holds the network. round_decays: take the nearest
    shift for decays that are none. Raises InputError for another device.
    """

    device: str | None = None
    round_decays: bool = False

    def __post_init__(self) -> None:
        if self.device is not None:
            find_device(self.device)


class Xylo(Runner):
    """Our integer model of the chip."""

    name = "xylo"
    description = "our integer model of the Xylo chip"
    reads = ("xylo",)
    options = XyloOptions

    def __init__(self, network: Network, options: XyloOptions) -> None:
        self._options = options
        self.network = load(network) if isinstance(network, Path) else None
        self._program = network if isinstance(network, Program) else None

    @property
    def readout(self) -> Readout | None:
        """See `stl_deploy.exporters.targets.HasReadout`."""
        layout = None if self.network is None else self.network.layout
        return None if layout is None else layout.readout

    @property
    def input_bits(self) -> int:
        """See `stl_deploy.exporters.targets.DeclaresInputGrid`: integers alone."""
        return 0

    def of(self, program: Program) -> Self:
        """Return the runner; raise InputError if its neurons are not those of ``program``."""
        layout = None if self.network is None else self.network.layout
        if self.network is not None:
            own = (
                {population.node for population in layout.populations if population.spikes}
                if layout is not None
                else {HIDDEN, OUTPUT}
            )
            names = {node.name for node in program.spiking}
            if names != own:
                raise InputError(
                    f"expected a Xylo folder whose neurons are {', '.join(sorted(names))}; found "
                    f"{', '.join(sorted(own))}; give the graph that it was exported from"
                )
        return copy.copy(self)

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        """See `stl_deploy.exporters.targets.Runner`. x: integers from 0; above 15 they count as 15, and it warns.

        A Program's integers are chosen by the calibration input, else by x. The Result's states are the chip's 16-bit
        numbers. Warns where states were cut at 16 bits.
        """
        if self.network is None:
            assert self._program is not None
            given = calibration(self._program, self._options, x)
            self.network = choose(
                self._program, given, device=self._options.device, round_decays=self._options.round_decays
            ).network
        layout = self.network.layout
        entering = whole_counts(x, (self.network.spec.channels,) if layout is None else layout.input_shape)
        if entering.max(initial=0) > INPUT_CAP:
            self._options.say.warn(
                f"{float((entering > INPUT_CAP).mean()):.2%} of the input is above {INPUT_CAP}, the most spikes of a "
                f"channel in one step of Xylo; these count as {INPUT_CAP}"
            )
        result, chip_run = evolve(self.network, entering, record, self.integers)
        self._tell(chip_run)
        return result

    def integers(self, spec: Specification, x: NDArray[Any], record: bool) -> ChipRun:
        """Run the chip's integers on integers ``[T, B, channels]``."""
        return simulate(spec, x, record=record, progress=self._options.progress)

    def _tell(self, chip_run: ChipRun) -> None:
        cut = int(chip_run.saturated.sum() + chip_run.saturated_out.sum())
        if cut:
            self._options.say.warn(
                f"a current or a potential left 16 bits and was cut in {cut:,} of "
                f"{chip_run.spikes.size + chip_run.outputs.size:,} neuron-steps, at "
                f"{np.count_nonzero(chip_run.saturated) + np.count_nonzero(chip_run.saturated_out)} neurons"
            )
