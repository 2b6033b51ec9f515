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
from dataclasses import asdict, dataclass, fields
from importlib import resources
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from stl_deploy._util.remedies import require_one_of
from stl_deploy.errors import InputError

_MOST = 2**63


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
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: expected a card in JSON; found {error}; install stl-deploy again") from None
    return read_card(data, str(file))


def read_card(data: Any, where: str) -> Card:
    """Parse a card from its JSON form; raise InputError for a missing or unknown key, or a wrong type."""
    keys = _keys(Card, data, where)
    for name in ("accuracy", "twin_accuracy"):
        keys[name] = Accuracy(**_keys(Accuracy, keys[name], f"{where}: {name}"))
    energy = _keys(Energy, keys["energy"], f"{where}: energy")
    for name in ("quoted", "quoted_layer_by_layer"):
        energy[name] = Quoted(**_keys(Quoted, energy[name], f"{where}: energy.{name}"))
    for name in ("proved_ann", "measured_ann"):
        if energy[name] is not None:
            energy[name] = CheapestAnn(**_keys(CheapestAnn, energy[name], f"{where}: energy.{name}"))
    energy["snn_over_ann"] = tuple(energy["snn_over_ann"])
    return Card(**{**keys, "energy": Energy(**energy)})


def _keys(kind: Any, data: Any, where: str) -> dict[str, Any]:
    """Return the values of ``data``, whose keys must be exactly ``kind``'s fields."""
    wanted = [field.name for field in fields(kind)]
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected the keys {', '.join(wanted)}; found {data!r}; install stl-deploy again")
    missing, others = [key for key in wanted if key not in data], [key for key in data if key not in wanted]
    if missing or others:
        expected = f"the key '{missing[0]}'" if missing else f"no keys but {', '.join(wanted)}"
        others_text = f"'{others[0]}'" if others else "none"
        raise InputError(f"{where}: expected {expected}; found {others_text}; install stl-deploy again")
    for key, hint in get_type_hints(kind).items():
        if not _fits(data[key], hint):
            expected, shown = hint.__name__ if isinstance(hint, type) else hint, repr(data[key])[:60]
            raise InputError(f"{where}: '{key}': expected {expected}; found {shown}; install stl-deploy again")
    if kind is Accuracy and data["samples"] < 1:
        raise InputError(f"{where}: 'samples': expected 1 or more; found {data['samples']}; install stl-deploy again")
    return dict(data)


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a JSON value has a field's type; nested cards check their own fields."""
    if isinstance(hint, UnionType):
        return any(_fits(value, member) for member in get_args(hint))
    if hint in (Accuracy, Energy, Quoted, CheapestAnn):
        return True
    if hint is float:
        return type(value) in (int, float) and abs(value) < _MOST
    if hint is int:
        return type(value) is int and abs(value) < _MOST
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and len(value) == 2 and all(_fits(item, float) for item in value)
    return type(value) is hint


def models_folder() -> Any:
    """Return the folder of the ready-made models."""
    return resources.files(__name__)
