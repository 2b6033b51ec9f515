"""A network restated for one reader: the NIR file that a framework reads as what the network is.

Readers differ in time step, comparison, reset, and in which fields they use at all (see the classes in
`stl_deploy.graph.readers`). A restatement starts from the Program, so it does not matter who wrote the graph. It moves
what a reader ignores to where it looks: gains and average pools into the weights (exact in real arithmetic, and in
float32 where the factor is a power of two), a ``>=`` into the next smaller threshold for a reader that compares with
``>``. Max pooling of spikes, which no reader knows, becomes a sum pool and integrate-and-fire neurons: a spike
resets them to 0, and without one nothing has arrived, so they never remember. Where a reader cannot hold a node, the
node is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.graph.check import TargetCheck
from stl_deploy.graph.lower import METADATA_KEY
from stl_deploy.graph.program import (
    Conv,
    Input,
    Linear,
    Neuron,
    Node,
    Output,
    Pool,
    Program,
    Reshape,
    Scale,
    is_max_pool,
)
from stl_deploy.graph.readers import READERS, Reader, refuse


@dataclass(frozen=True)
class Restated:
    """The graph for a reader, and the Python lines that load it there."""

    graph: nir.NIRGraph
    load: str


def restate(program: Program, reader: str) -> Restated:
    """The network as a NIR graph that ``reader`` (a name in `READERS`) reads faithfully.

    The graph's metadata hold the dialect in which it is meant, so reading it back here gives the same spikes.
    Raises InputError for an unknown reader, UnsupportedError naming the first node it cannot hold.
    """
    if reader not in READERS:
        raise InputError(f"no reader '{reader}'; readers: {', '.join(READERS)}")
    target = READERS[reader]
    chain = [_remembering(node) if is_max_pool(program, node) else node for node in _chain(program, target)]
    nodes = _Chain(target).restated(chain)
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(pairwise(names)), type_check=False)
    graph.metadata = {METADATA_KEY: {**program.metadata, "dialect": target.dialect.as_dict(), "reader": reader}}
    return Restated(graph, target.load)


def _chain(program: Program, reader: Reader) -> list[Node]:
    """The nodes in order, if each reads just the one before it."""
    nodes = list(program.nodes)
    for before, node in zip([None, *nodes], nodes, strict=False):
        expected = [] if before is None else [before.name]
        if [source.node for source in node.sources] != expected or any(source.delay for source in node.sources):
            refuse(
                node, "has-branches", reader, "only a chain of layers is restated", "export to ONNX, or split the net"
            )
    return nodes


def _remembering(node: Node) -> Node:
    """Max pooling's threshold as integrate-and-fire neurons. Whole numbers arrive, so any threshold below 1 will do."""
    assert isinstance(node, Neuron)
    return replace(node, decay=np.array(1, np.float32), threshold=np.array(0.5, np.float32), reset="value")


