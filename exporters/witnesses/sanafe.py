"""SANA-FE as a Runner: an architecture simulator that is not ours; our integer model's spikes, and its energy."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from stl_deploy._util.remedies import option
from stl_deploy._util.units import with_unit
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.witnesses.emulator import Emulator
from stl_deploy.exporters.witnesses.environment import SANAFE
from stl_deploy.integers.net import DECAY_ONE

TERMS = ("synapse", "dendrite", "soma", "network")


class SanaFe(Emulator):
    """SANA-FE's model of Loihi 1, layer by layer, each on cores of 1,024 neurons in order.

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
