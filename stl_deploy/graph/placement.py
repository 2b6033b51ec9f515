"""Placement of a network's neurons on a chip's cores: plain data for exporters and energy counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PlacedCore:
    """Neurons [first, last) of the layer ``node``, in (C, H, W) order.

    used: amounts by resource. thresholds: distinct ones, as trained (folded: 1).
    """

    node: str
    first: int
    last: int
    used: Mapping[str, int]
    thresholds: int = 1

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return self.last - self.first


@dataclass(frozen=True)
class Placement:
    """Cores in the order in which they fill the chip; every layer's cores cover all its neurons."""

    name: str
    cores: tuple[PlacedCore, ...]
