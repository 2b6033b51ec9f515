"""Energy models with memory: the same exact counts under three published accounts, the ANN twin under the same one.

Each layer has memories of its own, sized by what it stores; accesses cost what an SRAM of that size
costs per 64 bits. Differences from the papers are named with each model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stl_deploy.energy.ann_twin import AnnTwin
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.models.dampfhoffer import ann as dampfhoffer_ann
from stl_deploy.energy.models.dampfhoffer import snn as dampfhoffer_snn
from stl_deploy.energy.models.layout import activation_bits
from stl_deploy.energy.models.ledger import Item, dominating, total
from stl_deploy.energy.models.lemaire import ann as lemaire_ann
from stl_deploy.energy.models.lemaire import snn as lemaire_snn
from stl_deploy.energy.prices.price_list import PriceList, Range, load_prices
from stl_deploy.energy.prices.sram import has_memory
from stl_deploy.graph.program import Program

MODEL_PRICES = ("horowitz45_fp32", "horowitz45_int8_acc32", "jouppi7_int8_acc32")
"""The lists with memory rows under which every model is worked out, besides those that the caller names."""


@dataclass(frozen=True)
class Model:
    """Both sides of one inference under one model and one price list, by layer and term.

    spiking: the rule of the SNN's side, to price other counts by.
    """

    name: str
    text: str
    source: str
    prices: PriceList
    snn: tuple[Item, ...]
    ann: tuple[Item, ...]
    spiking: Callable[[Program, Counts, PriceList], tuple[Item, ...]]

    @property
    def ratio(self) -> Range | None:
        """ANN over SNN at the list's low and at its high end, the smaller first; None if the SNN costs nothing."""
        snn, ann = total(self.snn), total(self.ann)
        if not all(snn):
            return None
        ends = sorted(a / s for a, s in zip(ann, snn, strict=True))
        return ends[0], ends[1]

    def as_dict(self) -> dict[str, Any]:
        """One entry of the energy JSON's ``models``."""
        return {
            "name": self.name,
            "text": self.text,
            "source": self.source,
            "price": self.prices.name,
            "label": "modelled",
            "snn_J": list(total(self.snn)),
            "ann_J": list(total(self.ann)),
            "ratio_ann_over_snn": None if self.ratio is None else list(self.ratio),
            "snn": [item.as_dict() for item in dominating(self.snn)],
            "ann": [item.as_dict() for item in dominating(self.ann)],
        }


def models(
    program: Program, counts: Counts, prices: Sequence[PriceList] = (), twin: AnnTwin | None = None
) -> tuple[Model, ...]:
    """Every model under `MODEL_PRICES` and under each list of ``prices`` that has memory rows."""
    chosen = {name: load_prices(name) for name in MODEL_PRICES}
    chosen |= {entry.name: entry for entry in prices if has_memory(entry)}
    return tuple(model for entry in chosen.values() for model in _under(program, counts, entry, twin))


def _under(program: Program, counts: Counts, prices: PriceList, twin: AnnTwin | None) -> list[Model]:
    bits = activation_bits(counts.T)
    dampfhoffer = "Dampfhoffer et al., IEEE TETCI 7(3):731, 2023"
    yan = f"Yan et al., arXiv 2409.08290, 2024: the twin's activations have {bits} bits for T = {counts.T}"
    spiking = dampfhoffer_snn(program, counts, prices)
    found = [
        Model(
            "operations, memory and addressing",
            "borders counted exactly; biases and state touched at every step; queues hold one event per input",
            "Lemaire et al., ICONIP 2022 (arXiv 2210.13107), eqs. 1-17",
            prices,
            lemaire_snn(program, counts, prices),
            lemaire_ann(program, counts, prices),
            lemaire_snn,
        )
    ]
    twins: list[tuple[str, str, dict[str, Any]]] = [("ANN without reuse", dampfhoffer, {"reuse": 1})]
    twins += [("ANN with ideal reuse", dampfhoffer, {"reuse": None})]
    if twin is not None:
        twins += [("ANN with ideal reuse, zeros skipped", dampfhoffer, {"reuse": None, "active": twin.fraction})]
    twins += [("quantised ANN of the same information, no reuse", yan, {"reuse": 1, "bits": bits})]
    twins += [("quantised ANN of the same information, ideal reuse", yan, {"reuse": None, "bits": bits})]
    text = "each synop reads a weight and a potential, adds, writes the potential; network on chip left out"
    for name, source, options in twins:
        other = dampfhoffer_ann(program, counts, prices, **options)
        found.append(
            Model(f"operations and memory, against the {name}", text, source, prices, spiking, other, dampfhoffer_snn)
        )
    return found


def range_of(found: Sequence[Model]) -> dict[str, Any] | None:
    """The least and the greatest ratio over all models and lists, and which said so; None if there is no ratio."""
    rated = [(model.ratio, f"{model.name} ({model.prices.name})") for model in found if model.ratio is not None]
    if not rated:
        return None
    lowest, highest = min(rated, key=lambda entry: entry[0][0]), max(rated, key=lambda entry: entry[0][1])
    joules = [total(model.snn) for model in found]
    return {
        "ratio_ann_over_snn": [lowest[0][0], highest[0][1]],
        "lowest": lowest[1],
        "highest": highest[1],
        "snn_J": [min(low for low, _ in joules), max(high for _, high in joules)],
        "models": len(found),
        "label": "modelled",
    }
