"""Lava's CPU simulation as a Runner."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.remedies import option
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import InputError
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.lava.driver import run_lava
from stl_deploy.exporters.lava.floats import run_lava_float
from stl_deploy.exporters.netx.file import write_netx
from stl_deploy.exporters.netx.layers import NetxFile
from stl_deploy.exporters.netx.target import Loihi, NetxOptions
from stl_deploy.exporters.targets import Model, Network
from stl_deploy.graph.run import NetworkInput, Result
from stl_deploy.integers.simulate import IntegerRun


@dataclass(frozen=True, kw_only=True, eq=False)
class LavaOptions(NetxOptions):
    """numeric: ``fixed``, the netx file in integers, or ``float``, raw floating-point processes."""

    numeric: Literal["fixed", "float"] = "fixed"


class Lava(Loihi):
    """Run the integers of a Program, or of a netx file, on Lava's CPU simulation in its side environment."""

    name = "lava"
    description = "Lava's CPU simulation in its side environment (simulated; not the chip)"
    reads = ("netx",)
    options = LavaOptions
    agrees_with: Model | None = "loihi"

    def __init__(self, network: Network, options: LavaOptions) -> None:
        super().__init__(network, options)
        self._lava = options
        if options.numeric == "float":
            self.agrees_with = None
            if isinstance(network, Path):
                raise InputError(
                    f"{network}: expected a run folder or a .nir file for {option('numeric', 'float')}; found integers"
                )

    @classmethod
    def available(cls) -> str | None:
        """Return why its side environment cannot be used, or None."""
        status = environment.status()
        return None if status.ready else status.reason

    def run(self, x: NetworkInput, record: bool = False) -> Result:
        """See `stl_deploy.exporters.targets.Runner`; raises ToolError if Lava is missing, fails or takes too long."""
        if self._lava.numeric == "fixed" or self._program is None:
            return super().run(x, record)
        options = self._lava
        result = run_lava_float(self._program, np.asarray(x), deadline=options.deadline, progress=options.progress)
        spikes = {name: np.asarray(s, np.float32) for name, s in result.spikes.items()}
        return Result({"output": result.y}, spikes if record else {})

    def integers(self, file: NetxFile, x: NDArray[Any], record: bool) -> IntegerRun:
        """Run the layers of a netx file, or the file itself if there is one, on integers ``x``."""
        if self._path is not None:
            return self._run_lava(self._path, x)
        with temporary_folder() as folder:
            write_netx(file, folder / "net.net")
            return self._run_lava(folder / "net.net", x)

    def _run_lava(self, path: Path, x: NDArray[Any]) -> IntegerRun:
        return run_lava(path, x, deadline=self._lava.deadline, progress=self._lava.progress)


TARGETS = (Lava,)
