"""Derive memory accesses from the counts: words read and written by node, their number and width.

Event-driven, as on a chip that keeps potentials in memory: each synop reads its weight and reads and
writes one potential; each bias add reads the bias and touches the potential as well; each event is
written to a queue once by who sends it and read once by who gets it; each neuron update reads and
writes the neuron's whole state. (Lemaire et al. 2022, eqs. 5-15; Dampfhoffer et al. 2023.)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from stl_deploy._util.json_twin import JsonTwin
from stl_deploy.energy.counts.record import Counts, NeuronCounts, Population, TapCounts
from stl_deploy.energy.counts.taps import bias_of, input_shape
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.program import Conv, Linear, Neuron, Node, Pool, Program, Scale

PROGRAM_BITS = 32
"""Weights and states of a Program are float32."""


@dataclass(frozen=True)
class TapMemory(JsonTwin):
    """A weighted or pooling node: words stored, and words moved over T steps and B samples.

    weight_words, bias_words: stored numbers; weight_bytes: both, as float32. queue_bits: an event's address,
    and its value where it carries one.
    """

    weight_words: int
    bias_words: int
    weight_bits: int
    weight_bytes: int
    weight_reads: float
    bias_reads: float
    potential_reads: float
    potential_writes: float
    queue_reads: float
    queue_bits: int


@dataclass(frozen=True)
class NeuronMemory(JsonTwin):
    """A neuron node: words of state per neuron, and words moved over T steps and B samples.

    state_bytes: all neurons, as float32. queue_writes: events sent (several spikes in one step are one event).
    """

    state_words: int
    state_bits: int
    state_bytes: int
    state_reads: float
    state_writes: float
    queue_writes: float
    queue_bits: int


def memory_of(program: Program, counts: Counts) -> dict[str, TapMemory | NeuronMemory]:
    """Return the accesses of every counted node but max pools and products, by name, in the Program's order."""
    counted = {name: layer for name, layer in counts.layers.items() if isinstance(layer, TapCounts | NeuronCounts)}
    return {name: _one(program.by_name[name], layer, counts) for name, layer in counted.items()}


def _one(node: Node, counted: TapCounts | NeuronCounts, counts: Counts) -> TapMemory | NeuronMemory:
    if isinstance(node, Neuron | Cell) and isinstance(counted, NeuronCounts):
        return _neuron(node, counted)
    assert isinstance(node, Linear | Conv | Scale | Pool)
    assert isinstance(counted, TapCounts)
    return _taps(node, counted, signed=node.name in counts.signed)


def _taps(node: Linear | Conv | Scale | Pool, counted: TapCounts, *, signed: bool) -> TapMemory:
    weights, biases = weight_words(node), 0 if (bias := bias_of(node)) is None else bias.size
    touched = counted.synops + counted.bias_adds
    return TapMemory(
        weight_words=weights,
        bias_words=biases,
        weight_bits=PROGRAM_BITS,
        weight_bytes=(weights + biases) * PROGRAM_BITS // 8,
        weight_reads=0 if isinstance(node, Pool) else counted.synops,
        bias_reads=counted.bias_adds,
        potential_reads=touched,
        potential_writes=touched,
        queue_reads=counted.in_nonzero,
        queue_bits=event_bits(prod(input_shape(node)), 1 if counted.op == "AC" else PROGRAM_BITS, signed=signed),
    )


def _neuron(node: Population, counted: NeuronCounts) -> NeuronMemory:
    words = state_values(node)
    moved = words * (counted.neuron_updates // counted.neurons)
    is_binary, value_bits = bool(np.all(node.binary)), 1 if np.all(node.ternary) else PROGRAM_BITS
    return NeuronMemory(
        state_words=ceil(words / counted.neurons),
        state_bits=PROGRAM_BITS,
        state_bytes=words * PROGRAM_BITS // 8,
        state_reads=moved,
        state_writes=moved,
        queue_writes=counted.events,
        queue_bits=event_bits(counted.neurons, value_bits, signed=value_bits == 1 and not is_binary),
    )


def weight_words(node: Linear | Conv | Scale | Pool) -> int:
    """Return the number of weights stored for the node; 0 for a pool."""
    if isinstance(node, Pool):
        return 0
    return int(node.scale.size if isinstance(node, Scale) else node.weight.size)


def state_values(node: Population) -> int:
    """Return the numbers that a node keeps between steps.

    Of each neuron: potential, current, adaptation, spike of a late reset. Of a Cell: its states.
    """
    if isinstance(node, Cell):
        return sum(prod(state.shape) for state in node.states)
    states = node.decay, node.synapse, node.adaptation
    return prod(node.shape) * (sum(state is not None for state in states) + int(node.delayed_reset))


def address_bits(places: int) -> int:
    """Return the address width for ``places`` sources, at least one bit."""
    return max(1, (places - 1).bit_length())


def event_bits(places: int, value: int, *, signed: bool = False) -> int:
    """Return the bits of an event in a queue: its address, and its value, of which a spike has its sign at most."""
    return address_bits(places) + signed + (0 if value == 1 else value)


def size_bytes(words: int, bits: int) -> int:
    """Return the bytes of ``words`` packed numbers of ``bits``."""
    return ceil(words * bits / 8)
