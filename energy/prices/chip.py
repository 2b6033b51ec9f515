"""Describe a network's placement on a chip as plain data.

Loihi's mesh as SANA-FE 2.2.9 describes it (``loihi.yaml``): 32 tiles of 4 cores, 8 columns of 4 rows, tiles numbered
down the columns. A message goes along its row, then along its column; every tile border is one hop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stl_deploy.graph.placement import Placement

PLACED_ON = "loihi1"
"""The chip that networks are placed on."""
CORES_PER_TILE, COLUMNS, ROWS = 4, 8, 4
CORES = CORES_PER_TILE * COLUMNS * ROWS
"""Of one chip."""


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

    @property
    def refused(self) -> dict[str, str]:
        """The chip that the network was found not to fit, with the reason; {} if it fits or nobody looked."""
        return {PLACED_ON: self.reason} if self.chip and not self.placements else {}


@dataclass(frozen=True)
class Checked:
    """Results of the targets' checks for chips that are priced; a chip that refuses the network has no energy.

    refused: chip to the reason, in one sentence. clocks: of each sample on UP5K; empty if nobody counted them.
    """

    refused: Mapping[str, str] = field(default_factory=dict)
    clocks: tuple[int, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each chip that cannot hold the network."""
        return tuple(f"No energy of {chip}: {reason}." for chip, reason in self.refused.items())


def tiles(placement: Placement) -> int:
    """Return the number of tiles in use, four cores to each."""
    return -(-len(placement.cores) // CORES_PER_TILE)


def tile_of(core: int) -> tuple[int, int]:
    """Return column and row of a core's tile."""
    return divmod(core // CORES_PER_TILE, ROWS)


def hops(a: int, b: int) -> tuple[int, int]:
    """Count tile borders between two cores: east or west, and north or south."""
    (column_a, row_a), (column_b, row_b) = tile_of(a), tile_of(b)
    return abs(column_a - column_b), abs(row_a - row_b)
