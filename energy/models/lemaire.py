"""Price operations, memory and addressing after Lemaire et al., ICONIP 2022 (arXiv 2210.13107).

Three differences, all towards exactness: a population that several layers feed has its potentials read and written once
a step, and its activations once, not once for each layer; a convolution's synops and weight reads are those inside the
borders (the paper charges K·K·C_out to every event), and eq. 2's second factor N_in, which eqs. 8, 10,
15 and 17 do not have, is left out.
"""

from __future__ import annotations

from stl_deploy.energy.counts.neuron_ops import neuron_ops
from stl_deploy.energy.counts.record import Counts, Population, populations
from stl_deploy.energy.models.dataflow import charge_relus, charge_updates
from stl_deploy.energy.models.layout import meeting_places, queue_accesses, synapses
from stl_deploy.energy.models.ledger import Item, Ledger
from stl_deploy.energy.models.memory import event_bits, size_bytes
from stl_deploy.energy.models.widths import widths
from stl_deploy.energy.prices.price_list import PriceList, synop
from stl_deploy.graph.program import Program


def snn(program: Program, counts: Counts, prices: PriceList) -> tuple[Item, ...]:
    """Price the spiking network: event-driven synapses, biases and leaks at every step, FIFOs between layers."""
    ledger = Ledger(prices, counts.batch)
    weight, state = prices.weight_bits, prices.accumulator_bits
    wide = widths(program, counts, prices)
    places, accesses = meeting_places(program, counts), queue_accesses(program, counts)
    for layer in synapses(program):
        counted = counts.weighted[layer.name]
        steps = layer.outputs * counts.T * counts.batch * len(places[layer.name])
        potentials = layer.potentials(state)
        value = wide[layer.name].read
        ledger.ops(layer.name, "synops", synop(prices, value), counted.synops)
        ledger.ops(layer.name, "bias adds", "add", counted.bias_adds)
        ledger.words(layer.name, "weight reads", counted.synops, weight, layer.weight_memory(weight), "weights")
        ledger.words(layer.name, "bias reads", counted.bias_adds, state, layer.bias_memory(state), "states")
        ledger.words(layer.name, "potential reads", counted.synops + steps, state, potentials, "states")
        ledger.words(layer.name, "potential writes", counted.synops + steps, state, potentials, "states", shared=True)
        bits = event_bits(layer.inputs, value, signed=layer.name in counts.signed)
        queue = size_bytes(layer.inputs, bits)
        ledger.words(layer.name, "queue writes and reads", accesses[layer.name] * counted.in_nonzero, bits, queue)
        ledger.ops(layer.name, "addressing", "add", counted.synops)
        if layer.conv:
            ledger.ops(layer.name, "addressing", "mac", 2 * counted.in_nonzero)
    for name, pool in counts.pools.items():
        ledger.ops(name, "pool adds", "add", pool.synops)
    for name, maximum in counts.maxima.items():
        ledger.ops(name, "max pool compares", "add", maximum.max_compares)
    for name, product in counts.products.items():
        value = wide[name].read
        ledger.ops(name, "products", synop(prices, wide[name].narrow, value), product.synops)
        ledger.words(name, "operand reads", product.synops, value, size_bytes(product.values, value), "states")
        sums = size_bytes(product.outputs, state)
        ledger.words(name, "partial sum reads and writes", 2 * product.synops, state, sums, "states", shared=True)
        ledger.ops(name, "addressing", "add", product.synops)
    for node in populations(program):
        _updates(program, node, counts, prices, ledger)
    return ledger.items()


def _updates(program: Program, node: Population, counts: Counts, prices: PriceList, ledger: Ledger) -> None:
    counted = counts.neurons[node.name]
    ops = neuron_ops(node)
    charge_updates(program, node, counts, prices, ledger)
    # a reset by subtraction is an add in the updates already
    ledger.ops(node.name, "resets", "add", counted.spikes * max(0, ops.resets - ops.adds_per_spike))


def ann(program: Program, counts: Counts, prices: PriceList) -> tuple[Item, ...]:
    """Price one dense pass of the formal twin: no reuse of weights, inputs read once per MAC in a convolution."""
    ledger = Ledger(prices)
    weight, state = prices.weight_bits, prices.accumulator_bits
    places = meeting_places(program, counts)
    for layer in synapses(program):
        written = len(places[layer.name]) * layer.outputs
        reads = layer.macs if layer.conv else layer.inputs
        ledger.ops(layer.name, "MACs", "mac", layer.macs)
        ledger.ops(layer.name, "bias adds", "add", layer.outputs if layer.biases else 0)
        ledger.words(layer.name, "input reads", reads, weight, size_bytes(layer.inputs, weight))
        ledger.words(layer.name, "weight reads", layer.macs, weight, layer.weight_memory(weight), "weights")
        biased = layer.outputs if layer.biases else 0
        ledger.words(layer.name, "bias reads", biased, state, layer.bias_memory(state), "states")
        ledger.words(layer.name, "output writes", written, weight, size_bytes(layer.outputs, weight))
        walked = layer.inputs + layer.outputs + layer.filters
        ledger.ops(layer.name, "addressing", "add", walked if layer.conv else layer.macs)
    for name, pool in counts.pools.items():
        ledger.ops(name, "pool adds", "add", pool.synapses)
    for name, maximum in counts.maxima.items():
        ledger.ops(name, "max pool compares", "add", maximum.max_compares / (counts.T * counts.batch))
    for name, product in counts.products.items():
        ledger.ops(name, "MACs", "mac", product.synapses)
        ledger.words(name, "operand reads", 2 * product.synapses, weight, size_bytes(product.values, weight))
        ledger.words(name, "output writes", product.outputs, weight, size_bytes(product.outputs, weight))
        ledger.ops(name, "addressing", "add", product.synapses)
    charge_relus(program, counts, prices, ledger)
    return ledger.items()
