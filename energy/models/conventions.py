"""Price the same counts under every accounting convention in use, and under published models with memory.

Every row is computed from this network's counts. ``bookkeeping`` rows differ in what is counted, on the same hardware
at the same prices: their spread is the part of a published ratio due to bookkeeping. ``physics`` rows differ in the
hardware: other widths, memories, or an ANN that runs at every time step. In the published models each layer has its own
memories, sized by what it stores; accesses cost what a memory of that size costs per 64 bits. Differences from the
papers are named with each model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from stl_deploy.energy.prices.bill import Bill
from stl_deploy.energy.prices.comparison import Comparison, exactly
from stl_deploy.energy.prices.joules import price
from stl_deploy.energy.prices.load import load_prices
from stl_deploy.energy.prices.price_list import PriceList, hull, middle
from stl_deploy.graph.program import Delay, Input, Output, Pool, Program, Reshape, origin_of


def first_layer(program: Program, counts: Counts) -> tuple[str, ...]:
    """Return the weighted nodes that the input reaches before any other weight or neuron."""
    through = (Reshape, Delay, Output, Pool)
    return tuple(n for n in counts.weighted if isinstance(origin_of(program, program.by_name[n], through), Input))


def conventions(program: Program, counts: Counts) -> tuple[Ratio, ...]:
    """Return the table of one network: 45 nm 32-bit float first, then the same counts as 8-bit integers."""
    fp32 = load_prices("horowitz45_fp32")
    rows = _Rows(program, counts, fp32)
    full_snn, full_ann = rows.everything(fp32)
    int8, int8_acc32 = load_prices("horowitz45_int8"), load_prices("horowitz45_int8_acc32")
    return (
        rows.row(
            "first layer ignored", "the SNN's first layer left out, its others AC; the ANN whole", rows.ac(rows.later)
        ),
        rows.row("all synops as AC", "every synop an add, analog and graded inputs too", rows.ac(counts.totals.synops)),
        rows.row(
            "all synops as AC, padded ANN",
            "the same, with the ANN's taps on padding counted",
            rows.ac(counts.totals.synops),
            rows.joules(counts.totals.ann_macs_nominal, "mac"),
        ),
        rows.row("graded and analog synops as MAC", "AC only where every value is 0 or 1 by structure", rows.synops()),
        rows.row(
            "+ bias adds and neuron updates",
            "and what the neurons compute at every step; the ANN's biases and ReLUs too",
            full_snn,
            full_ann,
        ),
        rows.constant_first_layer(full_snn, full_ann),
        rows.physics(
            "ANN runs once per time step",
            f"the ANN sees {counts.T} frames where the SNN takes {counts.T} steps",
            fp32,
            full_snn,
            None if full_ann is None else full_ann * counts.T,
        ),
        rows.physics("8-bit integers", "all of it at 8-bit prices, 8-bit accumulators", int8, *rows.everything(int8)),
        rows.physics(
            "8-bit integers, 32-bit accumulators",
            "all of it, 8-bit multiplies and 32-bit adds and states",
            int8_acc32,
            *rows.everything(int8_acc32),
        ),
        *_with_memory(program, counts, rows, int8_acc32),
    )


_FETCHES = {
    "per_event": ("+ SRAM traffic, weights per event", "a weight is fetched for every synop, and for every MAC"),
    "per_step": ("+ SRAM traffic, weights once per step", "a weight is fetched once per time step, by the ANN once"),
    "per_inference": ("+ SRAM traffic, weights once per inference", "a weight is fetched once by both"),
}


def _with_memory(program: Program, counts: Counts, rows: _Rows, prices: PriceList) -> Iterator[Ratio]:
    """Return the 8-bit row with memory traffic, under each dataflow in turn."""
    for flow in (
        Dataflow("per_event", "memory"),
        Dataflow("per_step", "registers"),
        Dataflow("per_inference", "registers"),
    ):
        name, text = _FETCHES[flow.fetch]
        snn, ann = (middle(total(side(program, counts, prices, flow))) for side in (dataflow.snn, dataflow.ann))
        yield rows.physics(name, f"{text}; sums in {flow.sums}", prices, snn, ann)


def _middle(bill: Bill | None) -> float | None:
    return None if bill is None or bill.total is None else middle(bill.total)


class _Rows:
    def __init__(self, program: Program, counts: Counts, prices: PriceList) -> None:
        self._program, self._counts, self._prices = program, counts, prices
        self._first = [counts.weighted[name] for name in first_layer(program, counts)]
        self.later = counts.totals.synops - sum(c.synops for c in self._first)

    def joules(self, count: float, term: str) -> float:
        each = self._prices.terms[term]
        return count / self._counts.batch * middle(each.ends)

    def ac(self, synops: float) -> float:
        return self.joules(synops, "ac")

    def synops(self) -> float:
        totals = self._counts.totals
        return self.joules(totals.synops_AC, "ac") + self.joules(totals.synops_MAC, "mac")

    def everything(self, prices: PriceList) -> tuple[float | None, float | None]:
        priced = price(self._program, self._counts, prices)
        return _middle(priced.snn), _middle(priced.ann)

    def constant_first_layer(self, snn: float | None, ann: float | None) -> Ratio:
        name = "constant first layer computed once"
        if snn is None or not self._counts.still or self._counts.T == 1:
            text = "does not apply: the input changes over time"
            return Ratio("bookkeeping", self._prices, None, name, text)
        first = first_layer(self._program, self._counts)
        # by difference: all other lines of the bill stay those of the row above
        once = snn - self._layers(self._counts, first) + self._layers(self._counts.at_one_step(), first)
        return self.row(name, "the input repeats, so its synops and biases are paid at one step", once, ann)

    def _layers(self, counts: Counts, names: Sequence[str]) -> float:
        kept = [counts.weighted[name] for name in names]
        synops = sum(self.joules(c.synops, "ac" if c.op == "AC" else "mac") for c in kept)
        return synops + sum(self.joules(c.bias_adds, "add") for c in kept)

    def row(self, name: str, text: str, snn: float | None, ann: float | None = None) -> Ratio:
        """Add a bookkeeping row at the first list's prices; the ANN defaults to its dense MACs."""
        if ann is None:
            ann = self.joules(self._counts.totals.ann_macs_exact, "mac")
        return Ratio("bookkeeping", self._prices, _both(snn, ann), name, text)

    def physics(self, name: str, text: str, prices: PriceList, snn: float | None, ann: float | None) -> Ratio:
        """Add a row for other hardware."""
        return Ratio("physics", prices, _both(snn, ann), name, text)


def _both(snn: float | None, ann: float | None) -> Comparison | None:
    return None if snn is None or ann is None else exactly(snn, ann)


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
    return {
        "snn_over_ann_range": [lowest[0][0], highest[0][1]],
        "lowest": lowest[1],
        "highest": highest[1],
        "snn_range_J": list(hull([total(model.snn) for model in results])),
        "models": len(results),
        "label": "modelled",
    }
