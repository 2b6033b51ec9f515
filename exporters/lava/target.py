"""Lava's CPU simulation as a Runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stl_deploy._util.remedies import option
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.lava.process import Progress, run_worker
from stl_deploy.exporters.netx.file import read_netx, write_netx
from stl_deploy.exporters.netx.layers import InputLayer, NetxFile
from stl_deploy.exporters.netx.target import Loihi
from stl_deploy.exporters.targets import Model
from stl_deploy.integers.simulate import IntegerRun, as_integers


class Lava(Loihi):
    """Run the integers of a Program, or of a netx file, on Lava's CPU simulation in its side environment."""

    name = "lava"
    description = "Lava's CPU simulation in its side environment (simulated; not the chip)"
    reads = ("netx",)
    agrees_with: Model | None = "loihi"

    @classmethod
    def available(cls) -> str | None:
        """Return why its side environment cannot be used, or None."""
        status = environment.status()
        return None if status.ready else status.reason

    def integers(self, file: NetxFile, x: NDArray[Any], record: bool) -> IntegerRun:
        """Run the layers of a netx file, or the file itself if there is one, on integers ``x``."""
        if self._path is not None:
            return self._run_lava(self._path, x)
        with temporary_folder() as folder:
            write_netx(file, folder / "net.net")
            return self._run_lava(folder / "net.net", x)

    def _run_lava(self, path: Path, x: NDArray[Any]) -> IntegerRun:
        return run_lava(path, x, deadline=self._options.deadline, progress=self._options.progress)


def run_lava(
    net_path: Path, x: NDArray[Any], *, deadline: float = 600.0, progress: Progress | None = None
) -> IntegerRun:
    """Run a ``.net`` file on Lava's CPU simulation for integers ``x`` ``[T, B, *input shape]``.

    deadline: seconds without progress after which the run is ended. The result has every layer's spikes, as
    `stl_deploy.exporters.netx.convert.run_file` gives them with ``record=True``.
    Raises InputError for a bad file or input, ToolError if Lava is missing, fails or takes too long.
    """
    net = read_netx(net_path)
    first = net.layers[0]
    if isinstance(first, InputLayer) and first.neuron is not None:
        raise InputError(
            f"{net_path}: x is the bias of its input layer's neurons, which is not set on real Lava here; use our "
            f"integer model ({option('backend', 'loihi')})"
        )
    x = as_integers(x, net.input_shape)
    python = environment.require()
    spikes = run_worker(python, net_path, x, deadline=deadline, progress=progress)
    expected = {key: (*x.shape[:2], *layer.shape) for key, layer in net.spiking}
    shapes = {key: array.shape for key, array in spikes.items()}
    if shapes != expected:
        raise ToolError(f"expected arrays {expected} from Lava; found {shapes}")
    return IntegerRun(spikes[list(expected)[-1]], {key: spikes[key] for key in expected})


TARGETS = (Lava,)
