"""nengo-loihi as a Runner: an emulator of Loihi 1 that is not ours, equal to our integer model in every spike."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stl_deploy._util.files import write_npz
from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.integers.simulate import IntegerRun, whole_numbers
from stl_deploy.exporters.lava.process import run_worker
from stl_deploy.exporters.loihi.net import IntegerNet
from stl_deploy.exporters.loihi.netx import read_netx
from stl_deploy.exporters.loihi.target import Loihi
from stl_deploy.exporters.targets import Model
from stl_deploy.exporters.witnesses.environment import NENGO_LOIHI, SIDE
from stl_deploy.exporters.witnesses.rows import net_arrays, shapes
from stl_deploy.exporters.witnesses.wrapped import Wrapped
from stl_deploy.graph.program import Program


class NengoLoihi(Loihi):
    """The integers of a Program, or of a netx file, on nengo-loihi's emulator in its side environment.

    It must equal our integer model with its narrower registers (`wrapped`): 64 times a weighted sum wraps at 2^21.
    """

    name = "nengo_loihi"
    description = "nengo-loihi's emulator of Loihi 1 in its side environment (simulated; not the chip)"
    reads: tuple[str, ...] = ("netx",)
    agrees_with: Model | None = "loihi"

    @classmethod
    def available(cls) -> str | None:
        """Why its side environment cannot be used, if so."""
        return NENGO_LOIHI.reason()

    def model(self, program: Program) -> Wrapped:
        """Our model with its registers."""
        return Wrapped(program if self._path is None else self._path, self._options).of(program)

    def integers(self, path: Path, x: NDArray[Any], record: bool) -> IntegerRun:
        """Run a netx file on whole numbers."""
        return self.emulate(read_netx(path), x)

    def emulate(self, net: IntegerNet, x: NDArray[Any]) -> IntegerRun:
        """Run a network on whole numbers, none below 0."""
        x = whole_numbers(x, net.input_shape)
        if x.size and x.min() < 0:
            raise InputError(f"expected counts of spikes, 0 or more; found {x.min()}; use --backend loihi")
        with temporary_folder() as folder:
            write_npz(folder / "net.npz", net_arrays(net))
            found = run_worker(
                NENGO_LOIHI.require(),
                folder / "net.npz",
                x,
                deadline=self._options.deadline,
                progress=self._options.progress,
                script=SIDE / "nengo_loihi_worker.py",
                tool=NENGO_LOIHI.title,
            )
        expected = shapes(net)
        if {key: array.shape[2:] for key, array in found.items()} != {
            key: (math.prod(shape),) for key, shape in expected.items()
        }:
            raise ToolError("nengo-loihi returned arrays of other shapes than the network's")
        spikes = {key: found[key].reshape(*x.shape[:2], *shape) for key, shape in expected.items()}
        return IntegerRun(spikes[list(expected)[-1]], spikes)
