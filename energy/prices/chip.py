"""Where a network stands on a chip: plain data, so that any placement can be counted.

Loihi's mesh as SANA-FE 2.2.9 describes it (``loihi.yaml``): 32 tiles of 4 cores, 8 columns of 4 rows, tiles numbered
down the columns. A message goes along its row, then along its column; every tile border is one hop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CORES_PER_TILE, COLUMNS, ROWS = 4, 8, 4
CORES = CORES_PER_TILE * COLUMNS * ROWS
"""Of one chip."""


@dataclass(frozen=True)
class PlacedCore:
    """Neurons [first, last) of the layer ``node``, in (C, H, W) order; ``used``: amounts by resource."""

    node: str
    first: int
    last: int
    used: Mapping[str, int]


@dataclass(frozen=True)
class Placement:
    """Cores in the order in which they fill the chip, four to a tile; every layer's cores cover all its neurons."""

    name: str
    cores: tuple[PlacedCore, ...]

    @property
    def tiles(self) -> int:
        """How many are in use."""
        return -(-len(self.cores) // CORES_PER_TILE)


@dataclass(frozen=True)
class OnChip:
    """A network's placements on one kind of chip, or none and the ``reason``.

    limits: of one core, by resource. host: nodes after the last spikes, which the host computes. notes: what a
    placement exceeds although it is counted.
    """

    chip: str = ""
    limits: Mapping[str, int] | None = None
    placements: tuple[Placement, ...] = ()
    host: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reason: str = "no placement is known"


def tile_of(core: int) -> tuple[int, int]:
    """Column and row of a core's tile."""
    return divmod(core // CORES_PER_TILE, ROWS)


def hops(a: int, b: int) -> tuple[int, int]:
    """Tile borders between two cores: east or west, and north or south."""
    (column_a, row_a), (column_b, row_b) = tile_of(a), tile_of(b)
    return abs(column_a - column_b), abs(row_a - row_b)
