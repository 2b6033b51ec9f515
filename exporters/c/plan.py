"""Steps of the C program in order, and their memory: tables and buffers, with the narrowest types that hold them.

Values stand channels last: an image (C, H, W) as H·W rows of C. ``order`` of a buffer says which torch position each of
its places holds; a flatten then moves nothing, for the weights behind it are put in that order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.c.rule import Rule
from stl_deploy.graph.program import Shape
from stl_deploy.integers.bounds import Interval
from stl_deploy.integers.graph import IntegerGraph

Order = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Value:
    """A node's values: a C expression, its type, whether they are all 0 or 1, and their order."""

    at: str
    ctype: str
    binary: bool
    order: Order


@dataclass(frozen=True, eq=False)
class Step:
    """One statement (or loop) of a step: its kind, known to the template, and its fields."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True)
class ByRows:
    """A convolution whose neurons run row by row, ``lag`` rows after the input; slots: rows of sums kept."""

    start: Step
    conv: Step
    height: int
    width: int
    slots: int
    lag: int

    @property
    def parts(self) -> tuple[Step, Step]:
        """Steps that begin the sums, and steps that add to them."""
        return self.start, self.conv


@dataclass(frozen=True)
class Recorded:
    """Place and order of a population's spikes in a recording build's ``recorded``."""

    node: str
    shape: Shape
    offset: int
    order: tuple[int, ...]


@dataclass
class Plan:
    """All data of the templates."""

    graph: IntegerGraph
    steps: list[Step] = field(default_factory=list)
    last: list[Step] = field(default_factory=list)
    begins: list[tuple[str, Table]] = field(default_factory=list)
    """States that do not start at 0, and the tables of their values."""
    shares: dict[str, Share] = field(default_factory=dict)
    recorded: list[Recorded] = field(default_factory=list)
    rules: dict[Rule, str] = field(default_factory=dict)
    sums: dict[str, int] = field(default_factory=dict)
    """Sums of the layer at work: the most elements of each type."""
    pairs: set[int] = field(default_factory=set)
    """Words in the rows of weights that spikes add."""
    padding: int = 0
    """The most places that the last row of such weights has beyond its sums: it adds 0 there."""
    listed: int = 0
    """The most places in lists of spikes, and where columns begin in them (starts)."""
    starts: int = 0
    rows: int = 0
    """The longest row of spikes that is pooled at once."""

    @property
    def statements(self) -> list[Step]:
        """All steps, nested ones included."""
        steps = [*self.steps, *self.last]
        return steps + [step for outer in steps if outer.fields.get("by_rows") for step in outer.by_rows.parts]

    @property
    def marks(self) -> list[tuple[str, ...]]:
        """Active nodes after each mark of the generated code, by the mark's number."""
        heads = [step.node for step in self.steps if step.kind == "head"]
        marks: list[tuple[str, ...]] = []
        for share in self.shares.values():
            if share.node in heads:
                marks.append(())
            marks[-1] += (share.node,)
        return marks

    @property
    def buffers(self) -> list[Buffer]:
        """All RAM except the shared part, in order."""
        return [buffer for share in self.shares.values() for buffer in share.buffers]

    @property
    def scratch(self) -> int:
        """Bytes of the union that holds the current layer's sums."""
        sizes = [BYTES[ctype] * (count + self.padding) for ctype, count in self.sums.items()]
        return _rounded_up(max(sizes, default=0), max(map(BYTES.__getitem__, self.sums), default=1))

    @property
    def members(self) -> list[Buffer]:
        """All members of the state but scratch, widest types first, so that there is no padding."""
        shared = [
            Buffer("spike_list", "uint16_t", self.listed, "places of spikes, in rising order"),
            Buffer("spike_starts", "uint16_t", self.starts, "where the columns of a row begin in spike_list"),
            Buffer("row_spikes", "uint8_t", self.row_bytes, "spikes of the row of neurons at work"),
        ]
        members = [*self.buffers, *(buffer for buffer in shared if buffer.count)]
        return sorted(members, key=lambda buffer: -BYTES[buffer.ctype])

    @property
    def shared_ram(self) -> int:
        """Bytes of RAM that all layers use in turn."""
        return self.scratch + self.row_bytes + self.lists

    @property
    def row_bytes(self) -> int:
        """Bytes of the spikes of a row that is pooled; 0 where the list of the spikes before it has room for them."""
        return self.rows if self.rows > 2 * self.listed else 0

    @property
    def row_spikes(self) -> str:
        """Place of the spikes of a row that is pooled."""
        return "s->row_spikes" if self.row_bytes else "(uint8_t *)s->spike_list"

    @property
    def lists(self) -> int:
        """Bytes of lists of spikes."""
        return 2 * (self.listed + self.starts)

    @property
    def flash(self) -> int:
        """Bytes of constants; code comes on top."""
        return sum(share.flash for share in self.shares.values())

    @property
    def ram(self) -> int:
        """Bytes of the state, equal to sizeof; the stack and the caller's input and output come on top."""
        return self._ram(frozenset())

    @property
    def least_ram(self) -> int:
        """About how many bytes the state has where every potential of neurons that spike has 16 bits."""
        buffers = [buffer for node in self.graph.populations for buffer in self.shares[node.name].buffers]
        wide = (buffer for buffer in buffers if buffer.name.endswith("_v") and buffer.ctype == "int32_t")
        return self._ram(frozenset(wide))

    def _ram(self, halved: Set[Buffer]) -> int:
        types = [buffer.ctype for buffer in self.members if buffer not in halved]
        widest = max(BYTES[ctype] for ctype in [*types, *self.sums, *(["int16_t"] if halved else [])])
        total = sum(share.ram for share in self.shares.values()) + self.shared_ram
        return _rounded_up(total - sum(buffer.size for buffer in halved) // 2, widest)


def _rounded_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def channels_last(shape: Shape) -> Order:
    """Return the torch position of each place of an image stored channels last."""
    positions = np.arange(math.prod(shape)).reshape(shape)
    return np.moveaxis(positions, 0, -1).reshape(-1)


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
