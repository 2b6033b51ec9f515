"""Merge average (and sum) pooling into adjacent weights, for targets without graded sums.

Pooling is linear, so a pool and the next layer are one layer. For a pool with window k and stride t, and a convolution
with weights w, stride s, dilation d and padding p:

    y[o] = Σ_i w[i] · (1/n) Σ_{u<k} x[(o·s + i·d − p)·t + u − q]

This is a convolution with stride s·t, padding p·t + q and weights w[i]/n at place i·d·t + u (added up where windows
overlap). With p > 0 the pool must tile its input: t = k, q = 0 and no remainder. A dense layer behind a flattened pool
becomes a dense layer of the pool's input. Both are equal in real arithmetic, and in float32 if n is a power of two and
windows do not overlap.

A pool without padding over the sums of a convolution merges into that convolution: stride s·t, its own padding, bias
b·Σ1/n and weights w[i]/n at place i·d + u·s. The output size is the pool's, because
⌊(⌊A/s⌋ - (k-1))/t⌋ = ⌊(A - (k-1)·s)/(s·t)⌋, where A is the input beyond the convolution's window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, NoReturn

import numpy as np

from stl_deploy._util.remedies import remedy
from stl_deploy.errors import UnsupportedError
from stl_deploy.graph.program import Conv, Doubles, Linear, Node, Pool, Program, Reshape, is_spike_max_pool
from stl_deploy.passes.base import Nodes, Pass, Rewritten, bypassed, with_nodes


def _merge_all(program: Program) -> Rewritten:
    nodes: Nodes = dict(program.by_name)
    merged = []
    for pool in program.of(Pool):
        behind, before = _weights_behind(program, pool), _weights_before(program, pool)
        if behind is not None:
            _merge(nodes, pool, behind)
            merged.append(pool.name)
        elif before is not None:
            nodes[before.name] = _strided(nodes[before.name], pool)
            merged.append(pool.name)
    return Rewritten(with_nodes(program, bypassed(nodes, merged)), removed=tuple(merged))


def _refusals(program: Program) -> Iterator[UnsupportedError]:
    for pool in program.of(Pool):
        behind = _weights_behind(program, pool)
        try:
            if behind is not None:
                _merge(dict(program.by_name), pool, behind)
        except UnsupportedError as error:
            yield error


def _weights_behind(program: Program, pool: Pool) -> list[Node] | None:
    """Return the nodes from behind a pool to the weights that it can merge into; None without such weights."""
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


def _weights_before(program: Program, pool: Pool) -> Conv | None:
    """Return the convolution that a pool without padding alone reads; None if there is none."""
    (source, *others) = pool.operands
    node = program.by_name[source.node]
    alone = not others and not source.delay and len(program.readers[node.name]) == 1
    unpadded = not any(before or after for before, after in pool.padding)
    return node if alone and unpadded and isinstance(node, Conv) and len(node.stride) == 2 else None


def _strided(conv: Any, pool: Pool) -> Node:
    """Return a convolution, which may hold a pool before it by now, and the pool behind it as one convolution."""
    kernel = conv.weight.shape[2:]
    places = zip(kernel, conv.dilation, pool.kernel, conv.stride, strict=True)
    weight = np.zeros((*conv.weight.shape[:2], *((n - 1) * d + (k - 1) * s + 1 for n, d, k, s in places)))
    for u, v in product(*map(range, pool.kernel)):
        top, left = u * conv.stride[0], v * conv.stride[1]
        rows, columns = (
            slice(at, at + (n - 1) * d + 1, d) for at, n, d in zip((top, left), kernel, conv.dilation, strict=True)
        )
        weight[:, :, rows, columns] += conv.weight.astype(np.float64) / pool.divisor
    window = pool.kernel[0] * pool.kernel[1] / pool.divisor
    strided: Node = replace(
        conv,
        shape=pool.shape,
        weight=weight,
        bias=None if conv.bias is None else conv.bias.astype(np.float64) * window,
        stride=tuple(s * t for s, t in zip(conv.stride, pool.stride, strict=True)),
        dilation=(1, 1),
    )
    return strided


def _merge(nodes: Nodes, pool: Pool, chain: list[Node]) -> None:
    """Replace the nodes from behind a pool to its weights, in place; the caller bypasses the pool."""
    target = nodes[chain[-1].name]
    if len(pool.operands) != 1:
        _refuse(pool, "it adds up several values", _without_merging())
    if any(len(node.operands) != 1 or node.operands[0].delay for node in chain):
        _refuse(pool, f"'{target.name}' adds up other values, too, or takes them a step late", _without_merging())
    if isinstance(target, Conv):
        if len(chain) > 1:
            _refuse(pool, f"it is reshaped before '{target.name}'", "leave the reshape out")
        nodes[target.name] = _conv(pool, target)
        return
    assert isinstance(target, Linear)
    if len(chain) != 2 or len(chain[0].shape) != 1:
        _refuse(pool, f"it is not flattened once to one axis before '{target.name}'", "flatten it")
    weight = _dense(pool, target)
    nodes[target.name] = replace(target, weight=weight, input_shape=(weight.shape[1],))
    flat = nodes[chain[0].name]
    assert isinstance(flat, Reshape)
    nodes[flat.name] = replace(flat, shape=(weight.shape[1],), input_shape=pool.input_shape)


def _conv(pool: Pool, conv: Conv) -> Conv:
    starts = [before for before, _ in pool.padding]
    if any(before != after for sides in (pool.padding, conv.padding) for before, after in sides):
        _refuse(pool, "its padding, or the convolution's, differs before and after", "pad both sides alike")
    padded = any(before for before, _ in conv.padding)
    divides = all(size % step == 0 for size, step in zip(pool.input_shape[1:], pool.stride, strict=True))
    tiles = pool.kernel == pool.stride and not any(starts) and divides
    # The convolution's padding is whole windows of zeros, which only windows that tile the input continue.
    if padded and not tiles:
        _refuse(pool, f"'{conv.name}' pads what its windows do not end with", "use pools that divide their input")
    weight: Any = _spread(pool, conv)
    stride = tuple(s * t for s, t in zip(conv.stride, pool.stride, strict=True))
    padding = tuple(b * t + q for (b, _), t, q in zip(conv.padding, pool.stride, starts, strict=True))
    window: Any = {"stride": stride, "padding": tuple((p, p) for p in padding), "dilation": (1,) * len(stride)}
    return replace(conv, weight=weight, input_shape=pool.input_shape, **window)


def _spread(pool: Pool, conv: Conv) -> Doubles:
    """Return the convolution's weights over the pool's input."""
    kernel = conv.weight.shape[2:]
    sizes = [(n - 1) * d * t + k for n, d, t, k in zip(kernel, conv.dilation, pool.stride, pool.kernel, strict=True)]
    weight = np.zeros((*conv.weight.shape[:2], *sizes))
    for i, j in product(*map(range, kernel)):
        top, left = (at * d * t for at, d, t in zip((i, j), conv.dilation, pool.stride, strict=True))
        window = weight[:, :, top : top + pool.kernel[0], left : left + pool.kernel[1]]
        window += conv.weight[:, :, i, j, None, None].astype(np.float64) / pool.divisor
    return weight


def _dense(pool: Pool, dense: Linear) -> Any:
    """Return the dense weights over the pool's input, flattened; padding has none."""
    before = [low for low, _ in pool.padding]
    sizes = [n + low + high for n, (low, high) in zip(pool.input_shape[1:], pool.padding, strict=True)]
    over = dense.weight.astype(np.float64).reshape(len(dense.weight), *pool.shape) / pool.divisor
    weight = np.zeros((len(over), pool.shape[0], *sizes))
    for y, x in product(*map(range, pool.shape[1:])):
        top, left = y * pool.stride[0], x * pool.stride[1]
        weight[:, :, top : top + pool.kernel[0], left : left + pool.kernel[1]] += over[:, :, y, x, None, None]
    rows, columns = (slice(low, low + n) for low, n in zip(before, pool.input_shape[1:], strict=True))
    return weight[:, :, rows, columns].reshape(len(over), -1)


def _without_merging() -> str:
    return remedy(cli="leave out --merge-pools", python="leave out merge_pools")


def _refuse(pool: Pool, reason: str, remedy: str) -> NoReturn:
    said = f"the pool cannot be merged into the weights behind it: {reason}"
    raise UnsupportedError(said, node=pool.name, slug="pool-not-merged", remedy=remedy)


PASS = Pass("merge_pools", _merge_all, "real", refusals=_refusals, wanted=lambda options: options.merge_pools)
