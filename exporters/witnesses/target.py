"""Third-party simulators (witnesses) as Runners, each in its own environment."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import write_npz
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.lava.process import run_worker
from stl_deploy.exporters.targets import Network, Options, Runner
from stl_deploy.exporters.witnesses.environment import BRIAN2, SIDE, XYLOSIM
from stl_deploy.exporters.witnesses.equations import Arrays, equations
from stl_deploy.exporters.xylo.runner import Xylo
from stl_deploy.exporters.xylo.simulate import ChipRun, ChipStates
from stl_deploy.exporters.xylo.specification import Specification
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput, Result, as_floats, match_inputs


class Brian2(Runner):
    """A Program in Brian2, in float32, in its side environment.

    On the exact grid every spike is the reference's; off it, sums are added up in another order.
    """

    name = "brian2"
    description = "Brian2 in its side environment"
    label = "measured"
    agrees_with = "reference"

    def __init__(self, network: Network, options: Options) -> None:
        if not isinstance(network, Program):
            raise InputError(f"{network}: expected a run folder or a .nir file for brian2; found an artifact")
        self._program, self._options = network, options
        self._groups, self._arrays = equations(network)

    @classmethod
    def available(cls) -> str | None:
        """Return why its side environment cannot be used, or None."""
        return BRIAN2.reason()

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        """See `stl_deploy.exporters.targets.Runner`; raises ToolError if Brian2 is missing, fails or takes too long."""
        given = {name: as_floats(array) for name, array in match_inputs(self._program, x).items()}
        rows = [given[node.name] for node in self._program.inputs]
        entering = np.concatenate([array.reshape(*array.shape[:2], -1) for array in rows], axis=2)
        spikes = self._work(entering)
        arrays: dict[str, NDArray[np.float32]] = {}
        for place, group in enumerate(self._groups):
            if group["keep"]:
                node, array = self._program.by_name[group["name"]], spikes.get(f"out{place}")
                if array is None or array.shape != (*entering.shape[:2], group["size"]):
                    raise ToolError(f"Brian2 returned no array of the shape of '{node.name}'")
                arrays[node.name] = array.astype(np.float32).reshape(*entering.shape[:2], *node.shape)
        outputs = {node.name: arrays[node.name] for node in self._program.outputs}
        return Result(outputs, {node.name: arrays[node.name] for node in self._program.spiking} if record else {})

    def _work(self, entering: NDArray[np.float32]) -> Arrays:
        with temporary_folder() as folder:
            write_npz(folder / "net.npz", {**self._arrays, "groups": np.array(json.dumps(self._groups))})
            return run_worker(
                BRIAN2.require(),
                folder / "net.npz",
                entering,
                deadline=self._options.deadline,
                progress=self._options.progress,
                script=SIDE / "brian2_worker.py",
                tool=BRIAN2.title,
            )


class XyloSim(Xylo):
    """xylosim in its side environment."""

    name = "xylosim"
    description = "xylosim, SynSense's simulator of Xylo, in its side environment (simulated; not the chip)"
    agrees_with = "xylo"

    @classmethod
    def available(cls) -> str | None:
        """Return why its side environment cannot be used, or None."""
        return XYLOSIM.reason()

    def model(self, program: Program) -> Xylo:
        """Return our model of the same integers."""
        own = Xylo(program, self._options)
        own.network = self.network
        return own

    def integers(self, spec: Specification, x: NDArray[Any], record: bool) -> ChipRun:
        """Run the chip's integers; raise ToolError if xylosim is missing, fails or takes too long."""
        with temporary_folder() as folder:
            write_npz(folder / "net.npz", spec.arrays())
            results: dict[str, Any] = run_worker(
                XYLOSIM.require(),
                folder / "net.npz",
                x,
                deadline=self._options.deadline,
                progress=self._options.progress,
                script=SIDE / "xylosim_worker.py",
                tool=XYLOSIM.title,
            )
        shape = x.shape[:2]
        expected = {
            "spikes": (*shape, spec.hidden),
            "v": (*shape, spec.hidden),
            "i": (*shape, spec.hidden, spec.synapses),
            "outputs": (*shape, spec.outputs),
            "v_out": (*shape, spec.outputs),
            "i_out": (*shape, spec.outputs),
        }
        if {name: array.shape for name, array in results.items()} != expected:
            raise ToolError("xylosim returned arrays of other shapes than the network's")
        saturated, saturated_out = np.zeros(spec.hidden, np.int64), np.zeros(spec.outputs, np.int64)
        states = ChipStates(*(results[name] for name in ChipStates._fields))
        return ChipRun(results["spikes"], results["outputs"], saturated, saturated_out, states)


TARGETS = (Brian2, XyloSim)
