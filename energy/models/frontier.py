"""Two frontiers, accuracy against energy: what the SNN and the ANN of one topology cost at equal accuracy.

Both sides choose: the SNN its time steps and early exit, the ANN its width, and both what a search trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.units import with_unit
from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.counts.record import Counts, ProductCounts, TapCounts
from stl_deploy.energy.models import dataflow
from stl_deploy.energy.models.equivalent import folded_for_pricing
from stl_deploy.energy.models.grid import LAYER_BY_LAYER, QUOTED, QUOTED_PRICE
from stl_deploy.energy.models.layout import synapses
from stl_deploy.energy.models.ledger import total
from stl_deploy.energy.models.ratios import number
from stl_deploy.energy.models.widths import widths
from stl_deploy.energy.paired import accuracy_interval, percent
from stl_deploy.energy.prices.load import load_prices
from stl_deploy.energy.prices.price_list import Range, middle
from stl_deploy.graph.program import Program

WIDTHS = (1.0, 0.75, 0.5, 0.25)
_NAMES = {1.0: "full width", 0.75: "three-quarter width", 0.5: "half width", 0.25: "quarter width"}
Flow = Literal["streaming", "layer_by_layer"]
FLOWS: tuple[Flow, Flow] = ("streaming", "layer_by_layer")
_RESAMPLES = 1000
_ENDS = (0.025, 0.975)


def width_name(width: float) -> str:
    """Width in words, as in ``half width``."""
    return _NAMES.get(width, f"{width:g} times the width")


@dataclass(frozen=True)
class Point:
    """One network at one number of steps, or stopping at each sample once sure by ``margin``: steps is then a mean.

    joules: of one inference when streaming (weights once per step); layer_by_layer_J: with weights once per inference;
    None: it is worked through step by step. mode: how it was trained (stl, sl, tl, ann; "" if unknown). samples: names
    those that it was measured on; points of other samples are not compared. right: ``[B]``, whether each sample was
    decided right, for paired comparisons; not in `as_dict`.
    """

    name: str
    kind: Literal["SNN", "ANN", "counts"]
    mode: str
    steps: float
    accuracy: float
    joules: float
    margin: float | None = None
    layer_by_layer_J: float | None = None
    samples: str = ""
    right: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)

    @staticmethod
    def of(row: Mapping[str, Any]) -> Point:
        """Return the point of a row of `as_dict`; keys that are no field, such as what was worked out, are left out."""
        return Point(**{f.name: row[f.name] for f in fields(Point) if f.name in row})

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; ``interval``: the accuracy's exact 95 % interval, None without ``right``."""
        row = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "right"}
        right = self.right
        return row | {"interval": None if right is None else list(accuracy_interval(int(right.sum()), len(right)))}

    def cost(self, flow: Flow) -> float:
        """Return joules of one inference in a dataflow."""
        return self.joules if flow == "streaming" or self.layer_by_layer_J is None else self.layer_by_layer_J

    @property
    def decided(self) -> NDArray[np.bool_]:
        """``right``, of a point that has it."""
        assert self.right is not None
        return self.right


@dataclass(frozen=True)
class Equal:
    """An SNN against the cheapest ANN that measured no less accurate, in one dataflow.

    Where none measured so: against the most accurate. interval: the ratio's 95 % range over resampled samples, each
    with its own cheapest ANN. shares: of the resamples, by ANN. Energies are taken as they are.
    """

    flow: Flow
    snn: Point
    ann: Point
    ratio: float
    interval: Range
    shares: Mapping[str, float]

    @property
    def text(self) -> str:
        """The ratio and its range."""
        low, high = (number(end) for end in self.interval)
        return f"{number(self.ratio)} times ({low} to {high})"

    @property
    def verdict(self) -> str:
        """One sentence: whether the whole range lies on one side of 1."""
        low, high = self.interval
        says = "it is undecided whether the SNN ({}) costs less"
        if high < 1 or low > 1:
            says = f"the SNN ({{}}) costs {'less' if high < 1 else 'more'}"
        flow = self.flow.replace("_", " ").capitalize()
        return f"{flow} {says.format(self.snn.name)}: {self.text} the {self.opponent}."

    @property
    def opponent(self) -> str:
        """The ANN's rank, in words."""
        return "cheapest ANN of equal accuracy" if self.ann.accuracy >= self.snn.accuracy else "most accurate ANN"

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        row = {"snn": self.snn.name, "snn_accuracy": self.snn.accuracy, "snn_J": self.snn.cost(self.flow)}
        row |= {"ann": self.ann.name, "ann_accuracy": self.ann.accuracy, "ann_J": self.ann.cost(self.flow)}
        return row | {"ratio": self.ratio, "interval": list(self.interval), "shares": dict(self.shares)}


