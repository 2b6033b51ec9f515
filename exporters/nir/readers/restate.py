"""Restate a network as a NIR file that one framework's reader reads faithfully.

Readers differ in time step, comparison, reset, the fields that they use, and the edges that they delay by a step (see
`stl_deploy.exporters.nir.readers.reading_rules`). A restatement starts from the Program, so the graph's writer does
not matter. What a reader ignores moves to where it looks: gains and average pools into the weights (exact in real
arithmetic, and in float32 if the factor is a power of two), and ``>=`` into the next smaller threshold for readers that
compare with ``>``. No reader supports max pooling of spikes; it becomes a sum pool and integrate-and-fire neurons,
which keep no state: a spike resets them to 0, and without one nothing has arrived. Other unsupported nodes are refused
with the reason.

Some nodes vanish (scales, reshapes that change nothing). A value may still have to be multiplied by an owed factor: for
an average pool written as a sum, a scale, or a gain that the reader ignores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import row_values
from stl_deploy._util.remedies import require_one_of
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.nir.lower import METADATA_KEY
from stl_deploy.exporters.nir.lower.wiring import wire
from stl_deploy.exporters.nir.readers.reading_rules import READERS, Edge, Reader, loops, refusal, refuse
from stl_deploy.exporters.nir.write import late_behind
from stl_deploy.graph.check import TargetCheck
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import (
    Conv,
    Floats,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Pool,
    Program,
    Reshape,
    Scale,
    is_spike_max_pool,
)
from stl_deploy.graph.segments import ordered
from stl_deploy.passes import thresholds_go_into_weights


@dataclass(frozen=True)
class Restated:
    """The graph for a reader, and the Python lines that load it there."""

    graph: nir.NIRGraph
    load: str


def restate(program: Program, reader: str) -> Restated:
    """Return a NIR graph that ``reader`` (a name in `READERS`) reads faithfully.

    The graph's metadata hold the dialect in which it is meant, so reading it back here gives the same spikes.
    Raises InputError for an unknown reader, UnsupportedError naming the first node it cannot hold.
    """
    require_one_of(reader, READERS, "reader")
    graph, refused = _restate(program, READERS[reader])
    if refused:
        raise refused[0]
    graph.metadata = {
        METADATA_KEY: {**program.metadata, "dialect": READERS[reader].dialect.as_dict(), "reader": reader}
    }
    # nir 1.0.8 infers wrong shapes for some sound graphs and then refuses to read them; nir 1.0.4 does not check.
    checked = reader == "sinabs" or _nir_agrees(graph)
    read = 'nir.read("net.nir")' if checked else 'nir.read("net.nir", type_check=False)'
    return Restated(graph, READERS[reader].load.format(graph=read))


def _nir_agrees(graph: nir.NIRGraph) -> bool:
    """Return whether nir's own inference of shapes accepts the graph."""
    nodes = {name: copy(node) for name, node in graph.nodes.items()}
    for node in nodes.values():
        node.input_type, node.output_type = dict(node.input_type or {}), dict(node.output_type or {})
    try:
        nir.NIRGraph(nodes, list(graph.edges), type_check=True)
    except Exception:
        return False
    return True


def _restate(program: Program, reader: Reader) -> tuple[nir.NIRGraph, Sequence[UnsupportedError]]:
    """Return the graph, and one error for each node that the reader cannot hold."""
    given = (_remembering(node) if is_spike_max_pool(program, node) else node for node in program.nodes)
    # Readers hold delays at neurons; a layer of zeros may be read a step late in place of what it reads.
    made = Restating({node.name: node for node in ordered(late_behind(given))}, reader)
    graph = nir.NIRGraph(made.nodes, _arranged(made), type_check=False)
    return graph, [_kept(program, error) for error in made.refused] or list(_mistimed(graph, made))


def _kept(program: Program, error: UnsupportedError) -> UnsupportedError:
    """Return a refusal of thresholds without the advice to fold them into weights where a fold keeps them."""
    if error.slug != "threshold-nonuniform" or thresholds_go_into_weights(program, str(error.node)):
        return error
    remedy = "train one per layer, as no weights can take these"
    return error.with_remedy(remedy)


def _remembering(node: Node) -> Node:
    """Return max pooling's threshold as integrate-and-fire neurons; input is integral, so below 1 will do."""
    assert isinstance(node, Neuron)
    return replace(node, decay=np.array(1, np.float32), threshold=np.array(0.5, np.float32), reset="value")


