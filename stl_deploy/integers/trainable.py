"""Refuse what integers hold and quantisation-aware training does not."""

from __future__ import annotations

import math

from stl_deploy.errors import UnsupportedError
from stl_deploy.graph.program import Conv, Linear, Neuron, Program, is_spike_max_pool
from stl_deploy.integers.fan_in import FanIn, WeightedPath, fan_in, values
from stl_deploy.integers.lava_layers import check_neuron
from stl_deploy.integers.scales import refuse


def untrainable(program: Program) -> UnsupportedError | None:
    """Return the first refusal of a network's training in integers, None if it can be trained."""
    try:
        require_no_loop(program)
        known = values(program, 1.0)
        for neuron in program.spiking:
            if not is_spike_max_pool(program, neuron):
                check_neuron(neuron)
                trainable_synapses(program, neuron, fan_in(program, neuron, known))
    except UnsupportedError as error:
        return error
    return None


def require_no_loop(program: Program) -> None:
    """Raise UnsupportedError for a node that reads the step before."""
    for node in program.nodes:
        if any(source.delay for source in node.operands):
            refuse(node, "recurrent", "it reads the step before", "train without recurrence, or leave it unquantised")


def trainable_synapses(program: Program, neuron: Neuron, paths: FanIn) -> list[Linear | Conv]:
    """Return the layers of weights that reach a population; raise UnsupportedError for other inputs."""
    if paths.axis != "first":
        refuse(neuron, "linear-over-axes", "its weights are over several axes", "flatten before a Linear")
    if paths.between:
        between = paths.between[0]
        refuse(between, "before-neuron", f"it stands between weights and '{neuron.name}'", "put it behind the neurons")
    return [_synapse(program, neuron, leaf) for leaf in paths.leaves]


def _synapse(program: Program, neuron: Neuron, leaf: WeightedPath) -> Linear | Conv:
    node = leaf.node
    if not isinstance(node, Linear | Conv):
        remedy = "put a convolution of kernel 1 on that path, or add the spikes behind the neurons"
        refuse(neuron, "no-weights", "spikes reach it on a path without its own weights", remedy)
    if len(program.readers[node.name]) > 1:
        refuse(node, "several-readers", "several populations read it", "give each a layer of weights of its own")
    if math.frexp(leaf.unit)[0] != 0.5:
        reason = f"its inputs are multiples of {leaf.unit:.4g}, not of a power of two"
        refuse(node, "pool-size", reason, "use sum pooling, or windows of 2x2 or 4x4")
    return node
