"""Common Runner for independent simulators of Loihi's integers."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from numpy.typing import NDArray

from stl_deploy._util.files import write_npz
from stl_deploy._util.remedies import option
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.lava.process import run_worker
from stl_deploy.exporters.netx.layers import NetxFile
from stl_deploy.exporters.netx.target import Loihi
from stl_deploy.exporters.witnesses.environment import SIDE, Witness
from stl_deploy.exporters.witnesses.rows import net_arrays, shapes
from stl_deploy.integers.simulate import IntegerRun, as_integers


class Emulator(Loihi):
    """Run the integers of a Program, or of a netx file, on a witness in its side environment.

    script: of `SIDE`, given the network's rows; it returns each layer's spikes, and may return more.
    """

    reads = ("netx",)
    agrees_with = "loihi"
    witness: ClassVar[Witness]
    script: ClassVar[str]

    @classmethod
    def available(cls) -> str | None:
        """Return why its side environment cannot be used, or None."""
        return cls.witness.reason()

    def integers(self, file: NetxFile, x: NDArray[Any], record: bool) -> IntegerRun:
        """Run the layers of a netx file on integers, none below 0."""
        x = as_integers(x, file.input_shape)
        if x.size and x.min() < 0:
            raise InputError(f"expected counts of spikes, 0 or more; found {x.min()}; use {option('backend', 'loihi')}")
        arrays = net_arrays(file)
        self.check(arrays)
        with temporary_folder() as folder:
            write_npz(folder / "net.npz", arrays)
            results: dict[str, NDArray[Any]] = dict(
                run_worker(
                    self.witness.require(),
                    folder / "net.npz",
                    x,
                    deadline=self._options.deadline,
                    progress=self._options.progress,
                    script=SIDE / self.script,
                    tool=self.witness.title,
                )
            )
        self.tell(results, x.shape[1])
        expected = shapes(file)
        if {key: array.shape[2:] for key, array in results.items()} != {
            key: (math.prod(shape),) for key, shape in expected.items()
        }:
            raise ToolError(f"{self.witness.title} returned arrays of other shapes than the network's")
        spikes = {key: results[key].reshape(*x.shape[:2], *shape) for key, shape in expected.items()}
        return IntegerRun(spikes[list(expected)[-1]], spikes)

    def check(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Raise InputError for rows that it cannot hold."""

    def tell(self, results: dict[str, NDArray[Any]], samples: int) -> None:
        """Remove everything but spikes from the result, and print it."""
