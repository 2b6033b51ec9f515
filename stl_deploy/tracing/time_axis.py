"""Find the axis of a batch that is time: ask where a module fails, warn where its own steps contradict x."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from stl_deploy._util.remedies import option, remedy
from stl_deploy._util.units import counted
from stl_deploy.errors import CaptureError, InputError
from stl_deploy.graph.program import Delay, Neuron, Program
from stl_deploy.nn.population import Population
from stl_deploy.tracing import Call, trace
from stl_deploy.tracing.recording.repeatable import keeps_state
from stl_deploy.tracing.recording.running import run as run_module
from stl_deploy.tracing.trace import batch_axis
from stl_deploy.tracing.unrolling.steps import FEWEST

_STEPS = re.compile(r"T|n_?t|(num|n|nb)?_?(time_?)?steps?|time_?steps?|time_?window|seq(uence)?_?len(gth)?", re.I)
"""Names of attributes that hold a number of time steps."""
_SAMPLES, _LEVELS = 3, 256
_ALIKE, _ENOUGH = 0.7, 1000
"""Steps of one sample differ by at most this share of what samples differ by, in the mean square of so many values."""
FAILURES = (CaptureError, InputError, RuntimeError, ValueError, IndexError, TypeError, AssertionError)
AXES = {
    "first": "[T, B, ...]",
    "second": "[B, T, ...]",
    "step": "[B, ...] of one step",
    **dict.fromkeys(("inside", "none"), "[B, ...]"),
}
"""Axes of x in forward, by the position of time."""


def few_samples(x: Tensor, call: Call) -> Tensor:
    """A few samples to trace with: at least 2, of a number that is not that of the steps."""
    axis = batch_axis(call)
    # As many samples as steps would leave open which axis is which.
    wanted = 2 if call.time != "inside" and x.shape[1 - axis] == _SAMPLES else _SAMPLES
    index = torch.arange(wanted) % x.shape[axis]
    return x.index_select(axis, index)


def as_asked(error: CaptureError, model: nn.Module, x: Tensor, call: Call) -> CaptureError:
    """A refusal, with the axes named with which the module is captured: in the other order, or one of samples more."""
    if error.__cause__ is not None and _moves_with_samples(model, x, call):
        return _own_samples(error, x, call)
    if call.time in ("first", "second"):
        other = replace(call, time="second" if call.time == "first" else "first")
        for given, how, said in (
            (x, other, option("time", other.time)),
            (x.transpose(0, 1), call, remedy(cli="its first two axes swapped", python="x.transpose(0, 1)")),
        ):
            few = few_samples(given.contiguous(), how)
            if _is_captured(model, few, how):
                return _other_order(error, model, x, call, few, how, said)
    elif not call.timeless:  # a whole sequence, given to a model that takes one
        for time in ("second", "first"):
            how = replace(call, time=time)
            if _loops(model, x, how):
                said = f"if forward takes {AXES[time]}, give {option('time', time)}"
                return _other_reading(error, x, call, said)
        given, how, said = _as_step(x.unsqueeze(0).expand(_SAMPLES, *x.shape), call)
        if call.time == "inside" and _is_captured(model, given, how):
            return _other_reading(error, x, call, said)
    if error.__cause__ is None:
        return error
    readings = list(_other_readings(x, call))
    if call.time in ("first", "second") and _loops(model, x, replace(call, time="inside")):
        return _other_reading(error, x, call, readings[1][2])
    for given, how, said in readings:
        if _is_captured(model, few_samples(given, how), how):
            return _other_reading(error, x, call, said)
    return error


def _moves_with_samples(model: nn.Module, x: Tensor, call: Call) -> bool:
    """Whether the module takes ``x`` and changes the order of what it returns with that of x's samples."""
    axis = batch_axis(call)
    order = torch.arange(x.shape[axis]).flip(0)
    try:
        made, other = run_module(model, x, call), run_module(model, x.index_select(axis, order), call)
    except CaptureError:
        return False
    return any(
        made.shape == other.shape
        and not torch.equal(made, made.index_select(place, order))
        and torch.allclose(other, made.index_select(place, order), rtol=1e-4, atol=1e-6)
        for place in range(made.dim())
        if made.shape[place] == len(order) > 1
    )


def _own_samples(error: CaptureError, x: Tensor, call: Call) -> CaptureError:
    """The refusal of a module that has its number of samples written into it."""
    axis = 0 if call.time == "step" else batch_axis(call)
    samples = counted(x.shape[batch_axis(call)], "sample")
    reason = f"{_read_as(x, call)}, and the model takes no other number of samples: it has {samples} written into it; "
    reason += f"take the number from forward's input, x.shape[{axis}] ({error.reason})"
    return _with_reason(error, reason)


