"""Count operations exactly from a Program and its activity, over any number of samples in bounded memory.

Nonzero inputs of each tapped node are counted per position over time and samples, then multiplied by the position's
structural fan-out. All counts are integers; the network runs once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any, TypeGuard
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from stl_deploy.energy.counts.arrivals import Mask, arrivals, arrived, how_many
from stl_deploy.energy.counts.cell_ops import neurons_of
from stl_deploy.energy.counts.coding import Op, op_of, product_op
from stl_deploy.energy.counts.reads import lateness, steady_nodes
from stl_deploy.energy.counts.record import (
    Counts,
    Fetched,
    MaxPoolCounts,
    NeuronCounts,
    Population,
    ProductCounts,
    Repeating,
    TapCounts,
    populations,
)
from stl_deploy.energy.counts.taps import (
    Ints,
    Tapped,
    Weighted,
    bias_of,
    cells_met,
    dense_macs,
    fan_out,
    fan_out_nonzero,
    fold_pools,
    input_shape,
    max_compares,
    nominal_macs,
    nonzero_by_cell,
    product_macs,
    weights_by_cell,
)
from stl_deploy.errors import InputError
from stl_deploy.graph import program as ir
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.check import ALL_NODES, require_taken
from stl_deploy.graph.kernels import split_operands
from stl_deploy.graph.program import InputCoding, Program, feeders, is_binary, origin_of
from stl_deploy.graph.readout import decided_right
from stl_deploy.graph.run import run

_COUNTED = ALL_NODES - {ir.Norm}
"""The nodes whose operations are counted."""
_UINT8_ROWS = 255
"""So many rows of 0 and 1 add up in uint8 without wrapping round."""


@dataclass
class _Taps:
    positions: Ints
    fan_out: Ints
    op: Op
    always_binary: bool
    binary: bool = True
    carried: Ints | None = None
    """Spikes per position, where an event can carry several."""
    repeating: Ints | None = None
    """Of positions, those of samples in which the values repeat; None for a node that is not steady."""
    cells: tuple[Ints, Ints] | None = None
    """Number of times that each cell of weights is met: steps and inferences (see `cells_met`); None for a pool."""


@dataclass
class _Firing:
    touched: int = 0
    places: int = 1
    """Positions of one sample where an event can arrive, of which ``touched`` are counted."""
    spikes: int = 0
    events: int = 0


@dataclass
class _Products:
    op: Op
    in_nonzero: int = 0
    synops: int = 0
    repeating_nonzero: int = 0
    repeating_synops: int = 0


class _Events:
    """Cache the nonzero mask of the last array: a node's output is the next node's input."""

    def __init__(self) -> None:
        self._last: ref[NDArray[Any]] | None = None
        self._found: tuple[Mask, NDArray[Any]] | None = None

    def of(self, values: NDArray[Any]) -> tuple[Mask, NDArray[Any]]:
        """Return ``values != 0``, and its count over time per position (`nonzero_by_sample`)."""
        if self._found is None or self._last is None or self._last() is not values:
            events = values != 0
            self._last, self._found = ref(values), (events, nonzero_by_sample(events))
        return self._found

    def forget(self) -> None:
        """Release the cached array."""
        self._last = self._found = None


class ActivityCounter:
    """Count a Program's activity; pass it to `stl_deploy.graph.run.run` as ``observe``.

    coding: what the inputs are coded as; with the structure it decides each node's AC or MAC. labels: of all
    samples in the order they will be seen, ``[B]``; with them `samples` also holds each class.
    Memory: one int64 per input position of each tapped node, and one chunk's masks.
    Raises UnsupportedError for a kind of node that cannot be counted.
    """

    def __init__(self, program: ir.Program, coding: InputCoding, labels: NDArray[Any] | None = None) -> None:
        require_taken(program, _COUNTED, "energy")
        self._program = program
        self._coding = coding
        self._repeating = dict.fromkeys(steady_nodes(program), 0)
        self._taps = {n.name: self._new_taps(n) for n in program.nodes if _is_tapped(n)}
        self._firing = {n.name: _Firing() for n in populations(program)}
        self._products = {n.name: _Products(product_op(program, n, coding)) for n in program.of(ir.Product)}
        self._feeders = {name for n in populations(program) for name in feeders(program, n)}
        self._lateness = lateness(program)
        self._masks: dict[str, Mask] = {}
        self._seen: set[str] = set()
        self._events = _Events()
        self._steps = 0
        self._batch = 0
        self._still = 0
        self._still_now: NDArray[np.bool_] | None = None
        self._chunk: dict[str, Ints] = {}
        self.samples = Samples(labels)
        self.right: NDArray[np.bool_] | None = None
        """Whether each sample was decided right, ``[B]``, where `count_stream` had labels and one output."""

    def _new_taps(self, node: Tapped) -> _Taps:
        is_always_binary = len(node.operands) == 1 and is_binary(self._program, node.operands[0].node)
        operation = op_of(self._program, node, self._coding)
        before = origin_of(self._program, node)
        carries_counts = operation == "MAC" and before is not None and np.all(before.fires) and _holds_integers(before)
        none = np.zeros(input_shape(node), np.int64)
        cells = None
        if _is_weighted(node):
            met = cells_met(node, none.astype(np.bool_)).astype(np.int64)
            cells = met, met.copy()
        carried = none.copy() if carries_counts else None
        repeating = none.copy() if node.name in self._repeating else None
        return _Taps(
            none, fan_out(node), operation, is_always_binary, carried=carried, repeating=repeating, cells=cells
        )

    def __call__(self, node: ir.Node, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Count one node's chunk: its summed input ``x`` and output ``y``, ``[T, B, *shape]``."""
        repeats = np.zeros(x.shape[1], np.bool_)
        if node.name in self._repeating:
            repeats = (x == x[:1]).all(axis=(0, *range(2, x.ndim)))
            self._repeating[node.name] += int(repeats.sum())
        if isinstance(node, ir.Input):
            self._still_now = repeats if self._still_now is None else self._still_now & repeats
        # x[: len(x)] would be another object, which `_Events` does not know again
        read = x[: max(0, len(x) - late)] if (late := self._lateness[node.name]) else x
        if node.name in self._taps:
            self._count_taps(node, self._taps[node.name], read, repeats)
        if isinstance(node, ir.Product):
            self._count_products(node, self._products[node.name], read, repeats)
        if isinstance(node, ir.Neuron | Cell):
            self._count_events(node, self._firing[node.name], y)
        if node.name in self._feeders:
            self._masks[node.name] = arrivals(node, self._events.of(x if node.name in self._taps else y)[0])
        self._seen.add(node.name)
        if len(self._seen) == len(self._program.nodes):
            self._end_chunk(*x.shape[:2])

    def _count_taps(self, node: ir.Node, taps: _Taps, x: NDArray[Any], repeats: NDArray[np.bool_]) -> None:
        events, nonzero = self._events.of(x)
        taps.positions += nonzero.sum(axis=0, dtype=np.int64)
        if taps.repeating is not None:
            taps.repeating += nonzero[repeats].sum(axis=0, dtype=np.int64)
        if taps.cells is not None and _is_weighted(node):
            met = cells_met(node, events)
            by_step, by_inference = taps.cells
            by_step += met.sum(axis=(0, 1), dtype=np.int64)
            # over all steps of a sample: met in two of them, fetched once
            by_inference += met.any(axis=0).sum(axis=0, dtype=np.int64)
        if taps.carried is not None:
            taps.carried += np.abs(x).astype(np.int64).sum(axis=(0, 1))
        if taps.binary and not taps.always_binary:
            taps.binary = int(nonzero.sum(dtype=np.int64)) == int(np.count_nonzero(x == 1))
        if not isinstance(node, ir.Pool):
            self._follow(f"synops_{taps.op}", nonzero.reshape(len(nonzero), -1).astype(np.int64) @ taps.fan_out.ravel())

    def _count_products(
        self, node: ir.Product, counted: _Products, x: NDArray[Any], repeats: NDArray[np.bool_]
    ) -> None:
        a, b = (operand != 0 for operand in split_operands(node, x))
        if node.matrices:
            by_sample = (a.sum(axis=-2, dtype=np.int64) * b.sum(axis=-1, dtype=np.int64)).sum(axis=0)
        else:
            by_sample = (a & b).sum(axis=0, dtype=np.int64)
        by_sample = by_sample.reshape(len(by_sample), -1).sum(axis=1)
        counted.in_nonzero += int(np.count_nonzero(x))
        counted.synops += int(by_sample.sum())
        counted.repeating_nonzero += int(np.count_nonzero(x[:, repeats]))
        counted.repeating_synops += int(by_sample[repeats].sum())
        self._follow(f"synops_{counted.op}", by_sample)

    def _follow(self, measure: str, by_sample: Ints) -> None:
        self._chunk[measure] = self._chunk.get(measure, np.int64(0)) + by_sample

    def _count_events(self, node: Population, firing: _Firing, y: NDArray[Any]) -> None:
        fires = np.asarray(node.fires)
        # of a Cell that puts out spikes beside potentials, the potentials are no events
        if fires.any() and not fires.all():
            y = y.reshape(*y.shape[:2], -1)[..., fires]
        _, nonzero = self._events.of(y)
        by_sample: Ints = nonzero.reshape(len(nonzero), -1).sum(axis=1, dtype=np.int64)
        firing.events += int(by_sample.sum())
        if fires.any():
            if _holds_integers(node) and not np.all(node.ternary):
                by_sample = np.abs(y).astype(np.int64).sum(axis=(0, *range(2, y.ndim)))
            firing.spikes += int(by_sample.sum())
            self._follow("spikes", by_sample)

    def _end_chunk(self, steps: int, batch: int) -> None:
        if self._batch and steps != self._steps:
            raise InputError(f"expected activity of one T for all, {self._steps} steps as before; found {steps}")
        for node in populations(self._program):
            reached = arrived(self._program, node, self._masks)
            self._firing[node.name].touched += how_many(reached)
            self._firing[node.name].places = prod(reached.shape[2:])
        silent = np.zeros(batch, np.int64)
        self.samples.add({measure: self._chunk.get(measure, silent) for measure in MEASURES})
        self._chunk.clear()
        self._masks.clear()
        self._events.forget()
        self._seen.clear()
        self._still += 0 if self._still_now is None else int(self._still_now.sum())
        self._still_now = None
        self._steps = steps
        self._batch += batch

    def counts(self) -> Counts:
        """Return all counts so far; raise InputError if no whole chunk was observed."""
        if not self._batch:
            raise InputError("no activity was recorded; run the network with this counter as its observer")
        weighted = {n.name: self._tapped(n) for n in self._program.nodes if _is_weighted(n)}
        pools = {n.name: self._tapped(n) for n in self._program.of(ir.Pool)}
        neurons = {n.name: self._neuron(n) for n in populations(self._program)}
        maxima = {n.name: self._maximum(n) for n in self._program.of(ir.MaxPool)}
        products = {n.name: self._product(n) for n in self._program.of(ir.Product)}
        adding: dict[str, TapCounts | ProductCounts] = {**weighted, **pools, **products}
        counted = {*adding, *neurons, *maxima}
        order = tuple(n.name for n in self._program.nodes if n.name in counted)
        arriving = {name: taps.positions.copy() for name, taps in self._taps.items()}
        return Counts(
            self._steps,
            self._batch,
            order,
            weighted,
            pools,
            neurons,
            self._still,
            arriving,
            maxima,
            products,
            {name: self._repeats(name, samples) for name, samples in self._repeating.items() if name in counted},
            frozenset(name for name, of in adding.items() if of.op == "AC" and self._is_signed(name)),
        )

    def _is_signed(self, name: str) -> bool:
        sources = [operand.node for operand in self._program.by_name[name].operands]
        return any(is_binary(self._program, at, "ternary") and not is_binary(self._program, at) for at in sources)

    def _repeats(self, name: str, samples: int) -> Repeating:
        node = self._program.by_name[name]
        if name in self._products:
            counted = self._products[name]
            return Repeating(samples, counted.repeating_nonzero, counted.repeating_synops)
        if not _is_tapped(node):
            return Repeating(samples)
        positions = self._taps[name].repeating
        assert positions is not None
        nonzero = _weigh(positions, fan_out_nonzero(node))
        return Repeating(samples, int(positions.sum()), _weigh(positions, self._taps[name].fan_out), nonzero)

    def _tapped(self, node: Tapped) -> TapCounts:
        taps = self._taps[node.name]
        passes = self._steps * self._batch
        steps_read = max(0, self._steps - self._lateness[node.name])
        synapses = dense_macs(node)
        folded = None if isinstance(node, ir.Pool) else fold_pools(self._program, node)
        weights: list[int] = []
        if taps.cells is not None and _is_weighted(node):
            each = weights_by_cell(node) * np.ones_like(taps.cells[0]), nonzero_by_cell(node)
            weights = [_weigh(cells, table) for cells in taps.cells for table in each]
        return TapCounts(
            in_nonzero=int(taps.positions.sum()),
            binary_input=taps.binary,
            synops=_weigh(taps.positions, taps.fan_out),
            synops_nonzero_w=_weigh(taps.positions, fan_out_nonzero(node)),
            synapses=synapses,
            dense_macs_exact=synapses * passes,
            dense_macs_nominal=nominal_macs(node) * passes,
            bias_adds=0 if bias_of(node) is None else prod(node.shape) * steps_read * self._batch,
            op=taps.op,
            synops_pool_folded=None if folded is None else _weigh(self._taps[folded.pool].positions, folded.fan_out),
            folded_nonzero_w=None if folded is None else _weigh(self._taps[folded.pool].positions, folded.nonzero),
            spikes_carried=None if taps.carried is None else _weigh(taps.carried, taps.fan_out),
            fetched=Fetched(*weights),
        )

    def _maximum(self, node: ir.MaxPool) -> MaxPoolCounts:
        passes = self._steps * self._batch
        return MaxPoolCounts(prod(node.input_shape) * passes, prod(node.shape) * passes, max_compares(node) * passes)

    def _product(self, node: ir.Product) -> ProductCounts:
        counted, dense = self._products[node.name], product_macs(node)
        values = sum(prod(shape) for shape in node.operand_shapes)
        macs = dense * self._steps * self._batch
        return ProductCounts(counted.in_nonzero, counted.synops, dense, macs, values, prod(node.shape), counted.op)

    def _neuron(self, node: Population) -> NeuronCounts:
        neurons = _neurons(node)
        firing = self._firing[node.name]
        updates = neurons * self._steps * self._batch
        # a Cell may take more values than it has neurons: of 32 places for 8 neurons 12 touched are 3
        touched = firing.touched * neurons // firing.places
        return NeuronCounts(neurons, updates, touched, firing.spikes, firing.events)


