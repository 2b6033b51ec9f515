"""Random Programs whose weights lie on no grid that float32 could sum exactly."""

from dataclasses import replace

import numpy as np

from stl_deploy.graph.program import Conv, Linear, Neuron, Program


def with_weights(program, seed, bits=30):
    """``program`` with normal weights (multiples of 2^-bits as far as float32 holds them) and biases of 2^-10."""
    rng = np.random.default_rng(seed)

    def drawn(shape, bits):
        return np.ldexp(np.round(np.ldexp(rng.normal(0, 0.7, shape), bits)), -bits).astype(np.float32)

    def change(node):
        if not isinstance(node, Linear | Conv):
            return node
        bias = None if node.bias is None else drawn(node.bias.shape, 10)
        return replace(node, weight=drawn(node.weight.shape, bits), bias=bias)

    return Program(tuple(change(node) for node in program.nodes), program.dt, program.metadata)


def shallow(program):
    """Whether no value passes two synapses without spikes between, so that sums need few bits."""
    depth = {node.name: 0 for node in program.nodes}
    for _ in program.nodes:
        for node in program.nodes:
            if not (isinstance(node, Neuron) and node.spiking):
                arriving = max((depth[source.node] for source in node.operands), default=0)
                depth[node.name] = min(arriving + isinstance(node, Linear | Conv), 2)
    return max(depth.values()) < 2
