"""nengo-loihi as a Runner: an emulator of Loihi 1 that is not ours, equal to our integer model in every spike."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from stl_deploy.exporters.netx.layers import NetxFile
from stl_deploy.exporters.witnesses.emulator import Emulator
from stl_deploy.exporters.witnesses.environment import NENGO_LOIHI
from stl_deploy.exporters.witnesses.wrapped import Wrapped, parting
from stl_deploy.graph.program import Program
from stl_deploy.integers.simulate import IntegerRun


class NengoLoihi(Emulator):
    """nengo-loihi's emulator.

    It must equal our integer model with its narrower registers (`wrapped`): 64 times a weighted sum wraps at 2^21.
    """

    name = "nengo_loihi"
    description = "nengo-loihi's emulator of Loihi 1 in its side environment (simulated; not the chip)"
    witness = NENGO_LOIHI
    script = "nengo_loihi_worker.py"

    def model(self, program: Program) -> Wrapped:
        """Return our model with its registers."""
        return Wrapped(program if self._path is None else self._path, self._options).of(program)

    def integers(self, file: NetxFile, x: NDArray[Any], record: bool) -> IntegerRun:
        """Run as `Emulator.integers`; print where its registers make it differ from Lava."""
        result = super().integers(file, x, record)
        why = parting(file, x)
        if why is not None:
            self._options.say.say(why)
        return result
