"""Where this network stops paying off: spikes per synapse, against its own ANN twin and published limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stl_deploy.energy.counts.record import Counts, TapCounts
from stl_deploy.energy.models.accounts import Model
from stl_deploy.energy.models.conventions import first_layer
from stl_deploy.energy.models.ledger import total
from stl_deploy.energy.models.what_if import scaled
from stl_deploy.energy.prices.joules import price
from stl_deploy.energy.prices.price_list import PriceList
from stl_deploy.graph.program import Program, is_max_pool

Measure = Literal["spikes per synapse per inference", "spike rate"]
Verdict = Literal["below", "within", "above", "not defined"]


@dataclass(frozen=True)
class Limit:
    """A published break-even: below ``low`` an SNN wins in that study, above ``high`` it loses."""

    study: str
    measure: Measure
    low: float
    high: float
    conditions: str
    evidence: str


PUBLISHED: tuple[Limit, ...] = (
    Limit(
        "Davidson and Furber, Front. Neurosci. 15:651141, 2021",
        "spikes per synapse per inference",
        1.72,
        1.72,
        "rate code, ANN and SNN on the same silicon",
        "secondary",
    ),
    Limit(
        "Dampfhoffer et al., IEEE TETCI 7(3):731, 2023",
        "spikes per synapse per inference",
        0.15,
        1.38,
        "IF neurons, memory included; the low end against an ideally reusing, zero-skipping ANN",
        "secondary",
    ),
    Limit(
        "Yan et al., arXiv 2409.08290, 2024",
        "spike rate",
        0.057,
        0.064,
        "T of 5 (version 4) to 10 (versions 2 and 3), against a quantised ANN of the same information, memory included",
        "secondary",
    ),
)


@dataclass(frozen=True)
class ModelBreakEven:
    """The activity at which both sides cost the same under one price list; None: at no activity.

    scale: by how much the spikes inside the network may grow (below 1: must shrink).
    """

    price: str
    text: str
    scale: float | None
    spikes_per_synapse: float | None
    spike_rate: float | None
    verdict: Verdict


@dataclass(frozen=True)
class BreakEven:
    """This network's activity, where it would break even, and what others found."""

    spikes_per_synapse_per_inference: float
    spike_rate: float | None
    models: tuple[ModelBreakEven, ...]
    published: tuple[tuple[Limit, float | None, Verdict], ...]

    def as_dict(self) -> dict[str, Any]:
        """The energy JSON's ``break_even``."""
        return {
            "spikes_per_synapse_per_inference": self.spikes_per_synapse_per_inference,
            "spike_rate": self.spike_rate,
            "label": "modelled",
            "models": [asdict(model) for model in self.models],
            "published": [
                {**asdict(limit), "this_network": value, "verdict": verdict} for limit, value, verdict in self.published
            ],
        }


def break_even(
    program: Program, counts: Counts, prices: Sequence[PriceList], memory_models: Sequence[Model] = ()
) -> BreakEven:
    """Break-even of the network under each arithmetic list in ``prices``, each of ``memory_models``, and `PUBLISHED`.

    The spike rate is spikes per neuron and step over the spiking nodes, max pools left out; spikes per
    synapse are synops over structural synapses, per inference.
    """
    totals = counts.totals
    per_synapse = totals.synops / totals.ann_macs_exact if totals.ann_macs_exact else 0.0
    firing = [counts.neurons[n.name] for n in program.spiking if not is_max_pool(program, n)]
    updates = sum(c.neuron_updates for c in firing)
    rate = sum(c.spikes for c in firing) / updates if updates else None
    values: dict[Measure, float | None] = {"spikes per synapse per inference": per_synapse, "spike rate": rate}
    published = tuple((limit, values[limit.measure], _verdict(values[limit.measure], limit)) for limit in PUBLISHED)
    found = [_model(program, counts, p, rate) for p in prices if p.scope == "arithmetic"]
    found += [_with_memory(program, counts, m, rate) for m in memory_models]
    return BreakEven(per_synapse, rate, tuple(found), published)


def _verdict(value: float | None, limit: Limit) -> Verdict:
    if value is None:
        return "not defined"
    if value < limit.low:
        return "below"
    return "within" if value <= limit.high else "above"


def _model(program: Program, counts: Counts, prices: PriceList, rate: float | None) -> ModelBreakEven:
    """ANN = fixed + scale·(spike-driven synops); fixed holds the first layer, biases and neuron updates."""
    text = "first layer, biases and neuron updates as they are; synops behind them grow with the spikes"
    priced = price(program, counts, prices)
    first = set(first_layer(program, counts))
    driven = {name: c for name, c in counts.weighted.items() if name not in first}
    if priced.snn is None or priced.ann is None or priced.snn.total is None or priced.ann.total is None:
        return ModelBreakEven(prices.name, "the list lacks a price that this network needs", *_NEVER)
    moving = sum(_joules(c, prices) for c in driven.values()) / counts.batch
    fixed = priced.snn.total[0] - moving
    return _solved(program, counts, prices.name, text, rate, (fixed, moving, priced.ann.total[0]))


def _with_memory(program: Program, counts: Counts, model: Model, rate: float | None) -> ModelBreakEven:
    """Every term of the memory models is linear in the spikes: worked out without any, and as counted."""
    name = f"{model.name} ({model.prices.name})"
    text = (
        "first layer, biases and states as they are; synops behind them and their memory traffic grow with the spikes"
    )
    fixed = total(model.spiking(program, scaled(program, counts, rate=0), model.prices))[0]
    moving = total(model.snn)[0] - fixed
    return _solved(program, counts, name, text, rate, (fixed, moving, total(model.ann)[0]))


def _solved(
    program: Program, counts: Counts, name: str, text: str, rate: float | None, costs: tuple[float, float, float]
) -> ModelBreakEven:
    """costs: the SNN's fixed part, the part that the spikes drive, and the ANN, in J."""
    fixed, moving, ann = costs
    first = set(first_layer(program, counts))
    driven = {key: c for key, c in counts.weighted.items() if key not in first}
    spare = ann - fixed
    synops = sum(c.synops for c in driven.values())
    if not synops or spare <= 0:
        why = "no synops are driven by spikes" if not synops else "the fixed part alone costs more than the ANN"
        return ModelBreakEven(name, why, *_NEVER[:-1], "above" if synops else "not defined")
    scale = spare / moving
    per_synapse = (counts.totals.synops + (scale - 1) * synops) / counts.totals.ann_macs_exact
    verdict: Verdict = "below" if scale > 1 else "within" if scale == 1 else "above"
    return ModelBreakEven(name, text, scale, per_synapse, None if rate is None else rate * scale, verdict)


_NEVER: tuple[None, None, None, Verdict] = (None, None, None, "not defined")


def _joules(counted: TapCounts, prices: PriceList) -> float:
    return counted.synops * prices.terms["ac" if counted.op == "AC" else "mac"].low if counted.synops else 0.0
