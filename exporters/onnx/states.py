"""State between time steps: potentials, currents, spikes, and delayed values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.onnx.scope import Scope
from stl_deploy.graph.program import Delay, Shape

MAX_DELAY = 2**16
"""The longest delay, in steps, of which every value under way is kept."""
ZERO = np.zeros((), np.float32)
"""Rest of what is not said to start elsewhere."""


@dataclass
class State:
    """One state of one node: its name before and after the step, its shape for one sample, its value at rest."""

    node: str
    before: str
    after: str
    shape: Shape
    start: NDArray[Any]


class States:
    """The states of the graph that ``scope`` builds, in the order in which they were opened."""

    def __init__(self, scope: Scope, before: Callable[[str, str], str], after: Callable[[str, str], str]) -> None:
        self._scope = scope
        self._names = before, after
        self._opened: dict[tuple[str, str], State] = {}

    def __iter__(self) -> Iterator[State]:
        return iter(self._opened.values())

    def open(self, node: str, kind: str, shape: Shape, start: NDArray[Any] = ZERO) -> str:
        """Return the state's name at the start of the step; ``start`` broadcasts to ``shape``."""
        before, after = (self._scope.values.fresh(name(node, kind)) for name in self._names)
        self._opened[node, kind] = State(node, before, after, shape, start)
        return before

    def after(self, node: str, kind: str) -> str | None:
        """Return the state's name at the end of the step, which the operator that computes it may take."""
        return self._opened[node, kind].after

    def close(self, node: str, kind: str, value: str) -> None:
        """Set the state at the end of the step."""
        after = self._opened[node, kind].after
        if value != after:
            self._scope.op("Identity", [value], f"{node}/{kind}_next", output=after)


class Unrolled(States):
    """States whose values at the end of a step are those at the start of the next, in the same graph."""

    def __init__(self, start: Callable[[State], str]) -> None:
        """start: returns the name of a state's value before the first step."""
        self._first = start
        self._values: dict[tuple[str, str], str] = {}

    def open(self, node: str, kind: str, shape: Shape, start: NDArray[Any] = ZERO) -> str:
        """See `States`."""
        if (node, kind) not in self._values:
            self._values[node, kind] = self._first(State(node, f"{node}/{kind}", "", shape, start))
        return self._values[node, kind]

    def after(self, node: str, kind: str) -> str | None:
        """See `States`: any name will do."""
        return None

    def close(self, node: str, kind: str, value: str) -> None:
        """See `States`."""
        self._values[node, kind] = value


class Past:
    """The values of the last ``depth`` steps of one value, oldest first: ``[B, depth, *shape]`` (one: no such axis)."""

    def __init__(self, scope: Scope, states: States, node: str, kind: str, shape: Shape, depth: int) -> None:
        if depth > MAX_DELAY:
            raise UnsupportedError(
                f"expected a delay of at most {MAX_DELAY} steps, each of which is kept; found {depth}",
                node=node,
                slug="delay-too-long",
                remedy="use a larger dt, or the sequence form if the node is in no loop",
            )
        self._scope, self._states, self._node, self._kind, self._depth = scope, states, node, kind, depth
        self._before = states.open(node, kind, shape if depth == 1 else (depth, *shape))

    def read(self, delay: int) -> str:
        """Return the name of the value ``delay`` steps ago, 1 to depth."""
        if self._depth == 1:
            return self._before
        index = self._scope.integers(self._depth - delay)
        label = f"{self._node}/{self._kind}_{delay}"
        kept = self._scope.op("Gather", [self._before, index], label, axis=1)
        return self._scope.op("Squeeze", [kept, self._scope.integers(1)], label)

    def write(self, value: str) -> None:
        """Set the value of this step."""
        if self._depth > 1:
            scope, label = self._scope, f"{self._node}/{self._kind}"
            one = scope.integers(1)
            newer = scope.op("Slice", [self._before, one, scope.integers(self._depth), one], f"{label}_newer")
            newest = scope.op("Unsqueeze", [value, one], f"{label}_newest")
            value = scope.op("Concat", [newer, newest], label, axis=1)
        self._states.close(self._node, self._kind, value)


def shift(scope: Scope, x: str, steps: int, label: str) -> str:
    """Delay ``x`` ``[T, ...]`` by ``steps`` steps, zeros before; any T, and any number of steps."""
    if not steps:
        return x
    zero, axis = scope.integers(0), scope.integers(0)
    lost = scope.op("Slice", [x, zero, scope.integers(steps), axis], f"{label}/lead_in")
    shape = scope.op("Shape", [lost], f"{label}/lead_in_shape")
    zero_value = numpy_helper.from_array(np.zeros(1, np.float32))  # the default, which some runtimes take for float64
    zeros = scope.op("ConstantOfShape", [shape], f"{label}/zeros", value=zero_value)
    kept = scope.op("Slice", [x, zero, scope.integers(-steps), axis], f"{label}/kept")
    return scope.op("Concat", [zeros, kept], label, axis=0)


def choose(scope: Scope, node: Delay, value_at: Callable[[int], str]) -> str:
    """Select each element of a Delay's output from its past value, which ``value_at`` names."""
    first, *others = (int(d) for d in np.unique(node.steps))
    y = value_at(first)
    for delay in others:
        mask = scope.weight(f"{node.name}.by_{delay}", node.steps == delay)
        y = scope.op("Where", [mask, value_at(delay), y], f"{node.name}/choose_{delay}")
    return y
