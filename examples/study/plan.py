"""Settings of a study, read from YAML, and its training tasks in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

Part = Literal["modes", "noise", "thresholds", "granularity", "depth", "when", "deep"]
PARTS: tuple[Part, ...] = ("modes", "noise", "thresholds", "depth", "granularity", "when", "deep")
Layers = list[dict[str, Any]]
Labels = dict[str, str | float | int | bool]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Runs(_Section):
    """Training of a part: datasets, number of seeds (0, 1, ...), epochs, first images used (None: all)."""

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


class When(Runs):
    """Where learned thresholds should help.

    initial, steps: thresholds to begin with and time steps, each with each, with and without batch norm. Then one
    change at a time from the study's own threshold and steps. deep: so many hidden layers; few: epochs; budgets: for
    each dataset, synops per sample that ``train.synop_budget`` draws the deep net to; channels: of a convolutional
    net that is also held in Loihi's integers, on the first ``integers`` test images.
    """

    initial: list[float]
    steps: list[int]
    deep: int
    few: list[int]
    budgets: dict[str, float]
    channels: list[int]
    integers: int
    batch_size: int
    lr: float
    lr_decay: float


class Deep(Runs):
    """STL, SL and ANN on convolutional nets of so many ``layers`` (see `deep`).

    test: images in the test split (None: all). counted: those of them on which synops are counted.
    """

    T: int
    layers: list[int]
    channels: list[int]
    batch_size: int
    lr: float
    test: int | None
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
    when: When
    deep: Deep


@dataclass(frozen=True)
class Task:
    """One network to train and what is asked of it then: nothing, or its accuracy under noise, synops, or integers.

    labels: what tells it from the others of its part. images, test: in the training and the test split, None: all.
    config: of `stl_deploy.config.schema.RunConfig`, without data_dir. counted, integers: test images, 0: not asked.
    twin: name of the task that trains its ANN twin, whose zeros are then measured and all dataflows priced.
    """

    part: Part
    dataset: str
    labels: Labels
    seed: int
    images: int | None
    config: dict[str, Any]
    levels: tuple[float, ...] = ()
    counted: int = 0
    test: int | None = None
    integers: int = 0
    twin: str | None = None

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
    makers: dict[Part, Callable[[Settings], Iterator[Task]]] = {
        "modes": _modes,
        "noise": _noise,
        "thresholds": _thresholds,
        "granularity": _granularity,
        "depth": _depth,
        "when": _when,
        "deep": _deep,
    }
    return sorted(makers[part](settings), key=lambda task: task.seed)


def dense(hidden: list[int], norm: bool = False) -> Layers:
    """An MLP with 10 output neurons per class that vote, as the paper's readout."""
    layers: Layers = [{"kind": "flatten"}]
    for features in (*hidden, 100):
        layers.append({"kind": "linear", "features": features})
        layers += [{"kind": "norm"}] if norm else []
        layers.append({"kind": "lif"})
    return [*layers, {"kind": "vote", "population": 10}]


def convolutional(channels: list[int], norm: bool) -> Layers:
    """Two strided convolutions, then as `dense`."""
    layers: Layers = []
    for number, kernel in zip(channels, (5, 3), strict=True):
        layers.append({"kind": "conv", "channels": number, "kernel": kernel, "stride": 2, "padding": kernel // 2})
        layers += [{"kind": "norm"}] if norm else []
        layers.append({"kind": "lif"})
    return layers + dense([])


def deep(layers: int, channels: list[int]) -> Layers:
    """The family of the preset ``cifar10_small``: the first layer halves the maps; one or two, pool, blocks; again.

    layers: convolutions, 2 or a multiple of 4; half of them with ``channels[0]`` channels, half with ``channels[1]``.
    """
    specs: Layers = []
    for stage, wide in enumerate(channels):
        for place in range(min(layers // 2, 2)):
            specs += _conv(wide, halves=stage == place == 0)
        specs.append({"kind": "pool", "op": "max"})
        specs += [{"kind": "residual", "layers": _conv(wide) + _conv(wide)}] * (layers // 4 - 1)
    return [*specs, {"kind": "flatten"}, {"kind": "linear", "features": 10}, {"kind": "li"}]


def _conv(channels: int, halves: bool = False) -> Layers:
    form = {"kernel": 5, "stride": 2, "padding": 2} if halves else {"padding": 1}
    return [{"kind": "conv", "channels": channels, **form}, {"kind": "norm"}, {"kind": "lif"}]


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


def _when(settings: Settings) -> Iterator[Task]:
    """STL and SL in each condition, with and without batch norm; thresholds as users have them: θ₀·exp(ρ)."""
    part = settings.when
    learning = {"batch_size": part.batch_size, "lr": part.lr, "lr_decay": part.lr_decay}
    base: Labels = {
        "factor": "start",
        "initial": settings.threshold,
        "T": settings.T,
        "epochs": part.epochs,
        "budget": 0,
    }
    for dataset, seed in _each(part):
        conditions = [base | {"initial": initial, "T": steps} for initial in part.initial for steps in part.steps]
        conditions.append(base | {"factor": "deep"})
        conditions += [base | {"factor": "few", "epochs": epochs} for epochs in part.few]
        conditions.append(base | {"factor": "budget", "budget": part.budgets[dataset]})
        conditions.append(base | {"factor": "integers"})
        for condition, norm, mode in product(conditions, (False, True), ("stl", "sl")):
            held = condition["factor"] == "integers"
            hidden = [settings.hidden] * (part.deep if condition["factor"] in ("deep", "budget") else 1)
            layers = convolutional(part.channels, norm) if held else dense(hidden, norm)
            neuron = {"threshold": condition["initial"], "parametrisation": "positive", "conv_granularity": "channel"}
            config = _config(settings, part, dataset, layers, mode, seed, **neuron)
            config["dataset"]["T"] = condition["T"]
            config["train"] |= learning | {"epochs": condition["epochs"]}
            if condition["budget"]:
                config["train"]["synop_budget"] = condition["budget"]
            labels = {"mode": mode, "norm": norm, **condition}
            yield Task("when", dataset, labels, seed, part.images, config, integers=part.integers if held else 0)


def _deep(settings: Settings) -> Iterator[Task]:
    """Trained as the preset ``cifar10_small`` is; the ANN first, whose zeros the others' energy is compared with."""
    part = settings.deep
    for dataset, seed in _each(part):
        for depth in part.layers:
            twin: str | None = None
            for mode in ("ann", "stl", "sl"):
                config = _config(settings, part, dataset, deep(depth, part.channels), mode, seed)
                config["dataset"]["T"] = part.T
                config["neuron"] = {"threshold": settings.threshold}
                config["train"] |= {"batch_size": part.batch_size, "lr": part.lr, "schedule": "one_cycle"}
                config["train"] |= {"optimiser": "adamw", "weight_decay": 0.05, "loss": "ce", "ce_scale": 1.0}
                config["train"] |= {"label_smoothing": 0.1, "shift": 3, "flip": True, "lr_decay": 1.0}
                labels: Labels = {"mode": mode, "layers": depth}
                counted = 0 if mode == "ann" else part.counted
                task = Task(
                    "deep", dataset, labels, seed, part.images, config, counted=counted, test=part.test, twin=twin
                )
                twin = twin or task.name
                yield task


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
