"""Measure the distance of potentials to the threshold: near it, another order of summation could move a spike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.graph.cell import OPERATIONS, Cell, CellState, Operation, broadcasts
from stl_deploy.graph.neurons import NeuronState
from stl_deploy.graph.program import Floats, Neuron, Node, Program
from stl_deploy.graph.run import NetworkInput, run

NEAR_ULPS = 4
"""A potential this many units in the last place of the threshold away from it is near it."""


_TELLING_ULPS = 1000
"""Up to this distance units in the last place are printed, since rounding may explain it; beyond it plain numbers."""


@dataclass(frozen=True)
class Margin:
    """A neuron's potential in one step, before its reset, and its threshold.

    threshold: for a neuron that fires several times at once, the multiple of θ nearest to the potential.
    ulps: potential minus threshold, in float32 units in the last place of the threshold.
    """

    potential: float
    threshold: float
    ulps: float

    def __str__(self) -> str:
        if not self.ulps:
            return f"potential at the threshold of {self.threshold:g}"
        if abs(self.ulps) <= _TELLING_ULPS:
            return f"potential {self.ulps:+.4g} ulp from the threshold of {self.threshold:g}"
        return f"potential {self.potential - self.threshold:+.3g} from the threshold of {self.threshold:g}"


class UlpMargins:
    """Count potentials near the threshold, per spiking node: an observer for `stl_deploy.graph.run.run`.

    counts: how often (neuron, step, sample) a potential was within ``ulps`` units in the last place of its
    threshold, ties included; of a Cell, an output whose nearest comparison or rounding was.
    """

    def __init__(self, ulps: float = NEAR_ULPS) -> None:
        self.ulps = ulps
        self.counts: dict[str, int] = {}

    def __call__(self, node: Node, x: Floats, output: Floats) -> None:
        """Count one node's summed input ``[T, B, *shape]``."""
        near = 0
        if isinstance(node, Cell):
            for ulps in cell_margins(node, x):
                near += int((ulps <= self.ulps).sum())
        elif isinstance(node, Neuron) and node.spiking:
            for v, theta in potentials(node, x):
                near += int((np.abs(v - theta) <= self.ulps * np.spacing(np.abs(theta))).sum())
        else:
            return
        self.counts[node.name] = self.counts.get(node.name, 0) + near


