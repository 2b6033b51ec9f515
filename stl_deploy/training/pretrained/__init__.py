"""Ready-made models: trained weights that ship with the package, each with a card and its ANN twin.

    card("digits").accuracy          # on the test split, with its 95 % interval
    unpack("digits", Path("runs/digits"))  # a run folder as if it had been trained here

A model is a folder ``<name>/`` of ``card.json``, ``config.yaml``, ``metrics.jsonl``, ``model.safetensors`` and, for the
twin (the same network with ReLU, trained by the same recipe), ``twin.yaml`` and ``twin.safetensors``. Weights were
rounded to float16 after training, and everything on the card was measured on the rounded ones
(``python -m benchmarks.ready_made`` made them).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stl_deploy._util.files import make_folder, sha256, write_text
from stl_deploy._util.suggest import did_you_mean
from stl_deploy._util.tensor_file import read_tensors
from stl_deploy.config.load import dump_config, load_config
from stl_deploy.errors import InputError
from stl_deploy.training.loop import METRICS_FILE
from stl_deploy.training.model_file import CONFIG_FILE, save_model
from stl_deploy.training.run_folder import TWIN

_PARTS = (("config.yaml", "model.safetensors", "."), ("twin.yaml", "twin.safetensors", TWIN))
"""Configuration, weights, and the folder below the run folder that they are unpacked into."""


@dataclass(frozen=True)
class Accuracy:
    """``correct`` of ``samples`` test samples; low and high: the 95 % Wilson score interval of the share."""

    correct: int
    samples: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.correct / self.samples:.2%} ({self.low:.2%} to {self.high:.2%})"


@dataclass(frozen=True)
class Card:
    """What is known of a ready-made model; every number was measured on the weights that ship.

    accuracy, twin_accuracy: correct test samples, of how many, and the 95 % interval (Wilson). licence: of the data;
    share_alike: whether it asks for models and derived works to carry the same. commit: of the code that trained it.
    """

    name: str
    dataset: str
    data: str
    licence: str
    share_alike: bool
    command: str
    twin_command: str
    seed: int
    commit: str
    time_steps: int
    parameters: int
    accuracy: Accuracy
    twin_accuracy: Accuracy
    sha256: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**vars(self), "accuracy": vars(self.accuracy), "twin_accuracy": vars(self.twin_accuracy)}


def names() -> tuple[str, ...]:
    """The models that ship with the package."""
    return tuple(sorted(entry.name for entry in models_folder().iterdir() if (entry / "card.json").is_file()))


def card(name: str) -> Card:
    """The card of a model; raises InputError if there is none of that name."""
    known = names()
    if name not in known:
        raise InputError(
            f"expected the name of a ready-made model; found '{name}'{did_you_mean(name, known)}; "
            f"there are: {', '.join(known)}"
        )
    data = json.loads((models_folder() / name / "card.json").read_text(encoding="utf-8"))
    for key in ("accuracy", "twin_accuracy"):
        data[key] = Accuracy(**data[key])
    return Card(**data)


def unpack(name: str, run_dir: Path, data_dir: str | None = None) -> Card:
    """Write a model as the run folder of a finished training, and its twin as ``run_dir/twin``.

    data_dir: where the dataset's files are, kept in the configurations as by ``train --data-dir``.
    Raises InputError if there is no such model, a file cannot be written, or the weights are not those of the card.
    """
    about = card(name)
    with resources.as_file(models_folder() / name) as folder:
        configs = [load_config(folder / config_file) for config_file, _, _ in _PARTS]
        weights = [_weights(folder / file, about.sha256[file]) for _, file, _ in _PARTS]
        metrics = (folder / METRICS_FILE).read_text(encoding="utf-8")
    for config, (tensors, facts), (_, _, below) in zip(configs, weights, _PARTS, strict=True):
        dataset = config.dataset.model_copy(update={"data_dir": data_dir})
        make_folder(run_dir / below)
        write_text(run_dir / below / CONFIG_FILE, dump_config(config.model_copy(update={"dataset": dataset})))
        save_model(run_dir / below, tensors, facts)
    write_text(run_dir / METRICS_FILE, metrics)
    return about


def _weights(path: Path, expected: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if (found := sha256(path)) != expected:
        raise InputError(f"{path}: expected SHA-256 {expected}; found {found}; install stl-deploy again")
    tensors, facts = read_tensors(path)
    wide = {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in tensors.items()}
    return wide, facts


def models_folder() -> Any:
    """Where the ready-made models are."""
    return resources.files(__name__)
