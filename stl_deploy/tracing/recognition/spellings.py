"""Write spikes in one spelling: what is 0 or 1 by the side of a level on which a signal lies is a comparison.

``where(c, 1, 0)``, ``where(v < θ, 0, 1)``, ``relu(sign(u))``, ``heaviside(u, 0)``, ``(v < θ) == 0`` and
``1 - (v < θ)`` are ``v > θ`` or ``v >= θ``; ``clamp(floor(u) / c, 0, 1)`` is ``clamp(floor(u), 0, c) / c``.
Torch's own kernels run on all that they may read: one number for below the level, one for on it, and one for above it.

``(s - b) + b``, the value of a straight-through gradient, is s where it is that in every bit, as bounds of b show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stl_deploy._util.reachable import reachable
from stl_deploy.graph.cell import Cell, Constant, Dtype, Operation
from stl_deploy.tracing.recognition.counts import clamp_bounds, constant_number
from stl_deploy.tracing.recognition.lowering import Call, NoFormError, dtype_of, lower
from stl_deploy.tracing.recording.operations import ROUNDS, map_tree
from stl_deploy.tracing.recording.watched import leaves
from stl_deploy.tracing.unrolling.nodes import Node, replace_nodes
from stl_deploy.tracing.unrolling.steps import Ref, Signal, Steps, in_order, read_now

_MIRRORED = {"gt": "lt", "ge": "le", "lt": "gt", "le": "ge", "eq": "eq", "ne": "ne"}
_TURNED = (*_MIRRORED, "where", "masked_fill")
"""Operations that are written as not c of a comparison c; ``1 - s`` stays."""
_SIDES = torch.tensor([-1.0, 0.0, 1.0])
"""A number below 0, 0, and one above it."""
_SPIKES = {(0, 0, 1): ("gt", False), (0, 1, 1): ("ge", False), (1, 1, 0): ("gt", True), (1, 0, 0): ("ge", True)}
"""Comparisons by their values below, on and above the level, and whether these are turned."""


class _Operations:
    """Takes down the operations of one step as those of a Cell (see `Writer`)."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.constants: list[Constant] = []
        self.values: dict[Ref, str] = {}

    def op(self, op: str, *args: str, dtype: Dtype) -> str:
        self.operations.append(Operation(f"t{len(self.operations)}", op, args, dtype))
        return self.operations[-1].name

    def constant(self, value: Any, dtype: Dtype) -> str:
        with np.errstate(all="ignore"):
            array = np.asarray(value).astype(dtype)
        if not array.size or not np.isfinite(array).all():
            raise NoFormError("a constant is infinite, or there is none")
        self.constants.append(Constant(f"c{len(self.constants)}", array))
        return self.constants[-1].name

    def read(self, item: Ref | Node) -> str:
        """Return the name of a value; nothing is known of one that is not lowered."""
        if isinstance(item, Node):
            return self.constant(item.value.numpy(), dtype_of(item))
        return self.values.setdefault(item, f"x{len(self.values)}")

    def cell(self) -> Cell:
        """Return the operations as a Cell without shapes."""
        fields: dict[str, Any] = dict.fromkeys(
            ("shape", "operands", "operand_shapes", "states", "outputs", "output_shapes"), ()
        )
        return Cell(
            name="",
            names=tuple(self.values.values()),
            constants=tuple(self.constants),
            operations=tuple(self.operations),
            **fields,
        )


def _write_gradients(signals: Sequence[Signal]) -> None:
    """Write each straight-through gradient that is its spikes in every bit as these (see `Cell.gradients`)."""
    differences = {signal for signal in signals if signal.node.name == "sub"}
    if all(differences.isdisjoint(read_now(signal)) for signal in signals if signal.node.name in ("add", "sub")):
        return
    written, made = _Operations(), dict[str, Signal]()
    for signal in in_order(signals, read_now):
        if signal.node.pointwise:
            with suppress(NoFormError):
                args, kwargs = tuple(signal.args), signal.kwargs or {}
                name = lower(Call(written, signal.node, args, kwargs, written.read, dtype_of(signal.node)))
                written.values[Ref(signal, 0)] = name
                made.setdefault(name, signal)
    for name, source in written.cell().gradients.items():
        if name in made and source in made and made[name].node.layout == made[source].node.layout:
            spikes = made[source]
            _become(made[name], spikes.node.name, *spikes.args, **(spikes.kwargs or {}))


