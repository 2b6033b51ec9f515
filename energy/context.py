"""Inputs of an energy report besides the network and its counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from stl_deploy.energy.ann_twin import AnnTwin
from stl_deploy.energy.chips.step_times import StepTimes, check_step_times
from stl_deploy.energy.prices.chip import Checked, OnChip
from stl_deploy.energy.prices.load import load_prices
from stl_deploy.energy.prices.machine import MachineEnergy
from stl_deploy.energy.prices.price_list import PriceList

DEFAULT_PRICES = (
    "horowitz45_fp32",
    "horowitz45_int8",
    "horowitz45_int8_acc32",
    "loihi1_davies2018",
    "loihi1_sanafe",
)
_NO_PLACEMENT, _UNCHECKED = OnChip(), Checked()


@dataclass(frozen=True, kw_only=True)
class Context:
    """Inputs of an energy report besides the network and its counts.

    Attributes:
        prices: Names of built-in price lists, paths of ``.toml`` files, or lists.
        source: Name of the counted network.
        twin: Activity of a trained ANN of the same topology; without it, its zeros are bounded.
        machine: Energy measured on this machine, listed beside the model.
        chip: Placement of the neurons, for lists that price messages and hops between cores.
        checked: Chips that cannot hold the network, and its clocks on UP5K; without clocks, UP5K has no line.
        step_time: Measured seconds of one time step by chip, instead of predicted ones.
        notes: Assumptions, one sentence each.

    Raises:
        InputError: For step times of unknown chips, or that are not seconds.
    """

    prices: Sequence[str | Path | PriceList] = DEFAULT_PRICES
    source: str = ""
    twin: AnnTwin | None = None
    machine: MachineEnergy | None = None
    chip: OnChip = _NO_PLACEMENT
    checked: Checked = _UNCHECKED
    step_time: StepTimes | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raise InputError for invalid step times."""
        check_step_times(self.step_time)

    def price_lists(self) -> list[PriceList]:
        """Return the price lists; raise ConfigError for a bad one."""
        return [entry if isinstance(entry, PriceList) else load_prices(entry) for entry in self.prices]


class ContextKeywords(TypedDict, total=False):
    """Fields of `Context`."""

    prices: Sequence[str | Path | PriceList]
    source: str
    twin: AnnTwin | None
    machine: MachineEnergy | None
    chip: OnChip
    checked: Checked
    step_time: StepTimes | None
    notes: Sequence[str]
