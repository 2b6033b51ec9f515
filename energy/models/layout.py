"""Size each layer's memories and one dense pass of its twin, for models with memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, log2, prod
from typing import Literal

import numpy as np

from stl_deploy._util.remembered import remembered
from stl_deploy.energy.counts.record import Counts, Fetched, populations
from stl_deploy.energy.counts.taps import (
    Weighted,
    bias_of,
    dense_macs,
    fan_out_nonzero,
    input_shape,
    weights_by_cell,
)
from stl_deploy.energy.models.memory import address_bits, size_bytes, weight_words
from stl_deploy.graph.program import Conv, Input, Linear, Pool, Program, Scale, feeders


@dataclass(frozen=True)
class Synapses:
    """One weighted layer: words stored, positions in and out; ``macs``: of one dense pass.

    reached: outputs that one input reaches, at most. conv: whether weights are shared; filters: C_out x kernel
    positions (0 for other layers). nonzero: weights that are not 0; macs_nonzero: MACs on them.
    """

    name: str
    weights: int
    biases: int
    inputs: int
    outputs: int
    macs: int
    reached: int
    conv: bool
    filters: int
    nonzero: int
    macs_nonzero: int

    def stored(self, bits: int) -> Stored:
        """Return the storage of ``bits``-wide weights: all of them, or the nonzero ones with an index, if smaller.

        An index is as wide as an address of the layer's outputs that one input reaches.
        """
        indexed = bits + address_bits(self.reached)
        if self.nonzero * indexed < self.weights * bits:
            return Stored(self.nonzero, indexed, compressed=True)
        return Stored(self.weights, bits, compressed=False)

    def with_weights(self, nonzero: Mapping[str, float]) -> Synapses:
        """Return the layer with a trained twin's share of nonzero weights; {}: unchanged."""
        if self.name not in nonzero:
            return self
        share = nonzero[self.name]
        return replace(self, nonzero=round(share * self.weights), macs_nonzero=round(share * self.macs))

    def weight_memory(self, bits: int) -> int:
        """Bytes of the weights."""
        return size_bytes(self.weights, bits)

    def bias_memory(self, bits: int) -> int:
        """Bytes of the biases."""
        return size_bytes(self.biases, bits)

    def potentials(self, bits: int) -> int:
        """Bytes of one sum for each output."""
        return size_bytes(self.outputs, bits)


@dataclass(frozen=True)
class Stored:
    """Weights in memory: ``words`` words of equal width. compressed: zero weights are left out."""

    words: int
    bits: int
    compressed: bool

    @property
    def size(self) -> int:
        """Bytes."""
        return size_bytes(self.words, self.bits)

    def fetched(self, counted: Fetched, often: Literal["per_step", "per_inference"]) -> int:
        """Return the words fetched once per step or per inference: those alone that an event meets."""
        each: int = getattr(counted, f"nonzero_{often}" if self.compressed else often)
        return each


@remembered
def synapses(program: Program) -> tuple[Synapses, ...]:
    """Return every weighted layer."""
    return tuple(_layer(node) for node in program.nodes if isinstance(node, Linear | Conv | Scale))


@remembered
def nonzero_macs(node: Weighted) -> int:
    """Return the MACs of one dense pass with nonzero weights."""
    return int(fan_out_nonzero(node).sum(dtype=np.int64))


@remembered
def _nonzero(node: Weighted) -> int:
    return int(np.count_nonzero(node.scale if isinstance(node, Scale) else node.weight))


def _layer(node: Weighted) -> Synapses:
    bias = bias_of(node)
    biases = 0 if bias is None else int(bias.size)
    inputs, outputs = prod(input_shape(node)), prod(node.shape)
    filters = node.weight.shape[0] * prod(node.weight.shape[2:]) if isinstance(node, Conv) else 0
    return Synapses(
        name=node.name,
        weights=weight_words(node),
        biases=biases,
        inputs=inputs,
        outputs=outputs,
        macs=dense_macs(node),
        reached=weights_by_cell(node) * (prod(node.weight.shape[2:]) if isinstance(node, Conv) else 1),
        conv=isinstance(node, Conv),
        filters=filters,
        nonzero=_nonzero(node),
        macs_nonzero=nonzero_macs(node),
    )


def input_words(program: Program, pool: str) -> int:
    """Return the positions that a pool reads."""
    node = program.by_name[pool]
    assert isinstance(node, Pool)
    return prod(node.input_shape)


def meeting_places(program: Program, counts: Counts) -> dict[str, list[str]]:
    """Return the populations of potentials that each weighted layer is the first to feed, by name.

    Layers whose sums meet at one neuron node share its potentials. A layer that feeds no neuron keeps sums of its own.
    """
    met: dict[str, list[str]] = {name: [] for name in counts.weighted}
    fed: set[str] = set()
    for node in populations(program):
        sources = feeders(program, node)
        weighted = [name for name in counts.weighted if name in sources]
        fed.update(weighted)
        if weighted:
            met[weighted[0]].append(node.name)
    return {name: nodes if name in fed else [name] for name, nodes in met.items()}


@remembered
def _readers(program: Program) -> tuple[tuple[str, ...], ...]:
    """Return the weighted and pooling nodes that neurons or other nodes send to, those of the same senders together."""
    readers: dict[frozenset[str], list[str]] = {}
    for node in program.nodes:
        if isinstance(node, Linear | Conv | Scale | Pool):
            senders = frozenset(feeders(program, node))
            if not all(isinstance(program.by_name[name], Input) for name in senders):
                readers.setdefault(senders, []).append(node.name)
    return tuple(map(tuple, readers.values()))


def queue_accesses(program: Program, counts: Counts) -> Mapping[str, int]:
    """Count the queue accesses of a weighted or pooling node per event that it reads: the read, and the sender's write.

    Of several readers of the same sender, the one that reads most events is charged the write: recurrent weights do
    not read the last step. The network's input is there already, as the twin's is.
    """
    taps = {**counts.weighted, **counts.pools}
    accesses = dict.fromkeys(taps, 1)
    for names in _readers(program):
        # the sender writes once, whoever reads: charged to the reader of most events
        accesses[max(names, key=lambda name: taps[name].in_nonzero)] = 2
    return accesses


def activation_bits(steps: int) -> int:
    """Return the bits for every spike count of a neuron in ``steps``: ceil(log2(T+1)) (Yan et al. 2024)."""
    return ceil(log2(steps + 1))
