"""Build reshapes, concatenations, and copies."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stl_deploy.graph.program import Concat, Gather, Neuron, Norm, Reshape, Shape
from stl_deploy.tracing.layers.arguments import number
from stl_deploy.tracing.layers.builder import Builder
from stl_deploy.tracing.layers.draft import Operands
from stl_deploy.tracing.unrolling.layout import BATCH, shape_of
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import Ref, Signal


def same(build: Builder, signal: Signal) -> Operands:
    """Build a copy, or another type of number."""
    return build.read(signal.args[0])


def reshape(build: Builder, signal: Signal) -> Operands:
    """Build the same values in another shape."""
    (x,) = signal.args
    return reshaped(build, signal, build.read(x), build.shape(x.signal))


def reshaped(build: Builder, signal: Signal, terms: Operands, before: Shape) -> Operands:
    """Return terms in the shape of a signal; flat terms, or ones that were flat before a reshape, stay flat."""
    shape = build.shape(signal)
    known = build.shape_of(terms) or before
    if shape == known:
        return terms
    inner = build.nodes.get(terms[0].node) if len(terms) == 1 and not terms[0].delay else None
    if isinstance(inner, Reshape):
        if inner.input_shape == shape:
            return inner.operands
        if prod(shape) == shape[0]:
            terms, known = inner.operands, inner.input_shape
    return reshape_node(build, signal, terms, known, shape)


def flat(build: Builder, signal: Signal, x: Ref) -> Operands:
    """Return ``x`` as one axis."""
    if x.signal.node.name == "reshape":
        inner = x.signal.args[0]
        x = Ref(inner.signal, inner.lag + x.lag)
    terms = build.read(x)
    known = build.shape_of(terms) or build.shape(x.signal)
    if len(known) == 1:
        return terms
    return reshape_node(build, signal, terms, known, (prod(known),))


def reshape_node(build: Builder, signal: Signal, terms: Operands, before: Shape, shape: Shape) -> Operands:
    """Reshape terms of one shape to another, named after the module that made a signal."""
    name = build.name("flatten", signal.node.place.module)
    return build.add(Reshape(name=name, shape=shape, operands=terms, input_shape=before))


def rearranged(build: Builder, signal: Signal) -> Operands:
    """Move values to the places that the operation moves numbers to."""
    x = signal.args[0]
    before = build.shape(x.signal)
    # counted from 1, as the operation itself puts in zeros where nothing comes from x
    numbers = torch.arange(1, prod(before) + 1, dtype=torch.float64)
    numbers = numbers.reshape(shape_of(x.signal.node.layout, {BATCH: 1}))
    moved = signal.made_of(lambda ref: numbers, {BATCH: 1})
    return gathered(build, build.read(x), before, moved.long().numpy().reshape(build.shape(signal)) - 1)


def gathered(build: Builder, terms: Operands, before: Shape, places: NDArray[np.int64]) -> Operands:
    """Put values of ``before`` where their flat places are, -1 for 0."""
    before = build.shape_of(terms) or before
    name = build.name("order", "")
    return build.add(Gather(name=name, shape=places.shape, operands=terms, indices=places, input_shape=before))


def concatenated(build: Builder, signal: Signal) -> Operands:
    """Concatenate channels of several signals and constants: [x; c] = [x; 0] + [0; c], or a norm around zeros."""
    parts, axis = signal.args
    refs = [part for part in parts if isinstance(part, Ref)]
    constants = [number(part) for part in parts if isinstance(part, Node)]
    if not any(bool(constant.any()) for constant in constants):
        return _with_zeros(build, signal, refs)
    around = _around_norm(build, signal, refs, constants)
    if around is not None:
        return around
    name, shape = build.name("sum", signal.node.place.module), build.shape(signal)
    zeros = (torch.zeros(shape_of(ref.signal.node.layout, {BATCH: 1})) for ref in refs)
    whole = [next(zeros) if isinstance(part, Ref) else number(part) for part in parts]
    offset = torch.cat(whole, axis).float().numpy().reshape(shape)
    terms = _with_zeros(build, signal, refs)
    return build.add(Neuron(name=name, shape=shape, operands=terms, decay=None, threshold=None, offset=offset))


def _with_zeros(build: Builder, signal: Signal, refs: list[Ref]) -> Operands:
    """Concatenate signals, and zeros in the place of constants."""
    parts, axis = signal.args
    sources: list[Operands] = [_one_source(build, ref) for ref in refs]
    shapes = [build.shape(ref.signal) for ref in refs]
    if axis == 1 and len(signal.node.layout[0]) == 1 and len(refs) == len(parts):
        return _concat(build, signal, sources, [shape[0] for shape in shapes], build.shape(signal))
    sizes = [prod(shape) for shape in shapes]
    flat = [reshape_node(build, signal, t, s, (n,)) for t, s, n in zip(sources, shapes, sizes, strict=True)]
    whole = _concat(build, signal, flat, sizes, (sum(sizes),))
    places = torch.cat(_places(signal), axis).numpy().reshape(build.shape(signal))
    return gathered(build, whole, (sum(sizes),), places)


def _around_norm(build: Builder, signal: Signal, refs: list[Ref], constants: list[Tensor]) -> Operands | None:
    """Return a norm of its input with zeros around it, if the constants are what it makes of zeros; else None."""
    (source, *others) = build.read(refs[0])
    norm = build.nodes.get(source.node)
    if others or source.delay or len(refs) > 1 or not isinstance(norm, Norm) or norm.axis:
        return None
    of_zeros = torch.as_tensor(norm.shift - (0 if norm.mean is None else norm.scale * norm.mean))
    of_zeros = of_zeros.reshape(1, -1, *(1,) * (len(norm.shape) - 1))
    if not all(torch.allclose(constant.double(), of_zeros, 1e-5, 1e-6) for constant in constants):
        return None
    places = torch.cat(_places(signal), signal.args[1]).numpy().reshape(build.shape(signal))
    padded = gathered(build, norm.operands, norm.shape, places)
    name = build.name("norm", signal.node.place.module)
    return build.add(replace(norm, name=name, shape=build.shape(signal), operands=padded))


def _places(signal: Signal) -> list[Tensor]:
    """Return the flat place of each value of each part among all signals' values, in the part's shape; -1 for zeros."""
    parts, axis = signal.args
    places, start = [], 0
    whole = shape_of(signal.node.layout, {BATCH: 1})
    for part in parts:
        if isinstance(part, Ref):
            shape = shape_of(part.signal.node.layout, {BATCH: 1})
            places.append(torch.arange(start, start + prod(shape)).reshape(shape))
            start += prod(shape)
        else:
            count = number(part).shape[axis]
            places.append(torch.full((*whole[:axis], count, *whole[axis + 1 :]), -1))
    return places


def _concat(build: Builder, signal: Signal, sources: list[Operands], sizes: list[int], shape: Shape) -> Operands:
    return build.add(
        Concat(
            name=build.name("concat", signal.node.place.module),
            shape=shape,
            operands=tuple(source for terms in sources for source in terms),
            sizes=tuple(sizes),
        )
    )


def _one_source(build: Builder, part: Ref) -> Operands:
    """Return a signal as one source, since a Concat's sources are not summed."""
    terms = build.read(part)
    if len(terms) == 1:
        return terms
    shape = build.shape(part.signal)
    return build.add(Reshape(name=build.name("sum", ""), shape=shape, operands=terms, input_shape=shape))
