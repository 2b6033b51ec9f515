"""Group the elementwise signals of one step into Cells, without classifying them.

Signals behind the same number of layers that read one another, at any lag, are one Cell. What is not elementwise is a
layer. A leak, which reads a state of the step before and no layer of this one, belongs to the step that reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stl_deploy.tracing.unrolling.steps import Signal, Steps, in_order


def _reads_now(steps: Steps, signal: Signal) -> list[Signal]:
    """Return the signals of the same step that a signal reads, in the first step or after it."""
    reads = [ref.signal for ref in signal.reads() if not ref.lag or ref.signal.still]
    return reads + steps.first_reads(signal)


def grouped_signals(steps: Steps) -> list[list[Signal]]:
    """Return the signals of each Cell, in an order in which each comes after those of its step that it reads."""
    now = {signal: _reads_now(steps, signal) for signal in steps.signals}
    order = list(in_order(steps.signals, now.__getitem__))
    level = _levels(order, now, steps.output.signal)
    leader = {signal: signal for signal in order if signal.node.pointwise}

    def lead(signal: Signal) -> Signal:
        while leader[signal] is not signal:
            signal = leader[signal]
        return signal

    for signal in leader:
        for read in steps.all_reads(signal):
            if read in leader and level[read] == level[signal]:
                leader[lead(read)] = lead(signal)
    groups: dict[Signal, list[Signal]] = {}
    for signal in order:
        if signal in leader:
            groups.setdefault(lead(signal), []).append(signal)
    return list(groups.values())


def _levels(order: list[Signal], now: Mapping[Signal, list[Signal]], output: Signal) -> dict[Signal, int]:
    """Return the number of layers before each signal in its step; an elementwise one as late as its readers allow."""
    depth: dict[Signal, int] = {}
    for signal in order:
        depth[signal] = max((depth[read] for read in now[signal]), default=0) + (not signal.node.pointwise)
    bounds: dict[Signal, list[int]] = {signal: [] for signal in order}
    level: dict[Signal, int] = {}
    for signal in reversed(order):
        late = signal.node.pointwise and bounds[signal] and signal is not output
        level[signal] = max(depth[signal], min(bounds[signal])) if late else depth[signal]
        for read in now[signal]:
            bounds[read].append(level[signal] - (not signal.node.pointwise))
    return level


def read_outside(steps: Steps, group: Iterable[Signal]) -> list[Signal]:
    """Return the signals of a group that others read, or that are the output, in order."""
    inside = dict.fromkeys(group)
    read = {steps.output.signal}
    for signal in steps.signals:
        if signal not in inside:
            read |= {*steps.all_reads(signal)}
    return [signal for signal in inside if signal in read]
