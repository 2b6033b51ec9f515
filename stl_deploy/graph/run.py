"""Run a Program in numpy, float32, node by node: the reference, whole or one time step at a time (`Stream`).

Feed-forward parts take all time steps at once; loops are stepped. An array is freed as soon as its last reader has
run, unless it is recorded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import ShapeError, require_held_by_float32
from stl_deploy._util.remedies import option, remedy
from stl_deploy.errors import GraphError, InputError
from stl_deploy.graph import cell, neurons
from stl_deploy.graph.cell import Cell, CellState
from stl_deploy.graph.kernels import Sums, apply, combined
from stl_deploy.graph.program import CAPTURED, Delay, Floats, Input, Neuron, Node, Program, Shape
from stl_deploy.graph.segments import is_loop, segments

T = TypeVar("T", bound=np.generic)
NetworkInput = NDArray[Any] | Mapping[str, NDArray[Any]]
"""``[T, B, *shape]``, or one array for each Input node by name."""


@dataclass(frozen=True)
class Result:
    """Outputs of a run.

    outputs: one ``[T, B, *shape]`` array per Output node; recorded: the same for each requested node.
    states: potentials and currents as ``v__NODE`` and ``i__NODE``, in the target's numbers, if the target returns them.
    """

    outputs: Mapping[str, Floats]
    recorded: Mapping[str, Floats]
    states: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def y(self) -> Floats:
        """The only output's array; raises ValueError if there are several."""
        (only,) = self.outputs.values()
        return only

    def first(self, samples: int) -> Result:
        """Return the run of the first samples."""
        parts = vars(self).values()
        return Result(*({name: array[:, :samples] for name, array in part.items()} for part in parts))


def run(
    program: Program,
    x: NetworkInput,
    *,
    record: Collection[str] = (),
    observe: Observer | None = None,
    chunk: int | None = None,
    double: bool = False,
) -> Result:
    """Run ``program`` on ``x`` ``[T, B, *input shape]`` (one array, or one per Input node).

    record: names of nodes whose outputs are kept. observe: see `Observer`.
    chunk: samples run at a time (None: all), to bound memory. double: each synaptic sum and each pooling window is
    added up in float64 and rounded once; everything else stays float32.
    Raises InputError if x does not fit the inputs or a recorded name is no node, GraphError where values leave
    float32's range.
    """
    arrays = match_inputs(program, x)
    unknown = sorted(set(record) - set(program.by_name))
    if unknown:
        raise InputError(f"expected nodes to record: {', '.join(program.by_name)}; found '{unknown[0]}'")
    batch = next(iter(arrays.values())).shape[1]
    size, sums = chunk or batch, np.float64 if double else np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        parts = [
            _run_part(
                program, {k: as_floats(a[:, i : i + size]) for k, a in arrays.items()}, set(record), observe, sums
            )
            for i in range(0, batch, size)
        ]
    if len(parts) == 1:
        return parts[0]
    return Result(_join([p.outputs for p in parts]), _join([p.recorded for p in parts]))


CHUNK = 64
"""Samples that the pipeline runs at a time, to bound memory."""


Observer = Callable[[Node, Floats, Floats], None]
"""Called once per node and batch chunk with (node, summed input, output), each ``[T, B, *shape]``.

For an Input node the input is the output. Observers that add things up may be called several times
per node when the run is chunked over samples. The arrays must not be written to.
"""


