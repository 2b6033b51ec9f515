"""Refuse number types that lose values: a graph computes in float32 and cannot follow them.

A cast to integers is the identity on spikes and on many samples of x, and something else on other input, so no run
tells whether it matters. It is read only where the values are 0 and 1 by what made them, or where the input itself is
cast (whose values capture checks).
"""

from __future__ import annotations

import torch

from stl_deploy.errors import CaptureError
from stl_deploy.tracing.recording.operations import COMPARES
from stl_deploy.tracing.recording.source_lines import in_module
from stl_deploy.tracing.unrolling.nodes import MOVED, Node
from stl_deploy.tracing.unrolling.steps import Signal, SignalError, Steps

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_WIDE = (torch.int32, torch.int64)
_INTEGERS = (torch.bool, torch.int8, torch.uint8, torch.int16, *_WIDE)
_REARRANGE = ("reshape", "expand", MOVED, "clone")
_PRODUCTS = ("mul", "pow", "square", "mm", "bmm", "addmm", "convolution")
_LOGIC = ("logical_not", "logical_and", "logical_or", "bitwise_not", "bitwise_and", "bitwise_or", "where")


def require_exact_types(steps: Steps) -> None:
    """Raise CaptureError, with the line, if a signal's type may change its values."""
    for signal in steps.signals:
        dtype = signal.node.dtype
        if dtype in _FLOATS or signal.node.name == "input":
            continue
        if signal.node.name == "_to_copy":
            _require_exact_cast(signal)
        elif dtype == torch.bool and signal.node.name == "add":
            raise _refusal(signal, "a sum of bools is 1 where both are; write left | right, or add floats")
        elif dtype not in (torch.bool, *_WIDE) and signal.node.name not in (*_REARRANGE, *_LOGIC, "cat"):
            raise _refusal(
                signal,
                f"'{signal.node.called}' computes in {_kind(dtype)}, which wraps around or rounds; a graph computes in "
                "float32: use floats",
            )


def _require_exact_cast(signal: Signal) -> None:
    source, dtype = signal.reads()[0].signal, signal.node.dtype
    exact = is_zero_or_one(source) or holds_input(source) or (source.node.dtype in _WIDE and dtype in _WIDE)
    if exact and dtype in _INTEGERS:
        return
    raise _refusal(
        signal,
        f"a cast to {_kind(dtype)} changes numbers that it cannot hold, and a graph converts nothing; "
        "leave the cast out, or compare with a threshold: (v > 0.5).float()",
    )


def require_sum_does_not_wrap(node: Node) -> None:
    """Raise CaptureError, with the line, for a sum over time in a type that wraps around (a counter in uint8)."""
    if node.dtype not in (*_FLOATS, *_WIDE):
        raise CaptureError(
            f"a sum over time in {_kind(node.dtype)} wraps around or saturates where there are many steps, and a graph "
            "adds up in float32; add up floats" + in_module(node.place),
            line=node.place.line,
        )


def is_zero_or_one(signal: Signal) -> bool:
    """Return whether a signal is 0 or 1 by the operation that made it."""
    while signal.node.name in ("_to_copy", *_REARRANGE) and signal.node.dtype != torch.bool:
        signal = signal.reads()[0].signal
    return signal.node.dtype == torch.bool or (signal.node.name in COMPARES and signal.node.name != "sign")


def holds_input(signal: Signal) -> bool:
    """Return whether a signal holds the input's own values, in whatever type and order."""
    while signal.node.name in ("_to_copy", *_REARRANGE):
        signal = signal.reads()[0].signal
    return signal.node.name == "input"


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _refusal(signal: Signal, why: str) -> SignalError:
    return SignalError(signal, why + in_module(signal.node.place))


def _may_leave_range(signal: Signal) -> bool:
    """Return whether a product of integers has a factor that may be other than 0 and 1: nothing bounds it."""
    return signal.node.dtype in _WIDE and not all(is_zero_or_one(read.signal) for read in signal.reads())


def coarse_types(steps: Steps) -> set[torch.dtype]:
    """The types of half precision that the module computes in."""
    return {signal.node.dtype for signal in steps.signals} & {torch.float16, torch.bfloat16}


def casts_of_input(steps: Steps) -> set[torch.dtype]:
    """The types of integers that the module casts its input to."""
    casts = [signal for signal in steps.signals if signal.node.name == "_to_copy" and holds_input(signal)]
    return {signal.node.dtype for signal in casts if not signal.node.dtype.is_floating_point}


def type_warnings(steps: Steps) -> tuple[str, ...]:
    """Warnings of types in which the module computes otherwise than float32."""
    coarse = [
        f"the model computes in {_kind(dtype)} and the graph in float32: where the model rounds, spikes and outputs "
        "differ on other input than x; capture model.float() for the float32 model's own spikes"
        for dtype in coarse_types(steps)
    ]
    if any(signal.node.dtype == torch.float64 for signal in steps.signals):
        coarse.append(
            "the model computes in float64 and the graph in float32: spikes may differ where a potential meets its "
            "threshold within float32 rounding; capture model.float() for the float32 model's own spikes"
        )
    products = {
        signal.node.dtype for signal in steps.signals if signal.node.name in _PRODUCTS and _may_leave_range(signal)
    }
    coarse += [
        f"the model multiplies in {_kind(dtype)}, which wraps around, and the graph in float32, which rounds beyond "
        "2^24: give it no input whose products reach 2^24"
        for dtype in products
    ]
    casts = [
        f"the model makes its input {_kind(dtype)}, which leaves x as it is; the graph takes numbers as they are: give "
        "it no others"
        for dtype in casts_of_input(steps)
    ]
    return (*coarse, *casts)
