"""Price operations and memory of both sides under one dataflow.

Weights, biases among them, are fetched:

- ``per_event``: for every event that uses them (in an ANN, every MAC);
- ``per_step``: once per time step, or per event if those are fewer; an ANN's step is its inference;
- ``per_inference``: once, with all time steps of a layer processed before the next layer; layers in a loop need the
  previous step and are fetched once per step.

Sums are kept in ``memory``: every addition reads and writes its potential (in an ANN, its partial sum). Or in
``registers``: the sum of one step stays beside the adder, and a state is read and written once per step; with
``per_inference`` it stays there through all steps.

On both sides each layer reads an input once and walks its fan-out. The sender writes a spike to a queue once, and an
activation is written once, after its sums; so is what a max pool reads. A state that is constant between inputs (an
integrator's) is accessed only when input arrives. Layers with enough zero weights use indexed storage; their zero
weights are neither fetched nor added. Weights have the list's weight width, sums and states its accumulator's, and what
passes between layers has the bits of `widths`; a twin's activations are as wide as weights, unless ``bits`` are given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Literal, get_args

from stl_deploy.energy.context import AnnTwin
from stl_deploy.energy.counts.neuron_ops import leaks, node_ops
from stl_deploy.energy.counts.record import (
    Counts,
    MaxPoolCounts,
    Population,
    ProductCounts,
    Repeating,
    firing,
    populations,
)
from stl_deploy.energy.models.layout import Synapses, input_words, meeting_places, queue_accesses, synapses
from stl_deploy.energy.models.ledger import Item, Ledger
from stl_deploy.energy.models.memory import event_bits, size_bytes, state_values
from stl_deploy.energy.models.widths import Width, roundings, widths
from stl_deploy.energy.prices.price_list import (
    PriceList,
    division,
    leak_multiply,
    lookup,
    multiply,
    requantisation,
    requantises,
    shift,
    state_multiply,
    synop,
)
from stl_deploy.graph.program import MaxPool, Node, Program
from stl_deploy.graph.segments import looped

Fetch = Literal["per_event", "per_step", "per_inference"]
Sums = Literal["memory", "registers"]
Active = float | AnnTwin


@dataclass(frozen=True)
class Dataflow:
    """Frequency of weight fetches, and the place of the sums."""

    fetch: Fetch
    sums: Sums

    @property
    def text(self) -> str:
        """The dataflow in words."""
        how = {"per_event": "for every event", "per_step": "once per step", "per_inference": "once per inference"}
        return f"weights {how[self.fetch]}, sums in {self.sums}"


_IN_REGISTERS = Dataflow("per_inference", "registers")
"""Sums stay beside the adder through all steps."""
DATAFLOWS = tuple(Dataflow(fetch, sums) for fetch in get_args(Fetch) for sums in get_args(Sums))


def snn(program: Program, counts: Counts, prices: PriceList, flow: Dataflow) -> tuple[Item, ...]:
    """Price one inference of the spiking network."""
    ledger = Ledger(prices, counts.batch)
    in_loops, wide = looped(program), widths(program, counts, prices)
    if flow == _IN_REGISTERS:
        counts = counts.at_one_step()
    accesses = queue_accesses(program, counts)
    # a loop needs its last step before the next, so no layer in it can run through all steps
    stepped = Dataflow("per_step", flow.sums) if flow.fetch == "per_inference" else flow
    for layer in synapses(program):
        own = stepped if layer.name in in_loops else flow
        bits = wide[layer.name].read
        _spiking_layer(layer, counts, prices, own, ledger, bits)
        _queue(layer, counts, own, ledger, accesses[layer.name], bits)
    for name, pool in counts.pools.items():
        ledger.ops(name, "pool adds", "add", pool.synops)
        bits = event_bits(input_words(program, name), wide[name].read, signed=name in counts.signed)
        moved = accesses[name] * pool.in_nonzero
        ledger.words(name, "queue writes and reads", moved, bits, size_bytes(input_words(program, name), bits))
    for name, maximum in counts.maxima.items():
        _maxima(program.by_name[name], maximum, 1, ledger, wide[name].read, times=2)
    for name, product in counts.products.items():
        _product(name, product, counts, prices, stepped if name in in_loops else flow, ledger, wide[name])
    for node in populations(program):
        _updates(program, node, counts, prices, stepped if node.name in in_loops else flow, ledger)
    return ledger.items()


def _product(
    name: str,
    counted: ProductCounts,
    counts: Counts,
    prices: PriceList,
    flow: Dataflow,
    ledger: Ledger,
    wide: Width,
) -> None:
    """Charge a product of two signals: an event of one operand reads the other's values, in every step anew."""
    state, bits = prices.accumulator_bits, wide.read
    ledger.ops(name, "products", synop(prices, wide.narrow, bits), counted.synops)
    dense = counted.values * counts.T * counts.batch
    read = counted.synops if flow.fetch == "per_event" else min(counted.synops, dense)
    ledger.words(name, "operand reads", read, bits, size_bytes(counted.values, bits), "states")
    if flow.sums == "memory":
        sums = size_bytes(counted.outputs, state)
        ledger.words(name, "partial sum reads and writes", 2 * counted.synops, state, sums, "states", shared=True)
    event = event_bits(counted.values, bits, signed=name in counts.signed)
    ledger.words(name, "queue writes and reads", 2 * counted.in_nonzero, event, size_bytes(counted.values, event))


