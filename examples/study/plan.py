"""What is trained: the settings of a study, read from YAML, and its tasks in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

Part = Literal["modes", "noise", "thresholds", "granularity", "depth"]
PARTS: tuple[Part, ...] = ("modes", "noise", "thresholds", "depth", "granularity")
Layers = list[dict[str, Any]]
Labels = dict[str, str | float | int | bool]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Runs(_Section):
    """How a part is trained: datasets, number of seeds (0, 1, ...), epochs, first images used (None: all)."""

    datasets: list[str]
    seeds: int
    epochs: int
    images: int | None
    validation: float


class Noise(_Section):
    """Levels of noise above 0."""

    levels: list[float]


class Thresholds(Runs):
    """Initial thresholds."""

    initial: list[float]


class Granularity(Runs):
    """Channels of the two strided convolutions."""

    channels: list[int]


class Depth(Runs):
    """Numbers of hidden layers, and on how many test images synops are counted."""

    layers: list[int]
    counted: int


class Settings(_Section):
    """A study."""

    T: int
    encoder: str
    batch_size: int
    lr: float
    lr_decay: float
    tl_multiplier: float
    threshold: float
    hidden: int
    modes: Runs
    noise: Noise
    thresholds: Thresholds
    granularity: Granularity
    depth: Depth


@dataclass(frozen=True)
class Task:
    """One network to train and what is asked of it then: nothing, its accuracy under noise, or its synops.

    labels: what tells it from the others of its part. config: of `stl_deploy.config.schema.RunConfig`, without
    data_dir.
    """

    part: Part
    dataset: str
    labels: Labels
    seed: int
    images: int | None
    config: dict[str, Any]
    levels: tuple[float, ...] = ()
    counted: int = 0

    @property
    def name(self) -> str:
        """Unique in a study."""
        labels = "-".join(str(value) for value in self.labels.values())
        return f"{self.part}-{self.dataset}-{labels}-s{self.seed}"


def read_settings(path: Path) -> Settings:
    """Settings from a YAML file; raises pydantic.ValidationError for unknown or wrong keys."""
    return Settings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def tasks(settings: Settings, part: Part) -> list[Task]:
    """The tasks of a part, all variants of a seed before the next seed, so that what is done can be paired."""
    makers = {"modes": _modes, "noise": _noise, "thresholds": _thresholds, "granularity": _granularity, "depth": _depth}
    return sorted(makers[part](settings), key=lambda task: task.seed)


def dense(hidden: list[int]) -> Layers:
    """An MLP with 10 output neurons per class that vote, as the paper's readout; no batch norm."""
    layers: Layers = [{"kind": "flatten"}]
    for features in (*hidden, 100):
        layers += [{"kind": "linear", "features": features}, {"kind": "lif"}]
    return [*layers, {"kind": "vote", "population": 10}]


def convolutional(channels: list[int], norm: bool) -> Layers:
    """Two strided convolutions, then as `dense`."""
    layers: Layers = []
    for number, kernel in zip(channels, (5, 3), strict=True):
        layers.append({"kind": "conv", "channels": number, "kernel": kernel, "stride": 2, "padding": kernel // 2})
        layers += [{"kind": "norm"}] if norm else []
        layers.append({"kind": "lif"})
    return layers + dense([])


def _modes(settings: Settings) -> Iterator[Task]:
    for dataset, seed in _each(settings.modes):
        for mode in ("stl", "sl", "tl", "ann"):
            config = _config(settings, settings.modes, dataset, dense([settings.hidden]), mode, seed)
            yield Task("modes", dataset, {"mode": mode}, seed, settings.modes.images, config)


def _noise(settings: Settings) -> Iterator[Task]:
    levels = tuple(settings.noise.levels)
    for task in _modes(settings):
        if task.labels["mode"] != "ann":
            yield Task("noise", task.dataset, task.labels, task.seed, task.images, task.config, levels)


def _thresholds(settings: Settings) -> Iterator[Task]:
    part = settings.thresholds
    for dataset, seed in _each(part):
        for initial in part.initial:
            for mode, parametrisation in (("stl", "raw"), ("stl", "positive"), ("sl", "raw")):
                neuron = {"threshold": initial, "parametrisation": parametrisation}
                config = _config(settings, part, dataset, dense([settings.hidden]), mode, seed, **neuron)
                labels: Labels = {"mode": mode, "parametrisation": parametrisation, "initial": initial}
                yield Task("thresholds", dataset, labels, seed, part.images, config)


def _granularity(settings: Settings) -> Iterator[Task]:
    part = settings.granularity
    for dataset, seed in _each(part):
        for norm in (False, True):
            layers = convolutional(part.channels, norm)
            for mode, of in (("sl", "none"), ("stl", "layer"), ("stl", "channel"), ("stl", "neuron")):
                one = "layer" if of in ("none", "layer") else "neuron"
                neuron = {"conv_granularity": "layer" if of == "none" else of, "linear_granularity": one}
                config = _config(settings, part, dataset, layers, mode, seed, **neuron)
                labels: Labels = {"mode": mode, "granularity": of, "norm": norm}
                yield Task("granularity", dataset, labels, seed, part.images, config)


def _depth(settings: Settings) -> Iterator[Task]:
    part = settings.depth
    for dataset, seed in _each(part):
        for depth in part.layers:
            for mode in ("stl", "sl", "ann"):
                config = _config(settings, part, dataset, dense([settings.hidden] * depth), mode, seed)
                labels: Labels = {"mode": mode, "layers": depth}
                counted = part.counted if mode != "ann" else 0
                yield Task("depth", dataset, labels, seed, part.images, config, counted=counted)


def _each(part: Runs) -> Iterator[tuple[str, int]]:
    return ((dataset, seed) for dataset in part.datasets for seed in range(part.seeds))


def _config(
    settings: Settings, part: Runs, dataset: str, layers: Layers, mode: str, seed: int, **neuron: Any
) -> dict[str, Any]:
    """The paper's neuron (raw thresholds, decay 0.5, arctan), loss (mse of votes) and Adam; thresholds per neuron."""
    return {
        "dataset": {
            "name": dataset,
            "T": settings.T,
            "encoder": settings.encoder,
            "validation_fraction": part.validation,
        },
        "network": layers,
        "neuron": {"threshold": settings.threshold, "parametrisation": "raw", "conv_granularity": "neuron", **neuron},
        "train": {
            "mode": mode,
            "epochs": part.epochs,
            "batch_size": settings.batch_size,
            "lr": settings.lr,
            "lr_decay": settings.lr_decay,
            "threshold_lr_multiplier": settings.tl_multiplier if mode == "tl" else 1.0,
            "seed": seed,
            "device": "cpu",
        },
    }
