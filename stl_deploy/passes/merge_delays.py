"""Make one Delay of delays that scales share out among the elements: Σ_k m_k·x[t − k] = (Σ_k m_k)·x[t − d].

Where each element has exactly one m_k that is not 0, d is its k. It is how ``gather`` and ``buffer[delay, :, channel]``
are captured (m_k of 0 and 1), and what learned delays are once they are rounded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.graph.program import Delay, Linear, Operand, Scale
from stl_deploy.passes.base import Nodes, Pass, by_row, free, readers_of, rewrite


@dataclass(frozen=True)
class LateTerm:
    """A source of a node that reaches it through one layer of weights, read by it alone, and uniform delays.

    source: of the reader. layer, base: names of the layer and of the signal that it weighs. lag: steps in all, of which
    behind: behind the layer. between: Delay nodes that nothing else reads.
    """

    source: Operand
    layer: str
    base: str
    lag: int
    behind: int
    between: tuple[str, ...]


def late_terms(nodes: Nodes, reader: str, kind: type[Linear] | type[Scale]) -> dict[str, list[LateTerm]]:
    """The terms that a reader adds up, by layers of a kind, by the signal that they weigh."""
    by_base: dict[str, list[LateTerm]] = defaultdict(list)
    for source in nodes[reader].operands if nodes[reader].combine == "add" else ():
        term = _term(nodes, source, kind)
        if term is not None:
            by_base[term.base].append(term)
    return by_base


def _term(nodes: Nodes, source: Operand, kind: type[Linear] | type[Scale]) -> LateTerm | None:
    at, lag, behind, layer, between = source, source.delay, 0, None, []
    while True:
        node = nodes[at.node]
        own = len(node.operands) == 1 and len(readers_of(nodes, at.node)) == 1
        if isinstance(node, Delay) and not node.steps.ndim and len(node.operands) == 1 and (own or layer is not None):
            lag += int(node.steps)
            between += [at.node] if own else []
        elif isinstance(node, Scale) and own and not node.scale.ndim and node.scale == 1:
            between.append(at.node)
        elif isinstance(node, kind) and layer is None and own:
            layer, behind = at.node, lag
        else:
            return None if layer is None else LateTerm(source, layer, at.node, lag, behind, tuple(between))
        at = node.operands[0]
        lag += at.delay


def without(nodes: Nodes, terms: Collection[LateTerm], reader: str) -> None:
    """Take terms and what they alone read out of the nodes."""
    gone = {term.source for term in terms}
    nodes[reader] = replace(nodes[reader], operands=tuple(s for s in nodes[reader].operands if s not in gone))
    for term in terms:
        for name in (term.layer, *term.between):
            nodes.pop(name, None)


def _merge(nodes: Nodes) -> Nodes:
    """Scaled terms of one signal, late by different steps, as a Delay with steps for each element."""
    rewritten = dict(nodes)
    for name in nodes:
        for base, terms in late_terms(rewritten, name, Scale).items() if name in rewritten else ():
            shared = _shared_out(rewritten, terms, base)
            if shared is None:
                continue
            steps, scale = shared
            late = free(rewritten, f"{base}_late_to_{name}")
            without(rewritten, terms, name)
            rewritten[late] = Delay(name=late, shape=steps.shape, operands=(Operand(base),), steps=steps)
            if not (scale == 1).all():
                scaled = free(rewritten, f"{late}_scale")
                rewritten[scaled] = Scale(name=scaled, shape=steps.shape, operands=(Operand(late),), scale=scale)
                late = scaled
            rewritten[name] = replace(rewritten[name], operands=(Operand(late), *rewritten[name].operands))
    return rewritten


def _shared_out(nodes: Nodes, terms: list[LateTerm], base: str) -> tuple[NDArray[np.int64], NDArray[Any]] | None:
    """Return the delay and the scale of each element; None where an element has no term, or several."""
    shape = nodes[base].shape
    scales = [nodes[term.layer].scale for term in terms]  # type: ignore[attr-defined]
    if len(terms) < 2 or any(nodes[term.layer].shape != shape for term in terms):
        return None
    wide = np.stack([np.broadcast_to(scale, shape) for scale in scales])
    if not ((wide != 0).sum(axis=0) == 1).all():
        return None
    lags = by_row(np.array([term.lag for term in terms], np.int64), wide.ndim)
    return ((wide != 0) * lags).sum(axis=0), wide.sum(axis=0, dtype=wide.dtype)


PASS = Pass("merge_delays", rewrite(_merge), "bits")
