"""Products of two signals: spiking attention."""

from __future__ import annotations

import numpy as np

from stl_deploy.graph.program import Operand, Product, Reshape, Scale, Shape
from stl_deploy.tracing.layers import weights
from stl_deploy.tracing.layers.builder import Builder
from stl_deploy.tracing.layers.draft import Operands
from stl_deploy.tracing.steps import Ref, Signal


def batched(build: Builder, signal: Signal) -> Operands:
    """``bmm`` of two signals, or of one and weights."""
    left, right = signal.args[:2]
    if isinstance(left, Ref) and isinstance(right, Ref):
        return product(build, signal, (left, right), matrices=True)
    return weights.linear(build, signal)


def product(build: Builder, signal: Signal, operands: tuple[Ref, Ref], *, matrices: bool = False) -> Operands:
    """Two signals multiplied, as matrices or element by element; the latter in the shape of the result."""
    shape = build.shape(signal)
    sources, shapes = [], []
    for ref in operands:
        before = build.shape(ref.signal)
        terms = build.read(ref)
        if not matrices:
            terms = build.widened(terms, before, shape)
            before = shape
        sources.append(_one_source(build, terms, before))
        shapes.append(before)
    node = Product(
        name=build.name("product", signal.node.place.module),
        shape=shape,
        operands=tuple(sources),
        operand_shapes=(shapes[0], shapes[1]),
        matrices=matrices,
    )
    return build.add(node)


def _one_source(build: Builder, terms: Operands, shape: Shape) -> Operand:
    """Terms as one source of a shape, for operands are not summed."""
    if len(terms) > 1:
        name = build.name("sum", "")
        known = build.shape_of(terms) or shape
        terms = build.add(Scale(name=name, shape=known, operands=terms, scale=np.ones((), np.float32)))
    (source,) = terms
    node = build.nodes.get(source.node)
    if node is None or node.shape == shape:
        return source
    (source,) = build.add(Reshape(name=build.name("flatten", ""), shape=shape, operands=terms, input_shape=node.shape))
    return source
