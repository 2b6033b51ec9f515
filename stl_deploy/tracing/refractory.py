"""Recognise refractory counters, to refuse them by name where no node has their form.

A counter that gates the input is captured: it is a neuron of its own, and the gate a product.

A counter is a state that spikes alone drive. Without spikes it moves by 1 in each step, towards the level at which the
neuron may fire again, or away from the last spike.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from stl_deploy.errors import CaptureError
from stl_deploy.graph.segments import strongly_connected
from stl_deploy.tracing.evaluation import Evaluation, Unknown
from stl_deploy.tracing.operations import COMPARES
from stl_deploy.tracing.source_lines import in_module
from stl_deploy.tracing.steps import Signal, Steps
from stl_deploy.tracing.thresholds import is_elementwise

_COUNTS = (7.0, 6.0, 5.0)
"""Values of a state from which a counter goes to the next smaller or larger integer."""


def explained(error: CaptureError, steps: Steps) -> CaptureError:
    """Return a refusal that names the refractory counter which causes it, if one does; else the given refusal.

    A counter that gates the input as advised causes only refusals of its own lines, another one those of its neuron's.
    """
    for state, counter in _counters(steps):
        neuron = _neuron(steps, state)
        inside = neuron | counter
        readers = [s for s in steps.signals if s not in counter and any(r.signal in counter for r in s.reads())]
        equal = next((s for s in readers if s.node.name in ("eq", "ne")), None)
        if equal is not None and equal.node.place.line == error.line:
            where = equal.node.place
            return CaptureError(
                f"'{equal.node.name}' compares a refractory counter, which a graph does by order only; let it count "
                f"down and gate the input by rest <= 0: v = beta * v + x * (rest <= 0){in_module(where)}",
                line=where.line or error.line,
            )
        gates = all(_gates_input(steps, reader, inside) for reader in readers)
        if error.line in {signal.node.place.line for signal in (counter if gates else inside)}:
            where = state.node.place
            return CaptureError(
                "a neuron counts steps after its spike and rests meanwhile (a refractory time), in a form that no node "
                "has; let the counter gate the input, rest = (rest - 1).clamp(min=0); "
                "v = beta * v + x * (rest <= 0); s = v > theta; rest = rest + n * s, or a spike raise an adapting "
                f"threshold (stl.ALIF){in_module(where)}",
                line=where.line or error.line,
            )
    return error


def _neuron(steps: Steps, state: Signal) -> set[Signal]:
    """Return the signals that a counter's state depends on and that depend on it: those of its neuron."""
    number = {signal: str(i) for i, signal in enumerate(steps.signals)}
    reads = {number[s]: [number[r.signal] for r in s.reads() if r.signal in number] for s in steps.signals}
    group = next((g for g in strongly_connected(list(reads), reads) if number.get(state) in g), [])
    return {steps.signals[int(key)] for key in group}


def _gates_input(steps: Steps, reader: Signal, inside: set[Signal]) -> bool:
    """Return whether a counter's reader compares it by order, to multiply by that what is no signal of its neuron."""
    if reader.node.name not in COMPARES:
        return False
    gates, multiplied = [reader], False
    while gates:
        gate = gates.pop()
        for by in steps.signals:
            operands = [r.signal for r in by.reads()]
            if gate not in operands:
                continue
            if by.node.name == "_to_copy":
                gates.append(by)
            elif by.node.name != "mul" or any(other in inside for other in operands if other is not gate):
                return False
            else:
                multiplied = True
    return multiplied


def _counters(steps: Steps) -> Iterator[tuple[Signal, set[Signal]]]:
    """Yield the state of each counter, and its signals."""
    inner = [signal for signal in steps.signals if is_elementwise(signal)]
    number = {signal: str(i) for i, signal in enumerate(inner)}
    reads = {
        number[s]: [number[r.signal] for r in s.reads() if r.signal in number and r.signal.node.name not in COMPARES]
        for s in inner
    }
    for group in strongly_connected(list(reads), reads):
        members = {inner[int(key)] for key in group}
        carried = {r.signal for s in members for r in s.reads() if r.lag == 1 and r.signal in members}
        if len(carried) == 1 and _counts(state := carried.pop(), members):
            yield state, members


def _counts(state: Signal, members: set[Signal]) -> bool:
    """Return whether a state moves by 1 in each step without spikes, and reads nothing but comparisons."""

    def after(value: float) -> float:
        def given(signal: Signal, lag: int) -> Tensor | None:
            if signal is state and lag == 1:
                return torch.tensor(value, dtype=torch.float64)
            if signal.node.name in COMPARES and (lag or not any(ref.signal in members for ref in signal.reads())):
                return torch.zeros((), dtype=torch.bool)
            return None

        return float(Evaluation(given)(state, 0).double().flatten()[0])

    try:
        moved = {after(value) - value for value in _COUNTS}
    except (Unknown, CaptureError, RuntimeError, TypeError):
        return False
    return moved in ({-1.0}, {1.0})
