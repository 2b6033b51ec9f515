"""Count the operations of one step of a Cell, reduced to those that hardware has to do.

- A value of constants alone is computed before the first step, and costs nothing.
- A product with 0, 1 or -1 is a write, and so is a choice. An addition that the Cell's own spikes cause is one for each
  spike, as in a reset by subtraction.
- A difference that is only compared with 0 is the comparison. Both bounds of a clamp are one comparison.
- A straight-through gradient, ``(s - b) + b``, is s.
- Operands are sums of synops: their sum is another, and a factor on one that nothing else reads is in its weights.
- A division by a constant is a multiplication; a factor of 1, 2^-k or 1 - 2^-k costs what a Neuron's does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from math import prod

import numpy as np

from stl_deploy._util.reachable import reachable
from stl_deploy.energy.counts.factors import factor_of
from stl_deploy.graph.cell import OPERATIONS, Cell, Operation

_COMPARISONS = frozenset({"gt", "ge", "lt", "le", "eq", "ne"})
_OTHERWISE = {"round": "adds", "sign": "compares"}
"""Free operations that cost something here: halves to even take an addition."""


def neurons_of(cell: Cell) -> int:
    """Return the number of a Cell's neurons: its values that are spikes, or else those of its largest output."""
    return int(cell.fires.sum()) or max(map(prod, cell.output_shapes))


