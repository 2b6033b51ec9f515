"""Compare a neuron's first steps with the code's: code often treats step 0 differently.

``v = c if v is None else beta * v + c`` starts from 0, as a graph does. ``v = c if v is None else beta * v + g * c``
does not, and a run shows it only where something arrives in step 0, which in a deep network may be never. So both are
run on currents drawn for the neuron itself, from step 0 on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stl_deploy._util.reachable import reachable
from stl_deploy.graph import neurons
from stl_deploy.tracing.evaluation import Unknown
from stl_deploy.tracing.layout import BATCH, Sizes, shape_of
from stl_deploy.tracing.nodes import Node, replace_nodes
from stl_deploy.tracing.operations import map_tree
from stl_deploy.tracing.source_lines import in_module
from stl_deploy.tracing.steps import DELAYS, NoNeuronError, Ref, Signal, SignalError, Steps
from stl_deploy.tracing.thresholds import is_elementwise

if TYPE_CHECKING:
    from stl_deploy.tracing.populations import Fitted
    from stl_deploy.tracing.readings import Population

_STEPS = 3
_SAMPLES = 16
_SIZES: Sizes = {BATCH: _SAMPLES}
_COARSE = (torch.float16, torch.bfloat16)
_TOLERANCE = 1e-4
"""Of the largest potential: float32 in another order; what is made otherwise differs by whole terms."""


def require_same_first_step(population: Population, fitted: Fitted, steps: Steps) -> None:
    """Run the code and the neuron on drawn currents from step 0 on.

    Raises:
        CaptureError: With the line, if potentials or spikes differ in the first steps.
    """
    signals = signals_of(population)
    if not any(signal.first is not None or any(_holds(node) for node in signal.before) for signal in signals):
        return
    if any(signal.node.dtype in _COARSE for signal in signals):
        return  # capture warns of coarser numbers
    try:
        step = _first_difference(population, fitted, _Code(steps, _drawn(population)))
    except Unknown:
        step = 0
    if step is not None:
        raise NoNeuronError(population.state)


def require_same_first_values(steps: Steps, compared: Collection[Signal]) -> None:
    """Make the first step of signals between neurons as the code does, and as every later step does, of drawn values.

    compared: signals of neurons, which `require_same_first_step` compares.

    Raises:
        CaptureError: With the line, if the two differ.
    """
    for signal in steps.signals:
        if signal.first is None or signal in compared or signal.node.dtype in _COARSE:
            continue
        drawn = _Drawn(steps)
        first, later = drawn.of_node(signal.first).double(), drawn.of_signal(signal).double()
        coarse = _TOLERANCE * max(1.0, float(later.abs().max()))
        if first.shape[1:] != later.shape[1:] or bool(((first - later).abs() > coarse).any()):
            where = signal.node.place
            raise SignalError(
                signal,
                f"'{signal.node.called}'{in_module(where)} differs between step 0 and the steps after; let every "
                f"step do the same{f' ({DELAYS})' if signal.node.name == 'cat' else ''}",
            )


class _Drawn:
    """Makes values of step 0, of drawn values of the signals that they read."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self._known: dict[Signal, Tensor] = {}
        self._generator = torch.Generator().manual_seed(0)

    def of_signal(self, signal: Signal) -> Tensor:
        """Return what later steps make in step 0."""
        args, kwargs = map_tree((signal.args, signal.kwargs), Ref, self._read)
        args, kwargs = replace_nodes((args, kwargs), lambda node: node.tensor)
        return signal.node.run(args, kwargs, _SIZES)

    def of_node(self, node: Node) -> Tensor:
        """Return the value that a node of step 0 makes."""
        if node.tensor is not None:
            return node.tensor
        signal, step = self.steps.of_node.get(node, (None, 0))
        if node.name == "input":
            signal = next(each for each in self.steps.signals if each.node.name == "input")
        if signal is not None:
            return self._read(Ref(signal, -step))
        args, kwargs = replace_nodes((node.args, dict(node.kwargs)), self.of_node)
        return node.run(args, kwargs, _SIZES)

    def _read(self, ref: Ref) -> Tensor:
        signal, shape = ref.signal, shape_of(ref.signal.node.layout, _SIZES)
        if ref.lag and not signal.still:
            before = signal.before[ref.lag - 1].tensor if len(signal.before) >= ref.lag > 0 else None
            return torch.zeros(shape, dtype=signal.node.dtype) if before is None else before
        if signal not in self._known:
            value = torch.randn(shape, generator=self._generator)
            self._known[signal] = value > 0 if signal.node.dtype == torch.bool else value.to(signal.node.dtype)
        return self._known[signal]


def _holds(node: Node) -> bool:
    return node.tensor is not None and bool(node.tensor.any())


def signals_of(population: Population) -> set[Signal]:
    """Return the signals between the currents and the neuron's potential and spikes."""
    stop = {ref.signal for ref in (*population.currents, *population.silent)}
    threshold = population.core.threshold
    ends = [population.state, *([] if threshold is None else [threshold.signal])]
    return {*reachable(ends, lambda signal: (ref.signal for ref in signal.reads() if ref.signal not in stop))}