def _other_readings(x: Tensor, call: Call) -> Iterator[tuple[Tensor, Call, str]]:
    """Yield input, call and advice for x without an axis of samples or of steps, and for other kinds of forward."""
    if call.timeless:
        return
    axis = batch_axis(call)
    array = "x[:, None]" if axis == 1 else "x[None]"
    whole = remedy(cli=f"it one of length 1 as axis {axis}", python=array)
    yield x.unsqueeze(axis), call, f"if x is one sample, which has no axis of samples, give {whole}"
    if call.time in ("first", "second"):
        inside = replace(call, time="inside")
        yield x, inside, f"if x is [B, ...] and forward loops over time itself, give {option('time', 'inside')}"
        yield _as_step(x, call)
        yield _as_step(x.unsqueeze(0).expand(_SAMPLES, *x.shape), call)


def _as_step(x: Tensor, call: Call) -> tuple[Tensor, Call, str]:
    """Return input, call and advice for a forward of one step."""
    said = f"if forward takes one step, [B, ...], give x as [T, B, ...] and {option('time', 'step')}"
    return x, replace(call, time="step"), said


def _other_reading(error: CaptureError, x: Tensor, call: Call, said: str) -> CaptureError:
    """The refusal of a module that is captured with other input, or as another kind of forward."""
    reason = (
        f"{_read_as(x, call)}, and the module cannot be captured that way; {said}, with which it can ({error.reason})"
    )
    return _with_reason(error, reason)


def _other_order(
    error: CaptureError, model: nn.Module, x: Tensor, call: Call, few: Tensor, how: Call, said: str
) -> CaptureError:
    """The refusal with the other order; few, how: a few samples, and the call, with which the module is captured."""
    order = "[B, T, ...]" if call.time == "first" else "[T, B, ...]"
    axis = 1 - batch_axis(how)
    again = torch.arange(2 * few.shape[axis] + 1) % few.shape[axis]
    enough = x.shape[1 - batch_axis(call)] >= FEWEST
    if error.__cause__ is not None or (enough and _is_captured(model, few.index_select(axis, again), how)):
        reason = f"{_read_as(x, call)}, and the module cannot be captured that way; if x is {order}, give {said}, with "
        reason += f"which it can ({error.reason})"
    else:  # y[:4] of 7 steps of 4 samples: the other order is captured as it has 4 steps, whatever x is
        reason = f"{error.reason}; {_read_as(x, call)}: if x is {order}, give {said}, with which the module has a form"
    return _with_reason(error, reason)


def _with_reason(error: CaptureError, reason: str) -> CaptureError:
    return CaptureError(reason, line=error.line, layer=error.layer, step=error.step, neuron=error.neuron)


def _read_as(x: Tensor, call: Call) -> str:
    """Return how a batch was read: ``x, [8, 64], was read as 8 steps of 64 samples``."""
    samples = counted(x.shape[batch_axis(call)], "sample")
    if call.timeless:
        return f"x, {list(x.shape[1:])}, was read as {samples}"
    read = f"{counted(x.shape[1 - batch_axis(call)], 'step')} of {samples}" if call.time != "inside" else samples
    return f"x, {list(x.shape)}, was read as {read}"


def _is_captured(model: nn.Module, x: Tensor, call: Call) -> bool:
    try:
        trace(model, x, call)
    except FAILURES:
        return False
    return True


def _loops(model: nn.Module, x: Tensor, call: Call) -> bool:
    """Whether forward, called so on ``x``, makes steps with memory between them."""
    try:
        return _has_memory(trace(model, few_samples(x, call), call).graph)
    except FAILURES:
        return False


def _has_memory(program: Program) -> bool:
    late = any(program.of(Delay)) or any(operand.delay for node in program.nodes for operand in node.operands)
    return late or any(neuron.decay is not None for neuron in program.of(Neuron))


def not_samples(x: Tensor, few: Tensor, call: Call) -> CaptureError:
    """Forward takes ``x``, and not another number on the axis where its samples should be."""
    axis = batch_axis(call)
    return CaptureError(
        f"{_read_as(x, call)}, but forward fails with {counted(few.shape[axis], 'sample')} on axis "
        f"{0 if call.timeless else axis}: expected one that takes any number of samples; wrap the model in one whose "
        f"forward takes {AXES[call.asked]} and moves or adds the axes"
    )


def axis_warnings(model: nn.Module, x: Tensor, call: Call, program: Program, fixed: int | None = None) -> Iterator[str]:
    """Warn where x may be in the other order, or where a module makes steps of its own of each step of x.

    program: the module's graph. fixed: the number of steps that the module makes of any longer x.
    """
    if fixed is not None:
        yield (
            f"the model makes {counted(fixed, 'step')} of any longer x, and the graph one of each step of x: give the "
            f"graph {fixed} steps"
        )
    largest = float(x.max())
    if largest > _LEVELS / 2 and bool((x == x.round()).all()) and float(x.min()) >= 0 and largest < _LEVELS:
        yield f"x holds integers from 0 to {largest:g}, as images do: if the model was trained on x / 255, give that"
    if call.time == "inside":
        return
    yield from _memory_warnings(model, x, call, program)
    yield from _order_warnings(model, x, call)