def potentials(node: Neuron, x: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Yield potentials ``[B, *shape]`` and the levels they meet, for each step of input ``x`` ``[T, B, *shape]``."""
    state = NeuronState(node, x.shape[1])
    output = np.empty_like(x[0])
    for arriving in x:
        state.charge(arriving)
        yield state.v.copy(), nearest_level(state)
        state.release(output)


def margins_at(
    program: Program, x: NetworkInput, places: Mapping[str, tuple[int, int, tuple[int, ...]]]
) -> dict[str, Margin | None]:
    """Return the margin of one neuron of each of some spiking nodes, by node; None of a Cell without an only level.

    places: step, sample and neuron, by node. The reference runs once for each sample among them, alone.
    """
    margins: dict[str, Margin | None] = {}
    for sample in dict.fromkeys(sample for _, sample, _ in places.values()):
        wanted = {node: (step, neuron) for node, (step, of, neuron) in places.items() if of == sample}

        def observe(seen: Node, arrived: Floats, output: Floats, wanted: Mapping[str, Any] = wanted) -> None:
            if seen.name not in wanted:
                return
            step, neuron = wanted[seen.name]
            if isinstance(seen, Cell):
                margins[seen.name] = _margin_of_cell(seen, arrived[: step + 1], neuron)
            if isinstance(seen, Neuron):
                *_, (v, levels) = potentials(seen, arrived[: step + 1])
                at = (0, *neuron)
                theta = levels[at]
                ulps = (float(v[at]) - float(theta)) / float(np.spacing(np.abs(theta)))
                margins[seen.name] = Margin(float(v[at]), float(theta), ulps)

        part = (slice(None, max(step for step, _ in wanted.values()) + 1), slice(sample, sample + 1))
        run(program, {name: a[part] for name, a in x.items()} if isinstance(x, Mapping) else x[part], observe=observe)
    return margins


@dataclass(frozen=True, eq=False)
class Edge:
    """A comparison, or a rounding, of signals: where a value passes its level, the result jumps.

    ulps: their distance in units in the last place of the largest value that went into them by sums.
    """

    operation: Operation
    value: Floats
    level: Floats
    ulps: Floats


def edges(cell: Cell, values: Mapping[str, NDArray[Any]]) -> Iterator[Edge]:
    """Yield the comparisons and roundings of an evaluated step that rounding before them could move."""
    sizes = {name: np.abs(np.asarray(value, np.float32)) for name, value in values.items()}
    for operation in cell.operations:
        args = [values[name] for name in operation.args]
        exact = all(cell.values[name].steady or cell.ranges[name].whole for name in operation.args)
        level = _level(operation, args)
        # Rounding of magnitudes up to ``size`` came before the comparison, so a unit is theirs, not the result's.
        if level is not None and not exact and cell.values[operation.args[0]].dtype == "float32":
            size = np.max(np.broadcast_arrays(*(sizes[name] for name in operation.args)), axis=0)
            unit = np.spacing(np.maximum(size, np.finfo(np.float32).tiny))
            yield Edge(operation, args[0], level, np.abs(args[0] - level) / unit)
        sizes[operation.name] = _size(operation, [sizes[name] for name in operation.args], sizes[operation.name])


def _level(operation: Operation, args: Sequence[NDArray[Any]]) -> Any:
    """Return the value at which a result jumps that is nearest to the argument; None for a result that never jumps."""
    match operation.op:
        case "gt" | "ge" | "lt" | "le" | "eq" | "ne":
            return args[1]
        case "floor" | "ceil" | "trunc":
            return np.rint(args[0])
        case "round":
            return np.floor(args[0]) + np.float32(0.5)
        case "sign":
            return np.zeros_like(args[0])
    return None


def _size(operation: Operation, sizes: Sequence[NDArray[Any]], result: NDArray[Any]) -> Any:
    """Return the largest value that went into a result by sums, in the result's unit."""
    match operation.op:
        case "mul":
            return sizes[0] * sizes[1]
        case "fma":
            return np.maximum(np.maximum(sizes[0] * sizes[1], sizes[2]), result)
        case "div":
            return np.maximum(result, sizes[0] / np.maximum(sizes[1], np.finfo(np.float32).tiny))
        case "add" | "sub" | "neg" | "abs" | "cast" | "min" | "max" | "where":
            return np.max(np.broadcast_arrays(*sizes, result), axis=0)
        case "exp" | "expm1" | "pow":
            return result * np.maximum(1, sizes[0])
    return np.maximum(result, sizes[0]) if OPERATIONS[operation.op].takes == "float32" else result


def nearest_edge(cell: Cell, values: Mapping[str, NDArray[Any]], batch: int) -> Floats:
    """Return the distance to the nearest edge of an evaluated step, in its ulps, for each output ``[B, *shape]``."""
    parts = []
    with np.errstate(all="ignore"):
        distances = [edge.ulps for edge in edges(cell, values)]
    for shape in cell.output_shapes:
        nearest = np.full((batch, *shape), np.inf, np.float32)
        for ulps in distances:
            if broadcasts(ulps.shape[1:], shape):
                nearest = np.fmin(nearest, ulps)
        parts.append(nearest)
    return parts[0] if len(parts) == 1 else np.concatenate([part.reshape(batch, -1) for part in parts], axis=1)


def cell_margins(cell: Cell, x: Floats) -> Iterator[Floats]:
    """Yield `nearest_edge` for each step of operands ``x`` ``[T, B, ...]``."""
    state = CellState(cell, x.shape[1])
    for arriving in x:
        values = state.evaluate(arriving)
        yield nearest_edge(cell, values, len(arriving))
        state.advance(values)


def _margin_of_cell(cell: Cell, x: Floats, place: tuple[int, ...]) -> Margin | None:
    """Return the margin of the only output at the last step of operands ``[T, 1, ...]``; None if nothing jumps."""
    state, nearest = CellState(cell, 1), None
    for arriving in x:
        values = state.evaluate(arriving)
        state.advance(values)
    for edge in edges(cell, values) if len(cell.outputs) == 1 else ():
        parts = np.broadcast_arrays(edge.value, edge.level, edge.ulps, np.empty((1, *cell.shape)))
        value, level, ulps = (float(part[(0, *place)]) for part in parts[:3])
        if ulps < (np.inf if nearest is None else abs(nearest.ulps)):
            nearest = Margin(value, level, ulps if value >= level else -ulps)
    return nearest


def nearest_level(state: NeuronState) -> Floats:
    """Return the level that each charged potential is compared with; with several spikes, the nearest."""
    node, v = state.node, state.v
    theta = np.broadcast_to(state.threshold, v.shape)
    if not node.multi_spike:
        return theta
    # Counts change at θ, 2θ, ... rounded down, and at θ/2, 3θ/2, ... rounded to the nearest.
    half = np.float32(0 if node.rounding == "down" else 0.5)
    most = None if node.cap is None else node.cap - half
    multiple: Floats = theta * np.clip(np.rint(v / theta + half) - half, np.float32(1) - half, most)
    return multiple
