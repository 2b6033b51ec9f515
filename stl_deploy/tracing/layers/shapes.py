"""Reshaping, concatenation, and copies."""

from __future__ import annotations

from math import prod

from stl_deploy.graph.program import Reshape, Shape
from stl_deploy.nn.layer_graph import Concat
from stl_deploy.tracing.layers.builder import Builder, refusal
from stl_deploy.tracing.layers.draft import Terms
from stl_deploy.tracing.steps import Ref, Signal


def same(build: Builder, signal: Signal) -> Terms:
    """A copy, or another type of number."""
    return build.read(signal.args[0])


def reshape(build: Builder, signal: Signal) -> Terms:
    """The same values in another shape."""
    (x,) = signal.args
    return reshaped(build, signal, build.read(x), build.shape(x.signal))


def reshaped(build: Builder, signal: Signal, terms: Terms, before: Shape) -> Terms:
    """Terms in the shape of a signal; what is flat already, or was before it got another shape, stays so."""
    shape = build.shape(signal)
    known = build.shape_of(terms) or before
    if shape == known:
        return terms
    inner = build.nodes.get(terms[0].node) if len(terms) == 1 and not terms[0].delay else None
    if isinstance(inner, Reshape):
        if inner.input_shape == shape:
            return inner.sources
        if prod(shape) == shape[0]:
            terms, known = inner.sources, inner.input_shape
    return _reshape_node(build, signal, terms, known, shape)


def flat(build: Builder, signal: Signal, x: Ref) -> Terms:
    """What ``x`` is, as one axis."""
    if x.signal.node.name == "reshape":
        inner = x.signal.args[0]
        x = Ref(inner.signal, inner.lag + x.lag)
    terms = build.read(x)
    known = build.shape_of(terms) or build.shape(x.signal)
    if len(known) == 1:
        return terms
    return _reshape_node(build, signal, terms, known, (prod(known),))


def _reshape_node(build: Builder, signal: Signal, terms: Terms, before: Shape, shape: Shape) -> Terms:
    name = build.name("flatten", signal.node.place.module)
    return build.add(Reshape(name=name, shape=shape, sources=terms, input_shape=before))


def concatenated(build: Builder, signal: Signal) -> Terms:
    """Channels of several signals, one after another."""
    parts, axis = signal.args
    if axis != 1:
        raise refusal(
            signal, f"expected a concatenation of channels (axis 1 of [B, C, ...]); found axis {axis}; join channels"
        )
    sources: list[Terms] = [_one_source(build, part) for part in parts]
    return build.add(
        Concat(
            name=build.name("concat", signal.node.place.module),
            shape=build.shape(signal),
            sources=tuple(source for terms in sources for source in terms),
            sizes=tuple(build.shape(part.signal)[0] for part in parts),
        )
    )


def _one_source(build: Builder, part: Ref) -> Terms:
    """A signal as one source, for a Concat's sources are not summed."""
    terms = build.read(part)
    if len(terms) == 1:
        return terms
    shape = build.shape(part.signal)
    return build.add(Reshape(name=build.name("sum", ""), shape=shape, sources=terms, input_shape=shape))