def _arranged(made: Restating) -> list[Edge]:
    """Order the edges so that a walk in their order goes round a loop before it leaves it, and the long way first."""
    looped = loops(list(made.places), list(made.edges))

    def key(edge: Edge) -> tuple[float, bool, float]:
        source, target = edge
        inside = source in looped and looped[source] == looped.get(target)
        return made.places[source], not inside, made.places[target]

    return sorted(made.edges, key=key)


def _mistimed(graph: nir.NIRGraph, made: Restating) -> Iterator[UnsupportedError]:
    """Return edges that the reader, or stl-deploy itself as it reads the file, takes at another step than meant."""
    (start,) = (name for name, node in graph.nodes.items() if isinstance(node, nir.Input))
    (end,) = (name for name, node in graph.nodes.items() if isinstance(node, nir.Output))
    wired = wire(graph)
    for error in wired.errors:
        node = str(error.node)
        reason, remedy = f"is given NIR graphs, and {error.reason}", "export to ONNX instead"
        yield refusal(made.stands_for.get(node, node), error.slug, made.reader, reason, remedy)
    late, last = made.reader.runs(list(graph.nodes), graph.edges, start)
    here = {(source.node, name) for name, sources in wired.sources.items() for source in sources if source.delay}
    for edge, delay in made.edges.items():
        if delay == (edge in late) == (edge in here):
            continue
        source, target = edge
        if delay == (edge in late):
            reason = f"and stl-deploy would not agree on when it takes what comes from '{source}'"
        else:
            when = "in the same step, not a later one" if delay else "one step late"
            reason = f"would take what comes from '{source}' {when}"
        remedy = "export to ONNX, or use a chain of layers"
        yield refusal(made.stands_for.get(target, target), "edge-timing", made.reader, reason, remedy)
    if last not in (None, end):
        name = made.stands_for.get(last, last)
        yield refusal(name, "not-the-output", made.reader, "would take it for the output", "let every layer lead on")


def _asking(reader: Reader) -> TargetCheck:
    def ask(program: Program) -> Iterable[Finding]:
        return [from_error(error) for error in _restate(program, reader)[1]]

    return ask


READER_TARGETS: Mapping[str, TargetCheck] = {name: _asking(reader) for name, reader in READERS.items()}
"""The readers as targets of `stl_deploy.exporters.nir.check.check`; each names every node that it cannot hold."""


_LARGEST = 2048
"""Most neurons whose inputs are weighed one by one with a diagonal matrix."""


@dataclass(frozen=True)
class _Arrival:
    """A value on its way to a node: its source, the owed factor, and its delay."""

    node: str
    owed: float
    delay: int


