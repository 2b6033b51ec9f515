"""Contents of flash and RAM: constant tables and buffers, with the narrowest types that hold them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.integers.bounds import Interval

KIB = 1024
BYTES = {"uint8_t": 1, "int8_t": 1, "uint16_t": 2, "int16_t": 2, "int32_t": 4}


@dataclass(frozen=True, eq=False)
class Table:
    """``static const``: one-dimensional values and their comment."""

    name: str
    ctype: str
    values: NDArray[Any]
    comment: str

    @property
    def size(self) -> int:
        """Bytes of flash."""
        return self.values.size * BYTES[self.ctype]


@dataclass(frozen=True)
class Buffer:
    """A member of the state."""

    name: str
    ctype: str
    count: int
    comment: str

    @property
    def at(self) -> str:
        """The member as an expression with ``s`` as the state."""
        return f"s->{self.name}"

    @property
    def size(self) -> int:
        """Bytes of RAM."""
        return self.count * BYTES[self.ctype]


@dataclass
class Share:
    """Memory of one layer: its tables and buffers, and synaptic operations in one step (worst case)."""

    node: str
    what: str
    tables: list[Table] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    synops: int = 0
    measured: float | None = None

    @property
    def flash(self) -> int:
        """Bytes of flash."""
        return sum(table.size for table in self.tables)

    @property
    def ram(self) -> int:
        """Bytes of RAM."""
        return sum(buffer.size for buffer in self.buffers)


def narrowest(interval: Interval, *accepted: str) -> str:
    """Return the first of the types (default: uint8_t, int16_t, int32_t) that holds an interval."""
    for ctype in accepted or ("uint8_t", "int16_t", "int32_t"):
        limits = np.iinfo(ctype.removesuffix("_t"))
        if limits.min <= interval[0] and interval[1] <= limits.max:
            return ctype
    raise OverflowError(f"{interval} in none of {accepted}")


def table_type(values: NDArray[Any]) -> str:
    """Return the narrowest signed type, or uint8_t, that holds a table."""
    return narrowest(
        (int(values.min(initial=0)), int(values.max(initial=0))), "int8_t", "uint8_t", "int16_t", "uint16_t", "int32_t"
    )
