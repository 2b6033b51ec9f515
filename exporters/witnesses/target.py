"""Witnesses: simulators that are not ours, each in an environment of its own, as Runners."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from stl_deploy._util.remedies import option
from stl_deploy._util.units import with_unit
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.netx.layers import NetxFile
from stl_deploy.exporters.witnesses.brian2 import Brian2
from stl_deploy.exporters.witnesses.emulator import Emulator
from stl_deploy.exporters.witnesses.environment import NENGO_LOIHI, SANAFE
from stl_deploy.exporters.witnesses.wrapped import Wrapped, parting
from stl_deploy.exporters.witnesses.xylosim import XyloSim
from stl_deploy.graph.program import Program
from stl_deploy.integers.net import DECAY_ONE
from stl_deploy.integers.simulate import IntegerRun

TERMS = ("synapse", "dendrite", "soma", "network")
"""Parts of the energy that SANA-FE returns, in order."""


class NengoLoihi(Emulator):
    """nengo-loihi: an emulator of Loihi 1, equal to our integer model in every spike.

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


class SanaFe(Emulator):
    """SANA-FE: a model of Loihi 1 with our integer model's spikes, and its energy.

    Each layer is on cores of 1,024 neurons in order.

    energy: joules of the last run by term, as its own model of the chip prices it, without floor power; None before.
    """

    name = "sanafe"
    description = "SANA-FE's model of Loihi 1 in its side environment (simulated; not the chip)"
    witness = SANAFE
    script = "sanafe_worker.py"
    energy: dict[str, float] | None = None

    def check(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Raise InputError for currents that decay, which it keeps in floating point."""
        for key in (str(key) for key in arrays["keys"]):
            if (arrays[f"{key}.i_decay"] != DECAY_ONE).any():
                raise InputError(
                    f"'{key}': expected neurons whose current lasts one step; use {option('backend', 'loihi')}"
                )

    def tell(self, results: dict[str, NDArray[Any]], samples: int) -> None:
        """Print an inference's energy and its terms."""
        joules = results.pop("energy", None)
        if joules is None or joules.shape != (len(TERMS),):
            raise ToolError("SANA-FE returned no energy")
        self.energy = dict(zip(TERMS, joules.tolist(), strict=True))
        terms = ", ".join(f"{name} {with_unit(value / samples, 'J')}" for name, value in self.energy.items())
        total = with_unit(sum(self.energy.values()) / samples, "J")
        self._options.say.say(f"SANA-FE's own model of Loihi 1: {total} an inference without floor power ({terms})")


TARGETS = (Brian2, NengoLoihi, SanaFe, XyloSim)