def nonzero_by_sample(events: Mask) -> NDArray[Any]:
    """Count set elements of a mask ``[T, B, *shape]`` over time; unsigned ``[B, *shape]``."""
    steps = np.ascontiguousarray(events).view(np.uint8)
    counts: NDArray[Any] = np.add.reduce(steps, axis=0, dtype=np.uint8 if len(steps) <= _UINT8_ROWS else np.uint64)
    return counts


def _holds_integers(node: ir.Node) -> bool:
    """Return whether its spikes are integers, not amplitudes."""
    outputs = [node.ranges[name] for name in node.outputs] if isinstance(node, Cell) else []
    return all(of.whole for of in outputs if of.jumps)


def _neurons(node: Population) -> int:
    return neurons_of(node) if isinstance(node, Cell) else prod(node.shape)


def _weigh(positions: Ints, table: Ints) -> int:
    return int((positions * table).sum(dtype=np.int64))


def _is_weighted(node: ir.Node) -> TypeGuard[Weighted]:
    return isinstance(node, ir.Linear | ir.Conv | ir.Scale)


def _is_tapped(node: ir.Node) -> TypeGuard[Tapped]:
    return isinstance(node, ir.Linear | ir.Conv | ir.Scale | ir.Pool)


MEASURES = ("synops_AC", "synops_MAC", "spikes")
"""Counts that are kept sample by sample."""


