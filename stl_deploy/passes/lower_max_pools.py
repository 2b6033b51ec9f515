"""Replace max pooling of spikes by sum pooling and a threshold: max(s) = [Σs > 1/2] for s in {0, 1}.

Max pools of currents stay: NIR has no node for them; ONNX, C and the energy counts support them.
"""

from __future__ import annotations

import numpy as np

from stl_deploy.graph.convolutions import window_sum
from stl_deploy.graph.program import MaxPool, Neuron, Node, Operand, Pool, Program, is_binary
from stl_deploy.passes.base import Nodes, Pass, Rewritten, free, with_nodes


def _lower(program: Program) -> Rewritten:
    """Replace max pools of spikes by a sum pool and a threshold of 1/2."""
    lowered: Nodes = {}
    for name, layer in program.by_name.items():
        if not isinstance(layer, MaxPool) or len(layer.operands) != 1 or not is_binary(program, layer.operands[0].node):
            lowered[name] = layer
            continue
        sums = _sum_pool(free({**program.by_name, **lowered}, f"{name}_sum"), layer)
        lowered[sums.name] = sums
        lowered[name] = Neuron(
            name=name,
            shape=layer.shape,
            operands=(Operand(sums.name),),
            decay=None,
            threshold=np.asarray(0.5, np.float32),
        )
    return Rewritten(with_nodes(program, lowered))


def _sum_pool(name: str, pool: MaxPool) -> Node:
    if len(pool.kernel) == 1 or any(before != after for before, after in pool.padding):
        return window_sum(name, pool.operands, pool.input_shape, pool.kernel, pool.stride, pool.padding)
    return Pool(
        name=name,
        shape=pool.shape,
        operands=pool.operands,
        kernel=pool.kernel,
        stride=pool.stride,
        padding=pool.padding,
        divisor=1,
        input_shape=pool.input_shape,
    )


PASS = Pass("lower_max_pools", _lower, "bits")
