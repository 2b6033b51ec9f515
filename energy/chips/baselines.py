"""Measured energy of ANNs at batch 1, everything included: what the twin would cost on hardware one can buy."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from stl_deploy.energy.prices.price_list import Range

TRAINING = ("ad", "kws", "ic", "0 branches", "4 branches", "8 branches")
"""The networks that a device's line is fitted to; the other published ones are held out."""


@dataclass(frozen=True)
class Row:
    """One published network: dense MACs, joules and seconds of one inference."""

    net: str
    macs: int
    joules: float
    seconds: float


@dataclass(frozen=True)
class Device:
    """One device and its published rows."""

    name: str
    source: str
    rows: tuple[Row, ...]

    @property
    def microcontroller(self) -> bool:
        """Whether the C target's code runs on it."""
        return "Cortex" in self.name

    @property
    def training(self) -> tuple[Row, ...]:
        """Rows that predictions rest on; all of them where none is left to hold out."""
        return tuple(row for row in self.rows if row.net in TRAINING) or self.rows

    @property
    def held_out(self) -> tuple[Row, ...]:
        """The others."""
        return tuple(row for row in self.rows if row not in self.training)

    @property
    def per_mac(self) -> Range:
        """Joules per dense MAC, the least and the most over the rows predictions rest on."""
        each = [row.joules / row.macs for row in self.training]
        return min(each), max(each)

    @property
    def seconds_per_mac(self) -> Range:
        """Seconds per dense MAC, likewise."""
        each = [row.seconds / row.macs for row in self.training]
        return min(each), max(each)

    @property
    def watts(self) -> Range:
        """Mean power of an inference, likewise."""
        each = [row.joules / row.seconds for row in self.training]
        return min(each), max(each)

    def predict(self, macs: float) -> tuple[Range, Range]:
        """Joules and seconds of an ANN of ``macs``, at the cost per MAC of the published networks next in size.

        Smaller than any of them: from its share of the smallest to as much as that one. Larger: of the largest two.
        """
        return _between(self.training, macs, "joules"), _between(self.training, macs, "seconds")


def _between(rows: tuple[Row, ...], macs: float, what: str) -> Range:
    known = sorted(rows, key=lambda row: row.macs)
    if macs < known[0].macs:
        least = float(getattr(known[0], what))
        return least * macs / known[0].macs, least
    above = next((i for i, row in enumerate(known) if row.macs >= macs), len(known) - 1)
    near = [known[above]] if known[above].macs == macs else known[max(0, above - 1) : above + 1]
    each = [getattr(row, what) / row.macs * macs for row in near]
    return min(each), max(each)


@cache
def devices() -> tuple[Device, ...]:
    """Every device with published rows."""
    text = (files(__package__) / "baselines.toml").read_text(encoding="utf-8")
    return tuple(_device(entry) for entry in tomllib.loads(text)["device"])


def _device(entry: dict[str, Any]) -> Device:
    rows = tuple(Row(row["net"], row["macs"], row["J"], row["s"]) for row in entry["rows"])
    return Device(entry["name"], entry["source"], rows)


def baselines(macs: float) -> list[dict[str, Any]]:
    """The energy JSON's ``ann_baselines``: the twin's MACs on every device."""
    found = []
    for device in devices():
        joules, seconds = device.predict(macs)
        found.append(
            {
                "device": device.name,
                "ann_J": list(joules),
                "ann_s": list(seconds),
                "label": "modelled",
                "evidence": "measured",
                "source": device.source,
                "published": [f"{row.net}: {row.macs:,} MACs" for row in device.rows],
            }
        )
    return found