class CellOps:
    """The operations of a step of one sample of a Cell: ``counts``, by the fields of `NeuronOps`."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell = _with_sums(_without_gradients(cell))
        self.counts: Counter[str] = Counter()
        self._made = {operation.name: operation for operation in cell.operations}
        self._readers: dict[str, list[Operation]] = {}
        for operation in cell.operations:
            for arg in operation.args:
                self._readers.setdefault(arg, []).append(operation)
        self._kept = {*cell.outputs, *(state.next for state in cell.states)}
        self._sums = {name for name in cell.names if self._is_passed_on(name)}
        self._caused = {*self._spikes}
        for operation in cell.operations:
            value = cell.values[operation.name]
            if not value.steady:
                self._count(operation, prod(value.shape))

    @property
    def resets(self) -> bool:
        """Whether spikes act on a state."""
        return bool(self._spikes & self._before(state.next for state in self.cell.states))

    @cached_property
    def _spikes(self) -> set[str]:
        """Names of the Cell's spikes: the output, the flag behind it, and the states that remember it."""
        cell = self.cell
        fired = [name for name in cell.outputs if cell.ranges[name].whole]
        spikes: set[str] = set(fired) if len(fired) == 1 else set()
        spikes |= {arg for name in spikes if (made := self._made.get(name)) and made.op == "cast" for arg in made.args}
        spikes |= {state.name for state in cell.states if state.next in spikes}
        for operation in cell.operations:
            tells = operation.op in ("cast", "gt", "ne") and operation.args[0] in spikes
            spikes |= {operation.name} if tells else set()
        return spikes

    def _before(self, names: Iterable[str]) -> set[str]:
        """Return the names of the values of the same step that values are computed from, up to comparisons."""

        def args(name: str) -> tuple[str, ...]:
            return self._made[name].args if name in self._made and not self.cell.ranges[name].whole else ()

        return {*reachable(names, args)}

    def _is_passed_on(self, name: str) -> bool:
        """Return whether one operation alone reads a value."""
        return len(self._readers.get(name, ())) == 1 and name not in self._kept

    def _is_event(self, name: str) -> bool:
        """Return whether a value is 0, 1 or -1, or the Cell's spikes."""
        known = self.cell.ranges[name]
        return name in self._spikes or (known.whole and known.low >= -1 and known.high <= 1)

    def _is(self, name: str, number: float) -> bool:
        known = self.cell.ranges[name]
        return known.low == known.high == number

    def _count(self, operation: Operation, size: int) -> None:
        op, args = operation.op, operation.args
        if op in ("mul", "div"):
            self._product(operation, size)
        elif op in ("add", "sub"):
            self._sum(operation, size)
        elif op in (*_COMPARISONS, "min", "max"):
            self.counts["compares"] += 0 if self._is_known(operation) else size
        elif OPERATIONS[op].price == "lookup":
            self.counts["lookups"] += size
        elif op in _OTHERWISE:
            self.counts[_OTHERWISE[op]] += size
        elif op == "where" and args[0] in self._spikes and self._is(args[2], 0):
            self._caused.add(operation.name)
        elif op in ("neg", "cast"):
            self._caused |= {operation.name} if args[0] in self._caused else set()

    def _is_known(self, operation: Operation) -> bool:
        """Return whether a comparison is one of events, or the second bound of a clamp."""
        before = next((self._made[arg] for arg in operation.args if arg in self._made), operation)
        if self._bounds(operation) and before is not operation and self._bounds(before):
            return self._is_passed_on(before.name)
        return all(self._is_event(arg) or self.cell.values[arg].steady for arg in operation.args)

    def _bounds(self, operation: Operation) -> bool:
        return operation.op in ("min", "max") and any(self.cell.values[arg].steady for arg in operation.args)

    def _product(self, operation: Operation, size: int) -> None:
        name, (a, b) = operation.name, operation.args
        steady = [self.cell.values[arg].steady for arg in (a, b)]
        # a division has no second place for a write: 1 / spike is no choice
        divides = operation.op == "div"
        writes = [arg for arg in ((a,) if divides else (a, b)) if self._is_event(arg)]
        if writes and (steady[1] or not divides):
            self._caused |= {name} if self._spikes.intersection(writes) else set()
        elif not (steady[1] or (steady[0] and not divides)):
            self.counts["divs" if divides else "other_muls"] += size
        elif self._sums.intersection((a, b)):
            self._sums |= {name} if self._is_passed_on(name) else set()
        else:
            self._scale(name, *((a, b) if steady[1] else (b, a)), size, divides=divides)

    def _scale(self, name: str, signal: str, factor: str, size: int, *, divides: bool) -> None:
        """Count a product with a stored factor: of a state, on the way to its next value, it is a leak."""
        value = next((constant.value for constant in self.cell.constants if constant.name == factor), None)
        if value is not None and divides:
            value = np.divide(1, value, dtype=np.float64)
        read = self._before([signal])
        leaks = any(state.name in read and name in self._before([state.next]) for state in self.cell.states)
        # leaks are priced at the 12 bits of a stored decay, other factors at the width of a state
        whose = "leak" if leaks else "other"
        kind = "multiply" if value is None else factor_of(value)
        self.counts[f"{whose}_muls"] += size if kind == "multiply" else 0
        self.counts[f"{whose}_shifts"] += size if kind in ("shift", "shift and subtract") else 0
        self.counts["shift_adds"] += size if kind == "shift and subtract" else 0

    def _sum(self, operation: Operation, size: int) -> None:
        name, args = operation.name, operation.args
        counts_events = self._is_event(name) and all(self._is_event(a) or self.cell.values[a].steady for a in args)
        readers = self._readers.get(name, ())
        compared = name not in self._kept and bool(readers) and all(map(self._compares_with_0, readers))
        if counts_events or compared or any(self._is(arg, 0) for arg in args):
            return
        if self._sums.issuperset(args):
            self._sums |= {name} if self._is_passed_on(name) else set()
        # one for each spike only where every neuron has one value; a wider sum moves more than one for a spike
        elif self._caused.intersection(args) and size == neurons_of(self.cell):
            self.counts["adds_per_spike"] += 1
        else:
            self.counts["adds"] += size

    def _compares_with_0(self, reader: Operation) -> bool:
        return reader.op in _COMPARISONS and any(self._is(arg, 0) for arg in reader.args)


def _without_gradients(cell: Cell) -> Cell:
    """Return the Cell with s in the place of each ``(s - b) + b``, and without what nothing reads then."""
    made = {
        o.name: replace(o, op="cast", args=(s,)) if (s := cell.gradients.get(o.name)) else o for o in cell.operations
    }
    ends = [*cell.outputs, *(state.next for state in cell.states)]
    read = {*reachable(ends, lambda name: made[name].args if name in made else ())}
    return replace(cell, operations=tuple(operation for name, operation in made.items() if name in read))


def _with_sums(cell: Cell) -> Cell:
    """Return the Cell with each fused product and sum as two operations."""
    operations: list[Operation] = []
    for operation in cell.operations:
        if operation.op == "fma":
            product = f"{operation.name}*"
            operations.append(replace(operation, name=product, op="mul", args=operation.args[:2]))
            operation = replace(operation, op="add", args=(product, operation.args[2]))
        operations.append(operation)
    return replace(cell, operations=tuple(operations))