class _Sides(NamedTuple):
    """Values of what is made of a comparison of a signal with a level: below it, on it and above it."""

    signal: Signal
    level: Any
    values: Tensor


def in_one_spelling(steps: Steps) -> Steps:
    """Write each signal of one step that is a comparison, or its opposite, as that."""
    _write_gradients(steps.signals)
    spelling = _Spelling(steps)
    for signal in steps.signals:
        spelling.read(signal)
    needed = {*reachable([steps.output.signal], steps.all_reads)}
    steps.signals = in_order((signal for signal in spelling.signals if signal in needed), read_now)
    steps.of_node = {node: known for node, known in steps.of_node.items() if known[0] in needed}
    return steps


class _Spelling:
    def __init__(self, steps: Steps) -> None:
        self.signals: list[Signal] = []
        self._readers = Counter(ref.signal for signal in steps.signals for ref in signal.reads())
        self._sides: dict[Signal, _Sides] = {}
        self._spikes: dict[tuple[Signal, Any, str], Signal] = {}

    def read(self, signal: Signal) -> None:
        """Read a signal, whose sources of the same step have been read."""
        if signal.node.name in _MIRRORED:
            self._put_first(signal)
        else:
            self._cap_first(signal)
        sides = self._sides_of(signal)
        if sides is not None:
            self._sides[signal] = sides
            name, turned = _SPIKES.get(tuple(sides.values.tolist()), ("", False))
            if signal.node.name == name and signal.args[0] == Ref(sides.signal, 0):
                self._spikes.setdefault((sides.signal, sides.level, name), signal)
            elif name and self._is_other(signal, sides, turned=turned):
                self._write(signal, sides, name, turned=turned)
        self.signals.append(signal)

    def _put_first(self, signal: Signal) -> None:
        """Write ``θ < v`` and ``-v < -θ`` as ``v > θ``, ``1 - v < c`` as ``v - 1 > -c``: a float's sign is exact."""
        left, level = signal.args[:2]
        mirrored = _MIRRORED[signal.node.name]
        if not isinstance(left, Ref):
            left, level = level, left
            _become(signal, mirrored, left, level)
            mirrored = _MIRRORED[mirrored]
        of, name = left.signal, left.signal.node.name
        if isinstance(level, Ref) or left.lag or of.kwargs or not of.node.dtype.is_floating_point:
            return
        if name == "neg":
            _become(signal, mirrored, of.args[0], _negative(level))
        elif name in ("sub", "rsub") and len(of.args) == 2:
            theta, v = of.args if name == "sub" else of.args[::-1]
            if not isinstance(theta, Ref):
                less = self._added(of, "sub", v, theta, dtype=of.node.dtype)
                _become(signal, mirrored, Ref(less, 0), _negative(level))

    def _cap_first(self, signal: Signal) -> None:
        """Write a clamp of n / c, of whole n, as n's clamp divided by c: division is monotone, so n is capped alike."""
        bounds = clamp_bounds(signal)
        of = signal.reads()[0].signal if bounds is not None else signal
        if bounds is None or of.node.name != "div" or of.kwargs or self._readers[of] > 1 or signal.reads()[0].lag:
            return
        whole, divisor = of.args
        c = constant_number(divisor)
        if not isinstance(whole, Ref) or whole.signal.node.name not in ROUNDS or c is None or c <= 0:
            return
        wide = [None if bound is None else bound * c for bound in bounds]
        if all(bound is None or (bound.is_integer() and bound / c == b) for bound, b in zip(wide, bounds, strict=True)):
            capped = self._added(of, "clamp", whole, *wide, dtype=of.node.dtype)
            _become(signal, "div", Ref(capped, 0), divisor)

    def _is_other(self, signal: Signal, sides: _Sides, *, turned: bool) -> bool:
        """Return whether a comparison is spelt otherwise: not a copy of it, nor 1 less it."""
        if signal.node.name == "_to_copy" or (turned and signal.node.name not in _TURNED):
            return False
        return not isinstance(sides.level, Ref) or (not turned and self._is_alone(signal))

    def _is_alone(self, signal: Signal) -> bool:
        """Return whether nothing else reads the comparison of two signals that a signal is made of."""
        source = signal.reads()[0].signal
        while source.node.name == "_to_copy" and self._readers[source] == 1:
            source = source.reads()[0].signal
        return self._readers[source] == 1

    def _write(self, signal: Signal, sides: _Sides, name: str, *, turned: bool) -> None:
        compared = Ref(sides.signal, 0), sides.level
        if signal.node.dtype == torch.bool and not turned:
            _become(signal, name, *compared)
            return
        key = sides.signal, sides.level, name
        if key not in self._spikes:
            self._spikes[key] = self._added(signal, name, *compared)
        spike = self._spikes[key]
        if signal.node.dtype == torch.bool:
            _become(signal, "logical_not", Ref(spike, 0))
            return
        if turned:
            spike = self._added(signal, "logical_not", Ref(spike, 0))
        _become(signal, "_to_copy", Ref(spike, 0), dtype=signal.node.dtype)

    def _added(self, beside: Signal, name: str, *args: Any, dtype: torch.dtype = torch.bool) -> Signal:
        """Add another operation at the place of a signal."""
        signal = Signal(replace(beside.node, dtype=dtype), still=beside.still)
        _become(signal, name, *args)
        self.signals.append(signal)
        return signal

    def _sides_of(self, signal: Signal) -> _Sides | None:
        """Return what a signal is on each side of one level; None where it depends on anything else."""
        node, read = signal.node, signal.reads()
        if not node.pointwise or not read or read[0].lag:
            return None
        known = [self._sides.get(ref.signal) for ref in read if not ref.lag and ref.signal.node.layout == node.layout]
        first = known[0] if len(known) == len(read) else None
        if first is not None and all(sides is not None and sides[:2] == first[:2] for sides in known):
            values = _values(signal, self._sides)
            return None if values is None else first._replace(values=values)
        level = signal.args[1] if len(signal.args) > 1 else 0
        if signal.args[0] != read[0]:
            return None
        if node.name in _MIRRORED:
            return _Sides(read[0].signal, level, getattr(torch, node.name)(_SIDES, 0))
        if node.name == "sign":
            return _Sides(read[0].signal, 0, torch.sign(_SIDES))
        if node.name == "heaviside" and isinstance(level, Node) and read[0].signal.node.layout == node.layout:
            at_zero = _number(level)
            return None if at_zero is None else _Sides(read[0].signal, 0, torch.heaviside(_SIDES, at_zero.float()))
        return None