def _maxima(node: Node, counted: MaxPoolCounts, share: int, ledger: Ledger, bits: int, times: int) -> None:
    """Charge a max pool's compares, and its input ``times`` each; counts are divided by ``share``."""
    assert isinstance(node, MaxPool)
    ledger.ops(node.name, "max pool compares", "add", counted.max_compares / share)
    moved, term = times * counted.values_read / share, "input reads" if times == 1 else "input writes and reads"
    ledger.words(node.name, term, moved, bits, size_bytes(prod(node.input_shape), bits))


def _spiking_layer(
    layer: Synapses, counts: Counts, prices: PriceList, flow: Dataflow, ledger: Ledger, bits: int
) -> None:
    """Charge a weighted layer, without its queue."""
    counted, weight, state = counts.weighted[layer.name], prices.weight_bits, prices.accumulator_bits
    stored = layer.stored(weight)
    synops = counted.synops_nonzero_w if stored.compressed else counted.synops
    ledger.ops(layer.name, "synops", synop(prices, bits), synops)
    fetched = synops if flow.fetch == "per_event" else stored.fetched(counted.fetched, flow.fetch)
    ledger.words(layer.name, "weight reads", fetched, stored.bits, stored.size, "weights")
    if flow.sums == "memory":
        potentials = layer.potentials(state)
        ledger.words(layer.name, "potential reads and writes", 2 * synops, state, potentials, "states", shared=True)
    ledger.ops(layer.name, "bias adds", "add", counted.bias_adds)
    passes = counts.T * counts.batch if flow.fetch == "per_step" else counts.batch
    biases = counted.bias_adds if flow.fetch == "per_event" else min(counted.bias_adds, layer.biases * passes)
    ledger.words(layer.name, "bias reads", biases, state, layer.bias_memory(state), "states")


def _queue(layer: Synapses, counts: Counts, flow: Dataflow, ledger: Ledger, accesses: int, value: int) -> None:
    """Charge the queue before a weighted layer: it holds one step, or all of them where a layer waits for the next.

    A step that is computed for all is held alone.
    """
    counted = counts.weighted[layer.name]
    once = counts.repeating.get(layer.name, Repeating(0)) if flow == _IN_REGISTERS else Repeating(0)
    of_once = once.in_nonzero / counts.T
    bits = event_bits(layer.inputs, value, signed=layer.name in counts.signed)
    held = counts.T if flow.fetch == "per_inference" else 1
    for samples, events, steps in (
        (once.samples, of_once, 1),
        (counts.batch - once.samples, counted.in_nonzero - of_once, held),
    ):
        if samples:
            size = size_bytes(layer.inputs * steps, bits)
            ledger.words(layer.name, "queue writes and reads", accesses * events, bits, size)


def _updates(
    program: Program, node: Population, counts: Counts, prices: PriceList, flow: Dataflow, ledger: Ledger
) -> None:
    charge_updates(program, node, counts, prices, ledger)
    counted, bits = counts.neurons[node.name], prices.accumulator_bits
    moved = counted.neuron_updates if leaks(node) else counted.neuron_updates_touched
    words, in_registers = state_values(node), flow == _IN_REGISTERS
    # with sums in memory each addition has moved its potential already, and without a leak nothing else does
    if in_registers or (flow.sums == "memory" and not leaks(node)):
        moved = 0
    memory = 0 if in_registers else size_bytes(words, bits)
    ledger.words(node.name, "state reads and writes", 2 * words * moved / counted.neurons, bits, memory, "states")


def charge_updates(program: Program, node: Population, counts: Counts, prices: PriceList, ledger: Ledger) -> None:
    """Charge the updates of a neuron node or a Cell: each operation on the state at its price."""
    counted = counts.neurons[node.name]
    updates = counted.neuron_updates * roundings(program, node)
    done = node_ops(node, replace(counted, neuron_updates=updates), prices.numbers)
    ledger.ops(node.name, "leak multiplies", leak_multiply(prices), done.leak_muls)
    ledger.ops(node.name, "other multiplies", state_multiply(prices), done.other_muls)
    ledger.ops(node.name, "leak shifts", shift(prices), done.shifts)
    ledger.ops(node.name, "adds and compares", "add", done.adds)
    ledger.ops(node.name, "divisions", division(prices), done.divs)
    ledger.ops(node.name, "look-ups", lookup(prices), done.lookups)


