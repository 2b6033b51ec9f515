"""Split a Program for Xylo: populations, the dense weights between them, and their delays in steps.

Every hidden connection of the chip takes one step; the input reaches a neuron in its own step. Let a population at
depth q act q steps later than in the graph. An edge from depth p that the graph delays by d steps fits if
``q = p + 1 - d``; with -1 as the input's depth, that rule also holds for what reads the input.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.reachable import reachable
from stl_deploy._util.remedies import remedy
from stl_deploy._util.units import counted
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.xylo.specification import HIDDEN_CAP
from stl_deploy.graph.kernels import apply
from stl_deploy.graph.program import Conv, Delay, Doubles, Input, Linear, Neuron, Node, Operand, Output, Program
from stl_deploy.graph.segments import is_loop, segments
from stl_deploy.graph.show import reset_words
from stl_deploy.integers.fields import describe_field, refusal, unread

INPUT_DEPTH = -1
MOST = 4096
"""Neurons of a population that are taken apart; more than any chip holds."""


@dataclass(frozen=True, eq=False)
class Edge:
    """Weights ``[target, source]`` from a population, or the input, that the graph delays by so many steps."""

    source: str
    delay: int
    weight: Doubles


@dataclass(frozen=True, eq=False)
class ChipPopulation:
    """A population and its sources. output: whether it lies on output neurons. depth: steps that it is late."""

    neuron: Neuron
    output: bool
    depth: int
    edges: tuple[Edge, ...]

    @property
    def name(self) -> str:
        """The node's name."""
        return self.neuron.name

    @property
    def size(self) -> int:
        """Neurons."""
        return math.prod(self.neuron.shape)


@dataclass(frozen=True, eq=False)
class Structure:
    """The network in populations. host: ``[outputs of the graph, output neurons]``, applied behind the chip."""

    input: Input
    hidden: tuple[ChipPopulation, ...]
    outputs: tuple[ChipPopulation, ...]
    output: Output
    host: Doubles

    @property
    def populations(self) -> tuple[ChipPopulation, ...]:
        """Hidden ones, then those of the outputs."""
        return (*self.hidden, *self.outputs)

    @property
    def hears(self) -> set[str]:
        """Names of the hidden populations that read the input."""
        return {part.name for part in self.hidden if any(edge.source == self.input.name for edge in part.edges)}

    @property
    def heard(self) -> set[str]:
        """Names of the hidden populations that outputs read."""
        return {edge.source for population in self.outputs for edge in population.edges}


def structure(program: Program) -> Structure:
    """Split a Program; raise UnsupportedError for the first part that Xylo cannot hold."""
    reader = _Reader(program)
    for error in reader.refusals():
        raise error
    return reader.structure


def refusals(program: Program) -> list[UnsupportedError]:
    """Return everything that keeps a Program off every Xylo, but for decays and sizes."""
    return list(_Reader(program).refusals())


def outline(program: Program) -> Structure | None:
    """Return the populations and their sources, even of a refused Program; None if it cannot be split."""
    reader = _Reader(program)
    try:
        return None if any(reader.refusals_of_ends()) else reader.structure
    except UnsupportedError:
        return None


Sums = dict[tuple[str, int], Doubles]
"""By source and delay: weights ``[values here, source]``."""


