"""Operations and memory after Dampfhoffer et al., IEEE TETCI 7(3):731, 2023, and Yan et al. 2024 (activation bits).

Spiking: for each synop a weight read, a potential read, an add and a potential write; a neuron with a
leak reads and writes its state and multiplies at every step; a spike is written and read once. Dense:
for each MAC a weight read, an input read and a partial sum, each fetched once for ``reuse`` uses.
"""

from __future__ import annotations

from stl_deploy.energy.counts.neuron_ops import neuron_ops
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.models.layout import Synapses, synapses
from stl_deploy.energy.models.ledger import Item, Ledger
from stl_deploy.energy.models.lemaire import dense_extras
from stl_deploy.energy.models.memory import address_bits, size_bytes, state_words
from stl_deploy.energy.prices.price_list import PriceList
from stl_deploy.graph.program import Neuron, Program


def snn(program: Program, counts: Counts, prices: PriceList) -> tuple[Item, ...]:
    """The spiking network, event-driven, with clock-driven leaks."""
    ledger = Ledger(prices, counts.batch)
    weight, state = prices.weight_bits, prices.accumulator_bits
    for layer in synapses(program, counts):
        counted = counts.weighted[layer.name]
        potentials = size_bytes(layer.outputs, state)
        ledger.ops(layer.name, "synops", "ac" if counted.op == "AC" else "mac", counted.synops)
        ledger.words(layer.name, "weight reads", counted.synops, weight, layer.weight_memory(weight))
        ledger.words(layer.name, "potential reads", counted.synops, state, potentials)
        ledger.words(layer.name, "potential writes", counted.synops, state, potentials)
        ledger.ops(layer.name, "bias adds", "add", counted.bias_adds)
        ledger.words(layer.name, "bias reads", counted.bias_adds, state, layer.bias_memory(state))
        queue = layer.queue_memory()
        ledger.words(layer.name, "queue writes and reads", 2 * counted.in_nonzero, address_bits(layer.inputs), queue)
    for name, pool in counts.pools.items():
        ledger.ops(name, "pool adds", "add", pool.synops)
    for node in program.of(Neuron):
        _updates(node, counts, ledger, state)
    return ledger.items()


def _updates(node: Neuron, counts: Counts, ledger: Ledger, bits: int) -> None:
    counted, each = counts.neurons[node.name], neuron_ops(node)
    words = state_words(node)
    memory = size_bytes(words * counted.neurons, bits)
    ledger.ops(node.name, "leaks", "mul", (each.leak_muls + each.other_muls) * counted.neuron_updates)
    adds = (each.adds + each.compares) * counted.neuron_updates + each.adds_per_spike * counted.spikes
    ledger.ops(node.name, "adds and compares", "add", adds)
    ledger.words(node.name, "state reads and writes", 2 * words * counted.neuron_updates, bits, memory)


def ann(
    program: Program,
    counts: Counts,
    prices: PriceList,
    *,
    reuse: int | None,
    active: float = 1.0,
    bits: int | None = None,
) -> tuple[Item, ...]:
    """One pass of the twin.

    reuse: uses of each word fetched, never more than there are; None: every word is fetched once and sums
    stay in registers (ideal).
    active: share of MACs done, the others skipped because their input is 0. bits: of activations (None:
    as wide as weights); the multiply is priced in proportion to them.
    """
    ledger = Ledger(prices)
    weight, state = prices.weight_bits, prices.accumulator_bits
    act = weight if bits is None else bits
    for layer in synapses(program, counts):
        done = active * layer.macs
        ledger.ops(layer.name, "MACs: multiply", "mul", done, act / weight)
        ledger.ops(layer.name, "MACs: add", "ac", done)
        ledger.ops(layer.name, "bias adds", "add", layer.outputs if layer.biases else 0)
        fetched = {"weight reads": (layer.weights, weight), "input reads": (layer.inputs, act)}
        if reuse is not None:
            sums = (layer.outputs, state)
            fetched |= {"partial sum reads": sums, "partial sum writes": sums}
        for term, (words, width) in fetched.items():
            ledger.words(layer.name, term, _fetches(done, words, reuse), width, size_bytes(words, width))
        ledger.words(layer.name, "output writes", layer.outputs, act, size_bytes(layer.outputs, act))
        _biases(layer, ledger, state)
    dense_extras(program, counts, ledger)
    return ledger.items()


def _fetches(uses: float, words: int, reuse: int | None) -> float:
    """Fetches for ``uses`` of ``words`` words: at least each word once, at most each use."""
    return words if reuse is None else max(words, uses / reuse)


def _biases(layer: Synapses, ledger: Ledger, bits: int) -> None:
    ledger.words(layer.name, "bias reads", layer.outputs if layer.biases else 0, bits, layer.bias_memory(bits))
