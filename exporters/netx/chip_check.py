"""Check a Program against a chip."""

from __future__ import annotations

import math
from collections.abc import Iterator

from stl_deploy.exporters.netx.accumulator import wide_findings
from stl_deploy.exporters.netx.chain import read_chain, refusals
from stl_deploy.exporters.netx.chips import Chip
from stl_deploy.exporters.netx.placement import Placed, place
from stl_deploy.graph.findings import Finding, from_error
from stl_deploy.graph.program import Program
from stl_deploy.integers.rounding import rounded


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
