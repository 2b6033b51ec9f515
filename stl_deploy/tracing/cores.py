"""Cores: the groups of elementwise signals that hold a potential or a current from step to step.

A core is what remains strongly connected once no edge leaves a comparison: a spike acts on a potential (the reset), but
it does not carry it. Each core is one state of one population; its comparison, if there is one, makes the spikes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stl_deploy.errors import CaptureError
from stl_deploy.graph.segments import strongly_connected
from stl_deploy.tracing.nodes import Node, replace_nodes
from stl_deploy.tracing.recorder import COMPARES, map_tree
from stl_deploy.tracing.steps import Ref, Signal, Steps


@dataclass(frozen=True, eq=False)
class Threshold:
    """A comparison: spikes where the potential is above θ (``gt``), or has reached it (``ge``)."""

    signal: Signal
    potential: Signal
    theta: Tensor
    compare: str


@dataclass(frozen=True, eq=False)
class Core:
    """Signals that hold one state; ``threshold`` is None for a state that makes no spikes.

    again: the comparison of what the reset leaves with the same threshold, where there is one.
    """

    members: frozenset[Signal]
    threshold: Threshold | None
    again: Threshold | None = None


def is_elementwise(signal: Signal) -> bool:
    """Whether a signal is made of others element by element, in the same shape."""
    return signal.node.pointwise or signal.node.name in ("reshape", "expand")


def find_thresholds(steps: Steps) -> dict[Signal, Threshold]:
    """Every comparison of a signal with a constant."""
    found = {}
    for signal in steps.signals:
        if signal.node.name in COMPARES and signal.node.name not in ("eq", "ne"):
            threshold = _threshold(signal)
            if threshold is not None:
                found[signal] = threshold
    return found


def _threshold(signal: Signal) -> Threshold | None:
    name, args = signal.node.name, signal.args
    if name == "heaviside":
        at_zero = args[1].tensor if isinstance(args[1], Node) else None
        if at_zero is None or not isinstance(args[0], Ref) or float(at_zero.reshape(-1)[0]) not in (0.0, 1.0):
            return None
        return _of_difference(signal, args[0], torch.zeros(()), "ge" if float(at_zero.reshape(-1)[0]) else "gt")
    if name not in ("gt", "ge", "lt", "le"):
        return None
    left, right = args[0], args[1]
    if name in ("lt", "le"):
        left, right, name = right, left, {"lt": "gt", "le": "ge"}[name]
    if not isinstance(left, Ref) or isinstance(right, Ref):
        return None
    return _of_difference(signal, left, _constant(right), name)


def _of_difference(signal: Signal, left: Ref, theta: Tensor, compare: str) -> Threshold | None:
    """``h - θ > 0`` compares as ``h > θ`` does, for a difference of floats is 0 only if they are equal."""
    if left.lag:
        return None
    potential = left.signal
    if bool((theta == 0).all()) and potential.node.name == "sub" and not _alpha(potential):
        first, second = potential.args[0], potential.args[1]
        if isinstance(first, Ref) and not first.lag and not isinstance(second, Ref):
            return Threshold(signal, first.signal, _constant(second), compare)
    return Threshold(signal, potential, theta, compare)


def _alpha(signal: Signal) -> bool:
    return (signal.kwargs or {}).get("alpha", 1) != 1 or len(signal.args) > 2


def _constant(item: Any) -> Tensor:
    if isinstance(item, Node):
        assert item.tensor is not None
        return item.tensor
    return torch.tensor(float(item))


def find_cores(steps: Steps) -> list[Core]:
    """The cores of a graph of one step, in order."""
    thresholds = find_thresholds(steps)
    number = {signal: str(i) for i, signal in enumerate(steps.signals)}
    inner = [signal for signal in steps.signals if is_elementwise(signal)]
    reads = {
        number[s]: [
            number[r.signal] for r in s.reads() if is_elementwise(r.signal) and r.signal.node.name not in COMPARES
        ]
        for s in inner
    }
    groups = strongly_connected([number[s] for s in inner], reads)
    by_number = {number[s]: s for s in inner}
    cores = []
    for group in groups:
        if len(group) > 1 or group[0] in reads[group[0]]:
            members = frozenset(by_number[key] for key in group)
            cores.append(Core(members, *_thresholds_of(members, thresholds)))
    return cores


def _thresholds_of(
    members: frozenset[Signal], thresholds: Mapping[Signal, Threshold]
) -> tuple[Threshold | None, Threshold | None]:
    """The comparison that makes the spikes, and that of what their reset leaves."""
    found = [threshold for threshold in thresholds.values() if threshold.potential in members]
    if len(found) < 2:
        return (found[0] if found else None), None
    if len(found) == 2:
        for first, again in (found, found[::-1]):
            if _same_threshold(first, again) and _follows(again.potential, first.signal):
                return first, again
    raise CaptureError(
        "a potential is compared with thresholds in two places of one step; a neuron has one comparison",
        line=found[1].signal.node.place.line,
    )


def _same_threshold(one: Threshold, other: Threshold) -> bool:
    return one.compare == other.compare and bool((one.theta == other.theta).all())


def _follows(signal: Signal, earlier: Signal) -> bool:
    """Whether a signal depends on an earlier one by elementwise arithmetic of the same step."""
    seen, waiting = {signal}, [signal]
    while waiting:
        for ref in waiting.pop().reads():
            if ref.signal is earlier and not ref.lag:
                return True
            if not ref.lag and ref.signal not in seen and is_elementwise(ref.signal):
                seen.add(ref.signal)
                waiting.append(ref.signal)
    return False


class Evaluation:
    """Evaluates elementwise signals on numbers, with some of them given.

    given: by (signal, lag). Numbers are float64 (or the recorded types, if ``exact``), so that coefficients can be read
    off; what is asked for and neither given nor elementwise raises `Unknown`.
    """

    def __init__(self, given: Callable[[Signal, int], Tensor | None], *, exact: bool = False) -> None:
        self.given, self.exact = given, exact
        self._known: dict[tuple[Signal, int], Tensor] = {}

    def __call__(self, signal: Signal, lag: int) -> Tensor:
        """The value of a signal ``lag`` steps ago."""
        key = (signal, lag)
        if key not in self._known:
            found = self.given(signal, lag)
            self._known[key] = self._computed(signal, lag) if found is None else found
        return self._known[key]

    def _computed(self, signal: Signal, lag: int) -> Tensor:
        if lag > 2 or not is_elementwise(signal):
            raise Unknown(signal, lag)
        name = signal.node.name
        if name in ("reshape", "expand"):
            raise Unknown(signal, lag)
        args, kwargs = map_tree((signal.args, signal.kwargs), Ref, lambda ref: self(ref.signal, lag + ref.lag))
        args, kwargs = replace_nodes((args, kwargs), lambda node: self._number(node.tensor))
        if name == "_to_copy" and not self.exact:
            return args[0].double()  # type: ignore[no-any-return]
        if name == "where" and args[0].dtype != torch.bool:
            args = (args[0] != 0, *args[1:])
        found = signal.node.run(args, kwargs, {})
        return found if self.exact or found.dtype == torch.bool else found.double()

    def _number(self, tensor: Tensor | None) -> Tensor:
        assert tensor is not None
        return tensor.double() if tensor.is_floating_point() and not self.exact else tensor


class Unknown(Exception):
    """A value that an evaluation was not given."""

    def __init__(self, signal: Signal, lag: int) -> None:
        super().__init__(signal.node.name, lag)
        self.signal, self.lag = signal, lag