class Restating:
    """Restate ``given`` (nodes in running order) for a reader.

    nodes, edges: the graph, with the steps by which each edge is late. places: the nodes' order. stands_for: nodes that
    were put in, and the given node that needs them. refused: one error for each node that the reader cannot hold; what
    is made of such a node means nothing.
    """

    def __init__(self, given: Mapping[str, Node], reader: Reader) -> None:
        self.reader = reader
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: dict[Edge, int] = {}
        self.stands_for: dict[str, str] = {}
        self.refused: list[UnsupportedError] = []
        self._given = given
        self._arriving: dict[str, list[_Arrival]] = {}
        for node in given.values():
            self._arrivals(node)
        self._synapses: dict[str, Linear | Conv] = {}
        kept = [node for node in given.values() if not self._vanishes(node)]
        self.places = {node.name: float(place) for place, node in enumerate(kept)}
        for node in kept:
            self._try(node, self._connect)
        self._readers = Counter(source for source, _ in self.edges)
        for node in sorted(kept, key=lambda node: isinstance(node, Neuron)):
            self._try(node, self._add)
        if reader.mistakes_loops:
            self._disguise_loops()
        for synapse in self._synapses.values():
            self._try(synapse, self._write)

    def _try(self, node: Node, step: Callable[[Any], None]) -> None:
        try:
            step(node)
        except UnsupportedError as error:
            if all(known.node != error.node for known in self.refused):
                self.refused.append(error)

    @staticmethod
    def _vanishes(node: Node) -> bool:
        if isinstance(node, Reshape):
            return node.shape == node.input_shape
        return isinstance(node, Scale) and node.scale.ndim == 0

    def _arrivals(self, node: Node) -> list[_Arrival]:
        """Return the inputs of a node, past nodes that vanish."""
        if node.name not in self._arriving:
            arrivals: list[_Arrival] = []
            for source in node.operands:
                before = self._given[source.node]
                if not self._vanishes(before):
                    arrivals.append(_Arrival(source.node, self._owed_by(before), source.delay))
                    continue
                factor = float(before.scale) if isinstance(before, Scale) else 1.0
                passed = self._arrivals(before)
                arrivals += [replace(a, owed=a.owed * factor, delay=a.delay + source.delay) for a in passed]
            self._arriving[node.name] = arrivals
        return self._arriving[node.name]

    def _owed_by(self, node: Node) -> float:
        """Return the owed factor on a node's outputs."""
        if not isinstance(node, Pool | Reshape):
            return 1.0
        divisor = node.divisor if isinstance(node, Pool) and not self.reader.average_pool else 1
        return self._arrivals(node)[0].owed / divisor

    def _connect(self, node: Node) -> None:
        arrivals = self._arrivals(node)
        for arrival in arrivals:
            edge = (arrival.node, node.name)
            if edge in self.edges:
                remedy = "add a layer between the two"
                refuse(node, "edge-twice", self.reader, f"takes '{arrival.node}' once, not twice", remedy)
            self.edges[edge] = arrival.delay
        if any(arrival.delay for arrival in arrivals) and not self.reader.loops:
            refuse(node, "loop", self.reader, "runs all steps of a layer at once, so it has no loops", "use no loops")
        if arrivals and all(arrival.delay for arrival in arrivals):
            refuse(node, "edge-timing", self.reader, "needs an input of the same step", "export to ONNX instead")
        if not isinstance(node, Neuron) and len({arrival.owed for arrival in arrivals}) > 1:
            refuse(node, "scales-differ", self.reader, "adds up inputs as they are", "scale in the weights")

    def _add(self, node: Node) -> None:
        match node:
            case Input() | Output():
                self._add_port(node)
            case Linear() | Conv():
                owed = np.float32(self._arrivals(node)[0].owed)
                self._synapses[node.name] = replace(node, weight=np.asarray(node.weight * owed))
            case Pool():
                self._add_pool(node)
            case Reshape():
                self._add_flatten(node)
            case Neuron():
                self._add_neuron(node)
            case _:
                kind = type(node).__name__
                refuse(node, "no-such-layer", self.reader, f"has no {kind}", "export to ONNX instead")

    def _add_port(self, node: Input | Output) -> None:
        kind = nir.Input if isinstance(node, Input) else nir.Output
        if any(isinstance(other, kind) for other in self.nodes.values()):
            refuse(node, "several-ports", self.reader, f"takes one {kind.__name__}", "split the network")
        self.nodes[node.name] = kind(np.array(node.shape))
        arrivals = self._arrivals(node)
        if len(arrivals) > 1:
            refuse(node, "several-ends", self.reader, "ends in one layer", "add the outputs up in a layer of neurons")
        if arrivals and arrivals[0].owed != 1:
            refuse(node, "scale-left", self.reader, "no weights follow that could take a scale", "end with a layer")

    def _add_pool(self, node: Pool) -> None:
        if any(before or after for before, after in node.padding):
            refuse(node, "pool-padding", self.reader, "drops the padding of pools", "pad in a convolution")
        kind = nir.SumPool2d if node.divisor == 1 or not self.reader.average_pool else nir.AvgPool2d
        self.nodes[node.name] = kind(np.array(node.kernel), np.array(node.stride), np.array([0, 0]))

    def _add_flatten(self, node: Reshape) -> None:
        if len(node.shape) != 1:
            refuse(node, "partial-flatten", self.reader, "is given flattens of all axes only", "flatten all axes")
        start = -len(node.input_shape) if self.reader.negative_axes else 0
        self.nodes[node.name] = nir.Flatten({"input": np.array(node.input_shape)}, start, -1)

    def _add_neuron(self, node: Neuron) -> None:
        try:
            self.nodes[node.name], factor = self.reader.neuron(node)
        except UnsupportedError:
            self.refused += self.reader.refusals(node)
            return
        for arrival in self._arrivals(node):
            owed = np.asarray(factor * np.float32(arrival.owed))
            if (owed != 1).any():
                self._weigh(arrival.node, node, owed)

    def _weigh(self, name: str, node: Neuron, factor: NDArray[Any]) -> None:
        """Multiply node ``name``'s input to a neuron by ``factor``: in its weights, or in new ones between the two."""
        synapse = self._synapses.get(name)
        if synapse is None or self._readers[name] > 1:
            synapse = _one_to_one(node)
        by_output = None if synapse is None else _by_output(factor, synapse)
        if synapse is None or by_output is None:
            refuse(
                node,
                "gain-ignored",
                self.reader,
                "ignores the gain of a neuron's input, and no weights before it can take it per neuron",
                "use one gain per channel",
            )
        if synapse.name == node.name:
            name = self._put_between(name, node.name)
        weight = synapse.weight * by_output.reshape(-1, *(1,) * (synapse.weight.ndim - 1))
        bias = None if synapse.bias is None else synapse.bias * by_output
        self._synapses[name] = replace(synapse, name=name, weight=weight.astype(np.float32), bias=bias)

    def _put_between(self, source: str, target: str) -> str:
        """Insert a node into an edge; return its name."""
        name = f"{source}_to_{target}"
        while name in self._given or name in self.nodes or name in self._synapses:
            name += "_"
        self.edges |= {(source, name): 0, (name, target): self.edges.pop((source, target))}
        self.places[name] = self.places[source] + 0.5
        self.stands_for[name] = target
        return name

    def _disguise_loops(self) -> None:
        """Insert a no-op Flatten into each loop of neurons and one dense layer, which the reader would rewire."""
        for source, target in list(self.edges):
            dense = self._synapses.get(target)
            if isinstance(dense, Linear) and (target, source) in self.edges:
                name = self._put_between(source, target)
                self.nodes[name] = nir.Flatten({"input": np.array(dense.input_shape)}, -1, -1)

    def _write(self, node: Linear | Conv) -> None:
        bias = np.zeros(node.weight.shape[0], np.float32) if node.bias is None else node.bias.astype(np.float32)
        if isinstance(node, Linear):
            self.nodes[node.name] = nir.Affine(node.weight, bias)
            return
        if any(before != after for before, after in node.padding):
            refuse(node, "uneven-padding", self.reader, "pads both sides of an axis alike", "pad symmetrically")
        if len(node.weight.shape) == 3:
            refuse(node, "no-such-layer", self.reader, "is not proved on Conv1d", "write it as a Conv2d")
        padding = tuple(before for before, _ in node.padding)
        self.nodes[node.name] = nir.Conv2d(
            node.input_shape[1:], _ungrouped(node), node.stride, padding, node.dilation, 1, bias
        )