def match_inputs(program: Program, x: NetworkInput) -> dict[str, NDArray[Any]]:
    """Return ``x`` as one array per Input node; raise InputError if names, shapes, T or B do not fit.

    Arrays are float32, but for bool and 8-bit integers: these stay as they are, for `as_floats` of a few samples.
    """
    names = [node.name for node in program.inputs]
    if not isinstance(x, Mapping):
        if len(names) != 1:
            raise InputError(
                f"expected an array for each of {len(names)} inputs, by name: {', '.join(names)} ({_by_name(names)}); "
                "found one"
            )
        x = {names[0]: x}
    if set(x) != set(names):
        raise InputError(f"expected inputs {', '.join(sorted(names))}; found {', '.join(sorted(x))}")
    leading = {array.shape[:2] for array in x.values()}
    for node in program.inputs:
        shape = x[node.name].shape
        if shape[2:] != node.shape or len(shape) < 2 or 0 in shape[:2]:
            raise ShapeError(
                f"input '{node.name}': expected shape [T, B, {', '.join(map(str, node.shape))}] with T, B >= 1; found "
                f"{list(shape)}{_steps_inside(program, shape, node.shape)}"
            )
    if len(leading) > 1:
        raise InputError(f"expected one T and B for all inputs; found {sorted(leading)}")
    return {name: _checked(name, x[name]) for name in names}


def _by_name(names: Sequence[str]) -> str:
    """Return the arrays of a file, or the dict in Python, that give each input."""
    return remedy(
        cli=f"in an npz file: {', '.join(f'x__{name}' for name in names)}",
        python=f"a dict: {{{', '.join(f'{name!r}: ...' for name in names)}}}; in an npz file "
        + ", ".join(f"x__{name}" for name in names),
    )


def _steps_inside(program: Program, given: Shape, shape: Shape) -> str:
    """Return a hint for input without steps, if the graph's module makes its steps itself."""
    captured = program.metadata.get(CAPTURED)
    if given[1:] != shape or not isinstance(captured, Mapping) or captured.get("time") != "inside":
        return ""
    steps = captured.get("steps")
    written_out = f": repeat x, np.repeat(x[None], {steps}, axis=0)" if isinstance(steps, int) else ""
    return (
        "; this graph was captured from a module that makes its time steps itself "
        f"({option('time', 'inside')}), and the graph takes them written out{written_out}"
    )


def as_floats(x: NDArray[Any]) -> Floats:
    """Return a part of `match_inputs`'s result, in float32."""
    return np.asarray(x, np.float32)


def _checked(name: str, x: NDArray[Any]) -> NDArray[Any]:
    if x.dtype.kind not in "fiub":
        raise InputError(f"input '{name}': expected numbers; found {x.dtype}")
    if x.dtype.itemsize == 1 and x.dtype.kind in "iub":
        return x
    require_held_by_float32(x, f"input '{name}'")
    with np.errstate(over="ignore"):
        array = np.asarray(x, np.float32)
    if not (np.isfinite(array.min()) and np.isfinite(array.max())):
        raise InputError(f"input '{name}': expected finite numbers within float32; found NaN, infinity or larger ones")
    return array


def _require_finite(node: Node, y: Floats) -> None:
    # A sum that overflows though every value is finite is looked at closely; any other is finite if its sum is.
    if not np.isfinite(y.sum()) and not np.isfinite(y).all():
        raise GraphError("computes values beyond float32; the network diverges", node=node.name, slug="diverges")


def _join(parts: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}


def _run_part(
    program: Program, inputs: dict[str, Floats], record: set[str], observe: Observer | None, sums: Sums
) -> Result:
    outputs = {node.name for node in program.outputs}
    waiting = {name: len(readers) for name, readers in program.readers.items()}
    values: dict[str, Floats] = {}
    results: dict[str, Floats] = {}
    steps, batch = next(iter(inputs.values())).shape[:2]
    for segment in segments(program):
        stepped = _run_loop(segment, values, steps, batch, observe is not None, sums) if is_loop(segment) else {}
        for node in segment:
            if node.name in stepped:
                values[node.name] = stepped[node.name].out
                if observe is not None:
                    observe(node, np.stack(stepped[node.name].arrived), values[node.name])
            else:
                x = inputs[node.name] if isinstance(node, Input) else _arriving(node, values)
                values[node.name] = _sequence(node, x, sums)
                if observe is not None:
                    observe(node, x, values[node.name])
            _require_finite(node, values[node.name])
            if node.name in record or node.name in outputs:
                results[node.name] = values[node.name]
        for node in segment:
            for name in dict.fromkeys(source.node for source in node.operands):
                waiting[name] -= 1
        for name in [name for name in values if not waiting[name]]:
            del values[name]
    by_output = {node.name: results[node.name] for node in program.outputs}
    return Result(by_output, {k: results[k] for k in results if k in record})


