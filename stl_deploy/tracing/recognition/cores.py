"""Cores: the groups of elementwise signals that hold a potential or a current from step to step.

A core is what remains strongly connected once no edge leaves a comparison, or a count of spikes: a spike acts on a
potential (the reset), but it does not carry it. Each core is one state of one population; its comparison, if there is
one, makes the spikes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stl_deploy._util.reachable import reachable
from stl_deploy.graph.segments import strongly_connected
from stl_deploy.tracing.recognition.adaptation import adapting_threshold
from stl_deploy.tracing.recognition.thresholds import Threshold, is_elementwise, of_state
from stl_deploy.tracing.recording.operations import COMPARES
from stl_deploy.tracing.unrolling.steps import NoNeuronError, Signal, Steps


@dataclass(frozen=True, eq=False)
class Recurrence:
    """Signals that hold one state; ``threshold`` is None for a state that makes no spikes.

    again: the comparison of what the reset leaves with the same threshold, where there is one.
    """

    members: frozenset[Signal]
    threshold: Threshold | None
    again: Threshold | None = None


def find_cores(steps: Steps, thresholds: Mapping[Signal, Threshold]) -> tuple[list[Recurrence], list[NoNeuronError]]:
    """Return the cores of a graph of one step, in order, and the refusals of those whose comparisons are no neuron's.

    thresholds: see `find_thresholds`.
    """
    refused: list[NoNeuronError] = []
    counts = {signal for signal, threshold in thresholds.items() if threshold.count is not None}
    carriers = {
        signal
        for signal in steps.signals
        if is_elementwise(signal) and signal.node.name not in COMPARES and signal not in counts
    }
    reads = {
        signal: [ref.signal for ref in signal.reads() if ref.signal in carriers]
        for signal in steps.signals
        if is_elementwise(signal)
    }
    groups = strongly_connected(reads, reads)
    cores = [frozenset(group) for group in groups if len(group) > 1 or group[0] in reads[group[0]]]
    held = frozenset[Signal]().union(*cores)
    thresholds = {signal: of_state(threshold, held) for signal, threshold in thresholds.items()}
    for signal in steps.signals:
        fixed = thresholds.get(signal)
        if signal.node.name in COMPARES and (fixed is None or fixed.potential not in held):
            try:
                adapting = adapting_threshold(signal, cores)
            except NoNeuronError as error:
                refused.append(error)
                continue
            if adapting is not None:
                thresholds[signal] = adapting
    recurrences: list[Recurrence] = []
    for members in cores:
        try:
            recurrences.append(Recurrence(members, *_thresholds_of(members, thresholds)))
        except NoNeuronError as error:
            refused.append(error)
    return recurrences, refused


def _thresholds_of(
    members: frozenset[Signal], thresholds: Mapping[Signal, Threshold]
) -> tuple[Threshold | None, Threshold | None]:
    """Return the comparison that makes the spikes, and that of their reset's remainder."""
    comparisons = [threshold for threshold in thresholds.values() if threshold.potential in members]
    if len(comparisons) < 2:
        return (comparisons[0] if comparisons else None), None
    if len(comparisons) == 2:
        # Either may come first in the code; the second one compares what the first one's reset left.
        for first, again in (comparisons, comparisons[::-1]):
            same = first.compare == again.compare and bool((first.theta == again.theta).all())
            if same and _follows(again.potential, first.signal):
                return first, again
    raise NoNeuronError(comparisons[1].signal)


def _follows(signal: Signal, earlier: Signal) -> bool:
    """Return whether a signal depends on an earlier one by elementwise arithmetic of the same step."""

    def before(later: Signal) -> list[Signal]:
        goes_on = later is signal or is_elementwise(later)
        return [ref.signal for ref in later.reads() if not ref.lag] if goes_on else []

    return any(reached is earlier for reached in reachable(before(signal), before))