def _order_warnings(model: nn.Module, x: Tensor, call: Call) -> Iterator[str]:
    """Warn where the module's own number of steps, or x's values, say that x is in the other order."""
    steps, samples = x.shape[1 - batch_axis(call)], x.shape[batch_axis(call)]
    own = [f"the model's {name} is {value}" for name, value in _own_steps(model) if value == samples != steps]
    if call.time == "step" or not own:
        own = ["its neighbouring samples are as alike as steps are"] if _takes_swapped(model, x, call) else []
    for reason in own[:1]:
        order, other = ("[B, T, ...]", "[T, B, ...]") if call.time == "second" else ("[T, B, ...]", "[B, T, ...]")
        yield (
            f"x is read as {order}, {counted(steps, 'step')} of {counted(samples, 'sample')}, and {reason}: if x is "
            f"{other}, swap its first two axes" + remedy(cli="", python=", x.transpose(0, 1)")
        )


def _takes_swapped(model: nn.Module, x: Tensor, call: Call) -> bool:
    """Whether x changes less from sample to sample than from step to step, and the module takes the other order."""
    between_samples, between_steps = (x.diff(dim=axis).square() for axis in (batch_axis(call), 1 - batch_axis(call)))
    if min(between_samples.numel(), between_steps.numel()) < _ENOUGH:
        return False
    if not between_samples.mean() < _ALIKE * between_steps.mean():
        return False
    try:
        run_module(model, few_samples(x.transpose(0, 1).contiguous(), call), call)
    except FAILURES:
        return False
    return True


def _own_steps(model: nn.Module) -> Iterator[tuple[str, int]]:
    for module in nn.Module.modules(model):
        for name, value in vars(module).items():
            if isinstance(value, int) and not isinstance(value, bool) and _STEPS.fullmatch(name):
                yield name, value


def ignores_later_steps(model: nn.Module, x: Tensor, call: Call, steps: int) -> bool:
    """Whether the module makes ``steps`` steps of a longer ``x``, as a loop over a fixed number of them does."""
    axis = 1 - batch_axis(call)
    if call.time not in ("first", "second") or x.shape[axis] <= steps:
        return False
    try:
        whole, part = run_module(model, x, call), run_module(model, x.narrow(axis, 0, steps), call)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False
    return whole.shape == part.shape and torch.equal(whole, part)


def require_memory(model: nn.Module, x: Tensor, call: Call, program: Program) -> None:
    """Raise CaptureError for a module of one step per call that was given a whole sequence in one.

    Its graph passes nothing from step to step, though the module keeps state from call to call.
    """
    if not _is_memoryless(program, call):
        return
    if keeps_state(model, x, call):
        raise CaptureError(
            "the model keeps state between calls, but nothing from step to step of one call: a whole sequence in one "
            f"call has no memory. If a call takes one step, give {option('time', 'step')}; if it takes a sequence, let "
            "forward start from rest"
        )


def _memory_warnings(model: nn.Module, x: Tensor, call: Call, program: Program) -> Iterator[str]:
    """Warn of a module that makes steps of its own of each step of x: its graph passes nothing between these."""
    if _is_memoryless(program, call) and _loops(model, x.select(1 - batch_axis(call), 0), replace(call, time="inside")):
        yield (
            f"x was read as {AXES[call.time]}, and nothing passes from one of its steps to the next: forward makes "
            f"steps of its own of each. If x has no axis of time, [B, ...], give {option('time', 'inside')}"
        )


def _is_memoryless(program: Program, call: Call) -> bool:
    return call.time in ("first", "second") and any(program.of(Neuron)) and not _has_memory(program)


def require_sequence(model: nn.Module, x: Tensor, call: Call) -> None:
    """Raise CaptureError where neurons of one step per call would take their sizes from a whole sequence.

    They would hold x's number of steps or samples as one of their axes, and keep it.
    """
    waiting = [m for m in nn.Module.modules(model) if isinstance(m, Population) and m.stateful and not m.shape_known]
    if not waiting or call.time not in ("first", "second"):
        return
    shapes: list[torch.Size] = []

    def stop(_: nn.Module, arrived: tuple[Tensor, ...]) -> None:
        shapes.append(arrived[0].shape)
        raise InputError("its shape is all that is asked for")

    hooks = [population.register_forward_pre_hook(stop) for population in waiting]
    try:
        for place, size in ((0, x.shape[0]), (0, x.shape[0] + 1), (1, x.shape[1] + 1)):
            with suppress(CaptureError):
                run_module(model, x.index_select(place, torch.arange(size) % x.shape[place]), call)
    finally:
        for hook in hooks:
            hook.remove()
    if len({shape[1:] for shape in shapes}) > 1:
        said = _as_step(x, call)[2]
        raise CaptureError(f"{_read_as(x, call)}, and neurons with stateful=True take one step per call; {said}")
