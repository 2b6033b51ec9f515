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
activation is written once, after its sums. A state that is constant between inputs (an integrator's) is accessed only
when input arrives. Layers with enough zero weights use indexed storage; their zero weights are neither fetched nor
added. Weights and activations have the list's weight width, sums and states its accumulator's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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
from stl_deploy.energy.models.memory import address_bits, size_bytes, state_values
from stl_deploy.energy.prices.price_list import (
    Price,
    PriceList,
    division,
    leak_multiply,
    lookup,
    requantisation,
    requantises,
    shift,
    state_multiply,
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
    in_loops = looped(program)
    if flow == _IN_REGISTERS:
        counts = counts.at_one_step()
    accesses = queue_accesses(program, counts)
    # a loop needs its last step before the next, so no layer in it can run through all steps
    stepped = Dataflow("per_step", flow.sums) if flow.fetch == "per_inference" else flow
    for layer in synapses(program):
        own = stepped if layer.name in in_loops else flow
        _spiking_layer(layer, counts, prices, own, ledger)
        _queue(layer, counts, prices, own, ledger, accesses[layer.name])
    for name, pool in counts.pools.items():
        ledger.ops(name, "pool adds", "add", pool.synops)
        value = 0 if pool.op == "AC" else prices.weight_bits
        bits = address_bits(input_words(program, name)) + value
        moved = accesses[name] * pool.in_nonzero
        ledger.words(name, "queue writes and reads", moved, bits, size_bytes(input_words(program, name), bits))
    for name, maximum in counts.maxima.items():
        _maxima(program.by_name[name], maximum, 1, prices.accumulator_bits, prices, ledger)
    for name, product in counts.products.items():
        _product(name, product, counts, prices, stepped if name in in_loops else flow, ledger)
    for node in populations(program):
        _updates(node, counts, prices, stepped if node.name in in_loops else flow, ledger)
    return ledger.items()


def _product(
    name: str, counted: ProductCounts, counts: Counts, prices: PriceList, flow: Dataflow, ledger: Ledger
) -> None:
    """Charge a product of two signals: an event of one operand reads the other's values, in every step anew."""
    state = prices.accumulator_bits
    bits = prices.weight_bits
    ledger.ops(name, "products", "ac" if counted.op == "AC" else "mac", counted.synops)
    dense = counted.values * counts.T * counts.batch
    read = counted.synops if flow.fetch == "per_event" else min(counted.synops, dense)
    ledger.words(name, "operand reads", read, bits, size_bytes(counted.values, bits), "states")
    if flow.sums == "memory":
        sums = size_bytes(counted.outputs, state)
        ledger.words(name, "partial sum reads and writes", 2 * counted.synops, state, sums, "states", shared=True)
    address = address_bits(counted.values) + (0 if counted.op == "AC" else bits)
    queue = size_bytes(counted.values, address)
    ledger.words(name, "queue writes and reads", 2 * counted.in_nonzero, address, queue)


def _maxima(node: Node, counted: MaxPoolCounts, share: int, bits: int, prices: PriceList, ledger: Ledger) -> None:
    """Charge a max pool: each value of a step read once, the largest written; counts are divided by ``share``."""
    assert isinstance(node, MaxPool)
    ledger.ops(node.name, "max pool compares", "add", counted.max_compares / share)
    for term, values, shape in (
        ("input reads", counted.values_read, node.input_shape),
        ("output writes", counted.values_written, node.shape),
    ):
        ledger.words(node.name, term, values / share, bits, size_bytes(prod(shape), bits))


def _spiking_layer(layer: Synapses, counts: Counts, prices: PriceList, flow: Dataflow, ledger: Ledger) -> None:
    """Charge a weighted layer, without its queue."""
    counted, weight, state = counts.weighted[layer.name], prices.weight_bits, prices.accumulator_bits
    stored = layer.stored(weight)
    synops = counted.synops_nonzero_w if stored.compressed else counted.synops
    ledger.ops(layer.name, "synops", "ac" if counted.op == "AC" else "mac", synops)
    fetched = synops if flow.fetch == "per_event" else stored.fetched(counted.fetched, flow.fetch)
    ledger.words(layer.name, "weight reads", fetched, stored.bits, stored.size, "weights")
    if flow.sums == "memory":
        potentials = layer.potentials(state)
        ledger.words(layer.name, "potential reads and writes", 2 * synops, state, potentials, "states", shared=True)
    ledger.ops(layer.name, "bias adds", "add", counted.bias_adds)
    passes = counts.T * counts.batch if flow.fetch == "per_step" else counts.batch
    biases = counted.bias_adds if flow.fetch == "per_event" else min(counted.bias_adds, layer.biases * passes)
    ledger.words(layer.name, "bias reads", biases, state, layer.bias_memory(state), "states")


def _queue(layer: Synapses, counts: Counts, prices: PriceList, flow: Dataflow, ledger: Ledger, accesses: int) -> None:
    """Charge the queue before a weighted layer: it holds one step, or all of them where a layer waits for the next.

    A step that is computed for all is held alone.
    """
    counted = counts.weighted[layer.name]
    once = counts.repeating.get(layer.name, Repeating(0)) if flow == _IN_REGISTERS else Repeating(0)
    of_once = once.in_nonzero / counts.T
    bits = address_bits(layer.inputs) + (0 if counted.op == "AC" else prices.weight_bits)
    held = counts.T if flow.fetch == "per_inference" else 1
    for samples, events, steps in (
        (once.samples, of_once, 1),
        (counts.batch - once.samples, counted.in_nonzero - of_once, held),
    ):
        if samples:
            size = size_bytes(layer.inputs * steps, bits)
            ledger.words(layer.name, "queue writes and reads", accesses * events, bits, size)


def _updates(node: Population, counts: Counts, prices: PriceList, flow: Dataflow, ledger: Ledger) -> None:
    charge_updates(node, counts, prices, ledger)
    counted, bits = counts.neurons[node.name], prices.accumulator_bits
    moved = counted.neuron_updates if leaks(node) else counted.neuron_updates_touched
    words, in_registers = state_values(node), flow == _IN_REGISTERS
    # with sums in memory each addition has moved its potential already, and without a leak nothing else does
    if in_registers or (flow.sums == "memory" and not leaks(node)):
        moved = 0
    memory = 0 if in_registers else size_bytes(words, bits)
    ledger.words(node.name, "state reads and writes", 2 * words * moved / counted.neurons, bits, memory, "states")


def charge_updates(node: Population, counts: Counts, prices: PriceList, ledger: Ledger) -> None:
    """Charge the updates of a neuron node or a Cell: each operation on the state at its price."""
    done = node_ops(node, counts.neurons[node.name], prices.numbers)
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
    bits: int | None = None,
    input_reads: Literal["once", "per_mac"] = "once",
) -> tuple[Item, ...]:
    """Price one dense pass of the twin.

    active: share of the MACs on non-zero inputs, or a measured twin, which also has weights of its own; the others are
    skipped: neither multiplied, nor their weights and sums fetched. bits: of activations (None: as wide as weights); on
    integers the multiply is priced in proportion to them. input_reads: ``per_mac`` where nothing is reused at all.
    """
    ledger = Ledger(prices)
    act = prices.weight_bits if bits is None else bits
    places = meeting_places(program, counts)
    for layer in synapses(program):
        share = active if isinstance(active, float) else active.active(layer.name)
        fetched = 1.0
        if not isinstance(active, float):
            layer = layer.with_weights(active.nonzero_weights)
            fetched = active.fetched.get(layer.name, 1.0)
        _dense_layer(
            layer, prices, flow, ledger, share, fetched, act, places[layer.name], per_mac=input_reads == "per_mac"
        )
    for name, pool in counts.pools.items():
        ledger.ops(name, "pool adds", "add", pool.synapses)
        read, written = input_words(program, name), prod(program.by_name[name].shape)
        ledger.words(name, "input reads", read, act, size_bytes(read, act))
        ledger.words(name, "output writes", written, act, size_bytes(written, act))
    for name, maximum in counts.maxima.items():
        _maxima(program.by_name[name], maximum, counts.T * counts.batch, act, prices, ledger)
    for name, product in counts.products.items():
        ledger.ops(name, "MACs: multiply", narrowed(prices, act), product.synapses)
        ledger.ops(name, "MACs: add", "ac", product.synapses)
        read = product.synapses if flow.fetch == "per_event" else min(product.synapses, product.values)
        ledger.words(name, "operand reads", read, act, size_bytes(product.values, act))
        if flow.sums == "memory":
            sums = size_bytes(product.outputs, prices.accumulator_bits)
            moved = 2 * product.synapses
            ledger.words(name, "partial sum reads and writes", moved, prices.accumulator_bits, sums)
        ledger.words(name, "output writes", product.outputs, act, size_bytes(product.outputs, act))
    charge_relus(firing(program), counts, prices, ledger)
    return ledger.items()


def _dense_layer(
    layer: Synapses,
    prices: PriceList,
    flow: Dataflow,
    ledger: Ledger,
    active: float,
    met: float,
    act: int,
    places: int,
    *,
    per_mac: bool,
) -> None:
    weight, state = prices.weight_bits, prices.accumulator_bits
    stored = layer.stored(weight)
    done = active * (layer.macs_nonzero if stored.compressed else layer.macs)
    ledger.ops(layer.name, "MACs: multiply", narrowed(prices, act), done)
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
    ledger.words(layer.name, "output writes", places * layer.outputs, act, size_bytes(layer.outputs, act))


def narrowed(prices: PriceList, bits: int) -> Price:
    """Return the price of a multiply of a weight and an activation of ``bits``: proportional on integers only."""
    whole = prices.terms["mul"]
    share = 1.0 if prices.numbers == "float" else bits / prices.weight_bits
    return whole.times(share)


def charge_relus(nodes: Iterable[Population], counts: Counts, prices: PriceList, ledger: Ledger) -> None:
    """Charge one comparison for each activation, and its requantisation if it is stored narrower than it is summed."""
    for node in nodes:
        neurons = counts.neurons[node.name].neurons
        ledger.ops(node.name, "ReLU compares", "add", neurons)
        if requantises(prices):
            ledger.ops(node.name, "requantisation", requantisation(prices), neurons)
