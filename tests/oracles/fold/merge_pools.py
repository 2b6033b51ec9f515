"""Average (and sum) pooling merged into the weights behind it, for targets that hold no graded sums.

Pooling is linear, so pooling and the layer after it are one layer. Of a pool with window k and stride t and a
convolution with weights w, stride s, dilation d and padding p:

    y[o] = Σ_i w[i] · (1/n) Σ_{u<k} x[(o·s + i·d − p)·t + u − q]

which is a convolution with stride s·t, padding p·t + q and weights w[i]/n at place i·d·t + u (added up where windows
overlap). With p > 0 the pool's own edges must be those of the input: t = k, q = 0 and no row left over. A dense
layer behind a flattened pool becomes a dense layer of the pool's input. Both are equal in real arithmetic, and in
float32 where n is a power of two and no windows overlap.
"""

from __future__ import annotations

from itertools import product
from typing import NoReturn

import nir
import numpy as np

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Conv, Floats, Linear, Node, Pool, Program, Reshape, is_spike_max_pool

Edge = tuple[str, str]


def merge_pools(graph: nir.NIRGraph, dialect: Dialect) -> tuple[nir.NIRGraph, tuple[str, ...]]:
    """The graph without the pools that could be merged, and their names.

    Pools that lead into a Threshold (max pooling of spikes) stay. Raises UnsupportedError naming a pool that has
    weights behind it and cannot be merged into them, with the reason.
    """
    program = lower(graph, dialect)
    nodes, edges, merged = dict(graph.nodes), [tuple(edge) for edge in graph.edges], []
    for pool in program.of(Pool):
        behind = _weights_behind(program, pool)
        if behind is None or pool.name not in nodes:
            continue
        nodes, edges = _merge(program, pool, behind, nodes, edges)
        merged.append(pool.name)
    return nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False), tuple(merged)


def _weights_behind(program: Program, pool: Pool) -> list[Node] | None:
    """The nodes from behind a pool to the weights that it can go into; None if it leads elsewhere."""
    chain: list[Node] = []
    node: Node = pool
    while True:
        readers = program.readers[node.name]
        if len(readers) != 1 or is_spike_max_pool(program, readers[0]):
            return None
        node = readers[0]
        chain.append(node)
        if isinstance(node, Linear | Conv):
            return chain
        if not isinstance(node, Reshape):
            return None


def _merge(
    program: Program, pool: Pool, chain: list[Node], nodes: dict[str, nir.NIRNode], edges: list[Edge]
) -> tuple[dict[str, nir.NIRNode], list[Edge]]:
    target = chain[-1]
    if any(len(node.operands) != 1 or node.operands[0].delay for node in chain) or len(pool.operands) != 1:
        _refuse(pool, f"'{target.name}' adds up other values, too, or takes them a step late", "merge it by hand")
    if isinstance(target, Conv):
        if len(chain) > 1:
            _refuse(pool, f"it is reshaped before '{target.name}'", "leave the reshape out")
        nodes[target.name] = _conv(pool, target)
    else:
        assert isinstance(target, Linear)
        if len(chain) != 2 or len(chain[0].shape) != 1:
            _refuse(pool, f"it is not flattened once to one axis before '{target.name}'", "flatten it")
        nodes[target.name] = _dense(pool, target)
        for node in chain[:-1]:
            nodes[node.name] = nir.Flatten({"input": np.array(pool.input_shape)}, 0, -1)
    (before,) = (source.node for source in pool.operands)
    nodes.pop(pool.name)
    led = [(before if source == pool.name else source, end) for source, end in edges if end != pool.name]
    return nodes, led


def _conv(pool: Pool, conv: Conv) -> nir.Conv2d:
    starts = [before for before, _ in pool.padding]
    if any(before != after for sides in (pool.padding, conv.padding) for before, after in sides):
        _refuse(pool, "its padding, or the convolution's, differs before and after", "pad both sides alike")
    padded = any(before for before, _ in conv.padding)
    whole = all(size % step == 0 for size, step in zip(pool.input_shape[1:], pool.stride, strict=True))
    if padded and (pool.kernel != pool.stride or any(starts) or not whole):
        _refuse(pool, f"'{conv.name}' pads what its windows do not end with", "use pools that divide their input")
    weight = _spread(pool, conv)
    stride = tuple(s * t for s, t in zip(conv.stride, pool.stride, strict=True))
    padding = tuple(b * t + q for (b, _), t, q in zip(conv.padding, pool.stride, starts, strict=True))
    bias = np.zeros(len(weight), np.float32) if conv.bias is None else conv.bias
    return nir.Conv2d(pool.input_shape[1:], weight, stride, padding, 1, conv.groups, bias)


def _spread(pool: Pool, conv: Conv) -> Floats:
    """The convolution's weights over the pool's input."""
    kernel = conv.weight.shape[2:]
    sizes = [(n - 1) * d * t + k for n, d, t, k in zip(kernel, conv.dilation, pool.stride, pool.kernel, strict=True)]
    weight = np.zeros((*conv.weight.shape[:2], *sizes))
    for i, j in product(*map(range, kernel)):
        top, left = (at * d * t for at, d, t in zip((i, j), conv.dilation, pool.stride, strict=True))
        window = weight[:, :, top : top + pool.kernel[0], left : left + pool.kernel[1]]
        window += conv.weight[:, :, i, j, None, None].astype(np.float64) / pool.divisor
    return weight.astype(np.float32)


def _dense(pool: Pool, dense: Linear) -> nir.Affine | nir.Linear:
    """The dense weights over the pool's input, flattened; padding takes none."""
    before = [low for low, _ in pool.padding]
    sizes = [n + low + high for n, (low, high) in zip(pool.input_shape[1:], pool.padding, strict=True)]
    over = dense.weight.astype(np.float64).reshape(len(dense.weight), *pool.shape) / pool.divisor
    weight = np.zeros((len(over), pool.shape[0], *sizes))
    for y, x in product(*map(range, pool.shape[1:])):
        top, left = y * pool.stride[0], x * pool.stride[1]
        weight[:, :, top : top + pool.kernel[0], left : left + pool.kernel[1]] += over[:, :, y, x, None, None]
    rows, columns = (slice(low, low + n) for low, n in zip(before, pool.input_shape[1:], strict=True))
    flat = weight[:, :, rows, columns].reshape(len(over), -1).astype(np.float32)
    return nir.Linear(flat) if dense.bias is None else nir.Affine(flat, dense.bias)


def _refuse(pool: Pool, reason: str, remedy: str) -> NoReturn:
    said = f"the pool cannot be merged into the weights behind it: {reason}"
    raise UnsupportedError(said, node=pool.name, slug="pool-not-merged", remedy=remedy)
