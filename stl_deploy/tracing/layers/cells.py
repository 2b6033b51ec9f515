"""Build a Program whose elementwise parts are Cells, where neurons have another form than `Neuron`'s."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import GraphError
from stl_deploy.graph.cell import OPERATIONS, Cell, Constant, Dtype, Operation, State
from stl_deploy.graph.program import Concat, Gather, Operand, Scale, Shape
from stl_deploy.passes.base import later
from stl_deploy.tracing.layers.builder import Builder, Fits, Kind, refusal
from stl_deploy.tracing.layers.draft import Operands
from stl_deploy.tracing.layers.shapes import reshape_node
from stl_deploy.tracing.recognition.cells import read_outside
from stl_deploy.tracing.recognition.lowering import Call, NoFormError, dtype_of, lower
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.steps import Ref, Signal, Steps


class CellBuilder(Builder):
    """Build layers as `Builder` does, and a Cell for each of some groups of elementwise signals."""

    def __init__(self, steps: Steps, kinds: Mapping[str, Kind], groups: Sequence[Sequence[Signal]], fits: Fits) -> None:
        self._group_of = {signal: group for group in groups for signal in group}
        super().__init__(steps, kinds, self._group_of.keys(), fits)

    def read(self, ref: Ref) -> Operands:
        """Return a reference's layers, as a sum of sources; a Cell where they were not 0 before the first step."""
        signal, lag = ref.signal, 0 if ref.signal.still else ref.lag + self._shift
        is_source = signal.node.name == "input" or signal in self._core_of
        if signal not in self._group_of and not is_source and (self.cores or not self._group_of):
            return super().read(ref)
        if any(bool(node.tensor is not None and node.tensor.any()) for node in signal.before[:lag]):
            return self.started(Ref(signal, lag))
        return later(self._signal(signal, 0), lag)

    def _signal(self, signal: Signal, shift: int) -> Operands:
        if signal not in self._group_of:
            return super()._signal(signal, shift)
        if (signal, 0) not in self._terms:
            outer = self._shift, self._path
            self._shift, self._path = 0, frozenset()
            self._cell(self._group_of[signal])
            self._shift, self._path = outer
        return self._terms[signal, 0]

    def started(self, ref: Ref) -> Operands:
        """Build a Cell that puts out a signal of earlier steps, and in the first step what it was before."""
        name, shape = self.name("late", ""), self.shape(ref.signal)
        self.nodes[name] = self._begun(name, (shape,))
        draft = _Draft(self, name, ref.signal, (), len(shape))
        with _named(draft):
            return self.add(draft.finished([draft.as_float(draft.read(ref), dtype_of(ref.signal.node))]))

    def _begun(self, name: str, shapes: tuple[Shape, ...]) -> Cell:
        """Return a Cell without contents, so that a loop finds it."""
        fields: dict[str, Any] = dict.fromkeys(
            ("operands", "names", "operand_shapes", "states", "constants", "operations", "outputs"), ()
        )
        whole = shapes[0] if len(shapes) == 1 else (sum(map(prod, shapes)),)
        return Cell(name=name, shape=whole, output_shapes=shapes, **fields)

    def _cell(self, group: Sequence[Signal]) -> None:
        """Build one Cell; one with several outputs is read through a Gather for each."""
        outputs = read_outside(self.steps, group)
        shapes = tuple(self.shape(signal) for signal in outputs)
        name = self.name("cell", next((s.node.place.module for s in outputs if s.node.place.module), ""))
        self.nodes[name] = self._begun(name, shapes)
        self.places[name] = outputs[0].node.place
        self.signals[name] = tuple(outputs)
        at = 0
        for signal, shape in zip(outputs, shapes, strict=True):
            self._terms[signal, 0] = (Operand(name),)
            if len(outputs) > 1:
                self._terms[signal, 0] = self.add(
                    Gather(
                        name=self.name("of", name),
                        shape=shape,
                        operands=(Operand(name),),
                        indices=np.arange(at, at + prod(shape)).reshape(shape),
                        input_shape=self.nodes[name].shape,
                    )
                )
                at += prod(shape)
        draft = _Draft(self, name, outputs[0], group, len(shapes[0]))
        with _named(draft):
            draft.lower()
            self.nodes[name] = draft.finished(draft.put_out(outputs))
        self.operands[name] = tuple(Ref(signal, lag) for signal, lag in draft.operands)

    def one_source(self, signal: Signal, delay: int) -> Operand:
        """Return a signal as one source of its shape, for a Cell adds nothing up."""
        terms, shape = self._signal(signal, 0), self.shape(signal)
        if len(terms) > 1 or isinstance(self.nodes[terms[0].node], Concat):
            known = self.shape_of(terms) or shape
            one = np.ones((), np.float32)
            terms = self.add(Scale(name=self.name("sum", ""), shape=known, operands=terms, scale=one))
        known = self.shape_of(terms) or shape
        if known != shape:
            terms = reshape_node(self, signal, terms, known, shape)
        (term,) = terms
        return Operand(term.node, term.delay + delay)


