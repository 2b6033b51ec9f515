"""Find the network's break-even activity: spikes per synapse, against its ANN twin and published limits."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from math import inf
from typing import Any, Literal

from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.counts.reads import driven_by_input
from stl_deploy.energy.counts.record import Counts, firing
from stl_deploy.energy.models import dataflow
from stl_deploy.energy.models.dataflow import DATAFLOWS, Dataflow, Fetch
from stl_deploy.energy.models.grid import memory_lists
from stl_deploy.energy.models.layout import synapses
from stl_deploy.energy.models.ledger import total
from stl_deploy.energy.models.ratios import Ratio, Zeros
from stl_deploy.energy.models.what_if import highest_rate, scaled
from stl_deploy.energy.prices.joules import price
from stl_deploy.energy.prices.price_list import PriceList, Range
from stl_deploy.graph.program import Program
from stl_deploy.graph.segments import looped

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

    name: the account. scale: by how much the spikes inside the network may grow (below 1: must shrink). flow: of
    an account of the grid. ann_zeros: what the ANN does with its zeros. Defaults: of an account that is not solved yet.
    """

    name: str
    price: str
    text: str
    scale: Range | None = None
    spikes_per_synapse: Range | None = None
    spike_rate: Range | None = None
    verdict: Verdict = "not defined"
    flow: Dataflow | None = None
    ann_zeros: Zeros = "computed"

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        fields = asdict(self)
        del fields["flow"]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}


