"""xylosim as a Runner: SynSense's own simulator of Xylo, equal to our model in every spike, potential and current."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import write_npz
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import ToolError
from stl_deploy.exporters.lava.process import run_worker
from stl_deploy.exporters.witnesses.environment import SIDE, XYLOSIM
from stl_deploy.exporters.xylo.runner import Xylo
from stl_deploy.exporters.xylo.simulate import ChipRun
from stl_deploy.exporters.xylo.specification import Specification
from stl_deploy.graph.program import Program


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
            results: dict[str, NDArray[Any]] = dict(
                run_worker(
                    XYLOSIM.require(),
                    folder / "net.npz",
                    x,
                    deadline=self._options.deadline,
                    progress=self._options.progress,
                    script=SIDE / "xylosim_worker.py",
                    tool=XYLOSIM.title,
                )
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
        return ChipRun(**results, saturated=saturated, saturated_out=saturated_out)
