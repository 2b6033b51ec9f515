"""A pass: one rewrite of a Program, its refusals, and its exactness."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import UnionType
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.json_twin import JsonTwin
from stl_deploy.config.options import FoldOptions
from stl_deploy.errors import StlDeployError
from stl_deploy.graph.program import Conv, Doubles, Floats, Linear, Neuron, Node, Operand, Program, Scale
from stl_deploy.graph.segments import ordered
from stl_deploy.passes.permutations import Indices

Exactness = Literal["bits", "real", "grid", "asked"]
"""Equality before and after a pass: in every bit; but for rounding; but for a chosen rounding of the numbers; or none,
where an option asks for a change whose size the pass's notes give."""
Nodes = dict[str, Node]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class LayerGrid(JsonTwin):
    """The grid of one layer, and the effect of rounding to it.

    fraction_bits: weights and bias are multiples of 2^-fraction_bits. bits: what the largest partial sum needs, of 24.
    largest_change: the largest absolute change of a weight or bias.
    """

    node: str
    fraction_bits: int
    bits: float
    largest_change: float


@dataclass(frozen=True, eq=False)
class Rewritten:
    """Result of a pass, or of a recipe of passes, on a Program.

    places: for each reordered neuron and input, the flat place that each value had before.
    grids: how far the weights of layers were rounded on purpose. removed: the nodes that went into others.
    kept: why a neuron keeps its thresholds though they were to go into weights, by its name. notes: what
    an option changed, in sentences.
    """

    program: Program
    places: Mapping[str, Indices] = field(default_factory=dict)
    grids: tuple[LayerGrid, ...] = ()
    removed: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pass:
    """One rewrite.

    run: shares the nodes that it leaves as they are; returns the very Program where there is nothing to do.
    exactness: see `Exactness`; `stl_deploy.passes.apply` checks it by running before and after.
    refusals: reasons against running it, node by node. removes: the kinds of nodes that it leaves none of.
    wanted: whether options ask for it.
    """

    name: str
    run: Callable[[Program], Rewritten]
    exactness: Exactness
    refusals: Callable[[Program], Iterable[StlDeployError]] = lambda program: ()
    removes: tuple[type[Node], ...] = ()
    wanted: Callable[[FoldOptions], bool] = lambda options: True


def with_nodes(program: Program, nodes: Nodes) -> Program:
    """Return the Program with other nodes, put in order; the same object if they are equal."""
    made = ordered(nodes)
    same = len(made) == len(program.nodes) and all(a is b for a, b in zip(made, program.nodes, strict=True))
    return program if same else replace(program, nodes=made)


def readers_of(nodes: Mapping[str, Node], name: str) -> list[Node]:
    """Return the nodes that read ``name``."""
    return [node for node in nodes.values() if any(source.node == name for source in node.operands)]


def later(sources: Iterable[Operand], delay: int) -> tuple[Operand, ...]:
    """Return the same sources, read so many steps later."""
    return tuple(Operand(source.node, source.delay + delay) for source in sources)


def read_instead(nodes: Nodes, reader: str, name: str, sources: Sequence[Operand]) -> None:
    """Let ``reader`` read the sum of ``sources`` in place of ``name``; where it adds nothing up, a Scale of 1 does."""
    node = nodes[reader]
    if len(sources) > 1 and node.combine != "add":
        total = free(nodes, f"{name}_sum")
        nodes[total] = Scale(
            name=total, shape=nodes[name].shape, operands=tuple(sources), scale=np.ones((), np.float32)
        )
        sources = (Operand(total),)
    read: list[Operand] = []
    for operand in node.operands:
        read += later(sources, operand.delay) if operand.node == name else (operand,)
    nodes[reader] = replace(node, operands=tuple(read))


def free(nodes: Container[str], name: str) -> str:
    """Return a name for a node of a pass's own: a user's layer may be called as such nodes are."""
    while name in nodes:
        name += "_"
    return name


def bypassed(nodes: Nodes, names: Collection[str]) -> Nodes:
    """Remove the nodes ``names``, each of one source; their readers read that source."""

    def through(source: Operand) -> Operand:
        while source.node in names:
            (before,) = nodes[source.node].operands
            source = Operand(before.node, before.delay + source.delay)
        return source

    kept = {name: node for name, node in nodes.items() if name not in names}
    for name, node in kept.items():
        if any(source.node in names for source in node.operands):
            kept[name] = replace(node, operands=tuple(map(through, node.operands)))
    return kept


def rewrite_each(kinds: type[Node] | UnionType, change: Callable[[Any], Node]) -> Callable[[Program], Rewritten]:
    """Make a pass's ``run`` from a function on one node of some kinds; the others stay."""
    return rewrite(
        lambda nodes: nodes | {name: change(node) for name, node in nodes.items() if isinstance(node, kinds)}
    )


def rewrite(change: Callable[[Nodes], Nodes]) -> Callable[[Program], Rewritten]:
    """Make a pass's ``run`` from a function on nodes by name."""

    def run(program: Program) -> Rewritten:
        return Rewritten(with_nodes(program, change(dict(program.by_name))))

    return run


def reads_one(node: Node) -> bool:
    """Return whether a node reads one node's output of the same step."""
    return len(node.operands) == 1 and not node.operands[0].delay


def row_factors(node: Linear | Conv) -> Floats | None:
    """Return the factor of each row of weights that scale rows alone, diagonal ones or depthwise 1x1; else None."""
    if isinstance(node, Conv):
        alone = node.weight.size == len(node.weight) == node.groups == node.input_shape[0]
        plain = alone and set(node.stride) == {1} and not any(map(any, node.padding))
        return node.weight.reshape(-1) if plain else None
    rows = np.diagonal(node.weight)
    square = node.weight.shape[0] == node.weight.shape[1]
    return rows if square and np.count_nonzero(node.weight) == np.count_nonzero(rows) else None


def leak_end(node: Neuron) -> Doubles:
    """Return the potential that leaks end at: offset/(1 - decay)."""
    assert node.decay is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(full(node, 0 if node.offset is None else node.offset) / (1 - full(node, node.decay)))


def by_row(values: NDArray[T], ndim: int) -> NDArray[T]:
    """Return values ``[rows]`` that broadcast to an array with rows in front."""
    return values.reshape(-1, *(1,) * (ndim - 1))


def divided(layer: Any, rows: NDArray[Any]) -> Node:
    """Return weights and biases with each row divided by its number."""
    bias = None if layer.bias is None else layer.bias / rows
    return replace(layer, weight=layer.weight / by_row(rows, layer.weight.ndim), bias=bias)  # type: ignore[no-any-return]


def full(node: Node, array: Any) -> Doubles:
    """Return a parameter in float64, of the node's shape."""
    return np.broadcast_to(np.asarray(array, np.float64), node.shape).copy()