@dataclass(frozen=True)
class BreakEven:
    """This network's activity, its break-even, and published limits."""

    spikes_per_synapse_per_inference: float
    spike_rate: float | None
    models: tuple[ModelBreakEven, ...]
    published: tuple[tuple[Limit, float | None, Verdict], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the energy JSON's ``break_even``."""
        return {
            "spikes_per_synapse_per_inference": self.spikes_per_synapse_per_inference,
            "spike_rate": self.spike_rate,
            "label": "modelled",
            "models": [model.as_dict() for model in self.models],
            "published": [
                {**asdict(limit), "this_network": value, "verdict": verdict} for limit, value, verdict in self.published
            ],
        }


def break_even(
    program: Program,
    counts: Counts,
    prices: Sequence[PriceList],
    memory_models: Sequence[Ratio] = (),
    twin: AnnTwin | None = None,
) -> BreakEven:
    """Solve break-even under each arithmetic list, each dataflow, each of ``memory_models``, and `PUBLISHED`.

    With a measured ``twin`` the dataflows' ANN skips its zeros.

    The spike rate is spikes per neuron and step over the spiking nodes, max pools left out. Spikes per synapse are
    spikes that cross a synapse over structural synapses, per inference; an event that carries several counts as many.
    """
    totals = counts.totals
    crossed = sum(c.synops if c.spikes_carried is None else c.spikes_carried for c in counts.weighted.values())
    crossed += sum(c.synops for c in counts.products.values())
    per_synapse = crossed / totals.ann_macs_exact if totals.ann_macs_exact else 0.0
    fired = [counts.neurons[node.name] for node in firing(program)]
    updates = sum(c.neuron_updates for c in fired)
    rate = sum(c.spikes for c in fired) / updates if updates else None
    values: dict[Measure, float | None] = {"spikes per synapse per inference": per_synapse, "spike rate": rate}
    published = tuple((limit, values[limit.measure], _verdict(values[limit.measure], limit)) for limit in PUBLISHED)
    solve = _Solver(program, counts, per_synapse, rate, twin)
    solved = [solve.arithmetic(entry) for entry in prices if entry.scope == "arithmetic"]
    solved += [solve.dataflow(flow, entry) for entry in memory_lists(prices) for flow in DATAFLOWS]
    solved += [solve.published(model) for model in memory_models]
    return BreakEven(per_synapse, rate, tuple(solved), published)


def _verdict(value: float | None, limit: Limit) -> Verdict:
    if value is None:
        return "not defined"
    if value < limit.low:
        return "below"
    return "within" if value <= limit.high else "above"


_FETCHED_ONCE: tuple[Fetch, ...] = ("per_step", "per_inference")
Spiking = Callable[[Counts], Range | None]


class _Solver:
    """Solve for break-even; every account is piecewise linear in the spikes.

    An account bends where a layer's weights are all fetched, and where every neuron of a node is touched at every step.
    A published account moves whole states and has no bends. Costs are computed at the bends; the break-even lies
    between two of them.
    """

    def __init__(
        self,
        program: Program,
        counts: Counts,
        per_synapse: float,
        rate: float | None,
        twin: AnnTwin | None,
    ) -> None:
        self._program, self._counts = program, counts
        self._active = 1.0 if twin is None else twin
        self._zeros: Zeros = "computed" if twin is None else "skipped"
        self._per_synapse, self._rate = per_synapse, rate
        driven = driven_by_input(program)
        later = [layer for layer in synapses(program) if layer.name not in driven]
        self._driven = sum(counts.weighted[layer.name].synops for layer in later)
        self._highest = 1 / most if (most := highest_rate(counts)) else 1.0
        moved = [c for c in counts.neurons.values() if c.neuron_updates_touched]
        touched = [c.neuron_updates / c.neuron_updates_touched for c in moved]
        self._bends: dict[Fetch | None, list[float]] = {None: [], "per_event": touched}
        in_loops, steps = looped(program), counts.T * counts.batch
        for fetch in _FETCHED_ONCE:
            self._bends[fetch] = touched.copy()
            for layer in later:
                by_step = fetch == "per_step" or layer.name in in_loops
                met, passes = counts.weighted[layer.name].fetched, steps if by_step else counts.batch
                all_of_it = layer.weights, met.per_step if by_step else met.per_inference
                nonzero = layer.nonzero, met.nonzero_per_step if by_step else met.nonzero_per_inference
                self._bends[fetch] += [words * passes / count for words, count in (all_of_it, nonzero) if count]
        self._at: dict[float, Counts] = {}

    def _counts_at(self, scale: float) -> Counts:
        if scale not in self._at:
            self._at[scale] = scaled(self._program, self._counts, rate=scale)
        return self._at[scale]

    def arithmetic(self, prices: PriceList) -> ModelBreakEven:
        def spiking(counts: Counts) -> Range | None:
            bill = price(self._program, counts, prices).snn
            return None if bill is None or bill.unpriced else bill.total

        ann = price(self._program, self._counts, prices).ann
        text = "first layer, biases and neuron updates as they are; synops behind them grow with the spikes"
        account = ModelBreakEven("arithmetic alone", prices.name, text)
        return self._solved(account, spiking, None if ann is None else ann.total)

    def dataflow(self, flow: Dataflow, prices: PriceList) -> ModelBreakEven:
        def spiking(counts: Counts) -> Range:
            return total(dataflow.snn(self._program, counts, prices, flow))

        ann = total(dataflow.ann(self._program, self._counts, prices, flow, active=self._active))
        account = ModelBreakEven(flow.text, prices.name, _MOVES, flow=flow, ann_zeros=self._zeros)
        return self._solved(account, spiking, ann)

    def published(self, model: Ratio) -> ModelBreakEven:
        def spiking(counts: Counts) -> Range:
            assert model.spiking is not None
            return total(model.spiking(self._program, counts, model.prices))

        account = ModelBreakEven(model.name, model.prices.name, _MOVES, ann_zeros=model.ann_zeros)
        return self._solved(account, spiking, total(model.ann))

    def _solved(self, account: ModelBreakEven, spiking: Spiking, ann: Range | None) -> ModelBreakEven:
        if not self._driven:
            return replace(account, text="no synops are driven by spikes")
        if ann is None or spiking(self._counts_at(self._highest)) is None:
            return replace(account, text="the list lacks a price that this network needs")
        if not ann[1]:
            return replace(account, text="the ANN costs nothing at these prices")
        # between bends costs are straight, so two evaluations give the crossing exactly
        bends = self._bends[None if account.flow is None else account.flow.fetch]
        scales = sorted({0.0, self._highest, *(bend for bend in bends if bend < self._highest)})

        @cache
        def cost(place: int) -> Range:
            joules = spiking(self._counts_at(scales[place]))
            assert joules is not None  # what the dearest point has a price for, the others have
            return joules

        def at(end: int) -> Callable[[int], float]:
            return lambda place: cost(place)[end]

        # the cheap end of the prices may cross after the dear one: the ANN moves, too
        low, high = sorted(crossing(scales, at(end), ann[end]) for end in (0, 1))
        if high < 0:
            return replace(account, text="the fixed part alone costs more than the ANN", verdict="above")
        if low > self._highest:
            return replace(
                account, text="the SNN costs less at every rate that its neurons can fire at", verdict="below"
            )
        low, high = max(low, 0.0), min(high, self._highest)
        verdict: Verdict = "below" if low > 1 else "above" if high < 1 else "within"
        share = self._driven / self._counts.totals.ann_macs_exact
        crossed = (self._per_synapse + (low - 1) * share, self._per_synapse + (high - 1) * share)
        rates = None if self._rate is None else (self._rate * low, self._rate * high)
        return replace(account, scale=(low, high), spikes_per_synapse=crossed, spike_rate=rates, verdict=verdict)


def crossing(scales: Sequence[float], cost: Callable[[int], float], ann: float) -> float:
    """Return the scale at which the non-decreasing costs reach ``ann``: -1 if they begin above, infinite if never."""
    places = range(len(scales))
    if cost(0) >= ann:
        above = bisect_right(places, ann, key=cost)
        return -1.0 if above == 0 else scales[above - 1] if above < len(scales) else inf
    right = bisect_left(places, ann, key=cost)
    if right == len(scales):
        return inf
    low, high = cost(right - 1), cost(right)
    return scales[right - 1] + (scales[right] - scales[right - 1]) * (ann - low) / (high - low)


_MOVES = "first layer, biases and states as they are; synops behind them and their memory traffic grow with the spikes"
