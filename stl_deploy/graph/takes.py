"""Refuse nodes of kinds that a target does not take, with the pass that removes them."""

from __future__ import annotations

from collections.abc import Iterator, Set

from stl_deploy.errors import UnsupportedError
from stl_deploy.graph import program as ir

Kinds = Set[type[ir.Node]]
NIR_NODES: Kinds = frozenset(
    {ir.Input, ir.Output, ir.Linear, ir.Conv, ir.Scale, ir.Pool, ir.Reshape, ir.Delay, ir.Neuron}
)
"""The nodes that every Format takes unless it says otherwise."""
ALL_NODES: Kinds = NIR_NODES | {ir.Norm, ir.MaxPool, ir.Concat, ir.Gather, ir.Product}
_NAMES: dict[type[ir.Node], str] = {ir.MaxPool: "max pool of currents", ir.Product: "product of two signals"}
_REMEDIES: dict[type[ir.Node], str] = {
    ir.Norm: "fold it into weights: the pass fold_norms",
    ir.MaxPool: "pool spikes, not currents (move the pool behind the neuron), or use average pooling",
    ir.Product: "use constant weights instead",
    ir.Concat: "split it: the pass split_concats",
    ir.Gather: "keep one order of axes, as this target cannot rearrange values",
}


def refused(program: ir.Program, takes: Kinds, target: str) -> Iterator[UnsupportedError]:
    """Return one error for each node of a kind that ``target`` does not take, with the pass that removes it."""
    for node in program.nodes:
        if type(node) not in takes:
            kind = _NAMES.get(type(node), type(node).__name__)
            yield UnsupportedError(
                f"{target} takes no {kind}",
                node=node.name,
                slug="kind-not-taken",
                remedy=f"{_REMEDIES.get(type(node), 'remove it')}; or choose another target",
            )


def require_taken(program: ir.Program, takes: Kinds, target: str) -> None:
    """Raise UnsupportedError for the first node that ``target`` does not take."""
    for error in refused(program, takes, target):
        raise error