def ann(
    program: Program,
    counts: Counts,
    prices: PriceList,
    flow: Dataflow,
    *,
    active: Active = 1.0,
    bits: int | Mapping[str, Width] | None = None,
    input_reads: Literal["once", "per_mac"] = "once",
) -> tuple[Item, ...]:
    """Price one dense pass of the twin.

    active: share of the MACs on non-zero inputs, or a measured twin, which also has weights of its own; the others are
    skipped: neither multiplied, nor their weights and sums fetched. bits: of activations, by node or all alike (None:
    as wide as weights). input_reads: ``per_mac`` where nothing is reused at all.
    """
    ledger = Ledger(prices)
    act = prices.weight_bits if bits is None else bits
    wide = act if isinstance(act, Mapping) else dict.fromkeys(program.by_name, Width(act, act, act))
    places = meeting_places(program, counts)
    for layer in synapses(program):
        share = active if isinstance(active, float) else active.active(layer.name)
        fetched = 1.0
        if not isinstance(active, float):
            layer = layer.with_weights(active.nonzero_weights)
            fetched = active.fetched.get(layer.name, 1.0)
        _dense_layer(
            layer,
            prices,
            flow,
            ledger,
            share,
            fetched,
            wide[layer.name].read,
            [wide[name].written for name in places[layer.name]],
            per_mac=input_reads == "per_mac",
        )
    for name, pool in counts.pools.items():
        ledger.ops(name, "pool adds", "add", _share(active, name) * pool.synapses)
        inputs, outputs, (read, written, _) = input_words(program, name), prod(program.by_name[name].shape), wide[name]
        ledger.words(name, "input reads", inputs, read, size_bytes(inputs, read))
        ledger.words(name, "output writes", outputs, written, size_bytes(outputs, written))
    for name, maximum in counts.maxima.items():
        node, (read, written, _) = program.by_name[name], wide[name]
        _maxima(node, maximum, counts.T * counts.batch, ledger, read, times=1)
        ledger.words(name, "output writes", prod(node.shape), written, size_bytes(prod(node.shape), written))
    for name, product in counts.products.items():
        done, (read, written, narrow) = _share(active, name) * product.synapses, wide[name]
        ledger.ops(name, "MACs: multiply", multiply(prices, narrow, read), done)
        ledger.ops(name, "MACs: add", "ac", done)
        operands = done if flow.fetch == "per_event" else min(done, product.values)
        ledger.words(name, "operand reads", operands, read, size_bytes(product.values, read))
        if flow.sums == "memory":
            sums = size_bytes(product.outputs, prices.accumulator_bits)
            ledger.words(name, "partial sum reads and writes", 2 * done, prices.accumulator_bits, sums)
        ledger.words(name, "output writes", product.outputs, written, size_bytes(product.outputs, written))
    charge_relus(program, counts, prices, ledger, {name for name, width in wide.items() if width.written == 1})
    return ledger.items()


def _share(active: Active, name: str) -> float:
    """Return the share of the work at a pool or product that is done: what was measured there, else all of it."""
    return 1.0 if isinstance(active, float) else active.by_layer.get(name, 1.0)


def _dense_layer(
    layer: Synapses,
    prices: PriceList,
    flow: Dataflow,
    ledger: Ledger,
    active: float,
    met: float,
    act: int,
    written: Iterable[int],
    *,
    per_mac: bool,
) -> None:
    weight, state = prices.weight_bits, prices.accumulator_bits
    stored = layer.stored(weight)
    done = active * (layer.macs_nonzero if stored.compressed else layer.macs)
    ledger.ops(layer.name, "MACs: multiply", multiply(prices, act), done)
    ledger.ops(layer.name, "MACs: add", "ac", done)
    fetched = done if flow.fetch == "per_event" else min(done, met * stored.words)
    ledger.words(layer.name, "weight reads", fetched, stored.bits, stored.size, "weights")
    if flow.sums == "memory":
        ledger.words(layer.name, "partial sum reads and writes", 2 * done, state, layer.potentials(state))
    biased = layer.outputs if layer.biases else 0
    ledger.ops(layer.name, "bias adds", "add", biased)
    biases = biased if flow.fetch == "per_event" else layer.biases
    ledger.words(layer.name, "bias reads", biases, state, layer.bias_memory(state), "states")
    read = done if per_mac else layer.inputs
    ledger.words(layer.name, "input reads", read, act, size_bytes(layer.inputs, act))
    for bits in written:
        ledger.words(layer.name, "output writes", layer.outputs, bits, size_bytes(layer.outputs, bits))


def charge_relus(
    program: Program, counts: Counts, prices: PriceList, ledger: Ledger, one_bit: Collection[str] = ()
) -> None:
    """Charge one comparison for each activation, and its requantisation if it is stored narrower than it is summed.

    one_bit: nodes whose activations are 0 or 1, which the comparison makes.
    """
    for node in firing(program):
        neurons = counts.neurons[node.name].neurons * roundings(program, node)
        ledger.ops(node.name, "ReLU compares", "add", neurons)
        if requantises(prices) and node.name not in one_bit:
            ledger.ops(node.name, "requantisation", requantisation(prices), neurons)