@dataclass(frozen=True)
class Spread:
    """Count, sum, sum of squares, minimum and maximum of a series of integers."""

    n: int = 0
    sum: int = 0
    squares: int = 0
    least: int = 0
    most: int = 0

    def add(self, values: Ints) -> Spread:
        """Return the spread with ``values`` added; at least one value."""
        whole = [int(value) for value in values]
        return self.join(Spread(len(whole), sum(whole), sum(v * v for v in whole), min(whole), max(whole)))

    def join(self, other: Spread) -> Spread:
        """Return the spread of both series."""
        if not self.n or not other.n:
            return self if self.n else other
        least, most = min(self.least, other.least), max(self.most, other.most)
        return Spread(self.n + other.n, self.sum + other.sum, self.squares + other.squares, least, most)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; std is the population's."""
        variance = (self.n * self.squares - self.sum**2) / self.n**2
        return {"mean": self.sum / self.n, "std": sqrt(variance), "min": self.least, "max": self.most}


class Samples:
    """Spread of each measure over all samples and per class (labels ``[B]``, not per step)."""

    def __init__(self, labels: NDArray[Any] | None = None) -> None:
        self.overall = dict.fromkeys(MEASURES, Spread())
        self.by_class: dict[int, dict[str, Spread]] = {}
        self.expect(labels)

    def expect(self, labels: NDArray[Any] | None) -> None:
        """Take the labels of the samples to come."""
        self._labels = None if labels is None or labels.ndim > 1 else labels
        self._seen = 0

    def add(self, values: Mapping[str, Ints]) -> None:
        """Add the next samples, in order: one integer per sample for each measure."""
        count = len(values[MEASURES[0]])
        self.overall = {name: spread.add(values[name]) for name, spread in self.overall.items()}
        if self._labels is not None:
            labels = self._labels[self._seen : self._seen + count]
            for label in np.unique(labels):
                chosen = labels == label
                known = self.by_class.setdefault(int(label), dict.fromkeys(MEASURES, Spread()))
                self.by_class[int(label)] = {name: known[name].add(values[name][chosen]) for name in MEASURES}
        self._seen += count

    def as_dict(self) -> dict[str, Any]:
        """Return the energy JSON's ``per_sample`` and, with labels, ``per_class``."""
        data: dict[str, Any] = {"per_sample": {name: spread.as_dict() for name, spread in self.overall.items()}}
        if self.by_class:
            data["per_class"] = {
                str(label): {"samples": spreads["spikes"].n} | {name: s.as_dict() for name, s in spreads.items()}
                for label, spreads in sorted(self.by_class.items())
            }
        return data


