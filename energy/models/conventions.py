"""The same counts under every accounting convention in use: the ratio ANN/SNN each would have printed.

Every row is worked out from this network's counts. What changes from row to row is only what is
counted and at which price, so the spread is the part of a published ratio that is bookkeeping.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from stl_deploy.energy.counts.coding import origin_of
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.models import dampfhoffer
from stl_deploy.energy.models.ledger import total
from stl_deploy.energy.prices.bill import Bill
from stl_deploy.energy.prices.joules import price
from stl_deploy.energy.prices.price_list import PriceList, load_prices
from stl_deploy.graph.program import Delay, Input, Output, Pool, Program, Reshape


@dataclass(frozen=True)
class Convention:
    """One row: joules per inference of both sides under one convention; ratio None if the SNN's is 0 or none fits."""

    name: str
    text: str
    price: str
    snn_J: float | None
    ann_J: float | None
    ratio_ann_over_snn: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "label": "modelled"}


def first_layer(program: Program, counts: Counts) -> tuple[str, ...]:
    """The weighted nodes that the input reaches before any other weight or neuron."""
    through = (Reshape, Delay, Output, Pool)
    return tuple(n for n in counts.weighted if isinstance(origin_of(program, program.by_name[n], through), Input))


def conventions(program: Program, counts: Counts) -> tuple[Convention, ...]:
    """The table for one network: 45 nm 32-bit float first, then the same counts as 8-bit integers."""
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
        rows.row(
            "ANN runs once per time step",
            f"the ANN sees {counts.T} frames where the SNN takes {counts.T} steps",
            full_snn,
            None if full_ann is None else full_ann * counts.T,
        ),
        rows.row("8-bit integers", "all of it at 8-bit prices, 8-bit accumulators", *rows.everything(int8), int8.name),
        rows.row(
            "8-bit integers, 32-bit accumulators",
            "all of it, 8-bit multiplies and 32-bit adds",
            *rows.everything(int8_acc32),
            int8_acc32.name,
        ),
        *_with_memory(program, counts, rows, int8_acc32),
    )


def _with_memory(program: Program, counts: Counts, rows: _Rows, prices: PriceList) -> Iterator[Convention]:
    """The 8-bit rows again with SRAM traffic; the ANN's words fetched for every use, every 16th, or once."""
    snn = total(dampfhoffer.snn(program, counts, prices))[0]
    text = "weights, potentials, states and event queues in SRAMs sized by layer, per 64-bit access"
    for name, what, reuse in (
        ("+ SRAM traffic", text, 1),
        ("+ SRAM traffic, ANN reuses each word 16 times", "the same, and the ANN fetches a 16th", 16),
        ("+ SRAM traffic, ANN with ideal reuse", "the same, and the ANN fetches each word once", None),
    ):
        ann = total(dampfhoffer.ann(program, counts, prices, reuse=reuse))[0]
        yield rows.row(name, what, snn, ann, prices.name)


def _low(bill: Bill | None) -> float | None:
    return None if bill is None or bill.total is None else bill.total[0]


class _Rows:
    def __init__(self, program: Program, counts: Counts, prices: PriceList) -> None:
        self._program, self._counts, self._prices = program, counts, prices
        self._first = [counts.weighted[name] for name in first_layer(program, counts)]
        self.later = counts.totals.synops - sum(c.synops for c in self._first)

    def joules(self, count: int, term: str) -> float:
        return count / self._counts.batch * self._prices.terms[term].low

    def ac(self, synops: int) -> float:
        return self.joules(synops, "ac")

    def synops(self) -> float:
        totals = self._counts.totals
        return self.joules(totals.synops_AC, "ac") + self.joules(totals.synops_MAC, "mac")

    def everything(self, prices: PriceList) -> tuple[float | None, float | None]:
        priced = price(self._program, self._counts, prices)
        return _low(priced.snn), _low(priced.ann)

    def constant_first_layer(self, snn: float | None, ann: float | None) -> Convention:
        name = "constant first layer computed once"
        if snn is None or not self._counts.constant_input or self._counts.T == 1:
            return Convention(name, "does not apply: the input changes over time", self._prices.name, None, None, None)
        spared = sum(self.joules(c.synops, "ac" if c.op == "AC" else "mac") for c in self._first)
        spared += sum(self.joules(c.bias_adds, "add") for c in self._first)
        once = snn - spared * (self._counts.T - 1) / self._counts.T
        return self.row(name, "the input repeats, so its synops and biases are paid at one step", once, ann)

    def row(
        self, name: str, text: str, snn: float | None, ann: float | None = None, prices: str | None = None
    ) -> Convention:
        if ann is None:
            ann = self.joules(self._counts.totals.ann_macs_exact, "mac")
        ratio = ann / snn if snn else None
        return Convention(name, text, prices or self._prices.name, snn, ann, ratio)
