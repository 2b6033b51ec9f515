"""Operations, memory and addressing after Lemaire et al., ICONIP 2022 (arXiv 2210.13107).

Two differences, both towards exactness: a convolution's synops and weight reads are those inside the
borders (the paper charges K·K·C_out to every event), and eq. 2's second factor N_in, which eqs. 8, 10,
15 and 17 do not have, is left out.
"""

from __future__ import annotations

from stl_deploy.energy.counts.neuron_ops import neuron_ops
from stl_deploy.energy.counts.record import Counts
from stl_deploy.energy.models.layout import relus, synapses
from stl_deploy.energy.models.ledger import Item, Ledger
from stl_deploy.energy.models.memory import address_bits, size_bytes
from stl_deploy.energy.prices.price_list import PriceList
from stl_deploy.graph.program import Neuron, Program


def snn(program: Program, counts: Counts, prices: PriceList) -> tuple[Item, ...]:
    """The spiking network: event-driven synapses, biases and leaks at every step, FIFOs between layers."""
    ledger = Ledger(prices, counts.batch)
    weight, state = prices.weight_bits, prices.accumulator_bits
    for layer in synapses(program, counts):
        counted = counts.weighted[layer.name]
        steps = layer.outputs * counts.T * counts.batch
        potentials = size_bytes(layer.outputs, state)
        ledger.ops(layer.name, "synops", "ac" if counted.op == "AC" else "mac", counted.synops)
        ledger.ops(layer.name, "bias adds", "add", counted.bias_adds)
        ledger.words(layer.name, "weight reads", counted.synops, weight, layer.weight_memory(weight))
        ledger.words(layer.name, "bias reads", counted.bias_adds, state, layer.bias_memory(state))
        ledger.words(layer.name, "potential reads", counted.synops + steps, state, potentials)
        ledger.words(layer.name, "potential writes", counted.synops + steps, state, potentials)
        queue = layer.queue_memory()
        ledger.words(layer.name, "queue writes and reads", 2 * counted.in_nonzero, address_bits(layer.inputs), queue)
        ledger.ops(layer.name, "addressing", "add", counted.synops)
        if layer.conv:
            ledger.ops(layer.name, "addressing", "mac", 2 * counted.in_nonzero)
    for name, pool in counts.pools.items():
        ledger.ops(name, "pool adds", "add", pool.synops)
    for node in program.of(Neuron):
        _updates(node, counts, ledger)
    return ledger.items()


def _updates(node: Neuron, counts: Counts, ledger: Ledger) -> None:
    counted, each = counts.neurons[node.name], neuron_ops(node)
    ledger.ops(node.name, "leaks", "mul", (each.leak_muls + each.other_muls) * counted.neuron_updates)
    ledger.ops(node.name, "adds and compares", "add", (each.adds + each.compares) * counted.neuron_updates)
    ledger.ops(node.name, "resets", "add", counted.spikes if node.decay is not None else 0)


def ann(program: Program, counts: Counts, prices: PriceList) -> tuple[Item, ...]:
    """One dense pass of the formal twin: no reuse of weights, inputs read once per MAC in a convolution."""
    ledger = Ledger(prices)
    weight, state = prices.weight_bits, prices.accumulator_bits
    for layer in synapses(program, counts):
        reads = layer.macs if layer.conv else layer.inputs
        ledger.ops(layer.name, "MACs", "mac", layer.macs)
        ledger.ops(layer.name, "bias adds", "add", layer.outputs if layer.biases else 0)
        ledger.words(layer.name, "input reads", reads, weight, size_bytes(layer.inputs, weight))
        ledger.words(layer.name, "weight reads", layer.macs, weight, layer.weight_memory(weight))
        biased = layer.outputs if layer.biases else 0
        ledger.words(layer.name, "bias reads", biased, state, layer.bias_memory(state))
        ledger.words(layer.name, "output writes", layer.outputs, weight, size_bytes(layer.outputs, weight))
        walked = layer.inputs + layer.outputs + layer.filters
        ledger.ops(layer.name, "addressing", "add", walked if layer.conv else layer.macs)
    dense_extras(program, counts, ledger)
    return ledger.items()


def dense_extras(program: Program, counts: Counts, ledger: Ledger) -> None:
    """What a dense pass computes besides its weighted layers: pool adds, and one compare for each ReLU."""
    for name, pool in counts.pools.items():
        ledger.ops(name, "pool adds", "add", pool.synapses)
    for node in relus(program):
        ledger.ops(node.name, "ReLU compares", "add", counts.neurons[node.name].neurons)
