"""Instructions and cycles of the C target, from counts by an emulator."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from stl_deploy.energy.chips.baselines import Device
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.prices.price_list import Range


@dataclass(frozen=True)
class Core:
    """A processor core. runs: cores whose instructions are taken to be its own.

    per_synop, per_update: instructions; strays: counted over fitted; cycles: of an instruction (assumed).
    """

    name: str
    runs: tuple[str, ...]
    per_synop: float
    per_update: float
    strays: Range
    cycles: Range

    def instructions(self, counts: Counts) -> Range:
        """Return the instructions of one inference."""
        totals = counts.totals
        fitted = (self.per_synop * totals.synops + self.per_update * totals.neuron_updates) / counts.batch
        return fitted * self.strays[0], fitted * self.strays[1]


@cache
def cores() -> tuple[Core, ...]:
    """Return the cores with counted instructions."""
    text = (files(__package__) / "c_code.toml").read_text(encoding="utf-8")
    return tuple(
        Core(
            entry["name"],
            tuple(entry["runs"]),
            entry["per_synop"],
            entry["per_update"],
            tuple(entry["strays"]),
            tuple(entry["cycles"]),
        )
        for entry in tomllib.loads(text)["core"]
    )


def core_of(device: Device) -> Core:
    """Return a microcontroller's core."""
    return next(core for core in cores() if any(f"({name})" in device.name for name in core.runs))
