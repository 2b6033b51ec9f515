"""Replace max pooling of spikes by sum pooling and a threshold: max(s) = [Σs > 1/2] for s in {0, 1}."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stl_deploy.errors import UnsupportedError
from stl_deploy.graph.convolutions import line_sum
from stl_deploy.graph.program import MaxPool, Neuron, Node, Pool, Program, Source, is_binary
from stl_deploy.passes.base import Nodes, Pass, rewrite


def _of_currents(program: Program) -> Iterator[UnsupportedError]:
    """Max pools of values that are not 0 or 1 by structure."""
    for pool in program.of(MaxPool):
        if len(pool.sources) != 1 or not is_binary(program, pool.sources[0].node):
            yield UnsupportedError(
                "takes the maximum of currents, which no event-driven graph computes",
                node=pool.name,
                slug="max-pool-of-currents",
                remedy="pool the spikes (move the pool behind the neuron) or use average pooling",
            )


def _lower(nodes: Nodes) -> Nodes:
    """Max pooling of spikes as sum pooling and a threshold of 1/2."""
    found: Nodes = {}
    for name, layer in nodes.items():
        if not isinstance(layer, MaxPool):
            found[name] = layer
            continue
        found[f"{name}_sum"] = _sum_pool(f"{name}_sum", layer)
        found[name] = Neuron(
            name=name,
            shape=layer.shape,
            sources=(Source(f"{name}_sum"),),
            decay=None,
            threshold=np.asarray(0.5, np.float32),
        )
    return found


def _sum_pool(name: str, pool: MaxPool) -> Node:
    if len(pool.kernel) == 1:
        pad = pool.padding[0][0]
        return line_sum(name, pool.sources, pool.input_shape, pool.kernel[0], pool.stride[0], pad, 1)
    return Pool(
        name=name,
        shape=pool.shape,
        sources=pool.sources,
        kernel=pool.kernel,
        stride=pool.stride,
        padding=pool.padding,
        divisor=1,
        input_shape=pool.input_shape,
    )


PASS = Pass("lower_max_pools", rewrite(_lower), "bits", refusals=_of_currents, removes=(MaxPool,))
