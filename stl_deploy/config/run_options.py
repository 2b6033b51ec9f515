"""Options of the verbs that train, search and quantise: one class each, as in `stl_deploy.config.options`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from stl_deploy._util.remedies import named
from stl_deploy.config.options import DEVICES, LearningMode, input_grid_option, option
from stl_deploy.errors import InputError


@dataclass(frozen=True, kw_only=True)
class OptimiseOptions:
    """Options of optimise: the goal, and the limits of the search.

    goal: ``energy``. margin: accuracy that a network may lose to the ANN twin, at the worse end of its interval, in
    percentage points. minutes: no training starts after this time. processes: networks trained in parallel.
    """

    goal: str = option("energy", "Quantity to minimise: energy.", "--for", metavar="GOAL")
    margin: float = option(
        1.0, "Accuracy that a network may lose to the ANN twin, proved, in percentage points.", metavar="POINTS"
    )
    minutes: float = option(10.0, "Start no training after M minutes; call again to continue.", metavar="M")
    processes: int = option(2, "Train N networks at a time.", metavar="N")

    def __post_init__(self) -> None:
        """Raise InputError for another goal, or a number out of range."""
        if self.goal != "energy":
            raise InputError(f"{named('goal')}: expected energy; found '{self.goal}'")
        if not self.minutes >= 0:
            raise InputError(f"{named('minutes')}: expected a number from 0 up; found {self.minutes:g}")
        if self.processes < 1:
            raise InputError(f"{named('processes')}: expected 1 or more; found {self.processes}")


class OptimiseKeywords(TypedDict, total=False):
    """Fields of `OptimiseOptions`."""

    goal: str
    margin: float
    minutes: float
    processes: int


@dataclass(frozen=True, kw_only=True)
class QuantiseOptions:
    """Options of quantise: quantisation-aware training.

    lr: None: 0.3 of the run's, 0.03 for one-cycle schedules. samples: None: all. resume: continue an interrupted call.
    """

    epochs: int = option(10, "Epochs of fine-tuning; 0 rounds only.")
    weight_bits: int = option(8, "Bits per weight into neurons, sign included: 2 to 8.")
    lr: float | None = option(None, "Initial learning rate; default: 0.3 of the run's (one_cycle: 0.03).")
    samples: int | None = option(None, "Test images to compare on; default: all.")
    device: str = option("cpu", "cpu or cuda, for the training.")
    input_grid: int | None = input_grid_option()
    resume: bool = option(False, "Continue from the folder's checkpoint.", "--resume")


class QuantiseKeywords(TypedDict, total=False):
    """Fields of `QuantiseOptions`."""

    epochs: int
    weight_bits: int
    lr: float | None
    samples: int | None
    device: str
    input_grid: int | None
    resume: bool


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Named changes to a configuration; `changes` has them all as ``key=value``."""

    mode: LearningMode | None = option(None, "stl: weights and thresholds; sl: weights; tl: thresholds; ann: ReLU.")
    seed: int | None = option(None, "Seed of weights, order, encoding and dropout.")
    energy_weight: float | None = option(None, "Charge priced energy: the loss grows by W an ANN's.", metavar="W")
    device: str | None = option(None, "auto, cpu or cuda.", choices="devices")
    data_dir: str | None = option(
        None,
        "Folder of the dataset's files; default: download them.",
        "--data-dir",
        metavar="DIR",
        kind=Path | None,
        parse="path_text",
    )
    input_grid: int | None = input_grid_option()
    set: tuple[str, ...] = option(
        (),
        "Change one key, as in --set train.epochs=3; repeatable.",
        "--set",
        metavar="KEY=VALUE",
        kind=list[str] | None,
        parse="texts",
    )

    def __bool__(self) -> bool:
        """Return whether anything is changed."""
        return bool(self.changes)

    def __post_init__(self) -> None:
        """Raise InputError for a device of another form."""
        if self.device is not None and re.fullmatch(DEVICES, self.device) is None:
            raise InputError(f"{named('device')}: expected auto, cpu, cuda or cuda:N; found '{self.device}'")

    @property
    def changes(self) -> list[str]:
        """Return the changes as ``--set`` takes them, named ones first."""
        from json import dumps

        named = {
            "train.mode": self.mode,
            "train.seed": self.seed,
            "train.energy_weight": self.energy_weight,
            "train.device": self.device,
            "dataset.data_dir": None if self.data_dir is None else dumps(self.data_dir),
            "dataset.input_grid": self.input_grid,
        }
        return [*(f"{key}={value}" for key, value in named.items() if value is not None), *self.set]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Steps of the whole run.

    lava: simulate on Lava if it is installed. twin: train the ANN of the same topology once, for comparison.
    frontier: train narrower ANNs once, to find the cheapest that is no less accurate.
    """

    resume: bool = option(False, "Continue from the folder's checkpoint.", "--resume")
    overwrite: bool = option(False, "Replace the run or training in the folder.", "--overwrite")
    lava: bool = option(True, "Skip Lava and other simulators even if they are installed.", "--no-lava")
    twin: bool | Literal["kept"] = option(True, "Do not train the ANN twin for comparison.", "--no-twin", kind=bool)
    frontier: bool = option(True, "Do not train narrower ANNs for the comparison.", "--no-frontier")


class RunKeywords(TypedDict, total=False):
    """Fields of `RunOptions`."""

    resume: bool
    overwrite: bool
    lava: bool
    twin: bool | Literal["kept"]
    frontier: bool
