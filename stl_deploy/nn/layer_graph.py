"""The LayerGraph: a network of named layers in discrete time, before norms are folded.

Its layers are the nodes of `stl_deploy.graph.program` - with sources, shapes and numpy arrays - and three that a
Program does not have: `Norm`, `MaxPool` and `Concat`. `stl_deploy.fold` turns them into nodes that it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stl_deploy.graph.program import Floats, Node, Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Norm(Node):
    """y = scale·x + shift, ``[C]`` each in float64: batch norm in evaluation, or arithmetic that does the same."""

    scale: Any
    shift: Any


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Node):
    """The largest value of each window of 2 spatial axes; padding never is."""

    kernel: Shape
    stride: Shape
    padding: tuple[tuple[int, int], ...]
    input_shape: Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Node):
    """The values of its sources behind each other on the first axis."""

    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LayerGraph:
    """Layers in an order in which every undelayed source comes before its reader.

    metadata: what the graph's author says beside it (the readout, the input's coding).
    """

    layers: tuple[Node, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Each layer under its name."""
        return {layer.name: layer for layer in self.layers}

    def readers(self, name: str) -> tuple[Node, ...]:
        """The layers that read ``name``."""
        return tuple(layer for layer in self.layers if any(source.node == name for source in layer.sources))


__all__ = ["Concat", "Floats", "LayerGraph", "MaxPool", "Norm"]
