"""Build the energy report of a Program and an input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.keywords import named_options
from stl_deploy.energy.chips.baselines import baselines
from stl_deploy.energy.chips.lines import NO_BOARD, ChipLine, chip_lines, refused_lists, uncounted
from stl_deploy.energy.chips.time import step_time_notes
from stl_deploy.energy.context import AnnTwin, Context, ContextKeywords, twin_json
from stl_deploy.energy.counts.coding import Coding, resolve_coding
from stl_deploy.energy.counts.count import Samples, count_stream, split
from stl_deploy.energy.counts.neuron_ops import layer_ops
from stl_deploy.energy.counts.record import Counts, neurobench_fields, populations
from stl_deploy.energy.counts.traffic import placement_json, traffic
from stl_deploy.energy.models.break_even import BreakEven, break_even
from stl_deploy.energy.models.conventions import conventions, first_layer, models, range_of
from stl_deploy.energy.models.dataflow import Dataflow
from stl_deploy.energy.models.equivalent import folded_for_pricing
from stl_deploy.energy.models.frontier import Advice, Flow, Frontier, Point
from stl_deploy.energy.models.grid import LAYER_BY_LAYER, QUOTED, by_layer, grid, itemised, leading, quoted
from stl_deploy.energy.models.idle import EACH_STEP, dead, idle, without_ann
from stl_deploy.energy.models.memory import NeuronMemory, TapMemory, memory_of
from stl_deploy.energy.models.ratios import ByRule, Ratio, without_ratios
from stl_deploy.energy.models.sensitivity import Sensitivity, sensitivity
from stl_deploy.energy.models.verdict import CHIP, Findings, Idle, range_of_ratios, spread, verdict
from stl_deploy.energy.paired import MARGIN, MetricScore, Paired, check_margin, compare
from stl_deploy.energy.prices.bill import Priced
from stl_deploy.energy.prices.chip import Checked
from stl_deploy.energy.prices.joules import price
from stl_deploy.energy.prices.price_list import PriceList, Range
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.program import Input, Neuron, Program, feeders, is_spike_max_pool
from stl_deploy.graph.readout import readout_of
from stl_deploy.graph.run import CHUNK, match_inputs
from stl_deploy.graph.segments import is_loop, segments

SCHEMA_VERSION = 5
_DESCRIBED = ("name", "title", "evidence", "source", "caveat")


@dataclass(frozen=True)
class EnergyReport(ByRule):
    """Counts, joules, conventions and break-even of one network on one input.

    ratios: SNN over ANN under every rule. right: whether each sample is decided right, ``[B]``.
    source: what was counted (a file's name, say). coding: the input coding and who declared it. no_ann, summed,
    frames, idle, dead: as `Findings` has them.
    one_sided: a warning that the samples lack classes, else "". tried: the network as it is, with fewer steps, and with
    early exits.
    """

    source: str
    counts: Counts
    coding: Coding
    energy: tuple[Priced, ...]
    ratios: tuple[Ratio, ...]
    break_even: BreakEven
    assumptions: tuple[str, ...]
    memory: Mapping[str, TapMemory | NeuronMemory]
    operations: Mapping[str, Mapping[str, float]]
    chips: tuple[ChipLine, ...]
    by_layer: tuple[tuple[str, float, float], ...]
    edges: Mapping[str, tuple[str, ...]]
    ann_twin: Mapping[str, Any]
    samples: Samples | None
    neurobench: Mapping[str, Any]
    placement: Mapping[str, Any]
    itemised: Mapping[str, Any]
    sensitivity: tuple[Sensitivity, ...]
    no_ann: str = ""
    summed: int = 0
    frames: int = 1
    accuracy: Paired | None = None
    score: MetricScore | None = None
    frontier: Frontier | None = None
    tried: tuple[Point, ...] = ()
    advice: Advice | None = None
    idle: Idle | None = None
    dead: Mapping[str, Literal["silent", "saturated"]] = field(default_factory=dict)
    right: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    checked: Checked = field(default_factory=Checked)
    one_sided: str = ""

    @property
    def _findings(self) -> Findings:
        return Findings(
            cells=self.comparisons,
            break_even=self.break_even,
            models=self.models,
            chips=self.chips,
            placed=CHIP not in self.checked.refused,
            no_ann=self.no_ann,
            summed=self.summed,
            frames=self.frames,
            idle=self.idle,
            dead=self.dead,
            accuracy=self.accuracy or self.score,
            leads=leading(self.counts),
            frontier=self.frontier,
        )

    @property
    def leads(self) -> Flow:
        """The dataflow that fits the input: layer by layer for static images, streaming for streams."""
        return "layer_by_layer" if leading(self.counts) == LAYER_BY_LAYER else "streaming"

    @property
    def verdict(self) -> str:
        """Two to five short sentences to quote: ratio at equal accuracy, both numbers, accuracy or range, one chip."""
        return " ".join(verdict(self._findings))

    @property
    def spread(self) -> str:
        """One sentence: the range over every dataflow, list and model, and the break-even; "" if there is none."""
        return "" if self.idle or self.no_ann else spread(self._findings)

    @property
    def ratio_range(self) -> Range | None:
        """Least and most SNN/ANN ratio over every dataflow, list and model, as `spread` prints; None without one."""
        if self.idle or self.no_ann or quoted(self.comparisons) is None:
            return None
        return range_of_ratios(self._findings)

    @property
    def unpriced(self) -> list[dict[str, Any]]:
        """For each price list: the counts without a price, and the costs outside its scope."""
        return [
            {
                "price": e.prices.name,
                "counted": [u.as_dict() for u in (e.snn.unpriced if e.snn else ())],
                "outside": list(e.outside),
            }
            for e in self.energy
        ]

    def _to_quote(self, flow: Dataflow) -> dict[str, Any] | None:
        """The cell to quote; None without one, or if the network decides nothing on this input."""
        cell = quoted(self.comparisons, flow)
        return None if cell is None or self.idle else cell.as_dict()

    def _lists(self) -> list[PriceList]:
        """Every price list in use, once."""
        used = [*(entry.prices for entry in self.energy), *(cell.prices for cell in self.comparisons)]
        return list({prices.name: prices for prices in used}.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the energy JSON: exact sums over T steps and B samples; ratios are null if the network is ``idle``.

        ann_zeros: whether the ANN twin of an entry computes its zeros or skips them, as measured in a trained twin.
        """
        zeros = "skipped" if self.ann_twin["label"] == "measured" else "computed"
        memory = {name: moved.as_dict() for name, moved in self.memory.items()}  # a max pool has none
        optional = {key: getattr(self, key) for key in ("accuracy", "score", "frontier", "advice")}
        data = {
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "verdict": self.verdict,
            "headline": verdict(self._findings)[0],
            "T": self.counts.T,
            "batch": self.counts.batch,
            "layers": {
                name: {**layer.as_dict(), **self.operations.get(name, {}), **memory.get(name, {})}
                for name, layer in self.counts.layers.items()
            },
            "totals": self.counts.totals.as_dict(),
            "energy": [entry.as_dict() for entry in self.energy],
            "comparisons": [cell.as_dict() for cell in self.comparisons],
            "leads": self.leads,
            "quoted": self._to_quote(QUOTED),
            "quoted_layer_by_layer": self._to_quote(LAYER_BY_LAYER),
            "itemised": dict(self.itemised),
            "spread": self.spread,
            "sensitivity": [row.as_dict() for row in self.sensitivity],
            **{key: each.as_dict() for key, each in optional.items() if each is not None},
            "conventions": [row.as_dict() for row in self.conventions],
            "models": [model.as_dict() for model in self.models],
            "model_range": range_of(self.models),
            "by_layer": [
                {"layer": n, "snn_J": s, "ann_J": a, "ann_zeros": zeros, "label": "modelled"}
                for n, s, a in self.by_layer
            ],
            "edges": {name: list(sources) for name, sources in self.edges.items()},
            "price_lists": [{key: getattr(prices, key) for key in _DESCRIBED} for prices in self._lists()],
            "chips": [line.as_dict() for line in self.chips],
            "ann_baselines": baselines(self.counts.totals.ann_macs_exact / self.counts.batch),
            "ann_twin": dict(self.ann_twin),
            **({} if self.samples is None else self.samples.as_dict()),
            "neurobench": dict(self.neurobench),
            "placement": dict(self.placement),
            "not_placed": dict(self.checked.refused),
            "break_even": self.break_even.as_dict(),
            "assumptions": list(self.assumptions),
            "unpriced": self.unpriced,
        }
        return without_ratios(data) if self.idle else data


@named_options(Context)
def measure_energy(
    program: Program,
    x: NDArray[Any] | Mapping[str, NDArray[Any]],
    *,
    input_coding: str | None = None,
    labels: NDArray[Any] | None = None,
    margin: float = MARGIN,
    chunk: int = CHUNK,
    **context: Unpack[ContextKeywords],
) -> EnergyReport:
    """Run ``program`` on ``x`` ``[T, B, *input shape]``, count its activity exactly, and price the counts.

    Args:
        program: A network.
        x: Input; a mapping by Input name if there are several.
        input_coding: ``spikes``, ``graded`` or ``analog``; default: the graph's metadata, else the data.
        labels: ``[B]``, for the spread over samples by class; per-step labels ``[B, T]`` give no ratio.
        margin: Percentage points by which the SNN may be less accurate than its twin and still count as equal.
        chunk: Samples per run.
        context: Fields of `stl_deploy.energy.context.Context`.

    Raises:
        InputError: If x does not fit the network or contradicts the coding, or the twin has another topology.
        ConfigError: For an invalid price list.
        UnsupportedError: For a kind of node that cannot be counted.
    """
    made = Context(**context)
    share, lists = check_margin(margin), made.price_lists()
    arrays = match_inputs(program, x)
    coding = resolve_coding(program, arrays.values(), input_coding)
    counter = count_stream(program, split(arrays, labels, chunk), coding.value, chunk=chunk)
    return energy_report(
        program,
        counter.counts(),
        coding,
        samples=counter.samples,
        no_ann=without_ann(labels, made.twin),
        accuracy=_paired(counter.right, made.twin, share),
        right=counter.right,
        one_sided=_one_sided(program, labels),
        **context | {"prices": lists},
    )


def _paired(right: NDArray[Any] | None, twin: AnnTwin | None, margin: float) -> Paired | None:
    """Compare the network's accuracy with its twin's on the same samples, if both were measured."""
    if right is None or twin is None or twin.right is None or len(right) != len(twin.right):
        return None
    return compare(right, twin.right, margin)


@named_options(Context)
def energy_report(
    program: Program,
    counts: Counts,
    coding: Coding,
    *,
    samples: Samples | None = None,
    no_ann: str = "",
    accuracy: Paired | None = None,
    right: NDArray[np.bool_] | None = None,
    one_sided: str = "",
    **context: Unpack[ContextKeywords],
) -> EnergyReport:
    """Price the counts of an `ActivityCounter` that observed a run of ``program``; context: fields of `Context`."""
    made = Context(**context)
    lists, twin, chip = made.price_lists(), made.twin, made.chip
    checked = replace(made.checked, refused={**made.checked.refused, **chip.refused})
    refused = refused_lists(checked)
    if twin is not None:
        twin.check(counts)
    net, of_net = folded_for_pricing(program, counts)
    published = models(net, of_net, lists, twin)
    messages, joules = traffic(program, counts, chip), by_layer(net, of_net, twin)
    last = (*([one_sided] * bool(one_sided)), *step_time_notes(made.step_time), *checked.notes)
    return EnergyReport(
        made.source,
        counts,
        coding,
        tuple(
            Priced(entry, None, None, (f"not placed: {refused[entry.name]}",))
            if entry.name in refused
            else price(net, of_net, entry, messages, chip.reason)
            for entry in lists
        ),
        (*grid(net, of_net, lists, twin), *conventions(net, of_net), *published),
        break_even(net, of_net, lists, published, twin),
        (
            *made.notes,
            *_assumptions(program, counts, coding, twin),
            *([_EACH_STEP] * (no_ann == EACH_STEP)),
            *last,
        ),
        memory_of(program, counts),
        {node.name: layer_ops(node, counts.neurons[node.name]) for node in populations(program)},
        chip_lines(net, of_net, chip, messages, made.step_time, checked),
        # layers folded into others have a row of zeros, so that the rows stay the graph's
        tuple((name, *joules.get(name, (0.0, 0.0))) for name in counts.order),
        {name: _sources(program, name) for name in counts.order},
        twin_json(twin, counts, first_layer(program, counts)),
        samples,
        neurobench_fields(program, counts),
        placement_json(chip, messages, counts.batch),
        itemised(net, of_net, twin),
        sensitivity(net, of_net, twin),
        no_ann,
        0 if counts.is_static or (twin is not None and not twin.summed) else counts.T,
        1 if twin is None else twin.frames,
        accuracy,
        made.score,
        idle=idle(program, counts),
        dead=dead(program, counts),
        right=right,
        checked=checked,
        one_sided=one_sided,
    )


def _one_sided(program: Program, labels: NDArray[Any] | None) -> str:
    """Return a warning if labels ``[B]`` lack classes of the output, though there are enough samples for all."""
    if labels is None or labels.ndim != 1 or len(program.outputs) != 1 or len(program.outputs[0].shape) != 1:
        return ""
    classes = program.outputs[0].shape[0] // readout_of(program.metadata).population
    present = len(np.unique(labels))
    if not present < classes <= len(labels):
        return ""
    return (
        f"The {len(labels)} samples counted are of {present} of {classes} classes, so other classes may cost more or "
        "less; count samples of every class."
    )


def energy_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of `EnergyReport.as_dict`."""
    schema: dict[str, Any] = json.loads((files(__package__) / "energy.schema.json").read_text(encoding="utf-8"))
    return schema


def _sources(program: Program, name: str) -> tuple[str, ...]:
    """Return the nodes that feed a layer, in the graph's order; a source at or behind the layer closes a loop."""
    sources = feeders(program, program.by_name[name])
    return tuple(node.name for node in program.nodes if node.name in sources)


def _other_events(program: Program) -> list[str]:
    """Say what was counted of Cells whose values are not 0 or 1: each value that is not 0 is one event."""
    kinds: dict[str, list[str]] = {"signed": [], "sized": [], "graded": []}
    for cell in program.of(Cell):
        if not np.any(cell.fires):
            kinds["graded"].append(cell.name)
        elif not np.all(cell.binary[cell.fires]):
            kinds["signed" if np.all(cell.ternary[cell.fires]) else "sized"].append(cell.name)
    said = {
        "signed": "Spikes of {} are -1 or 1: each is an event with a sign, which adds or subtracts weights (AC).",
        "sized": "Spikes of {} have sizes: each value that is not 0 is one event, which multiplies weights (MAC).",
        "graded": "Values of {} are no spikes: each that is not 0 is one event, which multiplies weights (MAC).",
    }
    return [said[kind].format(", ".join(names)) for kind, names in kinds.items() if names]


def _bare_edges(program: Program) -> list[str]:
    """Return edges into a neuron node without a weight or pool between, as in an identity skip."""
    return [
        f"{name} to {node.name}"
        for node in populations(program)
        for name in sorted(feeders(program, node))
        if isinstance(program.by_name[name], Neuron | Cell | Input)
    ]


_EACH_STEP = (
    "Labels are of each step. The ANN twin is one pass for all of them, so that its ratios are of counts alone: no ANN "
    "of one pass decides so."
)
_DENSE = (
    "The ANN twin is one dense pass of the same topology, everywhere: an upper bound for hardware that skips zeros. "
    "Its own zeros were not measured."
)
_SKIPPED = (
    "The ANN twin is one pass of the same topology. Its zeros, as measured in the trained twin, are skipped in the "
    "numbers to quote, the energy by layer, sensitivity, accuracy against energy, and in those rows of the "
    "comparison grid, the published models and the break-even that say so (ann_zeros: skipped); everywhere else the "
    "pass is dense, an upper bound for hardware that skips zeros."
)


def _assumptions(program: Program, counts: Counts, coding: Coding, twin: AnnTwin | None) -> tuple[str, ...]:
    lines = [
        coding.sentence(),
        f"Counts are exact sums over {counts.T} time steps and {counts.batch} samples; "
        "energies are modelled, for one inference, the mean over these samples.",
        "A synop is a structural synapse inside the borders crossed by a non-zero input, zero weights included. "
        "A node is AC where only -1, 0 and 1 can arrive by structure and input coding, else MAC.",
        "Pools are counted as pool_events, apart from synops and MACs.",
        _DENSE if twin is None else _SKIPPED,
        "Memory: each layer has memories of its own; a word costs its share of a 64-bit access to an SRAM of "
        "that size, linear between the list's sizes, and above the list's on_chip_bytes (1 MiB) to DRAM. Nothing is "
        "cached; leakage of memories is left out.",
        "SNN and ANN are priced under one dataflow at a time, the same for both; an event of the ANN is a MAC, its "
        "step the inference. Ratios read: the SNN costs k times the ANN.",
        "On integers a leak multiplies a state by a decay of 12 bits, a decay of 2^-k is a shift, and the 8-bit ANN "
        "requantises each activation.",
        "Gains, scales and constant offsets are folded into weights and biases before anything is priced.",
        "Neuron updates are clock-driven, every neuron at every step; operations per update come from the "
        "neuron's equations, and a comparison is priced as an add.",
    ]
    maxima = [n.name for n in program.of(Neuron) if is_spike_max_pool(program, n)]
    if maxima:
        lines.append(
            f"Max pooling is a sum pool and a threshold, counted as a neuron node ({', '.join(maxima)}). "
            "synops_pool_folded behind a max pool is the cost of its events, not a chip's equivalent of it."
        )
    if reason := uncounted(program, counts):
        lines.append(f"{NO_BOARD}: instructions of the C target were counted for {reason}.")
    if counts.maxima:
        lines.append(
            f"Max pools of currents ({', '.join(counts.maxima)}) compare all values of their windows in each step, in "
            "the ANN once per inference; a comparison is priced as an add."
        )
    if counts.products:
        lines.append(
            f"Products of two signals ({', '.join(counts.products)}) count pairs of non-zero values, AC where one "
            "operand is 0 or 1 by structure; the ANN multiplies all of them once per inference. Break-even scales one "
            "operand."
        )
    if cells := [node.name for node in program.of(Cell)]:
        lines.append(
            f"Neurons of other forms ({', '.join(cells)}) cost the operations of their step: a product with 0 or 1 "
            "is a write, a difference that is compared with 0 the comparison; exp, tanh and the like are look-ups. No "
            "chip of a list has such a neuron."
        )
        lines += _other_events(program)
    if bare := _bare_edges(program):
        lines.append(
            f"Edges without weights ({', '.join(bare)}) cost nothing here: no synops and no chip's events on the one "
            "side, no additions on the other."
        )
    if any(is_loop(segment) for segment in segments(program)):
        lines.append("The network has loops; the ANN twin takes each of their weights once per inference.")
        if twin is not None:
            lines.append(
                "A trained twin without recurrent weights does none of their MACs where its zeros are skipped."
            )
    return tuple(lines)