def _arriving(node: Node, values: Mapping[str, Floats]) -> Floats:
    return combined(node, [delayed(values[source.node], source.delay) for source in node.operands], leading=2)


def delayed(x: NDArray[T], steps: int) -> NDArray[T]:
    """Return values ``[T, ...]`` some steps later, zeros before them."""
    if not steps:
        return x
    y = np.zeros_like(x)
    y[steps:] = x[: max(0, len(x) - steps)]
    return y


def _sequence(node: Node, x: Floats, sums: Sums) -> Floats:
    if isinstance(node, Neuron):
        return neurons.sequence(node, x)
    if isinstance(node, Cell):
        return cell.sequence(node, x)
    if isinstance(node, Delay):
        return _delay(node, x)
    steps, batch = x.shape[:2]
    y = apply(node, x.reshape(steps * batch, *x.shape[2:]), sums)
    return y.reshape(steps, batch, *node.shape)


def _delay(node: Delay, x: Floats) -> Floats:
    steps = np.broadcast_to(node.steps, node.shape)
    y = np.zeros_like(x)
    for d in np.unique(steps):
        if d < len(x):
            at = steps == d
            y[d:, :, at] = x[: len(x) - d, :, at]
    return y


class _DelayState:
    """The last inputs of a Delay, the latest first."""

    def __init__(self, node: Delay) -> None:
        self._steps = np.broadcast_to(node.steps, node.shape)
        self._past = deque[Floats](maxlen=int(node.steps.max(initial=0)) + 1)

    def step(self, x: Floats, out: Floats) -> None:
        """Advance one time step with input ``x`` ``[B, *shape]``, which must not change later; write into ``out``."""
        self._past.appendleft(x)
        out[:] = 0
        for d in np.unique(self._steps):
            if d < len(self._past):
                at = self._steps == d
                out[:, at] = self._past[int(d)][:, at]

    def require_finite(self) -> None:
        """Do nothing: values that arrived were looked at where they were computed."""


def _run_loop(
    segment: Sequence[Node], values: Mapping[str, Floats], steps: int, batch: int, observed: bool, sums: Sums
) -> dict[str, _Stepped]:
    """Step a loop through time; return each node's output, and its input if that is observed."""
    stepped = {node.name: _Stepped(node, steps, batch, observed, sums) for node in segment}
    for t in range(steps):
        for node in segment:
            parts = [
                _at(stepped[source.node].out if source.node in stepped else values[source.node], t - source.delay)
                for source in node.operands
            ]
            stepped[node.name].step(t, combined(node, parts, leading=1))
    for each in stepped.values():
        each.require_finite()
    return stepped


def _at(x: Floats, t: int) -> Floats:
    return x[t] if t >= 0 else np.zeros_like(x[0])


_State = neurons.NeuronState | CellState | _DelayState


def _state_of(node: Node, batch: int) -> _State | None:
    """Return the state of a node that has one, from rest."""
    match node:
        case Neuron():
            return neurons.NeuronState(node, batch)
        case Cell():
            return CellState(node, batch)
        case Delay():
            return _DelayState(node)
    return None


class _Stepped:
    """One node of a loop, with its inputs and outputs so far."""

    def __init__(self, node: Node, steps: int, batch: int, remember: bool, sums: Sums) -> None:
        self.node, self._remember, self._sums = node, remember, sums
        self.out = np.zeros((steps, batch, *node.shape), np.float32)
        self.arrived: list[Floats] = []
        self._state = _state_of(node, batch)

    def require_finite(self) -> None:
        """Raise GraphError if the node has a state that has left float32's range."""
        if self._state is not None:
            self._state.require_finite()

    def step(self, t: int, x: Floats) -> None:
        if self._remember:
            self.arrived.append(x)
        if self._state is not None:
            self._state.step(x, self.out[t])
        else:
            self.out[t] = apply(self.node, x, self._sums)


