"""Build the nodes of an `IntegerGraph` in order, choosing each by its spikes on calibration data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.config.options import ThresholdForm
from stl_deploy.graph import program as ir
from stl_deploy.graph.program import Doubles, is_spike_max_pool
from stl_deploy.graph.threads import map_samples
from stl_deploy.integers import graph as int_ir
from stl_deploy.integers.bounds import Bounds, bounds_of, largest
from stl_deploy.integers.fan_in import FanIn, Value, fan_in, keeps_sign
from stl_deploy.integers.fields import refuse
from stl_deploy.integers.net import DECAY_ONE, STATE_SHIFT, WIDE, Accumulator, IntegerNeuron, Ints
from stl_deploy.integers.real_population import RealPopulation, real_population, row_gain
from stl_deploy.integers.real_weights import (
    late,
    one_scale,
    over_two_axes,
    real_bias,
    real_weights,
    rounded_bias,
    split_biases,
    weighted_node,
    whole_weight,
)
from stl_deploy.integers.rows import RowAxis, rows_back, with_rows_first
from stl_deploy.integers.scales import (
    WEIGHT_TOP,
    Candidate,
    best_candidate,
    candidates,
    twelve_bits,
    v_decay,
)
from stl_deploy.integers.simulate import VALUES_AT_ONCE, evaluate, sum_and_step
from stl_deploy.passes.base import by_row

Spikes = NDArray[np.uint8]


@dataclass(frozen=True)
class Hardware:
    """Properties of the hardware that integers are chosen for.

    thresholds: their form; the forms that `stl_deploy.integers.per_pixel` prepares are folded ones.
    pixels: whether each pixel can have its own threshold and bias. as_run: maps a node to the hardware's version.
    weight_top: the largest weight of a population's layers.
    """

    thresholds: ThresholdForm = "per-neuron"
    pixels: bool = True
    accumulator: Accumulator = WIDE
    weight_top: int = WEIGHT_TOP
    as_run: Callable[[ir.Node], ir.Node] = lambda node: node


@dataclass(frozen=True)
class LayerFidelity:
    """Result of one population: spikes on calibration data that differ from the reference."""

    node: str
    weight_top: int
    thresholds: int
    spikes_compared: int
    spikes_differing: int


class LayerwiseQuantiser:
    """Integer nodes so far, and their values on calibration data."""

    def __init__(
        self, program: ir.Program, known: Mapping[str, Value], reference: Mapping[str, Spikes], hardware: Hardware
    ) -> None:
        self.program, self.known, self.reference, self._hardware = program, dict(known), reference, hardware
        self.scales: dict[str, Doubles] = {}
        self.nodes: list[ir.Node] = []
        self.fits: list[LayerFidelity] = []
        self._values: dict[str, NDArray[Any]] = {}
        """Of the nodes that others may read."""
        self._plain_nodes = {
            node.name: self._plain(node, node.name, node.operands)
            for node in program.nodes
            if isinstance(node, ir.Pool | ir.MaxPool | ir.Delay | ir.Reshape | ir.Scale | ir.Gather | ir.Product)
            and isinstance(known[node.name], float)
        }
        """Those without weights, which a loop may read before they are there."""
        self._bounds: dict[str, Bounds] = {}
        """Of every node so far."""
        self._units: dict[str, float] = {}
        """Of potentials, and of what passes them on."""
        self._spikes = {node.name: (0, node.cap or 1) for node in program.spiking}
        """Bounds of the populations, which a loop may read before they are there."""

    def input(self, x: Ints, scale: float, largest: float | None) -> None:
        """Add the input with its range."""
        (node,) = self.program.inputs
        top = max(1, int(x.max())) if largest is None else round(largest * scale)
        made = int_ir.IntegerInput(
            name=node.name, shape=node.shape, operands=(), low=min(0, int(x.min())), high=top, scale=scale
        )
        self.nodes.append(made)
        self._values[node.name] = x
        self._bounds[node.name] = bounds_of(made, {}, {})

    def add(self, node: ir.Node) -> None:
        """Add the integer nodes of one more node, after all nodes before it."""
        value = self.known[node.name]
        if isinstance(node, ir.Neuron) and node.spiking:
            self._population(node)
        elif isinstance(node, ir.Neuron):
            self._integrator(node)
        elif isinstance(node, ir.Output):
            self._output(node)
        elif value == "potential" or isinstance(value, float):
            self._take(self._plain(node, node.name, node.operands))
            if value == "potential":
                self._units[node.name] = self._units[node.operands[0].node]

    def _take(self, *nodes: ir.Node) -> None:
        """Append nodes; later ones may read the last of them."""
        last, (steps, samples) = nodes[-1], self._values[self.program.inputs[0].name].shape[:2]
        widest = max(math.prod(node.shape) for node in nodes)
        known = self._bounds_of(nodes)

        def run(part: slice) -> NDArray[Any]:
            return self._runs(nodes[:-1], nodes[-1:], part, known)[0]

        parts = map_samples(run, samples, widest * steps, VALUES_AT_ONCE)
        self._values[last.name], self._bounds = np.concatenate(parts, axis=1), known
        self.nodes.extend(nodes)

    def _plain(self, node: ir.Node, name: str, sources: tuple[ir.Operand, ...]) -> ir.Node:
        """Add a node without weights."""
        common: dict[str, Any] = {"name": name, "shape": node.shape, "operands": sources}
        if isinstance(node, ir.Pool):
            return int_ir.SumPoolNode(**over_two_axes(node, "kernel"), **common)
        if isinstance(node, ir.MaxPool):
            return int_ir.MaxPoolNode(**over_two_axes(node, "kernel"), **common)
        if isinstance(node, ir.Delay):
            return int_ir.DelayNode(steps=np.asarray(node.steps, np.int32), **common)
        if isinstance(node, ir.Gather):
            return int_ir.GatherNode(indices=node.indices.astype(np.int32), input_shape=node.input_shape, **common)
        if isinstance(node, ir.Product):
            return int_ir.ProductNode(operand_shapes=node.operand_shapes, matrices=node.matrices, **common)
        assert isinstance(node, ir.Reshape | ir.Scale)
        weighted = isinstance(node, ir.Scale) and not isinstance(self.known[node.name], float)
        if weighted and isinstance(node, ir.Scale) and keeps_sign(self.program, node):
            signs = np.broadcast_to(np.where(node.scale < 0, -1, 1), node.shape).astype(np.int32)
            return int_ir.GainNode(weight=signs, **common)
        return ir.Reshape(input_shape=node.shape if isinstance(node, ir.Scale) else node.input_shape, **common)

    def _population(self, node: ir.Neuron) -> None:
        if is_spike_max_pool(self.program, node):
            self._max_pool(node)
            return
        paths = fan_in(self.program, node, self.known)
        axis, seen = paths.axis, with_rows_first(node, paths.axis)
        direct, apart = split_biases(paths, seen)
        weights = real_weights(paths, seen)
        real = real_population(
            seen, weights, direct, [bias for bias in apart if bias is not None], pixels=self._hardware.pixels
        )
        wanted = self.reference[node.name]

        def layers(chosen: Candidate) -> tuple[list[ir.Node], tuple[ir.Operand, ...]]:
            biases = [None if b is None else np.round(chosen.scale * real.gain * b).astype(np.int32) for b in apart]
            return self._weighted(paths, node, [weight.astype(np.int32) for weight in chosen.weights], biases)

        def population(chosen: Candidate, sources: tuple[ir.Operand, ...]) -> int_ir.IntegerLIF:
            shape = node.shape
            bias = chosen.bias
            if bias is not None and bias.ndim == 1:
                bias = by_row(bias, len(seen.shape))
            if bias is not None:
                bias = rows_back(bias, axis, shape)
            return int_ir.IntegerLIF(
                name=node.name, shape=shape, operands=sources, neuron=_rows_back(chosen.neuron, axis, shape), bias=bias
            )

        covering: list[tuple[Doubles, dict[str, Bounds]]] = []

        def differing(tried: Sequence[Candidate], part: slice) -> list[int]:
            before, sources = layers(tried[0])
            ends = [population(chosen, sources) for chosen in tried]
            scale = tried[0].scale  # at smaller ones weights round to no larger ones
            known = next((known for larger, known in covering if (scale <= larger).all()), None)
            if known is None:
                known = self._bounds_of([*before, ends[0]])
                covering.append((scale, known))
            runs = self._runs(before, ends, part, known)
            return [int(np.count_nonzero(run != wanted[:, part])) for run in runs]

        layer = paths.leaves[0].node or node
        best = best_candidate(self._candidates(node, real), wanted.shape[1], differing, layer)
        before, sources = layers(best)
        self._take(*before, population(best, sources))
        self.scales[node.name] = best.scale
        self._fit(node, max(largest(weight) for weight in best.weights), best.neuron)

    def _candidates(self, node: ir.Neuron, real: RealPopulation) -> Iterator[Candidate]:
        """Yield the layer in integers; refuse a state that starts so high that no weight is left beside it."""
        hardware, empty = self._hardware, True
        limits = hardware.thresholds, hardware.weight_top, hardware.accumulator.threshold_top
        for candidate in candidates(real, *limits):
            empty = False
            yield candidate
        if empty and any(candidates(replace(real, v_start=None, u_start=None), *limits)):
            reason = "its state starts so far from 0 that every weight rounds to 0 beside it"
            refuse(node, "v-start", reason, "start nearer to 0, or export to onnx")
        if empty and real.bias is not None and any(candidates(replace(real, bias=None), *limits)):
            reason = "its bias is so large that every weight rounds to 0 beside it"
            refuse(node, "large-bias", reason, "train with a smaller bias, or export to onnx")

    def _max_pool(self, node: ir.Neuron) -> None:
        """Add a max pool of spikes: it fires at the first spike in its window."""
        neuron = IntegerNeuron(v_decay=DECAY_ONE, threshold=np.zeros((), np.int32))
        self._take(
            int_ir.IntegerLIF(name=node.name, shape=node.shape, operands=node.operands, neuron=neuron, bias=None)
        )
        self._fit(node, 1, neuron)

    def _fit(self, node: ir.Neuron, weight_top: int, neuron: IntegerNeuron) -> None:
        wanted = self.reference[node.name]
        spikes = self._values[node.name]
        self.fits.append(
            LayerFidelity(
                node=node.name,
                weight_top=weight_top,
                thresholds=len(np.unique(neuron.threshold)),
                spikes_compared=wanted.size,
                spikes_differing=int(np.count_nonzero(spikes != wanted)),
            )
        )

    def _bounds_of(self, nodes: Iterable[ir.Node]) -> dict[str, Bounds]:
        """Return the bounds of nodes, and of all before them."""
        known = dict(self._bounds)
        for node in nodes:
            known[node.name] = bounds_of(node, known, self._plain_nodes, dict(self._spikes))
        return known

    def _runs(
        self, nodes: Sequence[ir.Node], ends: Sequence[ir.Node], part: slice, known: Mapping[str, Bounds]
    ) -> list[NDArray[Any]]:
        """Return the values of each of ``ends`` behind the same nodes, from the same sources. known: their bounds."""
        accumulator, as_run = self._hardware.accumulator, self._hardware.as_run
        outputs: dict[str, NDArray[Any]] = {}
        populations = [node for node in ends if isinstance(node, int_ir.IntegerLIF)]
        if len(nodes) == 1 and populations and isinstance(nodes[0], int_ir.DenseNode | int_ir.ConvNode):
            arriving = [self._arriving(source, outputs, part) for source in nodes[0].operands]
            return sum_and_step(as_run(nodes[0]), populations, arriving, known, accumulator)
        for node in nodes:
            arriving = [self._arriving(source, outputs, part) for source in node.operands]
            outputs[node.name] = evaluate(as_run(node), arriving, known, accumulator)
        arriving = [self._arriving(source, outputs, part) for source in ends[0].operands]
        return [evaluate(as_run(node), arriving, known, accumulator) for node in ends]

    def _arriving(self, source: ir.Operand, outputs: Mapping[str, NDArray[Any]], part: slice) -> NDArray[Any]:
        if source.node in outputs:
            value = outputs[source.node]
        elif source.node in self._values:
            value = self._values[source.node][:, part]
        elif source.node in self.reference:
            value = self.reference[source.node][:, part]
        else:
            node = self._plain_nodes[source.node]
            value = evaluate(
                node,
                [self._arriving(inner, outputs, part) for inner in node.operands],
                self._bounds,
                self._hardware.accumulator,
            )
        return late(value) if source.delay else value

    def _weighted(
        self, paths: FanIn, consumer: ir.Node, weights: Iterable[Ints], biases: Iterable[Ints | None]
    ) -> tuple[list[ir.Node], tuple[ir.Operand, ...]]:
        """Return the weighted nodes and those between, and the sources of their consumer."""
        names: dict[str, str] = {}
        made: list[ir.Node] = []
        straight: list[str] = []
        for leaf, weight, bias in zip(paths.leaves, weights, biases, strict=True):
            if leaf.node is None:
                assert leaf.source is not None
                name = f"{leaf.source.node}.to.{consumer.name}" + (".late" if leaf.source.delay else "")
                straight.append(name)
                weight = rows_back(weight, paths.axis, consumer.shape)
                made.append(int_ir.GainNode(name=name, shape=consumer.shape, operands=(leaf.source,), weight=weight))
            else:
                names[leaf.node.name] = self._own_name(leaf.node, consumer)
                if isinstance(leaf.node, ir.Scale):
                    weight = rows_back(weight, paths.axis, leaf.node.shape)
                made.append(weighted_node(leaf.node, names[leaf.node.name], weight, bias))
        for node in paths.between:
            names[node.name] = self._own_name(node, consumer)
            sources = tuple(ir.Operand(names[source.node], source.delay) for source in node.operands)
            made.append(self._plain(node, names[node.name], sources))
        whole = iter(straight)
        sources = tuple(
            ir.Operand(names[source.node], source.delay) if source.node in names else ir.Operand(next(whole))
            for source in consumer.operands
        )
        return made, sources

    def _own_name(self, node: ir.Node, consumer: ir.Node) -> str:
        """Return a unique name: with several consumers each has its own scale, so the consumer's name is appended."""
        return node.name if node.name not in self._bounds else f"{node.name}.for.{consumer.name}"

    def _integrator(self, node: ir.Neuron) -> None:
        paths = fan_in(self.program, node, self.known)
        seen = with_rows_first(node, paths.axis)
        gain = row_gain(seen)
        weights = [weight * by_row(gain, weight.ndim) for weight in real_weights(paths, seen)]
        offset = None if node.offset is None else node.offset.astype(np.float64)
        scale = one_scale(weights, [offset, *(real_bias(leaf, gain * leaf.factor) for leaf in paths.leaves)])
        biases = [
            None if leaf.node is None else rounded_bias(leaf, scale * gain * leaf.factor) for leaf in paths.leaves
        ]
        nodes, sources = self._weighted(paths, node, [whole_weight(weight, scale) for weight in weights], biases)
        bias = None
        if offset is not None and offset.any():
            bias = np.asarray(np.round(offset * scale), np.int32)
        integrator = int_ir.IntegerLI(
            name=node.name,
            shape=node.shape,
            operands=sources,
            v_decay=v_decay(node),
            bias=bias,
            i_decay=DECAY_ONE if node.synapse is None else twelve_bits(node.synapse.decay),
            v_start=None if node.decay is None else self._start_of(node, node.v_start, scale),
            u_start=None
            if node.synapse is None
            else self._start_of(node, node.i_start, scale * (1.0 if node.gain is None else node.gain)),
        )
        self._take(*nodes, integrator)
        self.known[node.name] = "potential"
        self._units[node.name] = 1 / (scale * 2**STATE_SHIFT)

    def _start_of(self, node: ir.Neuron, values: ir.Floats | None, scale: Any) -> Ints | None:
        """Return the start of a state of neurons without threshold, in 64ths; refuse one beyond the accumulator."""
        if values is None or not values.any():
            return None
        start = np.round(values * np.float64(scale * 2**STATE_SHIFT))
        if np.abs(start).max() >= self._hardware.accumulator.v_top:
            reason = f"its state starts at up to {np.abs(values).max():.4g}, too far above its weights"
            refuse(node, "v-start", reason, "start nearer to 0, or export to onnx")
        return start.astype(np.int32)

    def _output(self, node: ir.Output) -> None:
        arriving = [self.known[source.node] for source in node.operands]
        unit = self._units.get(node.operands[0].node, arriving[0])
        if isinstance(unit, float) and len(set(arriving)) == 1:
            self._take(int_ir.IntegerOutput(name=node.name, shape=node.shape, operands=node.operands, unit=unit))
            return
        paths = fan_in(self.program, node, self.known)
        weights = real_weights(paths, with_rows_first(node, paths.axis))
        scale = one_scale(weights, (real_bias(leaf, leaf.factor) for leaf in paths.leaves))
        biases = [None if leaf.node is None else rounded_bias(leaf, scale * leaf.factor) for leaf in paths.leaves]
        nodes, sources = self._weighted(paths, node, [whole_weight(weight, scale) for weight in weights], biases)
        self._take(*nodes, int_ir.IntegerOutput(name=node.name, shape=node.shape, operands=sources, unit=1 / scale))


def _rows_back(neuron: IntegerNeuron, axis: RowAxis, shape: ir.Shape) -> IntegerNeuron:
    """Return a neuron whose parameters have their rows in front, in its own order of axes."""

    def back(value: Any) -> Any:
        return rows_back(value, axis, shape) if isinstance(value, np.ndarray) else value

    adapts = neuron.adaptation
    if adapts is not None:
        adapts = replace(adapts, decay=back(adapts.decay), jump=back(adapts.jump), start=back(adapts.start))
    names = ("v_decay", "threshold", "i_decay", "drop", "v_reset", "v_start", "u_start")
    arrays = {name: back(getattr(neuron, name)) for name in names}
    return neuron if axis == "first" else replace(neuron, adaptation=adapts, **arrays)
