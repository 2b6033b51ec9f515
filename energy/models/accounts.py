"""Apply published energy models with memory to the exact counts and to the ANN twin.

Each layer has memories of its own, sized by what it stores; accesses cost what a memory of that size
costs per 64 bits. Differences from the papers are named with each model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.models import dataflow, lemaire
from stl_deploy.energy.models.dataflow import Dataflow
from stl_deploy.energy.models.grid import memory_lists
from stl_deploy.energy.models.layout import activation_bits
from stl_deploy.energy.models.ledger import Item, total
from stl_deploy.energy.models.ratios import Ratio, Side, Zeros
from stl_deploy.energy.prices.comparison import Comparison
from stl_deploy.energy.prices.price_list import PriceList, Range
from stl_deploy.graph.program import Program

NO_REUSE, IDEAL_REUSE = Dataflow("per_event", "memory"), Dataflow("per_inference", "registers")


def models(
    program: Program, counts: Counts, prices: Sequence[PriceList] = (), twin: AnnTwin | None = None
) -> tuple[Ratio, ...]:
    """Apply every published model under the grid's lists and under each list of ``prices`` with memory rows."""
    return tuple(model for entry in memory_lists(prices) for model in _under(program, counts, entry, twin))


def _under(program: Program, counts: Counts, prices: PriceList, twin: AnnTwin | None) -> list[Ratio]:
    event_driven: Side = partial(dataflow.snn, flow=NO_REUSE)
    dampfhoffer = "Dampfhoffer et al., IEEE TETCI 7(3):731, 2023"
    results = [
        _model(
            "operations, memory and addressing",
            "borders counted exactly; biases and state touched at every step; queues hold one event per input",
            "Lemaire et al., ICONIP 2022 (arXiv 2210.13107), eqs. 1-17",
            prices,
            lemaire.snn(program, counts, prices),
            lemaire.ann(program, counts, prices),
            lemaire.snn,
        )
    ]
    spiking = event_driven(program, counts, prices)
    text = "each synop reads a weight and a potential, adds, writes the potential; network on chip left out"
    for name, source, options in _twins(dampfhoffer, counts.T, prices, twin):
        other = dataflow.ann(program, counts, prices, **options)
        zeros: Zeros = "skipped" if "active" in options else "computed"
        model_name = f"operations and memory, against the {name}"
        results.append(_model(model_name, text, source, prices, spiking, other, event_driven, zeros))
    return results


def _model(
    name: str,
    text: str,
    source: str,
    prices: PriceList,
    snn: tuple[Item, ...],
    ann: tuple[Item, ...],
    spiking: Side,
    zeros: Zeros = "computed",
) -> Ratio:
    both = Comparison(total(snn), total(ann))
    return Ratio("model", prices, both, name, text, zeros, source=source, snn=snn, ann=ann, spiking=spiking)


def _twins(
    dampfhoffer: str, steps: int, prices: PriceList, twin: AnnTwin | None
) -> list[tuple[str, str, dict[str, Any]]]:
    none, ideal = {"flow": NO_REUSE, "input_reads": "per_mac"}, {"flow": IDEAL_REUSE}
    twins: list[tuple[str, str, dict[str, Any]]] = [("ANN without reuse", dampfhoffer, none)]
    twins += [("ANN with ideal reuse", dampfhoffer, ideal)]
    if twin is not None:
        twins += [("ANN with ideal reuse, zeros skipped", dampfhoffer, ideal | {"active": twin})]
    if prices.numbers == "integer":
        bits = activation_bits(steps)
        yan = f"Yan et al., arXiv 2409.08290, 2024: the twin's activations have {bits} bits for T = {steps}"
        twins += [("quantised ANN of the same information, no reuse", yan, none | {"bits": bits})]
        twins += [("quantised ANN of the same information, ideal reuse", yan, ideal | {"bits": bits})]
    return twins


def range_of(results: Sequence[Ratio]) -> dict[str, Any] | None:
    """Return the minimum and maximum ratio over all models and lists, and their names; None without a ratio."""
    rated = [(ends, f"{m.name} ({m.prices.name})") for m in results if (ends := m.energy.ends) is not None]
    if not rated:
        return None
    lowest, highest = min(rated, key=lambda entry: entry[0][0]), max(rated, key=lambda entry: entry[0][1])
    joules: list[Range] = [total(model.snn) for model in results]
    return {
        "snn_over_ann_range": [lowest[0][0], highest[0][1]],
        "lowest": lowest[1],
        "highest": highest[1],
        "snn_range_J": [min(low for low, _ in joules), max(high for _, high in joules)],
        "models": len(results),
        "label": "modelled",
    }