class Stream:
    """A session that keeps every population's state and the values on delayed edges.

    Outputs equal those of `stl_deploy.graph.run.run` on the whole sequence, bit for bit. given: makes arrays of the
    Program's names and shapes from what `step` is given; default: these themselves.

    Examples:
        >>> session = Stream(program)
        >>> for x_t in frames:  # [B, *input shape]
        ...     y_t = session.step(x_t)  # [B, *output shape]
        >>> session.reset()
    """

    def __init__(self, program: Program, given: Callable[[Any], NetworkInput] | None = None) -> None:
        self.program, self._given = program, given
        reach: dict[str, int] = {}
        for node in program.nodes:
            for source in node.operands:
                reach[source.node] = max(reach.get(source.node, 0), source.delay)
        self._reach = reach
        self.reset()

    def reset(self) -> None:
        """Return to rest; the next step may bring another number of samples."""
        self._batch: int | None = None
        self._states: dict[str, _State] = {}
        self._past = {name: deque[Floats](maxlen=steps) for name, steps in self._reach.items() if steps}

    def step(self, x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> Floats:
        """Return the output ``[B, *shape]`` of one step's input ``[B, *input shape]``, or one array for each input.

        Raises InputError where the input does not fit, the number of samples changes without a `reset`, or the
        network has several outputs (see `step_all`); GraphError where values leave float32's range.
        """
        outputs = self.step_all(x)
        if len(outputs) != 1:
            raise InputError(f"the network has {len(outputs)} outputs: {', '.join(outputs)}; use step_all")
        return next(iter(outputs.values()))

    def step_all(self, x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
        """Step as `step` does, with every Output node's array by name."""
        x = x if self._given is None else self._given(x)
        single = {name: a[None] for name, a in x.items()} if isinstance(x, Mapping) else np.asarray(x)[None]
        try:
            matched = match_inputs(self.program, single)
        except InputError as error:
            raise InputError(f"step takes one step, [B, ...], and adds the axis of time: {error}") from None
        # Delays keep arrays; those that come and go are the caller's to change.
        outputs = self._advance({name: np.array(array[0], np.float32) for name, array in matched.items()})
        return {name: np.array(y) for name, y in outputs.items()}

    def _advance(self, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
        """Return every output of one step with an array of its shape for every Input node."""
        self._begin(len(next(iter(arrays.values()))))
        outputs = {node.name for node in self.program.outputs}
        by_output: dict[str, Floats] = {}
        now: dict[str, Floats] = {}
        with np.errstate(over="ignore", invalid="ignore"):
            for node in self.program.nodes:
                arrived = arrays[node.name] if isinstance(node, Input) else self._arriving(node, now)
                now[node.name] = value = self._value(node, arrived)
                _require_finite(node, value)
                if node.name in outputs:
                    by_output[node.name] = value
        for name, past in self._past.items():
            past.appendleft(now[name])
        return by_output

    def _begin(self, batch: int) -> None:
        if self._batch is None:
            self._batch = batch
            states = {node.name: _state_of(node, batch) for node in self.program.nodes}
            self._states = {name: state for name, state in states.items() if state is not None}
        elif batch != self._batch:
            raise InputError(f"a step of {batch} samples in a stream of {self._batch}; call reset() before others")

    def _arriving(self, node: Node, now: Mapping[str, Floats]) -> Floats:
        return combined(node, [self._at(source.node, source.delay, now) for source in node.operands], leading=1)

    def _at(self, name: str, delay: int, now: Mapping[str, Floats]) -> Floats:
        if not delay:
            return now[name]
        past = self._past[name]
        if delay <= len(past):
            return past[delay - 1]
        return np.zeros((self._batch or 0, *self.program.by_name[name].shape), np.float32)

    def _value(self, node: Node, x: Floats) -> Floats:
        state = self._states.get(node.name)
        if state is None:
            return apply(node, x)
        out = np.empty((len(x), *node.shape), np.float32)
        state.step(x, out)
        state.require_finite()
        return out