@contextmanager
def _named(draft: _Draft) -> Iterator[None]:
    """Name the line at which a Cell has no form."""
    try:
        yield
    except NoFormError as error:
        raise refusal(draft.at, str(error)) from None


class _Draft:
    """One Cell under construction. at: the signal whose operations are added."""

    def __init__(self, build: CellBuilder, name: str, at: Signal, group: Sequence[Signal], rank: int) -> None:
        self.build, self.name, self.own = build, name, dict.fromkeys(group)
        self.at, self.rank = at, rank
        self.operations: list[Operation] = []
        self._values: dict[Signal, str] = {}
        self._types: dict[str, Dtype] = {}
        self._constants: dict[tuple[object, ...], Constant] = {}
        self._by_name: dict[str, NDArray[Any]] = {}
        self._states: dict[tuple[Signal, int], str] = {}
        self._late: dict[tuple[Signal, int], State] = {}
        self.operands: dict[tuple[Signal, int], tuple[str, str]] = {}
        self._first = ""

    def lower(self) -> None:
        """Add the operations of all own signals."""
        build = self.build
        for signal in self.own:
            self.at = signal
            value = self._lowered(signal.node, signal.args, signal.kwargs or {}, self.read)
            if signal.first is not None:
                other = build.steps.at_first(signal, signal.first, self._at_step, self._at_first)
                value = self.op("where", self._is_first(), other, value, dtype=dtype_of(signal.node))
            self._values[signal] = value

    def _lowered(self, node: Node, args: Any, kwargs: Any, read: Any) -> str:
        return lower(Call(self, node, tuple(args), kwargs, read, dtype_of(node)))

    def op(self, op: str, *args: str, dtype: Dtype) -> str:
        """Add an operation; one of constants alone becomes a constant."""
        constants = [self._by_name[arg] for arg in args if arg in self._by_name]
        if len(constants) == len(args) and OPERATIONS[op].exact:
            with np.errstate(all="ignore"):
                return self.constant(np.asarray(OPERATIONS[op].run(*constants)), dtype)
        name = f"t{len(self.operations)}"
        self.operations.append(Operation(name, op, args, dtype, self.at.node.place.line or ""))
        self._types[name] = dtype
        return name

    def constant(self, value: Any, dtype: Dtype) -> str:
        """Return the name of a constant; equal ones are one."""
        array = np.asarray(value).astype(dtype)
        if array.tobytes() == array.reshape(-1)[:1].tobytes() * array.size:
            array = array.reshape(-1)[0]
        if not np.isfinite(array).all():
            raise NoFormError("a constant is NaN or infinite")
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = Constant(f"c{len(self._constants)}", np.asarray(array))
            self._by_name[self._constants[key].name] = self._constants[key].value
        return self._constants[key].name

    def _sample(self, node: Node) -> NDArray[Any]:
        """Return a constant of one sample."""
        array: NDArray[Any] = node.value.numpy()
        if array.ndim <= self.rank:
            return array
        if array.ndim > self.rank + 1 or not (array == array[:1]).all():
            raise NoFormError("a constant differs between samples")
        sample: NDArray[Any] = array[0]
        return sample

    def read(self, item: Any) -> str:
        """Return the name of a constant's, or a reference's, value."""
        if isinstance(item, Node):
            return self.constant(self._sample(item), dtype_of(item))
        signal, lag = item.signal, 0 if item.signal.still else item.lag
        if signal in self.own:
            return self._state(signal, lag) if lag else self._values[signal]
        return self._operand(signal, lag)

    def _state(self, signal: Signal, lag: int) -> str:
        """Return the value of an own signal some steps ago: a chain of so many states."""
        for ago in range(1, lag + 1):
            self._states.setdefault((signal, ago), f"s{len(self._states)}")
        return self._states[signal, lag]

    def _operand(self, signal: Signal, lag: int) -> str:
        before = [self._sample(node) for node in signal.before[:lag]]
        starts = any(array.any() for array in before)
        if starts and lag > 1:
            return self._late_operand(signal, lag, before[lag - 1 :])
        if (signal, lag) not in self.operands:
            name, dtype = f"x{len(self.operands)}", dtype_of(signal.node)
            self.operands[signal, lag] = name, name
            value = name
            if starts:
                value = self.op("where", self._is_first(), self.constant(before[0], "float32"), name, dtype="float32")
            if dtype == "bool":
                value = self.op("gt", value, self.constant(0.5, "float32"), dtype="bool")
            elif dtype != "float32":
                value = self.op("cast", value, dtype=dtype)
            self.operands[signal, lag] = name, value
        return self.operands[signal, lag][1]

    def _late_operand(self, signal: Signal, lag: int, start: Sequence[NDArray[Any]]) -> str:
        """Return what a signal of some steps ago was, and started from: a state that follows the one a step later."""
        if (signal, lag) not in self._late:
            later, shape, dtype = self._operand(signal, lag - 1), self.build.shape(signal), dtype_of(signal.node)
            value = _compact(np.asarray(start[0] if start else 0).astype(dtype))
            self._late[signal, lag] = State(f"l{len(self._late)}", later, shape, value)
        return self._late[signal, lag].name

    def _is_first(self) -> str:
        self._first = "first"
        return self._first

    def _at_step(self, signal: Signal, step: int) -> str:
        if step:
            raise NoFormError("the first step reads a later one")
        return self.read(Ref(signal, 0))

    def _at_first(self, node: Node, read: Callable[[Node], str]) -> str:
        """Return the value of a node of step 0 that is made otherwise than in the steps after it."""
        if node.constant:
            return self.read(node)
        if not node.pointwise:
            raise NoFormError(f"'{node.called}' differs between step 0 and the steps after; let every step do the same")
        return self._lowered(node, node.args, node.kwargs, read)

    def put_out(self, signals: Sequence[Signal]) -> list[str]:
        """Return the names of own signals' values, as floats."""
        return [self.as_float(self._values[signal], dtype_of(signal.node)) for signal in signals]

    def finished(self, outputs: Sequence[str]) -> Cell:
        """Return the Cell with these values as outputs; raises NoFormError where its parts do not fit."""
        build = self.build
        states = [self._started(signal, ago, name) for (signal, ago), name in self._states.items()]
        states += self._late.values()
        if self._first:
            one = (1,) * self.rank
            states.append(State(self._first, self.constant(False, "bool"), one, np.ones(one, bool)))
        if not self.operands:
            raise NoFormError("nothing arrives")
        begun = build.nodes[self.name]
        assert isinstance(begun, Cell)
        cell = replace(
            begun,
            operands=tuple(build.one_source(signal, lag) for signal, lag in self.operands),
            names=tuple(name for name, _ in self.operands.values()),
            operand_shapes=tuple(build.shape(signal) for signal, _ in self.operands),
            states=tuple(states),
            constants=tuple(self._constants.values()),
            operations=tuple(self.operations),
            outputs=tuple(outputs),
        )
        try:
            _ = cell.values
        except GraphError as error:
            raise NoFormError(error.reason) from None
        return cell

    def _started(self, signal: Signal, ago: int, name: str) -> State:
        dtype, shape = dtype_of(signal.node), self.build.shape(signal)
        after = self._values[signal] if ago == 1 else self._states[signal, ago - 1]
        before = self._sample(signal.before[ago - 1]) if len(signal.before) >= ago else np.zeros(())
        return State(name, after, shape, _compact(before.astype(dtype)))

    def as_float(self, value: str, given: Dtype) -> str:
        """Return a value as a float."""
        return value if given == "float32" else self.op("cast", value, dtype="float32")


def _compact(array: NDArray[Any]) -> NDArray[Any]:
    """Return a start as one number where all are equal."""
    if array.tobytes() == array.reshape(-1)[:1].tobytes() * array.size:
        return np.asarray(array.reshape(-1)[0])
    return array