Arrays = NDArray[Any] | Mapping[str, NDArray[Any]]
Part = tuple[Arrays, NDArray[Any] | None]
"""Samples ``[T, B, *shape]`` and their labels ``[B]``, or None."""


def count_stream(program: Program, parts: Iterable[Part], coding: InputCoding, *, chunk: int = 64) -> ActivityCounter:
    """Run and count each part; the counts equal those of one run over all samples.

    ``parts`` is read as it is needed. Raises InputError for parts of different T, or none at all.
    """
    counter = ActivityCounter(program, coding)
    right = []
    seen = False
    for x, labels in parts:
        counter.samples.expect(labels)
        decided = decided_right(program, run(program, x, observe=counter, chunk=chunk), labels)
        if decided is not None:
            right.append(decided)
        seen = True
    if not seen:
        raise InputError("no samples to count")
    counter.right = np.concatenate(right) if right else None
    return counter


def split(arrays: Mapping[str, NDArray[Any]], labels: NDArray[Any] | None, size: int) -> Iterator[Part]:
    """Split the samples into parts of ``size``."""
    batch = next(iter(arrays.values())).shape[1]
    for start in range(0, batch, size):
        part = slice(start, start + size)
        yield {name: x[:, part] for name, x in arrays.items()}, None if labels is None else labels[part]
