"""Build a graph: unique names, nodes, constants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, ValueInfoProto, helper, numpy_helper

from stl_deploy.graph.program import Conv, Linear

Array = NDArray[np.float32] | NDArray[np.bool_] | NDArray[np.int8] | NDArray[np.uint8] | NDArray[np.integer[Any]]
Dims = Sequence[int | str]
SMALL = 2**16
"""Bytes of an array that a body may keep."""


@dataclass(frozen=True, eq=False)
class Planes:
    """A weight as ``2^-fraction_bits · Σ 256^p · values[-1 - p]``; values: int8 ``[planes, outputs, ...]``."""

    values: NDArray[np.int8]
    fraction_bits: int


class Names:
    """Hand out unique names."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def fresh(self, wish: str) -> str:
        """Return ``wish``, or ``wish`` with a number appended if that is taken."""
        name, count = wish, 0
        while name in self._taken:
            count += 1
            name = f"{wish}.{count}"
        self._taken.add(name)
        return name


class Scope:
    """Nodes of one graph, or of the body of a Scan in it.

    Arrays (weights, neuron parameters) belong to the outermost graph, where a body sees them, or to a body that keeps
    its own small ones; integer constants (shapes, axes) to the graph that uses them, where shape inference sees
    them.
    """

    def __init__(
        self,
        outer: Scope | None = None,
        *,
        double: bool = False,
        planes: Mapping[str, Planes] | None = None,
        keeps_small: bool = False,
    ) -> None:
        """double: synapses and pools add up in float64. planes: weights to be kept so, by node.

        keeps_small: arrays of at most `SMALL` bytes stay in this body. ONNX Runtime loads a body in time in proportion
        to its nodes times the values from outside that it reads.
        """
        self.double = double
        self.planes: Mapping[str, Planes] = planes or {}
        self.values, self.labels = Names(), Names()
        self.weights: dict[str, Array] = {}
        if outer is not None:  # a body shares its outer graph's names and arrays, and writes its layers as that does
            self.double, self.planes = outer.double, outer.planes
            self.values, self.labels, self.weights = outer.values, outer.labels, outer.weights
        self._small: dict[str, Array] | None = {} if keeps_small else None
        self._labelled: dict[str, tuple[str, Array]] = {} if outer is None or keeps_small else outer._labelled
        self._numbers: dict[float, str] = {} if outer is None or keeps_small else outer._numbers
        self.nodes: list[NodeProto] = []
        self._integers: dict[tuple[int, ...], str] = {}
        self._once: dict[str, str] = {}

    def op(self, kind: str, inputs: Sequence[str], label: str, *, output: str | None = None, **attributes: Any) -> str:
        """Add an operator named ``label``; returns its output's name (``output``, or a fresh one)."""
        value = output or self.values.fresh(label)
        self.add_node(kind, inputs, [value], label, **attributes)
        return value

    def once(self, label: str, kind: str, *inputs: str, **attributes: Any) -> str:
        """Return the output of an operator that the graph has once."""
        if label not in self._once:
            self._once[label] = self.op(kind, inputs, label, **attributes)
        return self._once[label]

    def add_node(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], label: str, **attributes: Any) -> None:
        """Add an operator whose outputs have their names already."""
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=self.labels.fresh(label), **attributes))

    def weight(self, label: str, array: Array | np.float32) -> str:
        """Add a constant array, or a number as one; return its name. An equal one of this label is added once."""
        values = array if isinstance(array, np.ndarray) else np.array(array, np.float32)
        known, same = self._labelled.get(label, ("", None))
        if same is not None and same.dtype == values.dtype and np.array_equal(same, values):
            return known
        name = self.values.fresh(label)
        kept = self.weights if self._small is None or values.nbytes > SMALL else self._small
        kept[name] = values
        self._labelled[label] = name, values
        return name

    def bias(self, node: Linear | Conv) -> list[str]:
        """Return the name of a layer's bias, if it has one."""
        return [] if node.bias is None else [self.weight(f"{node.name}.bias", node.bias)]

    def number(self, label: str, value: np.float32) -> str:
        """Return the name of a constant number, ``label`` where it is the first of this value."""
        if float(value) not in self._numbers:
            self._numbers[float(value)] = self.weight(label, value)
        return self._numbers[float(value)]

    def named(self, value: str, name: str | None) -> str:
        """Return ``value`` under ``name`` if there is one and the last operator puts the value out, else as it is."""
        if name is None or not self.nodes or list(self.nodes[-1].output) != [value]:
            return value
        self.nodes[-1].output[0] = name
        return name

    def cast(self, value: str, kind: int, label: str) -> str:
        """Add a Cast to the type ``kind``; return its output's name."""
        return self.op("Cast", [value], label, to=kind)

    def sum(self, values: Iterable[str], label: str) -> str:
        """Add up values one after the other, from the left; return the name of their sum."""
        total, *others = values
        for other in others:
            total = self.op("Add", [total, other], label)
        return total

    def integers(self, *values: int) -> str:
        """Add a vector of int64 constants; return its name."""
        if values not in self._integers:
            self._integers[values] = self.values.fresh("_".join(map(str, ("shape", *values))))
        return self._integers[values]

    def graph(
        self, name: str, inputs: Iterable[ValueInfoProto], outputs: Iterable[ValueInfoProto], **extra: Any
    ) -> GraphProto:
        """Return the finished graph, without its weights but for the small ones of a body that keeps them."""
        constants = [numpy_helper.from_array(np.array(v, np.int64), n) for v, n in self._integers.items()]
        constants += [numpy_helper.from_array(np.asarray(v), n) for n, v in (self._small or {}).items()]
        return helper.make_graph(self.nodes, name, list(inputs), list(outputs), initializer=constants, **extra)


@dataclass(frozen=True, eq=False)
class Lead:
    """The axes before a node's own: time steps and samples, each a number or None if known only at run time.

    source: a value ``[T, B, ...]`` to take them from.
    """

    scope: Scope
    steps: int | None = None
    batch: int | None = None
    source: str = ""

    def step(self, shape: Iterable[int]) -> Dims:
        """Return the dimensions of ``shape`` at one step."""
        return (self.batch or "B", *shape)

    def sequence(self, shape: Iterable[int]) -> Dims:
        """Return the dimensions of ``shape`` over all steps."""
        return (self.steps or "T", *self.step(shape))

    def sequence_shape(self, shape: Iterable[int], label: str) -> str:
        """Return the name of `sequence` as a vector of integers, for Reshape."""
        if self.steps is None and self.batch is None:
            return self.scope.op(
                "Concat", [self._size("steps_and_batch", 0), self.scope.integers(*shape)], label, axis=0
            )
        return self.scope.integers(self.steps or -1, self.batch or -1, *shape)

    def step_shape(self, shape: Iterable[int], label: str) -> str:
        """Return the name of `step` as a vector of integers, for Expand."""
        if self.batch is not None:
            return self.scope.integers(self.batch, *shape)
        batch = self._size("batch", 1)
        return self.scope.op("Concat", [batch, self.scope.integers(*shape)], label, axis=0)

    def _size(self, label: str, start: int) -> str:
        return self.scope.once(label, "Shape", self.source, start=start, end=2)


def floats(name: str, dims: Dims) -> ValueInfoProto:
    """Declare a float32 value; text in ``dims`` names a dimension known only at run time."""
    return numbers(name, dims, np.dtype(np.float32))


def numbers(name: str, dims: Dims, dtype: np.dtype[Any]) -> ValueInfoProto:
    """Declare a value of any type; text in ``dims`` names a dimension known only at run time."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), list(dims))
