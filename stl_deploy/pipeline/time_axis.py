"""Find the axis of a batch that is time: ask where a module fails, warn where its own steps contradict x."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from stl_deploy._util.remedies import option, remedy
from stl_deploy._util.units import counted
from stl_deploy.errors import CaptureError
from stl_deploy.pipeline.proof import permuted
from stl_deploy.tracing import Call, trace
from stl_deploy.tracing.running import run as run_module
from stl_deploy.tracing.trace import batch_axis

_STEPS = re.compile(r"T|n_?t|(num|n|nb)?_?(time_?)?steps?|time_?steps?|time_?window|seq(uence)?_?len(gth)?", re.I)
"""Names of attributes that hold a number of time steps."""
_SAMPLES = 3


def few_samples(x: Tensor, call: Call) -> Tensor:
    """A few samples to trace with: at least 2, of a number that is not that of the steps."""
    axis = batch_axis(call)
    wanted = 2 if call.time != "inside" and x.shape[1 - axis] == _SAMPLES else _SAMPLES
    index = torch.arange(wanted) % x.shape[axis]
    return x.index_select(axis, index)


def as_asked(error: CaptureError, model: nn.Module, x: Tensor, call: Call) -> CaptureError:
    """A refusal, with the other order of axes named where the module is captured with it; else as it was."""
    if call.time not in ("first", "second"):
        return error
    other = replace(call, time="second" if call.time == "first" else "first")
    for given, how, said in (
        (x, other, option("time", other.time)),
        (x.transpose(0, 1).contiguous(), call, remedy(cli="its first two axes swapped", python="x.transpose(0, 1)")),
    ):
        few = few_samples(given, how)
        if not _is_captured(model, few, how):
            continue
        order = "[B, T, ...]" if call.time == "first" else "[T, B, ...]"
        steps, samples = (x.shape[0], x.shape[1]) if call.time == "first" else (x.shape[1], x.shape[0])
        read = f"x, {list(x.shape)}, was read as {counted(steps, 'step')} of {counted(samples, 'sample')}"
        axis = 1 - batch_axis(how)
        again = torch.arange(2 * few.shape[axis] + 1) % few.shape[axis]
        if error.__cause__ is not None or _is_captured(model, few.index_select(axis, again), how):
            reason = f"{read}, and the module has no form so; if x is {order}, give {said}, with which it has one "
            reason += f"({error.reason})"
        else:  # y[:4] of 7 steps of 4 samples: the other order is captured as it has 4 steps, whatever x is
            reason = f"{error.reason}; {read}: if x is {order}, give {said}, with which the module has a form"
        return CaptureError(reason, line=error.line, layer=error.layer, step=error.step, neuron=error.neuron)
    return error


def _is_captured(model: nn.Module, x: Tensor, call: Call) -> bool:
    try:
        trace(model, x, call)
    except (CaptureError, RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        return False
    return True


def not_samples(x: Tensor, few: Tensor, call: Call) -> CaptureError:
    """Forward takes ``x``, and not another number on the axis where its samples should be."""
    axis = batch_axis(call)
    return CaptureError(
        f"forward takes x, {list(x.shape)}, but fails with {few.shape[axis]} in place of {x.shape[axis]} on axis "
        f"{axis}, where time={call.time!r} has the samples; give {option('time')[:-5]} as it is, or wrap the model in "
        "one whose forward takes [T, B, ...] and moves the axes"
    )


def axis_warnings(model: nn.Module, x: Tensor, call: Call, fixed: int | None = None) -> Iterator[str]:
    """Warn where a module's own number of steps is the number of samples, and not that of the steps.

    fixed: the number of steps that the module makes of any longer x.
    """
    if fixed is not None:
        yield (
            f"the model makes {counted(fixed, 'step')} of any longer x, and the graph one of each step of x: give the "
            f"graph {fixed} steps"
        )
    if call.time not in ("first", "second"):
        return
    steps, samples = (x.shape[0], x.shape[1]) if call.time == "first" else (x.shape[1], x.shape[0])
    for name, value in _own_steps(model):
        if value == samples != steps:
            order, other = ("[T, B, ...]", "[B, T, ...]") if call.time == "first" else ("[B, T, ...]", "[T, B, ...]")
            yield (
                f"x is read as {order}, {counted(steps, 'step')} of {counted(samples, 'sample')}, and the model's "
                f"{name} is {value}: if x is {other}, swap its first two axes, x.transpose(0, 1)"
            )
            return


def _own_steps(model: nn.Module) -> Iterator[tuple[str, int]]:
    for module in model.modules():
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


def varied(x: Tensor, call: Call) -> list[tuple[str, Tensor]]:
    """Return fresh input with another batch size, and another number of steps if the caller decides that."""
    axis = batch_axis(call)
    size = x.shape[axis]
    index = torch.arange(size + 1) % size
    variants = [(f"another batch size ({size + 1})", permuted(x.index_select(axis, index), 1))]
    if call.time != "inside":
        steps = x.shape[1 - axis]
        index = torch.arange(steps + 2) % steps
        longer = permuted(x.index_select(1 - axis, index), 2)
        variants.append((f"another number of steps ({steps + 2})", longer))
    return variants
