"""Estimate the ANN twin's energy on purchasable hardware, from measured inferences at batch 1."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from stl_deploy.energy.prices.price_list import Range


@dataclass(frozen=True)
class Row:
    """One published network: dense MACs, joules and seconds of one inference."""

    net: str
    macs: int
    joules: float
    seconds: float


@dataclass(frozen=True)
class Device:
    """One device and its published rows. one_architecture: whether the rows are one network in several sizes.

    hz: the clock of the published runs; None: not kept.
    """

    name: str
    source: str
    rows: tuple[Row, ...]
    one_architecture: bool = False
    hz: float | None = None

    @property
    def key(self) -> str:
        """Short name, as ``stm32l4r5``."""
        return self.name.split()[0].lower()

    @property
    def microcontroller(self) -> bool:
        """Whether the C target's code runs on it."""
        return "Cortex" in self.name

    def without(self, row: Row) -> Device:
        """Return the device with one row left out."""
        return replace(self, rows=tuple(each for each in self.rows if each is not row))

    @property
    def per_mac(self) -> Range:
        """Joules per dense MAC: minimum and maximum over the rows used for predictions."""
        each = [row.joules / row.macs for row in self.rows]
        return min(each), max(each)

    @property
    def watts(self) -> Range:
        """Mean power of an inference: minimum and maximum over the rows used for predictions."""
        each = [row.joules / row.seconds for row in self.rows]
        return min(each), max(each)

    def predict(self, macs: float) -> tuple[Range, Range]:
        """Predict joules and seconds of an ANN with ``macs`` MACs.

        One architecture in several sizes: a fixed cost of an inference and a cost per MAC, fitted to the rows. Several
        architectures, whose costs per MAC differ: that of the two next in size, of which the smallest network bounds
        anything smaller.
        """
        rule = _line if self.one_architecture else _between
        return rule(self.rows, macs, "joules"), rule(self.rows, macs, "seconds")


def _line(rows: tuple[Row, ...], macs: float, what: str) -> Range:
    """Fit a line by least squares of relative errors; the range covers every row."""
    sizes, costs = (np.array([getattr(row, key) for row in rows], float) for key in ("macs", what))
    # weighted by 1 / cost: errors are relative, or the largest network would decide alone
    slope, fixed = np.polyfit(sizes, costs, 1, w=1 / costs)
    strays = costs / (fixed + slope * sizes)
    at = float(fixed + slope * macs)
    return at * float(strays.min()), at * float(strays.max())


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
    """Return every device with published rows."""
    text = (files(__package__) / "baselines.toml").read_text(encoding="utf-8")
    return tuple(_device(entry) for entry in tomllib.loads(text)["device"])


def microcontrollers() -> list[Device]:
    """Return the devices that run the C target's code."""
    return [device for device in devices() if device.microcontroller]


def _device(entry: dict[str, Any]) -> Device:
    rows = tuple(Row(row["net"], row["macs"], row["J"], row["s"]) for row in entry["rows"])
    return Device(entry["name"], entry["source"], rows, entry.get("one_architecture", False), entry.get("hz"))


def baselines(macs: float) -> list[dict[str, Any]]:
    """Return the energy JSON's ``ann_baselines``: the twin's MACs priced on every device."""
    entries = []
    for device in devices():
        joules, seconds = device.predict(macs)
        entries.append(
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
    return entries