class _Reader:
    def __init__(self, program: Program) -> None:
        self.program = program

    def refusals(self) -> Iterator[UnsupportedError]:
        """Yield refusals, coarse before fine: later checks need the earlier ones to pass."""
        coarse = list(self.refusals_of_ends())
        yield from coarse
        for neuron in self._neurons:
            yield from _neuron_refusals(neuron, neuron.name in self._output_names)
        if coarse:
            return
        try:
            connected = list(self._connections())
        except UnsupportedError as error:
            connected = [error]
        yield from connected
        if not connected:
            yield from self._misplaced()

    @cached_property
    def structure(self) -> Structure:
        """Return the network; depths are right once nothing refuses it."""
        depths, _ = self._depths()
        populations = [
            ChipPopulation(neuron, neuron.name in self._output_names, depths.get(neuron.name, 0), self._edges(neuron))
            for neuron in self._neurons
        ]
        hidden = sorted(
            (population for population in populations if not population.output), key=lambda population: population.depth
        )
        outputs = tuple(population for population in populations if population.output)
        (output,) = self.program.outputs
        sums, _ = self._arriving(output)
        none = [np.zeros((math.prod(output.shape), population.size)) for population in outputs]
        host = np.concatenate(
            [sums.get((population.name, 0), zero) for population, zero in zip(outputs, none, strict=True)], axis=1
        )
        return Structure(self.program.inputs[0], tuple(hidden), outputs, output, host)

    @cached_property
    def _neurons(self) -> tuple[Neuron, ...]:
        return tuple(self.program.of(Neuron))

    @cached_property
    def _output_names(self) -> frozenset[str]:
        """Names of populations that reach the graph's output through nothing but weights."""
        ends = (source.node for node in self.program.outputs for source in node.operands)
        return frozenset(n for n in reachable(ends, self._before) if isinstance(self.program.by_name[n], Neuron))

    def _before(self, name: str) -> list[str]:
        """Return the sources of a node; none of a neuron, which ends a search."""
        node = self.program.by_name[name]
        return [] if isinstance(node, Neuron) else [source.node for source in node.operands]

    def refusals_of_ends(self) -> Iterator[UnsupportedError]:
        """Yield refusals of sizes that stop the analysis, and of nodes with no place on the chip by their kind."""
        for what, nodes in (("input", self.program.inputs), ("output", self.program.outputs)):
            if len(nodes) != 1:
                names = ", ".join(node.name for node in nodes)
                yield refusal(
                    nodes[-1], f"several-{what}s", f"{len(nodes)} {what}s ({names}); Xylo has one", f"join the {what}s"
                )
        for node in (*self.program.inputs, *self._neurons):
            if math.prod(node.shape) > MOST:
                yield refusal(
                    node,
                    "too-large",
                    f"{math.prod(node.shape):,} values; no Xylo holds more than 1,000 neurons",
                    "shrink it",
                )
        if not self._neurons or self._output_names >= {population.name for population in self._neurons}:
            yield refusal(
                self.program.outputs[0],
                "no-hidden-neurons",
                "every population leads to the output alone; Xylo's outputs read hidden neurons, not the input",
                "end the network in a layer of neurons behind a hidden one",
            )
        elif not self._output_names:
            yield refusal(
                self.program.outputs[0],
                "no-output-neurons",
                "no population leads to it; Xylo's outputs are what its output neurons give",
                "end the network in a layer of neurons behind a hidden one",
            )
        for segment in filter(is_loop, segments(self.program)):
            if not any(isinstance(node, Neuron) for node in segment):
                reason = "a loop without neurons; Xylo's connections lead from neurons"
                yield refusal(segment[0], "loop-without-neuron", reason, "put neurons into the loop")
        for node in self.program.of(Delay):
            if np.ptp(node.steps):
                yield refusal(
                    node, "delays-differ", "its delays differ; Xylo's connections take one step each", "use one"
                )

    def _connections(self) -> Iterator[UnsupportedError]:
        """Yield refusals of inputs to a population or the output that are no connection of Xylo."""
        for neuron in self._neurons:
            sums, constant = self._arriving(neuron)
            for source, _ in sums:
                node = self.program.by_name[source]
                if source in self._output_names:
                    yield refusal(
                        node,
                        "output-is-read",
                        f"'{neuron.name}' reads it and it leads to the graph's output; Xylo's output neurons reach no "
                        "other neuron",
                        "put a layer of its own at the end",
                    )
                elif neuron.name in self._output_names and isinstance(node, Input):
                    yield refusal(
                        neuron, "output-reads-input", "Xylo's outputs read hidden neurons only", "add a layer"
                    )
            if constant.any():
                yield refusal(
                    self._biased(neuron),
                    "bias-before-a-synapse",
                    "its bias passes the synapse's filter in the graph; Xylo adds biases behind it",
                    "train the layer without a bias or norm (bias: false), or with a bias of the neuron (v_leak)",
                )
        (output,) = self.program.outputs
        sums, constant = self._arriving(output)
        if constant.any() or any(delay for _, delay in sums):
            yield refusal(
                output,
                "host-is-not-linear",
                "a bias or a delay lies between the last neurons and the output",
                "remove it",
            )
        yield from (
            refusal(output, "input-to-output", "the input reaches the output without neurons", "remove that edge")
            for source, _ in sums
            if isinstance(self.program.by_name[source], Input)
        )

    def _misplaced(self) -> Iterator[UnsupportedError]:
        depths, late = self._depths()
        yield from late
        for neuron in self._neurons:
            if neuron.name not in depths:
                yield refusal(neuron, "not-reached", "the input does not reach it", "remove it")

    def _depths(self) -> tuple[dict[str, int], list[UnsupportedError]]:
        """Return the delay of each population, and the edges that contradict it."""
        (entry,) = self.program.inputs
        depths, late = {entry.name: INPUT_DEPTH}, list[UnsupportedError]()
        edges = [(edge.source, edge.delay, neuron) for neuron in self._neurons for edge in self._edges(neuron)]
        moved = True
        while moved:
            moved = False
            for source, delay, neuron in edges:
                if source in depths and neuron.name not in depths:
                    depths[neuron.name], moved = depths[source] + 1 - delay, True
        for source, delay, neuron in edges:
            if source in depths and depths[neuron.name] != depths[source] + 1 - delay:
                late.append(
                    refusal(
                        neuron,
                        "paths-of-different-length",
                        f"on the chip it is {depths[neuron.name]} steps late by one path, and "
                        f"{depths[source] + 1 - delay} by '{source}' (delay {delay}); a hidden connection takes one "
                        "step",
                        "remove the skip, or delay the shorter path; a loop over two layers needs a delay of 2",
                    )
                )
        for name, depth in depths.items():
            if depth < 0 and name != entry.name:
                late.append(
                    refusal(
                        self.program.by_name[name],
                        "input-delayed",
                        "it reads the input late",
                        "delay the input data instead",
                    )
                )
        return depths, late

    def _edges(self, neuron: Neuron) -> tuple[Edge, ...]:
        sums, _ = self._arriving(neuron)
        return tuple(Edge(source, delay, weight) for (source, delay), weight in sums.items())

    def _biased(self, node: Node) -> Node:
        """Return the nearest node before ``node`` whose bias reaches it."""
        before = map(self.program.by_name.__getitem__, reachable((s.node for s in node.operands), self._before))
        biased = (n for n in before if isinstance(n, Linear | Conv) and n.bias is not None and n.bias.any())
        return next(biased, node)

    def _arriving(self, node: Node) -> tuple[Sums, Doubles]:
        """Return the sum of a node's sources: weights by source, and a constant."""
        total: Sums = {}
        constants = []
        for source in node.operands:
            sums, constant = self._delayed(source)
            constants.append(constant)
            for key, weight in sums.items():
                total[key] = total[key] + weight if key in total else weight
        return total, np.sum(constants, axis=0)

    def _delayed(self, source: Operand) -> tuple[Sums, Doubles]:
        sums, constant = self._values[source.node]
        return {(name, delay + source.delay): weight for (name, delay), weight in sums.items()}, constant

    @cached_property
    def _values(self) -> dict[str, tuple[Sums, Doubles]]:
        """Return each node's output as weights on populations and the input, and a constant."""
        by_node: dict[str, tuple[Sums, Doubles]] = {}
        self.__dict__["_values"] = by_node
        waiting = list(self.program.nodes)
        while waiting:
            later = []
            for node in waiting:
                if isinstance(node, Neuron | Input):
                    size = math.prod(node.shape)
                    by_node[node.name] = {(node.name, 0): np.eye(size)}, np.zeros(size)
                elif all(source.node in by_node for source in node.operands):  # which `_arriving` looks up here
                    by_node[node.name] = _through(node, *self._arriving(node))
                else:
                    later.append(node)
            assert len(later) < len(waiting)
            waiting = later
        return by_node


