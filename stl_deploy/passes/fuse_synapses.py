"""Fuse a leaky current that feeds one neuron alone into that neuron, as its synapse (CubaLIF)."""

from __future__ import annotations

from dataclasses import replace

from stl_deploy.graph.program import Neuron, Synapse
from stl_deploy.passes.base import Nodes, Pass, rewrite


def _fuse(nodes: Nodes) -> Nodes:
    """Turn a leaky current that feeds one neuron only into its synapse (CubaLIF)."""
    fused = dict(nodes)
    for name, node in nodes.items():
        if not isinstance(node, Neuron) or node.decay is None or node.synapse is not None or len(node.operands) != 1:
            continue
        (source,) = node.operands
        current = fused.get(source.node)
        if not isinstance(current, Neuron) or current.spiking or source.delay or current.decay is None:
            continue
        plain = current.offset is None and current.v_min is None and current.synapse is None
        readers = sum(s.node == current.name for other in nodes.values() for s in other.operands)
        if plain and readers == 1 and "output" in nodes:
            synapse = Synapse("euler", current.decay, current.gain)
            fused[name] = replace(node, operands=current.operands, synapse=synapse, i_start=current.v_start)
            del fused[current.name]
    return fused


PASS = Pass("fuse_synapses", rewrite(_fuse), "bits")
