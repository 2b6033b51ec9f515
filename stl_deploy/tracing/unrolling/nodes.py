"""Nodes: operations of each single time step. Equal nodes are one node."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stl_deploy.tracing.recording.operations import map_tree
from stl_deploy.tracing.recording.source_lines import Place
from stl_deploy.tracing.recording.watched import leaves
from stl_deploy.tracing.unrolling.layout import BATCH, Dim, Layout, Sizes, of_shape, shape_of

NOWHERE = Place(None, "")
MOVED = "rearranged"
"""The name of nodes that only move values, whatever the model calls."""


@dataclass(eq=False, repr=False)  # a repr would write out all that it reads, again and again
class Node:
    """One operation of one time step.

    name: ATen's, or ``input`` (args: the step), ``constant``, ``time_sum``, ``time_mean``, ``time_max`` (args: a step
    each). layout: of its value, without time. folded: the order of time and samples in the axis on which the model ran
    this operation for all steps at once; None if it ran step by step. axis: that axis, in the values of all steps.
    memory: the axes of what it read of all steps, the outermost in memory first; empty: as they stand.
    tensor: a constant's value. kept: the recorded value. written: the operation that the model calls, if another.
    """

    name: str
    call: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    layout: Layout
    dtype: torch.dtype
    place: Place = NOWHERE
    index: int = 0
    folded: Dim | None = None
    axis: int = 0
    memory: tuple[int, ...] = ()
    pointwise: bool = False
    within: tuple[int, ...] = ()
    tensor: Tensor | None = None
    kept: Tensor | None = None
    number: int = 0
    written: str = ""
    inputs: list[Node] = field(init=False)
    """Its source nodes, in order."""
    latest: int = field(init=False)
    """The last step of x that it depends on; -1 if there is none, or all steps have one x."""

    def __post_init__(self) -> None:
        self.inputs = [item for item in leaves((self.args, self.kwargs)) if isinstance(item, Node)]
        own = self.args[0] if self.name == "input" else None
        self.latest = max((node.latest for node in self.inputs), default=-1) if own is None else own

    @property
    def constant(self) -> bool:
        """Whether it does not depend on the input."""
        return self.tensor is not None

    @property
    def value(self) -> Tensor:
        """Return a constant's values."""
        assert self.tensor is not None
        return self.tensor

    @property
    def called(self) -> str:
        """The operation that the model calls: how a refusal names it."""
        return self.written or self.name

    def elements(self) -> int:
        """Number of elements of its value for one sample."""
        return math.prod(shape_of(self.layout, {BATCH: 1}))

    def made_of(self, read: Callable[[Node], Any], sizes: Sizes) -> Tensor:
        """Return its value; ``read`` returns those of its sources."""
        if self.tensor is not None:
            return self.tensor
        args, kwargs = replace_nodes((self.args, dict(self.kwargs)), read)
        return self.run(args, kwargs, sizes)

    def run(self, args: Any, kwargs: Any, sizes: Sizes) -> Tensor:
        """Return its value, by torch's own kernel, with nodes replaced by tensors in ``args`` and ``kwargs``."""
        if self.name == "reshape":
            value: Tensor = args[0].reshape(shape_of(self.layout, sizes))
        elif self.name == "expand":
            value = args[0].expand(shape_of(self.layout, sizes))
        else:
            assert self.call is not None
            if self.within:
                args = (_placed(args[0], self.within), *args[1:])
            out = self.call(*args, **kwargs)
            value = out[self.index] if isinstance(out, list | tuple) else out
        return value


def _placed(tensor: Tensor, within: tuple[int, ...]) -> Tensor:
    """Return a copy of a tensor as the first part of a larger one."""
    part = tensor.new_empty(len(tensor), *within)[tuple(map(slice, tensor.shape))]
    return part.copy_(tensor)


@dataclass
class Nodes:
    """Create nodes, each only once."""

    _known: dict[Any, Node] = field(default_factory=dict)

    def constant(self, tensor: Tensor) -> Node:
        """Return a constant, identified by its content."""
        key = ("constant", tensor.dtype, tuple(tensor.shape), _digest(tensor))
        node = self._known.get(key)
        if node is None:
            node = Node("constant", None, (), {}, of_shape(tensor.shape), tensor.dtype, tensor=tensor.detach())
            self._add(key, node)
        return node

    def make(self, node: Node, own: object = None) -> Node:
        """Return ``node``, or its equal if there is one; ``own``: what both must be of."""
        key = (node.name, _frozen(node.args), _frozen(node.kwargs), node.index, node.dtype, node.layout, own)
        equal = self._known.get(key)
        if equal is None:
            self._add(key, node)
            return node
        if equal.kept is None:
            equal.kept = node.kept
        return equal

    def alike(self, node: Node) -> list[Node]:
        """Return the nodes that the same line made by the same operation, as the run made them."""
        same = (node.name, node.layout, node.dtype, node.place)
        return [n for n in self._known.values() if (n.name, n.layout, n.dtype, n.place) == same and not n.constant]

    def _add(self, key: Any, node: Node) -> None:
        node.number = len(self._known)
        self._known[key] = node


def _frozen(tree: Any) -> Any:
    if isinstance(tree, tuple | list):
        return tuple(_frozen(item) for item in tree)
    if isinstance(tree, Mapping):
        return tuple((key, _frozen(tree[key])) for key in sorted(tree))
    if isinstance(tree, Node):
        return ("node", tree.number)
    return (type(tree), repr(tree))


def _digest(tensor: Tensor) -> bytes:
    """Return what identifies a tensor's content among those of its shape and type."""
    flat = tensor.detach().cpu().reshape(-1)
    if flat.stride() != (1,):  # of one value, or expanded
        flat = flat.clone(memory_format=torch.contiguous_format)
    if not flat.numel():
        return b""
    content = flat.view(torch.uint8).numpy()
    if flat.element_size() <= 8:
        words = content.view(f"u{flat.element_size()}")
        if words[0] == words[-1] and (words == words[0]).all():  # most are: states at rest, and memory without content
            return words[:1].tobytes()
    return hashlib.sha256(content.data).digest()


def replace_nodes(tree: Any, change: Callable[[Node], Any]) -> Any:
    """Return ``tree`` with every node in it changed."""
    return map_tree(tree, Node, change)
