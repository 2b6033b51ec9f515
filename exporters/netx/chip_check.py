"""Check a Program against a chip, and warn of weighted sums that another model of Loihi would wrap.

nengo-loihi's emulator wraps the synaptic accumulator (64 times the weighted sum) at 2^21; Lava's models and ours do
not. The chip's own behaviour is not established, so sums that reach the limit give a warning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from stl_deploy.exporters.netx.chain import SynapseStage, read_chain, refusals
from stl_deploy.exporters.netx.chips import Chip
from stl_deploy.exporters.netx.convert import to_graph
from stl_deploy.exporters.netx.layers import NetxFile
from stl_deploy.exporters.netx.placement import Placed, place
from stl_deploy.graph.exact import input_grid
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Program
from stl_deploy.integers.bounds import bounds
from stl_deploy.integers.net import STATE_SHIFT
from stl_deploy.integers.ranges import LayerRange
from stl_deploy.integers.rounding import rounded
from stl_deploy.integers.scales import WEIGHT_TOP
from stl_deploy.integers.simulate import entered_by

WIDE = 2**21 >> STATE_SHIFT


SLUG = "wide-sums"


_WHY = (
    f"nengo-loihi wraps the accumulator at 2^21/64 = {WIDE:,}, Lava does not, and which of them the chip follows was "
    "not established"
)


_REMEDY = "fewer inputs a neuron, smaller weights or fewer input levels avoid it"


def check_chip(program: Program, chip: Chip) -> Iterator[Finding]:
    """Return whether a chip has room.

    Findings: netx's refusals; else each layer's resources, each excess over a limit, and the rounding of its integers.
    """
    refused = refusals(program)
    yield from (from_error(error) for error in refused)
    if refused:
        yield from _too_many(program, chip)
        yield from rounded_if_held(program)
        return
    simple, balanced = place(program, chip, "simple"), place(program, chip, "balanced")
    for node in dict.fromkeys(core.node for core in simple.placement.cores):
        yield Finding("cores", "info", node, f"{_taken(simple, node)}; {_taken(balanced, node)}")
    yield Finding(
        "placement",
        "info",
        None,
        f"cores in all: {len(simple.placement.cores)}; synapse memory counts weights alone, a lower bound; limits: "
        + ", ".join(f"{name} {limit}" for name, limit in chip.limits.items()),
    )
    for where, excess in simple.excess:
        folded = excess.kind == "thresholds"
        remedy = "export with folded thresholds: one per population" if folded else "use fewer neurons or inputs there"
        yield Finding("does-not-fit", "warning" if folded else "error", where, str(excess), remedy)
    yield from rounded(program, [node.name for node in read_chain(program).readout])
    yield from wide_findings(program)


def rounded_if_held(program: Program) -> Iterator[Finding]:
    """Yield what integers would round in a network that netx refuses, up to the last spiking node."""
    last = max((i for i, node in enumerate(program.nodes) if node in program.spiking), default=0)
    yield from rounded(program, {node.name for node in program.nodes[last + 1 :]})


def _too_many(program: Program, chip: Chip) -> Iterator[Finding]:
    """An error for more neurons than the whole chip has, whatever the network's structure."""
    of_cores = [chip.value("cores"), chip.value("neurons_per_core")]
    most = math.prod(limit for limit in of_cores if limit is not None) if None not in of_cores else None
    most = min((limit for limit in (most, chip.value("neurons_per_chip")) if limit is not None), default=None)
    neurons = sum(math.prod(node.shape) for node in program.spiking)
    if most is not None and neurons > most:
        reason = f"{neurons:,} neurons; {chip.name} has {most:,}"
        yield Finding("does-not-fit", "error", None, reason, "use fewer neurons, or several chips")


def _taken(placed: Placed, node: str) -> str:
    cores = [core for core in placed.placement.cores if core.node == node]
    most = max(cores, key=lambda core: core.neurons)

    def most_of(resource: str) -> int:
        return max(core.used[resource] for core in cores)

    return (
        f"{placed.placement.name} placement: cores {len(cores)}; at most, in a core: neurons {most.neurons:,}, "
        f"input axons {most_of('in_axons'):,}, output axons {most_of('out_axons'):,}, "
        f"bytes of synapses {most_of('synapse_bytes'):,}, "
        f"thresholds {max(core.thresholds for core in cores)} (folded: 1)"
    )


def range_warnings(ranges: Iterable[LayerRange]) -> Iterator[str]:
    """Yield a sentence for each layer whose sums could reach 2^15 for some input."""
    for layer in ranges:
        reach = max(-layer.u_worst[0], layer.u_worst[1]) >> STATE_SHIFT
        if reach >= WIDE:
            yield f"'{layer.node}': some input brings a weighted sum to {reach:,}; {_WHY}; {_REMEDY}"


def wide_layers(net: NetxFile) -> Iterator[Finding]:
    """Yield findings for a file's integers and every input up to its scale (1 if it has none)."""
    graph = to_graph(net)
    known = bounds(entered_by(graph, np.array([0, 2 ** (net.fraction_bits or 0)])))
    for key, layer in net.spiking:
        low, high = known[key].sums
        if (reach := max(-low, high)) >= WIDE:
            reason = f"some input brings a weighted sum to {reach:,}; {_WHY}"
            yield Finding(SLUG, "warning", layer.node or key, reason, _REMEDY)


def wide_findings(program: Program) -> Iterator[Finding]:
    """Yield findings before integers are chosen: every row's largest weight is 127. Needs a readable chain."""
    grid = input_grid(program.metadata)
    bound = 1.0 if grid is None else grid.bound * 2.0**grid.fraction_bits
    for stage in read_chain(program).layers:
        if not isinstance(stage, SynapseStage):
            continue
        rows = np.abs(stage.synapse.weight.reshape(len(stage.synapse.weight), -1).astype(np.float64))
        largest = rows.max(axis=1)
        scaled = rows.sum(axis=1)[largest > 0] / largest[largest > 0]
        reach = int(scaled.max(initial=0) * WEIGHT_TOP * bound)
        bound = 1.0
        if reach >= WIDE:
            reason = f"in 8-bit weights some input brings a weighted sum to about {reach:,}; {_WHY}"
            yield Finding(SLUG, "warning", stage.neuron.name, reason, _REMEDY)
