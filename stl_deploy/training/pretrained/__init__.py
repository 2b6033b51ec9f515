"""Ready-made models: trained weights that ship with the package, each with a card and its ANN twin.

    card("digits").accuracy  # on the test split, with its 95 % interval

A model is a folder ``<name>/`` of ``card.json``, ``config.yaml``, ``metrics.jsonl``, ``model.safetensors`` and, for the
twin (the same network with ReLU, trained by the same recipe), ``twin.yaml`` and ``twin.safetensors``. Weights were
rounded after training, to float16 or to 8 bits with a scale for each output, and everything on the card
was measured on the rounded ones (``python -m benchmarks.ready_made`` made them). Cards are read without torch;
`unpacking.unpack` writes a run folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from stl_deploy._util.suggest import did_you_mean
from stl_deploy.errors import InputError


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


def models_folder() -> Any:
    """Where the ready-made models are."""
    return resources.files(__name__)