def _drawn(population: Population) -> dict[Signal, list[Tensor]]:
    """Return values of the currents for each step, of weak and strong samples."""
    generator = torch.Generator().manual_seed(0)
    threshold = population.core.threshold
    theta = 1.0 if threshold is None else max(float(threshold.theta.abs().max()), 1e-6)
    strength = theta * torch.logspace(-1, 1, _SAMPLES, dtype=torch.float64)
    series: dict[Signal, list[Tensor]] = {}
    for signal in dict.fromkeys(ref.signal for ref in (*population.currents, *population.silent)):
        shape = shape_of(signal.node.layout, _SIZES)
        scale = strength.reshape(-1, *[1] * (len(shape) - 1)) if shape and shape[0] == _SAMPLES else theta
        series[signal] = [
            ((torch.randn(shape, generator=generator, dtype=torch.float64) + 0.5) * scale).float().double()
            for _ in range(_STEPS)
        ]
    return series


class _Code:
    """Evaluate the neuron's signals at absolute steps, in float64, as the recorded operations make them."""

    def __init__(self, steps: Steps, series: Mapping[Signal, list[Tensor]]) -> None:
        self.steps, self.series = steps, series
        self._known: dict[tuple[Signal, int], Tensor] = {}

    def at(self, signal: Signal, step: int) -> Tensor:
        """Return the value of a signal in a step; raise Unknown if it is neither arithmetic nor known."""
        key = (signal, step)
        if key not in self._known:
            self._known[key] = self._made(signal, step)
        return self._known[key]

    def read(self, ref: Ref, step: int) -> Tensor:
        """Return the value of a reference in a step; a signal that is the same at every step has one value."""
        return self.at(ref.signal, 0 if ref.signal.still else step - ref.lag)

    def _made(self, signal: Signal, step: int) -> Tensor:
        if step < 0:
            if len(signal.before) >= -step:
                return _number(signal.before[-step - 1].tensor)
            if signal in self.series:
                return torch.zeros((), dtype=torch.float64)
            raise Unknown
        if signal in self.series:
            return self.series[signal][step]
        if step == 0 and signal.first is not None:
            return self._node(signal.first, signal)
        if not is_elementwise(signal):
            raise Unknown
        args, kwargs = map_tree((signal.args, signal.kwargs), Ref, lambda ref: self.read(ref, step))
        args, kwargs = replace_nodes((args, kwargs), lambda node: _number(node.tensor))
        return _run(signal.node, args, kwargs)

    def _node(self, node: Node, reader: Signal) -> Tensor:
        """Return an operation of step 0 that no later step has."""
        if node.constant:
            return _number(node.tensor)
        known = self.steps.of_node.get(node)
        if known is not None and known[0] is not reader:
            return self.at(*known)
        current = next((signal for signal in self.series if _is_same_operation(signal.node, node)), None)
        if current is not None:
            return self.series[current][0]
        if not node.pointwise:
            raise Unknown
        args, kwargs = replace_nodes((node.args, dict(node.kwargs)), lambda inner: self._node(inner, reader))
        return _run(node, args, kwargs)


def _is_same_operation(later: Node, sooner: Node) -> bool:
    """Return whether one line makes both, with the same weights."""
    if (later.name, later.place, later.layout) != (sooner.name, sooner.place, sooner.layout):
        return False
    weights = ([n.tensor for n in node.inputs if n.constant] for node in (later, sooner))
    pairs = list(zip_longest(*weights))
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


def _run(node: Node, args: Any, kwargs: Any) -> Tensor:
    if node.name == "_to_copy":
        return args[0] != 0 if node.dtype == torch.bool else args[0].double()  # type: ignore[no-any-return]
    if node.name == "where" and args[0].dtype != torch.bool:
        args = (args[0] != 0, *args[1:])
    value = node.run(args, kwargs, _SIZES)
    return value if value.dtype == torch.bool else value.double()


def _number(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor.double() if tensor.is_floating_point() else tensor


def _first_difference(population: Population, fitted: Fitted, code: _Code) -> int | None:
    """Return the first step in which potential or spikes differ; None if none does."""
    neuron, threshold = fitted.neuron, population.core.threshold
    shape = (_SAMPLES, *neuron.shape)
    state, out = neurons.NeuronState(neuron, _SAMPLES), np.zeros(shape, np.float32)
    same = np.ones(shape, np.bool_)
    for step in range(_STEPS):
        total = np.zeros(shape, np.float64)
        for ref, gain in zip(population.currents, fitted.gains, strict=True):
            value = code.read(ref, step).numpy()
            total = total + (value if gain is None else value * gain)
        if fitted.recurrent is not None:
            total = total + fitted.recurrent * out
        state.charge(np.broadcast_to(total, shape).astype(np.float32))
        potential = np.broadcast_to(code.at(population.state, step).numpy(), shape).astype(np.float64)
        if neuron.v_min is not None:
            potential = np.maximum(potential, neuron.v_min)
        coarse = _TOLERANCE * max(1.0, float(np.abs(total).max()), float(np.abs(potential).max()))
        if bool((same & (np.abs(state.v - potential) > coarse)).any()):
            return step
        beside = np.zeros(shape, np.bool_)
        if neuron.threshold is not None:
            beside |= np.abs(potential - state.threshold) <= coarse
        state.release(out)
        if threshold is not None and not neuron.multi_spike:
            fired = np.broadcast_to(code.at(threshold.signal, step).numpy(), shape) != 0
            if bool((same & ~beside & (fired != (out != 0))).any()):
                return step
        same &= ~beside
    return None