def _ungrouped(node: Conv) -> Floats:
    """Return the weights of a convolution without groups, 0 between the groups.

    nir 1.0.8 infers wrong shapes for grouped convolutions, and the readers take the channels of one group for all.
    """
    outputs, inputs, *kernel = node.weight.shape
    weight = np.zeros((outputs, inputs * node.groups, *kernel), np.float32)
    for group in range(node.groups):
        out = slice(group * outputs // node.groups, (group + 1) * outputs // node.groups)
        weight[out, group * inputs : (group + 1) * inputs] = node.weight[out]
    return weight


def _by_output(factor: NDArray[Any], synapse: Linear | Conv) -> NDArray[Any] | None:
    """Return the factor as one value per output (channel) of a synapse; None if it differs within one."""
    if synapse.shape[0] != len(synapse.weight):
        return None
    return row_values(np.broadcast_to(factor, synapse.shape))


def _one_to_one(node: Neuron) -> Linear | Conv | None:
    """Return weights of 1 from each value to its neuron, named after the neurons; None for other shapes."""
    common: dict[str, Any] = dict(name=node.name, shape=node.shape, operands=(), bias=None, input_shape=node.shape)
    if len(node.shape) == 1 and node.shape[0] <= _LARGEST:
        return Linear(weight=np.eye(node.shape[0], dtype=np.float32), **common)
    if len(node.shape) == 3:
        weight = np.ones((node.shape[0], 1, 1, 1), np.float32)
        spatial: dict[str, Any] = dict(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), groups=node.shape[0])
        return Conv(weight=weight, **spatial, **common)
    return None