def _values(signal: Signal, sides: dict[Signal, _Sides]) -> Tensor | None:
    """Return what a signal makes of the three values of each signal that it reads."""
    constants = {item: _number(item) for item in leaves((signal.args, signal.kwargs)) if isinstance(item, Node)}
    if any(number is None for number in constants.values()):
        return None
    tree = map_tree((signal.args, signal.kwargs), Ref, lambda ref: sides[ref.signal].values)
    args, kwargs = replace_nodes(tree, constants.__getitem__)
    assert signal.node.call is not None
    values: Tensor = signal.node.call(*args, **(kwargs or {}))
    return values


def _number(constant: Node) -> Tensor | None:
    """Return a constant that is the same everywhere as one number; None for others."""
    numbers = constant.value.reshape(-1)
    if not constant.value.dim() or not numbers.numel():
        return constant.value
    return numbers[:1] if bool((numbers == numbers[0]).all()) else None


def _negative(level: Any) -> Any:
    """Return the opposite of a constant; unsigned integers and bools have none."""
    if not isinstance(level, Node):
        return -level
    value = level.value if level.value.is_floating_point() else level.value.float()
    return replace(level, tensor=-value, dtype=value.dtype)


def _become(signal: Signal, name: str, *args: Any, **kwargs: Any) -> None:
    """Write a signal as another operation."""
    call = getattr(torch.ops.aten, name)
    signal.node = replace(signal.node, name=name, call=call, args=(), kwargs={}, written=signal.node.called)
    signal.args, signal.kwargs = args, kwargs
