"""Layers by name, in order, each with the layers that it reads: the structure of a network."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from stl_deploy.config.options import LearningMode
from stl_deploy.nn.neuron import LIF

Shape = tuple[int, ...]


class Layered(nn.Module):
    """Layers, and nothing that runs them; `stl_deploy.nn.network.Network` builds and runs one.

    layers, shapes, sources: a layer's module, its output's shape of one sample at one step, and the layers it reads.
    """

    def __init__(self, input_shape: Shape, mode: LearningMode) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.mode = mode
        self.layers = nn.ModuleDict()
        self.shapes: dict[str, Shape] = {}
        self.sources: dict[str, tuple[str, ...]] = {}

    def remove(self, name: str) -> None:
        """Remove a layer that has one source; its readers read that source."""
        (source,) = self.sources.pop(name)
        del self.layers[name], self.shapes[name]
        for reader, sources in self.sources.items():
            self.sources[reader] = tuple(source if other == name else other for other in sources)

    def readers(self, name: str) -> tuple[str, ...]:
        """Return the layers that read ``name``."""
        return tuple(reader for reader, sources in self.sources.items() if name in sources)

    @property
    def lifs(self) -> Iterator[tuple[str, LIF]]:
        """Return the LIF layers by name, in order."""
        return ((name, layer) for name, layer in self.layers.items() if isinstance(layer, LIF))
