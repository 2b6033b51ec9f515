"""Cores: the groups of elementwise signals that hold a potential or a current from step to step.

A core is what remains strongly connected once no edge leaves a comparison, or a count of spikes: a spike acts on a
potential (the reset), but it does not carry it. Each core is one state of one population; its comparison, if there is
one, makes the spikes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stl_deploy.errors import CaptureError
from stl_deploy.graph.segments import strongly_connected
from stl_deploy.tracing.nodes import replace_nodes
from stl_deploy.tracing.recorder import COMPARES, map_tree
from stl_deploy.tracing.remedies import CONDITIONS, no_form
from stl_deploy.tracing.source_lines import in_module
from stl_deploy.tracing.steps import Ref, Signal, Steps
from stl_deploy.tracing.thresholds import Threshold, find_thresholds, is_elementwise, of_state


@dataclass(frozen=True, eq=False)
class Recurrence:
    """Signals that hold one state; ``threshold`` is None for a state that makes no spikes.

    again: the comparison of what the reset leaves with the same threshold, where there is one.
    """

    members: frozenset[Signal]
    threshold: Threshold | None
    again: Threshold | None = None


def find_cores(steps: Steps) -> list[Recurrence]:
    """The cores of a graph of one step, in order."""
    thresholds = find_thresholds(steps)
    number = {signal: str(i) for i, signal in enumerate(steps.signals)}
    inner = [signal for signal in steps.signals if is_elementwise(signal)]
    reads = {
        number[s]: [
            number[r.signal]
            for r in s.reads()
            if is_elementwise(r.signal) and r.signal.node.name not in COMPARES and not _is_count(r.signal, thresholds)
        ]
        for s in inner
    }
    groups = strongly_connected([number[s] for s in inner], reads)
    by_number = {number[s]: s for s in inner}
    cores: list[frozenset[Signal]] = []
    for group in groups:
        if len(group) > 1 or group[0] in reads[group[0]]:
            members = frozenset(by_number[key] for key in group)
            cores.append(members)
    held = frozenset[Signal]().union(*cores)
    thresholds = {signal: of_state(threshold, held) for signal, threshold in thresholds.items()}
    return [Recurrence(members, *_thresholds_of(members, thresholds)) for members in cores]


def _is_count(signal: Signal, thresholds: Mapping[Signal, Threshold]) -> bool:
    return signal in thresholds and thresholds[signal].count is not None


def _thresholds_of(
    members: frozenset[Signal], thresholds: Mapping[Signal, Threshold]
) -> tuple[Threshold | None, Threshold | None]:
    """The comparison that makes the spikes, and that of what their reset leaves."""
    found = [threshold for threshold in thresholds.values() if threshold.potential in members]
    if len(found) < 2:
        return (found[0] if found else None), None
    if len(found) == 2:
        for first, again in (found, found[::-1]):
            same = first.compare == again.compare and bool((first.theta == again.theta).all())
            if same and _follows(again.potential, first.signal):
                return first, again
    raise CaptureError(
        "a potential is compared with thresholds in two places of one step; a neuron has one comparison",
        line=found[1].signal.node.place.line,
    )


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
    off; what is asked for and neither given nor elementwise raises `Unknown`. passing: signals in whose place the one
    that they are made of is taken.
    """

    def __init__(
        self,
        given: Callable[[Signal, int], Tensor | None],
        *,
        exact: bool = False,
        passing: Mapping[Signal, Ref] | None = None,
    ) -> None:
        self.given, self.exact, self.passing = given, exact, passing or {}
        self._known: dict[tuple[Signal, int], Tensor] = {}

    def __call__(self, signal: Signal, lag: int) -> Tensor:
        """The value of a signal ``lag`` steps ago."""
        key = (signal, lag)
        if key not in self._known:
            found = self.given(signal, lag)
            self._known[key] = self._computed(signal, lag) if found is None else found
        return self._known[key]

    def _computed(self, signal: Signal, lag: int) -> Tensor:
        if signal in self.passing:
            return self(self.passing[signal].signal, lag + self.passing[signal].lag)
        if lag > 2 or not is_elementwise(signal):
            raise Unknown(signal, lag)
        name = signal.node.name
        if name in ("reshape", "expand"):
            raise Unknown(signal, lag)
        args, kwargs = map_tree((signal.args, signal.kwargs), Ref, lambda ref: self(ref.signal, lag + ref.lag))
        args, kwargs = replace_nodes((args, kwargs), lambda node: self._number(node.tensor))
        if name == "_to_copy" and not self.exact:
            to_bool = signal.node.dtype == torch.bool
            return args[0] != 0 if to_bool else args[0].double()  # type: ignore[no-any-return]
        if name == "where" and args[0].dtype != torch.bool:
            args = (args[0] != 0, *args[1:])
        if name in CONDITIONS and any(arg.dtype != torch.bool for arg in args):
            where = signal.node.place
            raise CaptureError(no_form(name) + in_module(where), line=where.line)
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
