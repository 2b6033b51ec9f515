"""Trace a torch module on a real batch: return the graph of one step and its Program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from stl_deploy._util.remedies import named, option
from stl_deploy.errors import CaptureError
from stl_deploy.graph.readout import Readout
from stl_deploy.tracing.layers import Layers, to_layers
from stl_deploy.tracing.recognition.lowering import LOWERED
from stl_deploy.tracing.recognition.thresholds import one_step
from stl_deploy.tracing.recording.decomposed import Decomposed
from stl_deploy.tracing.recording.running import Call, Recorded, record, recorded_ops, run
from stl_deploy.tracing.recording.source_lines import Place
from stl_deploy.tracing.recording.watched import leaves
from stl_deploy.tracing.unrolling.nodes import Node
from stl_deploy.tracing.unrolling.readouts import Ending, ending
from stl_deploy.tracing.unrolling.rules import SOFTMAXES
from stl_deploy.tracing.unrolling.steps import FEWEST, Signal, Steps, fold_steps

RECORDED = 32
"""Number of steps in which what repeats is looked for first; all steps are compared with it."""
REPEATED = 128
"""Steps to which x is repeated where it has fewer than a model remembers."""


@dataclass(eq=False, kw_only=True)
class Traced(Layers):
    """A module as one step.

    recorded: steps that were traced, of the ``length`` of x. left_aside: tensors that the module returns besides its
    output. states: forward's arguments that pass state from step to step. made: the module's output on the traced
    input.
    """

    call: Call
    steps: Steps
    readout: Readout
    axis: int | None
    recorded: int
    length: int
    left_aside: int
    states: tuple[str, ...]
    made: Tensor


def trace(model: nn.Module, x: Tensor, call: Call) -> Traced:
    """Trace ``model`` on ``x`` as it takes it (`Call`); where that is refused, with composite operations spelled out.

    Raises CaptureError, with the line in the user's file, for what has no form in a graph.
    """
    try:
        return _traced(model, x, call)
    except CaptureError as error:
        if call.decomposed is not None or error.__cause__ is not None:
            raise
        refused = error
    for kept, wanted in ((LOWERED | SOFTMAXES, None), (LOWERED, SOFTMAXES)):  # a readout may end with a softmax
        mode = Decomposed(kept)
        with suppress(CaptureError):
            run(model, x, replace(call, decomposed=mode))
        if mode.names and (wanted is None or mode.names & wanted):
            try:
                return _traced(model, x, replace(call, decomposed=mode))
            except CaptureError as error:
                spelled = any(f"'{name}' has no form" in refused.reason for name in mode.names)
                if spelled or error.line != refused.line:  # else the first speaks of what the user wrote
                    refused = error
    raise refused


def _traced(model: nn.Module, x: Tensor, call: Call) -> Traced:
    recorded, end, length = record_steps(model, x, call)
    if end.divides or end.readout.start:
        longer = _of_longer(model, x, call)
        if longer is not None and end.divides and not longer.divides:  # by a number, not by that of the steps
            end = ending(recorded.output, recorded.unroller.nodes, length, sums=True)
        later = 0 if longer is None else longer.readout.start - end.readout.start
        if later == length:  # the last steps, however many
            end = end._replace(readout=replace(end.readout, start=end.readout.start - length))
        elif later:
            raise CaptureError(
                f"of {length} steps the model leaves out the first {end.readout.start}, and of {2 * length} steps "
                f"{end.readout.start + later}; return every step, [T, B, ...], and leave steps out afterwards"
            )
    steps = one_step(end.nodes)
    return Traced(
        **vars(to_layers(steps)),
        call=call,
        steps=steps,
        readout=end.readout,
        axis=end.axis,
        recorded=length,
        length=length,
        left_aside=recorded.left_aside,
        states=recorded.states,
        made=recorded.tensor,
    )


def require_drawn_starts(model: nn.Module, x: Tensor, traced: Traced) -> None:
    """Raise CaptureError unless the random numbers that are 0 in a traced step are only what its states start from."""
    steps = one_step(record_steps(model, x, replace(traced.call, drawn=1.0))[1].nodes)
    ones, zeros = (list(map(_constants, each.signals)) for each in (steps, traced.steps))
    same = len(ones) == len(zeros) and all(map(_are_equal, ones, zeros))
    if not same:
        raise CaptureError(
            f"the model draws random numbers at every step, and {option('start', 'zeros')} is for those from which "
            "states start; draw in training only (if self.training)",
            slug="random-numbers",
        )


def _constants(signal: Signal) -> list[Tensor]:
    """Return the constants that a signal reads at every step."""
    read = (item.tensor for item in leaves((signal.args, signal.kwargs)) if isinstance(item, Node))
    return [tensor for tensor in read if tensor is not None]


def _are_equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def _of_longer(model: nn.Module, x: Tensor, call: Call) -> Ending | None:
    """Return how the model ends in a run of twice as many steps; None if it runs for as many as x has only."""
    if call.time == "inside":
        return None
    at = 1 if call.time == "second" else 0
    longer = x.index_select(at, torch.arange(2 * x.shape[at]) % x.shape[at])
    try:
        return record_steps(model, longer, call)[1]
    except CaptureError:
        return None


def record_steps(
    model: nn.Module, x: Tensor, call: Call, *, keep: bool = False, length: int | None = None, sums: bool = False
) -> tuple[Recorded, Ending, int]:
    """Record a run; return its ending and number of steps (length, if that is known); sums: see `ending`."""
    if call.time != "inside":
        steps = x.shape[1 if call.time == "second" else 0]
        if steps < FEWEST:
            raise CaptureError(
                f"x: expected at least {FEWEST} time steps, to tell what repeats; found {steps} with "
                f"{option('time', call.time)}; give more steps, or the {named('time')} that x has"
            )
        recorded = record(model, x, call, steps, keep=keep)
        return recorded, ending(recorded.output, recorded.unroller.nodes, steps, sums=sums), steps
    refused: CaptureError | None = None
    for steps in [length] if length else list(_lengths(model, x, call)):
        try:
            recorded = record(model, x, call, steps, keep=keep)
            end = ending(recorded.output, recorded.unroller.nodes, steps, fixed=True)
            fold_steps(end.nodes)
            return recorded, end, steps
        except CaptureError as error:
            refused = refused or error
    raise refused or CaptureError(f"the model has no loop over time; with {option('time', 'first')} x is [T, B, ...]")


def _lengths(model: nn.Module, x: Tensor, call: Call) -> Iterator[int]:
    """Return possible step counts of an inner loop: sizes that appear with it, the likeliest first."""
    counts: Counter[int] = Counter()
    lines: Counter[tuple[str, Place]] = Counter()
    for op in recorded_ops(model, x, call):
        if op.name in ("stack", "cat"):
            counts[len(op.args[0])] += 8
        elif op.name == "repeat":
            counts.update(n for n in op.args[1] if n > 1)
        elif op.name == "expand":
            counts.update(n for n in op.outputs[0].shape[:2] if n > 1)
        lines[op.name, op.place] += 1
    for count in lines.values():
        counts[count] += 1
    yield from (size for size, _ in counts.most_common(12) if size >= FEWEST)


def batch_axis(call: Call) -> int:
    """Return the sample axis of the module's input."""
    return 1 if call.time in ("first", "step") else 0


def steps_of(call: Call, x: Tensor, length: int) -> list[Tensor]:
    """Return the graph's input at each step, copied as the module's is: its place in memory decides MKL's last bits."""
    match call.time:
        case "step":
            return [step.clone() for step in x.unbind(0)]
        case "first":
            return list(x.clone().unbind(0))
        case "second":
            return list(x.clone().unbind(1))
    return [x.clone()] * length
