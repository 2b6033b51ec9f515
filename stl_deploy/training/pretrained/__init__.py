"""Ready-made models: trained weights that ship with the package, each with a card and its ANN twin.

    card("digits").accuracy  # on the test split, with its 95 % interval
    card("digits").energy.quoted.snn_over_ann  # SNN cost in ANN twins, modelled

A model is a folder ``<name>/`` of ``card.json``, ``config.yaml``, ``metrics.jsonl``, ``model.safetensors`` and, for the
twin (the same network with ReLU, trained by the same recipe), ``twin.yaml`` and ``twin.safetensors``. Weights were
rounded after training, to 8 bits with a scale per output or, in older models, to float16; all numbers on the card
are of the rounded weights (made by ``python -m benchmarks.ready_made``). Cards are read without torch;
`unpacking.unpack` writes a run folder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from stl_deploy._util.json_twin import from_twin
from stl_deploy._util.remedies import require_one_of
from stl_deploy.errors import InputError


@dataclass(frozen=True)
class Accuracy:
    """``correct`` of ``samples`` test samples; low and high: the 95 % Wilson score interval of the share."""

    correct: int
    samples: int
    low: float
    high: float

    def __post_init__(self) -> None:
        """Raise ValueError for no samples."""
        if self.samples < 1:
            raise ValueError(f"samples: expected 1 or more; found {self.samples}")

    def __str__(self) -> str:
        return f"{self.correct / self.samples:.2%} ({self.low:.2%} to {self.high:.2%})"


@dataclass(frozen=True)
class Quoted:
    """A comparison that the verb energy says to quote, under the names of its JSON's ``quoted``."""

    dataflow: str
    sums: str
    width: str
    prices: str
    ann_zeros: str
    snn_over_ann: float


@dataclass(frozen=True)
class CheapestAnn:
    """The cheapest ANN of a kind in the frontier of the verb energy, and how many times its energy the model costs.

    width: of its hidden layers, as a share of the model's. accuracy: on the test split. joules: of one inference,
    modelled; streaming, layer_by_layer: how many times that the model costs.
    """

    width: float
    accuracy: float
    joules: float
    streaming: float
    layer_by_layer: float


@dataclass(frozen=True)
class Energy:
    """Result of ``stl-deploy energy`` for weights and twin, on the test samples of ``run NAME --pretrained``.

    Counts are exact and modelled values rounded to four digits.

    Attributes:
        synops_AC, synops_MAC, spikes: As in the energy JSON's ``totals``, over all steps of ``samples`` samples.
        ann_macs_exact: The twin's dense MACs for the same samples.
        active_fraction: Share of those MACs whose input is not zero.
        spike_rate: Spikes per neuron and step.
        snn_over_ann: Lowest and highest cost of the SNN in twins, over every dataflow, price list and published model,
            the twin's zeros counted as in ``quoted``, streaming.
        break_even: Spike rate at which ``quoted`` would be 1, in words.
        narrower_anns: Number of narrower ANNs trained beside the twin.
        proved_ann: The cheapest ANN proved no less accurate, to within half a point (95 %), or None.
        measured_ann: The cheapest ANN that measured no less accurate, proved or not, or None.
        prices: The grid's price lists, each with its source.
    """

    samples: int
    synops_AC: int
    synops_MAC: int
    spikes: int
    spike_rate: float
    ann_macs_exact: int
    active_fraction: float
    label: str
    snn_over_ann: tuple[float, float]
    quoted: Quoted
    quoted_layer_by_layer: Quoted
    break_even: str
    narrower_anns: int
    proved_ann: CheapestAnn | None
    measured_ann: CheapestAnn | None
    prices: dict[str, str]


@dataclass(frozen=True)
class Card:
    """Card of a ready-made model; every number was measured on the weights that ship.

    data: their name, and behind a colon the source of those of this training. licence: of the data; share_alike:
    whether it requires the same licence for models and derived works. command, twin_command: the training commands, DIR
    being the folder of the data; commit: of the code. weights: how they were rounded after training. accuracy,
    twin_accuracy: correct test samples, of how many, and the 95 % interval (Wilson).
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
    weights: str
    accuracy: Accuracy
    twin_accuracy: Accuracy
    energy: Energy
    sha256: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def names() -> tuple[str, ...]:
    """Return the models that ship with the package."""
    return tuple(sorted(entry.name for entry in models_folder().iterdir() if (entry / "card.json").is_file()))


def card(name: str) -> Card:
    """Return the card of a model; raise InputError for an unknown name, or a modified card."""
    known = names()
    require_one_of(name, known, "ready-made model")
    file = models_folder() / name / "card.json"
    try:
        return from_twin(Card, json.loads(file.read_text(encoding="utf-8")), "card")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: expected a card in JSON; found {error}; install stl-deploy again") from None


def models_folder() -> Any:
    """Return the folder of the ready-made models."""
    return resources.files(__name__)
