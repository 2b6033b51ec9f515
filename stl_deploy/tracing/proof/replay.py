"""Run the graph of one step by torch's own kernels in the recorded order, for the first part of the proof."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from stl_deploy.graph.segments import strongly_connected
from stl_deploy.tracing.recording.operations import map_tree
from stl_deploy.tracing.unrolling.contents import lying
from stl_deploy.tracing.unrolling.layout import BATCH, TIME, Dim, Sizes, axis_of, shape_of
from stl_deploy.tracing.unrolling.nodes import Node, replace_nodes
from stl_deploy.tracing.unrolling.steps import Ref, Signal, Steps
from stl_deploy.tracing.unrolling.time_convolution import AT_ONCE

Values = dict[Signal, list[Tensor]]
"""The value of each signal at each step."""


def replay(steps: Steps, x: Sequence[Tensor], keep: Sequence[Signal]) -> Values:
    """Run the graph of one step on ``x``, one ``[B, *shape]`` for each step; return the outputs of ``keep``.

    Operations on all time steps at once are run that way here, too, as kernels round by the shapes they are given.
    """
    running = _Replay(steps, x, set(keep) | {steps.output.signal})
    with torch.no_grad():
        running.run()
    return running.values


class _Replay:
    def __init__(self, steps: Steps, x: Sequence[Tensor], keep: set[Signal]) -> None:
        self.steps, self.x, self.keep = steps, x, keep
        self.sizes: Sizes = {TIME: len(x), BATCH: x[0].shape[0]}
        self.values: Values = {}
        self._filled: dict[Signal, Any] = {}
        """Arguments with constants as tensors, and the places of those that are signals; None where they are nested."""

    def run(self) -> None:
        waiting = {s: 0 for s in self.steps.signals}
        for signal in self.steps.signals:
            for read in {*self.steps.all_reads(signal)}:
                waiting[read] += 1
        for segment in segments(self.steps):
            if len(segment) == 1 and segment[0] not in [r.signal for r in segment[0].reads()]:
                self._feed_forward(segment[0])
            else:
                for t in range(len(self.x)):
                    for signal in segment:
                        self._step(signal, t)
            for signal in segment:
                for read in {*self.steps.all_reads(signal)}:
                    waiting[read] -= 1
            for signal in list(self.values):
                if not waiting[signal] and signal not in self.keep:
                    del self.values[signal]

    def _feed_forward(self, signal: Signal) -> None:
        over_time = signal.node.name in AT_ONCE
        if over_time and len({ref.signal for ref in signal.reads()}) == 1:
            self.values[signal] = self._convolved(signal)
            return
        if signal.node.folded is not None and not over_time:
            self.values[signal] = self._at_once(signal, signal.node.folded)
            return
        for t in range(len(self.x)):
            self._step(signal, t)

    def _at_once(self, signal: Signal, order: Dim) -> list[Tensor]:
        (read,) = signal.reads()
        axis, start = order.index(TIME), signal.node.axis
        end = start + len(order)
        sizes = [f if isinstance(f, int) else self.sizes[f] for f in order]
        others = [size for f, size in zip(order, sizes, strict=True) if f != TIME]
        parts = torch.broadcast_tensors(*(self._read(read, t) for t in range(len(self.x))))  # type: ignore[no-untyped-call]
        parts = [_split(part, start, others) if len(others) > 1 else part for part in parts]
        joined = lying(torch.stack(parts, start + axis).flatten(start, end - 1), signal.node.memory)
        values = signal.made_of(lambda ref: joined, self.sizes)
        steps = _split(values, start, sizes).unbind(start + axis)
        return [step.flatten(start, end - 2) if len(others) > 1 else step for step in steps]

    def _convolved(self, signal: Signal) -> list[Tensor]:
        """Run a weighted sum over time of all steps, with its input's values before the first."""
        lags = [ref.lag for ref in signal.reads()]
        oldest = Ref(signal.reads()[0].signal, max(lags))
        series = tuple(self._read(oldest, t) for t in range(len(self.x) + max(lags) - min(lags)))
        args, _ = replace_nodes((signal.args[1:], {}), lambda node: node.value)
        outputs = AT_ONCE[signal.node.name](series, *args)
        return list(outputs.unbind(signal.node.axis))

    def _step(self, signal: Signal, t: int) -> None:
        done = self.values.setdefault(signal, [])
        if signal.still and done:
            done.append(done[0])
        elif signal.node.name == "input":
            done.append(self.x[0 if signal.still else t])
        elif t == 0 and signal.first is not None:
            first = self.steps.at_first(signal, signal.first, self._known, self._made)
            done.append(self._of_all_samples(first, signal))
        else:
            args, kwargs = self._arguments(signal, t)
            done.append(signal.node.run(args, kwargs, self.sizes))

    def _arguments(self, signal: Signal, t: int) -> tuple[Any, Any]:
        """Return a signal's arguments at a step."""
        if signal not in self._filled:
            filled = replace_nodes((signal.args, signal.kwargs), lambda node: node.value)
            places = [place for place, item in enumerate(filled[0]) if isinstance(item, Ref)]
            self._filled[signal] = *filled, places if len(places) == len(signal.reads()) else None
        args, kwargs, places = self._filled[signal]
        if places is None:
            return map_tree((args, kwargs), Ref, lambda ref: self._read(ref, t))  # type: ignore[no-any-return]
        made = list(args)
        for place in places:
            made[place] = self._read(made[place], t)
        return made, kwargs

    def _read(self, ref: Ref, t: int) -> Tensor:
        at = t - ref.lag
        if ref.signal.still:
            return self.values[ref.signal][0]
        if at >= 0:
            return self.values[ref.signal][at]
        if len(ref.signal.before) < -at:  # what no output needs, or the proof finds a difference
            layout = ref.signal.node.layout
            return torch.zeros(shape_of(layout, self.sizes), dtype=ref.signal.node.dtype)
        return self._of_all_samples(ref.signal.before[-at - 1].value, ref.signal)

    def _of_all_samples(self, start: Tensor, signal: Signal) -> Tensor:
        """Repeat a signal's start of one sample for each of x's samples, as matmul does not broadcast them."""
        layout = signal.node.layout
        axis = axis_of(layout, BATCH)
        if axis is None or start.dim() != len(layout) or start.shape[axis] != shape_of(layout, {BATCH: 1})[axis]:
            return start
        dim = layout[axis]
        parts = _split(start, axis, shape_of(tuple((f,) for f in dim), {BATCH: 1}))
        sizes = shape_of(tuple((f,) for f in dim), self.sizes)
        repeated = parts.expand(*start.shape[:axis], *sizes, *start.shape[axis + 1 :])
        return repeated.flatten(axis, axis + len(dim) - 1)

    def _known(self, signal: Signal, step: int) -> Tensor | None:
        values = self.values.get(signal, [])
        return values[step] if step < len(values) else None

    def _made(self, node: Node, read: Callable[[Node], Tensor]) -> Tensor:
        return self.x[node.args[0] or 0] if node.name == "input" else node.made_of(read, self.sizes)


def _split(tensor: Tensor, axis: int, sizes: Sequence[int]) -> Tensor:
    return tensor.reshape(*tensor.shape[:axis], *sizes, *tensor.shape[axis + 1 :])


def segments(steps: Steps) -> Iterator[list[Signal]]:
    """Return groups of signals that depend on one another, each after its sources."""
    place = {signal: i for i, signal in enumerate(steps.signals)}
    for group in strongly_connected(steps.signals, {signal: steps.all_reads(signal) for signal in steps.signals}):
        yield sorted(group, key=place.__getitem__)