class _Chain:
    """The restated nodes so far; ``owed`` is what the values arriving from them must still be multiplied by."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.nodes: dict[str, nir.NIRNode] = {}
        self.owed = 1.0
        self._synapse: Linear | Conv | None = None

    def restated(self, chain: list[Node]) -> dict[str, nir.NIRNode]:
        for node in chain:
            self._add(node)
        return self.nodes

    def _add(self, node: Node) -> None:
        match node:
            case Input():
                self.nodes[node.name] = nir.Input(np.array(node.shape))
            case Output():
                self._settled(node)
                self.nodes[node.name] = nir.Output(np.array(node.shape))
            case Linear() | Conv():
                self._put_synapse(replace(node, weight=np.asarray(node.weight * np.float32(self.owed))))
                self.owed = 1.0
                return
            case Scale() if node.scale.ndim == 0:
                self.owed *= float(node.scale)
                return
            case Pool():
                self.nodes[node.name] = self._pool(node)
            case Reshape():
                self._flatten(node)
                return
            case Neuron():
                self._neuron(node)
            case _:
                refuse(node, "no-such-layer", self.reader, f"has no {type(node).__name__}", "export to ONNX instead")
        self._synapse = None

    def _settled(self, node: Node) -> None:
        if self.owed != 1:
            refuse(node, "scale-left", self.reader, "no weights follow that could take a scale", "end with a layer")

    def _pool(self, node: Pool) -> nir.NIRNode:
        if len({before for before, _ in node.padding} | {after for _, after in node.padding} | {0}) > 1:
            refuse(node, "pool-padding", self.reader, "drops the padding of pools", "pad in a convolution")
        fields = (np.array(node.kernel), np.array(node.stride), np.array([0, 0]))
        if node.divisor == 1:
            return nir.SumPool2d(*fields)
        if self.reader.average_pool:
            return nir.AvgPool2d(*fields)
        self.owed /= node.divisor
        return nir.SumPool2d(*fields)

    def _flatten(self, node: Reshape) -> None:
        if len(node.shape) != 1:
            refuse(node, "partial-flatten", self.reader, "is given flattens of all axes only", "flatten all axes")
        if len(node.input_shape) > 1:
            self._synapse = None
            start = -len(node.input_shape) if self.reader.negative_axes else 0
            self.nodes[node.name] = nir.Flatten({"input": np.array(node.input_shape)}, start, -1)

    def _neuron(self, node: Neuron) -> None:
        restated, factor = self.reader.neuron(node)
        factor = np.asarray(factor * np.float32(self.owed))
        self.owed = 1.0
        if (factor != 1).any():
            self._scale_synapse(node, factor)
        self.nodes[node.name] = restated

    def _scale_synapse(self, node: Neuron, factor: NDArray[Any]) -> None:
        """Multiply what arrives at a neuron by ``factor``, in the weights and bias before it."""
        synapse = self._synapse
        by_output = None if synapse is None else _by_output(factor, synapse)
        if synapse is None or by_output is None:
            refuse(
                node,
                "gain-ignored",
                self.reader,
                "ignores the gain of a neuron's input, and no weights before it can take it per neuron",
                "use one gain per channel",
            )
        weight = synapse.weight * by_output.reshape(-1, *(1,) * (synapse.weight.ndim - 1))
        bias = None if synapse.bias is None else synapse.bias * by_output
        self._put_synapse(replace(synapse, weight=weight.astype(np.float32), bias=bias))

    def _put_synapse(self, node: Linear | Conv) -> None:
        self._synapse = node
        bias = np.zeros(node.weight.shape[0], np.float32) if node.bias is None else node.bias
        if isinstance(node, Linear):
            self.nodes[node.name] = nir.Affine(node.weight, bias.astype(np.float32))
            return
        if any(before != after for before, after in node.padding):
            refuse(node, "uneven-padding", self.reader, "pads both sides of an axis alike", "pad symmetrically")
        if node.groups > 1 and not self.reader.groups:
            refuse(node, "groups", self.reader, "has no grouped convolution through NIR", "use groups=1")
        if len(node.weight.shape) == 3:
            refuse(node, "no-such-layer", self.reader, "is not proved on Conv1d", "write it as a Conv2d")
        self.nodes[node.name] = nir.Conv2d(
            node.input_shape[1:],
            node.weight,
            node.stride,
            tuple(before for before, _ in node.padding),
            node.dilation,
            node.groups,
            bias.astype(np.float32),
        )


def _by_output(factor: NDArray[Any], synapse: Linear | Conv) -> NDArray[Any] | None:
    """The factor as one value per output (channel) of a synapse; None if it differs within one."""
    outputs = synapse.weight.shape[0]
    full = np.broadcast_to(factor, synapse.shape).reshape(outputs, -1) if synapse.shape[0] == outputs else None
    if full is None or (full != full[:, :1]).any():
        return None
    return full[:, 0]


def _asking(reader: str) -> TargetCheck:
    def ask(program: Program) -> tuple[()]:
        restate(program, reader)
        return ()

    return ask


READER_TARGETS: Mapping[str, TargetCheck] = {name: _asking(name) for name in READERS}
"""The readers as targets of `stl_deploy.graph.check.check`; each names the first node that it cannot hold."""
