"""Post-training quantisation of any Program that integers hold: layer by layer, by spike agreement with the reference.

Each population sees the integer network's own spikes, so it makes up for errors before it; a loop's edge carries the
reference's spikes while integers are chosen. Rows are as large as 8 bits hold, thresholds stay each neuron's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.exporters.integers.bounds import Bounds, bounds_of
from stl_deploy.exporters.integers.branches import Branches, Leaf, Value, branches, values
from stl_deploy.exporters.integers.graph import (
    ConvNode,
    DelayNode,
    DenseNode,
    GainNode,
    IntegerGraph,
    IntegerInput,
    IntegerNode,
    IntegerOutput,
    IntegratorNode,
    PopulationNode,
    ReshapeNode,
    SumPoolNode,
)
from stl_deploy.exporters.integers.net import DECAY_ONE, STATE_SHIFT, IntegerNeuron, Ints
from stl_deploy.exporters.integers.scales import (
    WEIGHT_TOP,
    Candidate,
    Doubles,
    candidates,
    no_candidate,
    real_population,
    row_gain,
    twelve_bits,
    v_decay,
)
from stl_deploy.exporters.integers.simulate import evaluate
from stl_deploy.graph.program import (
    Conv,
    Delay,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Pool,
    Program,
    Reshape,
    Scale,
    Source,
    is_max_pool,
)
from stl_deploy.graph.run import run

Spikes = NDArray[np.uint8]

_FEW, _SHORTLIST = 64, 6
"""Candidates are tried on about so many samples first, and as many of them as the second on all."""


@dataclass(frozen=True)
class Fit:
    """How one population came out: spikes on calibration data that differ from the reference."""

    node: str
    weight_top: int
    thresholds: int
    spikes_compared: int
    spikes_differing: int


@dataclass(frozen=True, eq=False)
class Quantised:
    """The integers, and how each population came out."""

    graph: IntegerGraph
    fits: tuple[Fit, ...]


def quantise(
    program: Program, calibration: NDArray[Any], *, input_scale: float = 1.0, largest: float | None = None
) -> Quantised:
    """Choose integers. calibration: real input ``[T, B, *shape]`` on the grid of 1/input_scale; some hundred samples.

    largest: magnitude that the input never exceeds (None: what calibration shows, at least 1/input_scale).
    Raises UnsupportedError for what integers cannot hold, InputError for input off the grid.
    """
    known = values(program, input_scale)
    x = to_integers(calibration, input_scale)
    recorded = run(program, calibration, record=[node.name for node in program.spiking]).recorded
    reference = {name: spikes.astype(np.uint8) for name, spikes in recorded.items()}
    build = _Build(program, known, reference)
    build.input(x, input_scale, largest)
    for node in program.nodes:
        if not isinstance(node, Input):
            build.add(node)
    return Quantised(IntegerGraph(_in_order(build.nodes)), tuple(build.fits))


def _in_order(nodes: Iterable[IntegerNode]) -> tuple[IntegerNode, ...]:
    """Every node behind its undelayed sources, the output last."""
    waiting, done = list(nodes), dict[str, IntegerNode]()
    while waiting:
        later = []
        for node in waiting:
            if all(source.delay or source.node in done for source in node.sources):
                done[node.name] = node
            else:
                later.append(node)
        assert len(later) < len(waiting)
        waiting = later
    return tuple(sorted(done.values(), key=lambda node: isinstance(node, IntegerOutput)))


def to_integers(x: NDArray[Any], input_scale: float) -> NDArray[np.int32]:
    """``x·input_scale`` as whole numbers; raises InputError if x is not on that grid."""
    scaled = np.asarray(x, np.float64) * input_scale
    whole = np.round(scaled)
    if not np.array_equal(scaled, whole):
        raise InputError(
            f"the input is not on the grid of 1/{input_scale:g} that the network was exported with; round it to it"
        )
    if np.abs(whole).max(initial=0) >= 2**31:
        raise InputError("the input is beyond 32 bits in whole numbers; use a coarser grid")
    return whole.astype(np.int32)


class _Build:
    """The integer nodes so far, and their values on calibration data."""

    def __init__(self, program: Program, known: Mapping[str, Value], reference: Mapping[str, Spikes]) -> None:
        self.program, self.known, self.reference = program, dict(known), reference
        self.nodes: list[IntegerNode] = []
        self.fits: list[Fit] = []
        self._values: dict[str, NDArray[Any]] = {}
        self._bounds: dict[str, Bounds] = {}

    def input(self, x: Ints, scale: float, largest: float | None) -> None:
        """The input, and the range that it may have."""
        (node,) = self.program.inputs
        top = max(1, int(x.max())) if largest is None else round(largest * scale)
        made = IntegerInput(
            name=node.name, shape=node.shape, sources=(), low=min(0, int(x.min())), high=top, scale=scale
        )
        self.nodes.append(made)
        self._values[node.name] = x
        self._bounds[node.name] = bounds_of(made, {}, {})

    def add(self, node: Node) -> None:
        """The integer nodes that one more node needs, once all before it are there."""
        value = self.known[node.name]
        if isinstance(node, Neuron) and node.spiking:
            self._population(node)
        elif isinstance(node, Neuron):
            self._integrator(node)
        elif isinstance(node, Output):
            self._output(node)
        elif value == "potential" or isinstance(value, float):
            self._take(self._plain(node, node.name, node.sources))

    def _take(self, *nodes: IntegerNode) -> None:
        for node in nodes:
            self._values[node.name] = self._run([node], slice(None))[node.name]
            self._bounds[node.name] = bounds_of(node, self._bounds, {})
            self.nodes.append(node)

    def _plain(self, node: Node, name: str, sources: tuple[Source, ...]) -> IntegerNode:
        """A node without weights."""
        common: dict[str, Any] = {"name": name, "shape": node.shape, "sources": sources}
        if isinstance(node, Pool):
            (top, bottom), (left, right) = node.padding
            return SumPoolNode(
                kernel=(node.kernel[0], node.kernel[1]),
                stride=(node.stride[0], node.stride[1]),
                padding=((top, bottom), (left, right)),
                input_shape=node.input_shape,
                **common,
            )
        if isinstance(node, Delay):
            return DelayNode(steps=node.steps.astype(np.int32), **common)
        assert isinstance(node, Reshape | Scale)
        return ReshapeNode(input_shape=node.shape if isinstance(node, Scale) else node.input_shape, **common)

    def _population(self, node: Neuron) -> None:
        if is_max_pool(self.program, node):
            self._max_pool(node)
            return
        found = branches(self.program, node, self.known)
        direct, apart = _biases(found, node)
        weights = [_real_weight(leaf, node) for leaf in found.leaves]
        real = real_population(node, weights, direct, [bias for bias in apart if bias is not None])
        wanted = self.reference[node.name]

        def built(chosen: Candidate) -> list[IntegerNode]:
            biases = [None if b is None else np.round(chosen.scale * real.gain * b).astype(np.int32) for b in apart]
            nodes, sources = self._weighted(found, node, chosen.weights, biases)
            shape = node.shape
            bias = None if chosen.bias is None else chosen.bias.reshape(-1, *(1,) * (len(shape) - 1))
            population = PopulationNode(name=node.name, shape=shape, sources=sources, neuron=chosen.neuron, bias=bias)
            return [*nodes, population]

        tried = list(candidates(real, "per-neuron"))
        some = slice(None, None, max(1, wanted.shape[1] // _FEW))
        for part, kept in ((some, _SHORTLIST), (slice(None), 1)):
            if len(tried) > kept:
                tried = sorted(tried, key=lambda one: self._differing(built(one), node.name, part))[:kept]
        best = tried[0] if tried else no_candidate(node)
        self._take(*built(best))
        self._fit(node, max(int(np.abs(weight).max()) for weight in best.weights), best.neuron)

    def _max_pool(self, node: Neuron) -> None:
        """Fires at the first spike in its window."""
        neuron = IntegerNeuron(v_decay=DECAY_ONE, threshold=np.zeros((), np.int32))
        self._take(PopulationNode(name=node.name, shape=node.shape, sources=node.sources, neuron=neuron, bias=None))
        self._fit(node, 1, neuron)

    def _fit(self, node: Neuron, weight_top: int, neuron: IntegerNeuron) -> None:
        wanted = self.reference[node.name]
        spikes = self._values[node.name]
        self.fits.append(
            Fit(
                node=node.name,
                weight_top=weight_top,
                thresholds=len(np.unique(neuron.threshold)),
                spikes_compared=wanted.size,
                spikes_differing=int(np.count_nonzero(spikes != wanted)),
            )
        )

    def _differing(self, nodes: Iterable[IntegerNode], name: str, part: slice) -> int:
        return int(np.count_nonzero(self._run(nodes, part)[name] != self.reference[name][:, part]))

    def _run(self, nodes: Iterable[IntegerNode], part: slice) -> dict[str, NDArray[Any]]:
        """Values of more nodes on some of the samples."""
        found: dict[str, NDArray[Any]] = {}
        known = dict(self._bounds)
        for node in nodes:
            known[node.name] = bounds_of(node, known, {})
            arriving = [self._arriving(source, found, part) for source in node.sources]
            found[node.name] = evaluate(node, arriving, known)
        return found

    def _arriving(self, source: Source, found: Mapping[str, NDArray[Any]], part: slice) -> NDArray[Any]:
        if source.node in found:
            value = found[source.node]
        elif source.node in self._values:
            value = self._values[source.node][:, part]
        else:
            value = self.reference[source.node][:, part]
        return _late(value) if source.delay else value

    def _weighted(
        self, found: Branches, consumer: Node, weights: Iterable[Ints], biases: Iterable[Ints | None]
    ) -> tuple[list[IntegerNode], tuple[Source, ...]]:
        """The weighted nodes and those between, and the sources of their consumer."""
        names: dict[str, str] = {}
        made: list[IntegerNode] = []
        straight: list[str] = []
        for leaf, weight, bias in zip(found.leaves, weights, biases, strict=True):
            if leaf.node is None:
                assert leaf.source is not None
                name = f"{leaf.source.node}.to.{consumer.name}" + (".late" if leaf.source.delay else "")
                straight.append(name)
                made.append(GainNode(name=name, shape=consumer.shape, sources=(leaf.source,), weight=weight))
            else:
                names[leaf.node.name] = self._own_name(leaf.node, consumer)
                made.append(_weighted_node(leaf.node, names[leaf.node.name], weight, bias))
        for node in found.between:
            names[node.name] = self._own_name(node, consumer)
            sources = tuple(Source(names[source.node], source.delay) for source in node.sources)
            made.append(self._plain(node, names[node.name], sources))
        whole = iter(straight)
        sources = tuple(
            Source(names[source.node], source.delay) if source.node in names else Source(next(whole))
            for source in consumer.sources
        )
        return made, sources

    def _own_name(self, node: Node, consumer: Node) -> str:
        """A node's name; with its consumer's where several read it, for each has a scale of its own."""
        return node.name if node.name not in self._values else f"{node.name}.for.{consumer.name}"

    def _integrator(self, node: Neuron) -> None:
        found = branches(self.program, node, self.known)
        gain = row_gain(node)
        weights = [_real_weight(leaf, node) * gain.reshape(-1, *[1] * (w.ndim - 1)) for leaf, w in _with(found, node)]
        scale = _one_scale(weights)
        biases = [
            None if leaf.node is None else _rounded_bias(leaf, scale * gain * leaf.factor) for leaf in found.leaves
        ]
        nodes, sources = self._weighted(found, node, [_whole(weight, scale) for weight in weights], biases)
        self._take(*nodes)
        bias = None
        if node.leak is not None and node.leak.any():
            bias = np.round(node.leak.astype(np.float64) * scale).astype(np.int32)
        filtered = DECAY_ONE if node.synapse is None else twelve_bits(node.synapse.decay)
        decay = v_decay(node)
        self._take(
            IntegratorNode(
                name=node.name, shape=node.shape, sources=sources, v_decay=decay, i_decay=filtered, bias=bias
            )
        )
        self.known[node.name] = "potential"
        self._units = 1 / (scale * 2**STATE_SHIFT)

    def _output(self, node: Output) -> None:
        arriving = [self.known[source.node] for source in node.sources]
        if "potential" in arriving:
            self._take(IntegerOutput(name=node.name, shape=node.shape, sources=node.sources, unit=self._units))
            return
        if isinstance(arriving[0], float) and len(set(arriving)) == 1:
            self._take(IntegerOutput(name=node.name, shape=node.shape, sources=node.sources, unit=arriving[0]))
            return
        found = branches(self.program, node, self.known)
        weights = [_real_weight(leaf, node) for leaf in found.leaves]
        scale = _one_scale(weights)
        biases = [None if leaf.node is None else _rounded_bias(leaf, scale * leaf.factor) for leaf in found.leaves]
        nodes, sources = self._weighted(found, node, [_whole(weight, scale) for weight in weights], biases)
        self._take(*nodes, IntegerOutput(name=node.name, shape=node.shape, sources=sources, unit=1 / scale))


def _late(values: NDArray[Any]) -> NDArray[Any]:
    late = np.zeros_like(values)
    late[1:] = values[:-1]
    return late


def _with(found: Branches, consumer: Node) -> list[tuple[Leaf, Doubles]]:
    return [(leaf, _real_weight(leaf, consumer)) for leaf in found.leaves]


def _real_weight(leaf: Leaf, consumer: Node) -> Doubles:
    """Weights for whole-number input, rows first."""
    rows = consumer.shape[0]
    if leaf.node is None:
        weight = np.ones((rows, *(1,) * (len(consumer.shape) - 1)))
    elif isinstance(leaf.node, Scale):
        weight = np.broadcast_to(leaf.node.scale, leaf.node.shape).astype(np.float64)
    else:
        weight = leaf.node.weight.astype(np.float64)
    return weight * leaf.unit * leaf.factor.reshape(-1, *[1] * (weight.ndim - 1))


def _biases(found: Branches, neuron: Neuron) -> tuple[Doubles | None, list[Doubles | None]]:
    """What is added to v at once, and what stays with a layer of weights: behind a filter, a pool or a delay."""
    direct: Doubles | None = None
    apart: list[Doubles | None] = []
    for leaf in found.leaves:
        bias = None if leaf.node is None or isinstance(leaf.node, Scale) else leaf.node.bias
        if bias is None or not bias.any():
            apart.append(None)
            continue
        real = bias.astype(np.float64) * leaf.factor
        if neuron.synapse is None and leaf.source is not None and not leaf.source.delay:
            direct = real if direct is None else direct + real
            apart.append(None)
        else:
            apart.append(real)
    return direct, apart


def _rounded_bias(leaf: Leaf, scale: Doubles) -> Ints | None:
    bias = None if leaf.node is None or isinstance(leaf.node, Scale) else leaf.node.bias
    return None if bias is None or not bias.any() else np.round(bias * scale).astype(np.int32)


def _one_scale(weights: list[Doubles]) -> float:
    """One scale for all rows, so that outputs can be compared: whole multiples of the least weight stay exact."""
    together = np.concatenate([weight.reshape(-1) for weight in weights])
    largest = float(np.abs(together).max())
    if not largest:
        return 1.0
    least = float(np.abs(together[together != 0]).min())
    multiples = together / least
    if largest / least <= WEIGHT_TOP and np.allclose(multiples, np.round(multiples), rtol=0, atol=1e-6):
        return 1 / least
    return WEIGHT_TOP / largest


def _whole(weight: Doubles, scale: float) -> Ints:
    return np.round(weight * scale).astype(np.int32)


def _weighted_node(node: Linear | Conv | Scale, name: str, weight: Ints, bias: Ints | None) -> IntegerNode:
    common: dict[str, Any] = {"name": name, "shape": node.shape, "sources": node.sources}
    if isinstance(node, Linear):
        return DenseNode(weight=weight, bias=bias, **common)
    if isinstance(node, Scale):
        return GainNode(weight=weight, **common)
    if len(node.input_shape) == 3:
        (before, after), (left, right) = node.padding
        return ConvNode(
            weight=weight,
            bias=bias,
            stride=(node.stride[0], node.stride[1]),
            padding=((before, after), (left, right)),
            dilation=(node.dilation[0], node.dilation[1]),
            groups=node.groups,
            input_shape=node.input_shape,
            **common,
        )
    return ConvNode(
        weight=weight[:, :, None],
        bias=bias,
        stride=(1, node.stride[0]),
        padding=((0, 0), (node.padding[0][0], node.padding[0][1])),
        dilation=(1, node.dilation[0]),
        groups=node.groups,
        input_shape=(node.input_shape[0], 1, node.input_shape[1]),
        **common,
    )