def against_equal_ann(snn: Point, anns: Sequence[Point], flow: Flow) -> Equal:
    """Compare an SNN with the cheapest ANN of equal accuracy; all decided the same samples."""
    costs = np.array([ann.cost(flow) for ann in anns])
    # samples with the same pattern of right and wrong are interchangeable: a handful is drawn, not thousands
    patterns, counts = np.unique(np.stack([p.decided for p in (snn, *anns)]), axis=1, return_counts=True)
    samples = int(counts.sum())
    resampled = np.random.default_rng(0).multinomial(samples, counts / samples, _RESAMPLES)
    chosen = _cheapest(resampled @ patterns.T, costs)
    ratios = snn.cost(flow) / costs[chosen]
    measured = int(_cheapest(counts[None] @ patterns.T, costs)[0])
    low, high = (float(end) for end in np.quantile(ratios, _ENDS))
    shares = {ann.name: float((chosen == k).mean()) for k, ann in enumerate(anns)}
    return Equal(flow, snn, anns[measured], snn.cost(flow) / float(costs[measured]), (low, high), shares)


def _cheapest(right: NDArray[np.int64], costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the cheapest ANN in each row with at least as many right as the SNN, which comes first."""
    snn, anns = right[:, :1], right[:, 1:]
    is_equal = anns >= snn
    cheapest = np.where(is_equal, costs, np.inf).argmin(axis=1)
    return np.asarray(np.where(is_equal.any(axis=1), cheapest, anns.argmax(axis=1)), np.intp)


def best_of(snns: Sequence[Point], anns: Sequence[Point], flow: Flow) -> Equal | None:
    """Return the comparison whose worse end is least among several SNNs; None without any."""
    compared = (against_equal_ann(snn, anns, flow) for snn in snns)
    return min(compared, key=lambda equal: (equal.interval[1], equal.ratio), default=None)


@dataclass(frozen=True)
class Advice:
    """The cheapest change tried on the network's own samples that keeps its accuracy to within the margin.

    point: the network with it; None if no change costs less. before: as it is. ratio: its energy in those of the ANN,
    in the dataflow that leads. command: shows it; training: tries width, thresholds and sparsity; "": there is none.
    """

    point: Point | None
    before: Point
    flow: Flow
    ann_J: float
    command: str = ""
    training: str = ""

    @property
    def ratio(self) -> float | None:
        """Energy of the changed network in those of the ANN."""
        return None if self.point is None else self.point.cost(self.flow) / self.ann_J

    @property
    def text(self) -> str:
        """One or two sentences."""
        take = f" Other widths, thresholds and counts need training: '{self.training}'." if self.training else ""
        if self.point is None or self.ratio is None:
            return f"Neither fewer steps nor an early exit costs less at this accuracy.{take}"
        flow = "streaming" if self.point.layer_by_layer_J is None else self.flow.replace("_", " ")
        takes, took = (with_unit(point.cost(self.flow), "J") for point in (self.point, self.before))
        ratios = f"{number(self.ratio)} instead of {number(self.before.cost(self.flow) / self.ann_J)} times"
        accuracy = f"{percent(self.point.accuracy)} against {percent(self.before.accuracy)}"
        how = f"; shown by '{self.command}'." if self.command else "."
        tried = f"{self.point.name} in place of {self.before.name}"
        change = f"Cheapest change tried: {tried} takes {takes} an inference in place of {took} {flow}"
        twin = f"{ratios} the ANN twin of the same width; modelled"
        return f"{change} ({twin}), at {accuracy} (measured, {len(self.before.decided)} samples){how}{take}"

    def as_dict(self) -> dict[str, Any]:
        """Return the energy JSON's ``advice``."""
        return {
            "change": None if self.point is None else self.point.name,
            "accuracy": None if self.point is None else self.point.accuracy,
            "ratio": self.ratio,
            "command": self.command,
            "training": self.training,
            "text": self.text,
            "label": "modelled",
        }


def advise(tried: Sequence[Point], margin: float, flow: Flow, ann_J: float) -> Advice | None:
    """Return advice from what was tried, the network as it is first; None of nothing. margin: a share."""
    if not tried:
        return None
    kept = [point for point in tried if point.accuracy >= tried[0].accuracy - margin]
    cheapest = min(kept, key=lambda point: point.cost(flow))
    return Advice(None if cheapest is tried[0] else cheapest, tried[0], flow, ann_J)


@dataclass(frozen=True)
class Frontier:
    """Both sides on the same samples: the SNN as it is first, the ANN twin first.

    leads: the dataflow that fits the input. margin: share of accuracy that an SNN may lose to the SNN as it is.
    """

    snn: tuple[Point, ...]
    ann: tuple[Point, ...]
    leads: Flow
    margin: float

    @cached_property
    def at_equal_accuracy(self) -> Mapping[Flow, Equal]:
        """The SNN of least ratio to the cheapest ANN of equal accuracy, by dataflow, the leading one first."""
        kept = [point for point in self.snn if point.accuracy >= self.snn[0].accuracy - self.margin]
        flows = sorted(FLOWS, key=lambda flow: flow != self.leads)
        return {flow: equal for flow in flows if (equal := best_of(kept, self.ann, flow)) is not None}

    @property
    def sentences(self) -> tuple[str, str]:
        """The verdict in the dataflow that leads; its two networks, and the ratio in the other dataflow."""
        first, other = self.at_equal_accuracy.values()
        snn, ann = (
            f"{with_unit(point.cost(first.flow), 'J')}, {percent(point.accuracy)}" for point in (first.snn, first.ann)
        )
        networks = f"The SNN: {snn}; the ANN, {first.ann.name}: {ann}"
        samples = f"Range: 95 %, over {len(self.snn[0].decided)} samples, energies as modelled"
        beside = f"{other.flow.replace('_', ' ').capitalize()} ({other.snn.name}): {other.text} the {other.opponent}"
        return first.verdict, f"{networks}. {samples}. {beside}."

    def as_dict(self) -> dict[str, Any]:
        """Return the energy JSON's ``frontier``."""
        return {
            "snn": [point.as_dict() for point in self.snn],
            "ann": [point.as_dict() for point in self.ann],
            "samples": len(self.snn[0].decided),
            "leads": self.leads,
            "at_equal_accuracy": {flow: equal.as_dict() for flow, equal in self.at_equal_accuracy.items()},
            "text": " ".join(self.sentences),
            "label": "modelled",
        }


def snn_joules(program: Program, counts: Counts) -> tuple[float, float]:
    """Return joules of one inference of the SNN at the quoted prices: streaming, and layer by layer."""
    program, counts = folded_for_pricing(program, counts)
    prices = load_prices(QUOTED_PRICE)
    streaming, batched = (total(dataflow.snn(program, counts, prices, flow)) for flow in (QUOTED, LAYER_BY_LAYER))
    return middle(streaming), middle(batched)


def ann_joules(program: Program, counts: Counts, twin: AnnTwin) -> float:
    """Return joules of one inference of an ANN of ``program``'s topology at the quoted prices, zeros skipped."""
    program, counts = folded_for_pricing(program, counts)
    return middle(total(dataflow.ann(program, counts, load_prices(QUOTED_PRICE), QUOTED, active=twin)))


def ann_joules_of_counts(program: Program, counts: Counts) -> float:
    """Return joules of one inference of the quantised ANN that a network of counts at one step is.

    At the quoted prices, with activations as wide as the counts, and their zeros skipped.
    """
    program, counts = folded_for_pricing(program, counts)
    layers = counts.weighted
    done: dict[str, TapCounts | ProductCounts] = {**layers, **counts.pools, **counts.products}
    zeros = AnnTwin(
        *(0, 0, counts.batch, "counts"),
        by_layer={name: each.synops / max(1, each.dense_macs_exact) for name, each in done.items()},
        fetched={
            each.name: layers[each.name].fetched.per_inference / each.weights / counts.batch
            for each in synapses(program)
        },
    )
    prices = load_prices(QUOTED_PRICE)
    bits = widths(program, counts, prices)
    return middle(total(dataflow.ann(program, counts, prices, QUOTED, active=zeros, bits=bits)))
