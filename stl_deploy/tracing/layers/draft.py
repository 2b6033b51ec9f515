"""A Program under construction: its nodes, their names, and sums of sources."""

from __future__ import annotations

from itertools import count
from math import prod

import numpy as np

from stl_deploy._util.reachable import reachable
from stl_deploy.graph.program import Floats, Gather, Input, Node, Operand, Scale, Shape
from stl_deploy.graph.segments import ordered
from stl_deploy.passes.base import later

Operands = tuple[Operand, ...]
"""Inputs of a layer, which reads their sum."""


class ProgramBuilder:
    """Nodes by name, in the order in which they were found; a name may be used before its node is there."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._used: set[str] = set()

    def name(self, kind: str, module: str) -> str:
        """Return a free name: the module's; without one, or if it is taken, kind and count."""
        if kind == "input":
            return "input"
        name = module.replace("/", "_")
        if name in ("input", "output"):
            name = ""
        if name and name not in self._used:
            self._used.add(name)
            return name
        base = f"{name}.{kind}" if name else kind
        numbered = next(free for n in count(1) if (free := f"{base}{n}") not in self._used)
        self._used.add(numbered)
        return numbered

    def add(self, node: Node) -> Operands:
        """Add a node; return it as a source."""
        self.nodes[node.name] = node
        return (Operand(node.name),)

    def scaled(self, terms: Operands, gain: Floats | float | None, shape: Shape, module: str = "") -> Operands:
        """Scale terms by a gain; unchanged for 1 or None."""
        if gain is None or bool(np.all(gain == 1)):
            return terms
        name, late = self.name("scale", module), min((source.delay for source in terms), default=0)
        self.add(Scale(name=name, shape=shape, operands=later(terms, -late), scale=np.asarray(gain, np.float32)))
        return (Operand(name, late),)  # late behind it, where the edge that closes a loop is

    def widened(self, terms: Operands, before: Shape, shape: Shape) -> Operands:
        """Repeat terms along the axes that torch would repeat them along."""
        if before == shape or self.shape_of(terms) == shape:
            return terms
        places = np.broadcast_to(np.arange(prod(before)).reshape(before), shape)
        name = self.name("order", "")
        return self.add(Gather(name=name, shape=shape, operands=terms, indices=places, input_shape=before))

    def shape_of(self, terms: Operands) -> Shape | None:
        """Return the shape of terms, if it is known by now."""
        shapes = [self.nodes[source.node].shape for source in terms if source.node in self.nodes]
        return shapes[0] if shapes else None

    def needed_for(self, name: str) -> tuple[Node, ...]:
        """Return the nodes that one depends on, and inputs, each after its sources of the same step."""
        needed = {*reachable([name], lambda key: (source.node for source in self.nodes[key].operands))}
        return ordered({key: node for key, node in self.nodes.items() if key in needed or isinstance(node, Input)})
