"""Run a Program one time step at a time, without a horizon."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.errors import InputError
from stl_deploy.graph import neurons
from stl_deploy.graph.kernels import apply, combined
from stl_deploy.graph.program import Delay, Floats, Input, Neuron, Node, Program
from stl_deploy.graph.run import NetworkInput, as_floats, match_inputs


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
        self._states: dict[str, neurons.NeuronState] = {}
        self._past = {name: deque[Floats](maxlen=steps) for name, steps in self._reach.items() if steps}
        self._arrived = {
            node.name: deque[Floats](maxlen=int(node.steps.max(initial=0)) + 1) for node in self.program.of(Delay)
        }

    def step(self, x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> Floats:
        """Return the output ``[B, *shape]`` of one step's input ``[B, *input shape]``, or one array for each input.

        Raises InputError where the input does not fit, the number of samples changes without a `reset`, or the
        network has several outputs (see `step_all`); GraphError where a potential leaves float32's range.
        """
        outputs = self.step_all(x)
        if len(outputs) != 1:
            raise InputError(f"the network has {len(outputs)} outputs: {', '.join(outputs)}; use step_all")
        return next(iter(outputs.values()))

    def step_all(self, x: NDArray[Any] | Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
        """Step as `step` does, with every Output node's array by name."""
        x = x if self._given is None else self._given(x)
        single = {name: a[None] for name, a in x.items()} if isinstance(x, Mapping) else np.asarray(x)[None]
        arrays = {name: as_floats(array[0]) for name, array in match_inputs(self.program, single).items()}
        self._begin(len(next(iter(arrays.values()))))
        outputs = {node.name for node in self.program.outputs}
        by_output: dict[str, Floats] = {}
        now: dict[str, Floats] = {}
        for node in self.program.nodes:
            arrived = arrays[node.name] if isinstance(node, Input) else self._arriving(node, now)
            now[node.name] = value = self._value(node, arrived)
            if node.name in outputs:
                by_output[node.name] = value
        for name, past in self._past.items():
            past.appendleft(now[name])
        return by_output

    def _begin(self, batch: int) -> None:
        if self._batch is None:
            self._batch = batch
            self._states = {node.name: neurons.NeuronState(node, batch) for node in self.program.of(Neuron)}
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
        if isinstance(node, Neuron):
            state, out = self._states[node.name], np.empty((len(x), *node.shape), np.float32)
            with np.errstate(over="ignore", invalid="ignore"):
                state.step(x, out)
            state.require_finite()
            return out
        if isinstance(node, Delay):
            return self._delayed(node, x)
        return apply(node, x)

    def _delayed(self, node: Delay, x: Floats) -> Floats:
        past = self._arrived[node.name]
        past.appendleft(x)
        steps, y = np.broadcast_to(node.steps, node.shape), np.zeros_like(x)
        for d in np.unique(steps):
            if d < len(past):
                y[:, steps == d] = past[int(d)][:, steps == d]
        return y