def _through(node: Node, sums: Sums, constant: Doubles) -> tuple[Sums, Doubles]:
    if isinstance(node, Delay):
        steps = int(node.steps.flat[0])
        return {(name, delay + steps): weight for (name, delay), weight in sums.items()}, constant
    bare = replace(node, bias=None) if isinstance(node, Linear | Conv) else node
    shape = getattr(node, "input_shape", node.shape)

    def run(what: Node, rows: NDArray[np.float64]) -> Doubles:
        y = apply(what, rows.astype(np.float32).reshape(len(rows), *shape), np.float64)
        return y.reshape(len(rows), -1).astype(np.float64)

    return {key: run(bare, weight.T).T for key, weight in sums.items()}, run(node, constant[None])[0]


_READ = frozenset(
    {"decay", "threshold", "gain", "offset", "synapse", "compare", "reset", "multi_spike", "cap", "v_reset"}
)
_REMEDIES = {
    "v_start": "train neurons that start at 0",
    "i_start": "train neurons that start at 0",
    "adaptation": "train with fixed thresholds",
}
_SOURCE = "(xylosim 0.1.3, the maker's code, run here)"


def _neuron_refusals(neuron: Neuron, output: bool) -> Iterator[UnsupportedError]:
    """Yield refusals of a neuron's fields that Xylo's neurons lack."""
    if neuron.decay is None:
        yield refusal(
            neuron,
            "no-memoryless-neurons",
            f"it forgets its potential in each step, as max pooling and ReLU do; Xylo's neurons keep theirs {_SOURCE}",
            "train without them: dense layers and neurons with a decay above 0 only",
        )
        return
    if neuron.synapse is None:
        yield refusal(
            neuron,
            "input-always-filtered",
            f"its input acts in one step; on Xylo it always passes a synapse that decays over steps {_SOURCE}",
            "train neurons with a synaptic current ("
            + remedy(cli="--set neuron.synapse_decay=0.5", python="stl.LIF(synapse_decay=...)")
            + ", NIR CubaLIF)",
        )
    if neuron.spiking and neuron.reset != "subtract":
        yield refusal(
            neuron,
            "no-hard-reset",
            f"it has {reset_words(neuron)}; Xylo subtracts the threshold for each spike, in its step {_SOURCE}",
            "train with reset 'subtract' ("
            + remedy(cli="--set neuron.reset=subtract)", python="neuron: {reset: subtract} in a configuration)"),
        )
    if not output and not neuron.spiking:
        yield refusal(neuron, "hidden-without-spikes", "other neurons read its potential", "give it a threshold")
    if not output and neuron.spiking and (not neuron.multi_spike or (neuron.cap or HIDDEN_CAP) < HIDDEN_CAP):
        yield refusal(
            neuron,
            "one-spike-hidden",
            f"it fires at most {counted(neuron.cap or 1, 'spike')} a step; Xylo's hidden neurons fire up to "
            f"{HIDDEN_CAP}",
            f"train hidden layers with multi_spike {HIDDEN_CAP}"
            + remedy(cli=f" (--set network.LAYER.multi_spike={HIDDEN_CAP}, LAYER counted from 0)", python=""),
        )
    if output and neuron.multi_spike and neuron.cap != 1:
        yield refusal(
            neuron,
            "several-spikes-out",
            "it fires several spikes a step; Xylo's outputs fire at most one",
            "train the last layer with multi_spike 1, or end in li, whose potential is read; if it never fires more "
            f'than once, say so in the dialect: "nodes": {{{json.dumps(neuron.name)}: {{"spikes_per_step": "one"}}}}',
        )
    for field in unread(neuron, _READ):
        slug, what = describe_field(field)
        yield refusal(neuron, slug, f"{what}; Xylo has no such neurons", _REMEDIES.get(field, "train without it"))
