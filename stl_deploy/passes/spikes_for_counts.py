"""Fire once in place of counting to 1: a neuron without memory whose count is at most 1 is one that spikes.

Its threshold is the least float at which the count is 1, so every bit stays. Such a neuron fires before a max pool that
it alone reads, since max(v) ≥ θ is max(v ≥ θ): a max pool of spikes is on more targets than one of currents.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stl_deploy.graph.neurons import fire
from stl_deploy.graph.program import Floats, MaxPool, Neuron, Operand, Program
from stl_deploy.passes.base import Nodes, read_instead, readers_of, with_nodes

_FLOATS = 4
"""Floats beside the quotient 1, or ½, at which rounding may make a count of 1."""


def spikes_for_counts(program: Program) -> Program:
    """Return the Program with spikes in place of counts of at most 1."""
    nodes: Nodes = dict(program.by_name)
    for node in program.of(Neuron):
        if node.threshold is None or not node.multi_spike or node.cap != 1 or node.decay is not None:
            continue
        once: dict[str, Any] = {"multi_spike": False, "cap": None, "rounding": "down", "compare": "ge"}
        nodes[node.name] = spiking = replace(node, threshold=_least(node, node.threshold), **once)
        pool = nodes[node.operands[0].node]
        if isinstance(pool, MaxPool) and len(node.operands) == len(readers_of(nodes, pool.name)) == 1:
            for reader in readers_of(nodes, node.name):
                read_instead(nodes, reader.name, node.name, (Operand(pool.name),))
            nodes[node.name] = replace(spiking, operands=pool.operands, shape=pool.input_shape)
            nodes[pool.name] = replace(pool, operands=(Operand(node.name),))
    return with_nodes(program, nodes)


def _least(node: Neuron, theta: Floats) -> Floats:
    """Return the least potentials at which a neuron's count is 1."""
    about = theta if node.rounding == "down" else theta / 2
    least = np.asarray(about * (1 + _FLOATS * np.finfo(np.float32).eps), np.float32)
    for _ in range(3 * _FLOATS):
        lower, count = np.nextafter(least, np.float32(0)), np.empty_like(least)
        fire(node, lower, count)
        least = np.where(count == 1, lower, least)
    return np.asarray(least, np.float32)
