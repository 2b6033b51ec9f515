"""Hold a module's results on its input in the types that it was given in against those in float32, as graphs take it.

Integers wrap around, sums of bools are 1 where both are, and float64 keeps what float32 rounds: a module that computes
so before it makes floats has another graph than on the same values in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stl_deploy._util.arrays import as_array
from stl_deploy.errors import CaptureError
from stl_deploy.tracing import Call, Traced
from stl_deploy.tracing.recognition.exact_types import holds_input, require_exact_types
from stl_deploy.tracing.recognition.thresholds import one_step
from stl_deploy.tracing.recording.packed_inputs import Packed, require_values
from stl_deploy.tracing.recording.running import run
from stl_deploy.tracing.trace import record_steps

_ROUNDING = 1e-4
"""Difference that float32's rounding may make, relative to the largest output."""


def require_module(given: object) -> None:
    """Raise CaptureError for a class, a name, a state dict, or another object that is no module."""
    if isinstance(given, type) and issubclass(given, nn.Module):
        raise CaptureError(f"expected a module; found the class {given.__name__}; give one: {given.__name__}(...)")
    if isinstance(given, nn.Module):
        return
    instead = "wrap it in a module's forward and pass that"
    if isinstance(given, str):
        instead = "import the class that it names, and give an object of it"
    elif isinstance(given, Mapping):
        instead = "if it is a state dict, load it, model.load_state_dict(...), and give the model"
    raise CaptureError(f"a {type(given).__name__} is not a torch.nn.Module; {instead}")


def own_types(x: Any) -> Tensor:
    """Return input as a tensor on the CPU in its own type; raise CaptureError for complex numbers."""
    array = None if isinstance(x, Tensor) else as_array(x)
    if array is not None and not array.flags.writeable:  # torch warns of those
        array = array.copy()
    if array is None:
        require_values(x)
    if isinstance(x, Tensor) and x.layout is not torch.strided:
        x = x.to_dense()
    tensor = x.detach().cpu() if array is None else torch.as_tensor(array)
    if tensor.is_complex():
        raise CaptureError("x is complex; expected real numbers")
    return tensor


def require_whole(traced: Traced, x: Tensor) -> str | None:
    """Return the type of integers or bools that the model makes of its input; None if it makes none.

    Raises CaptureError where that changes x, for a graph takes numbers as they are.
    """
    made = None
    for signal in traced.steps.signals:
        dtype = signal.node.dtype
        if signal.node.name != "_to_copy" or dtype.is_floating_point or not holds_input(signal):
            continue
        kept = x.to(dtype).to(x.dtype) == x
        made = str(dtype).removeprefix("torch.")
        if not bool(kept.all()):
            raise CaptureError(
                f"the model makes its input {made}, which changes x; a graph takes numbers as they are: give x as what "
                "it is made, or compare it with a number, (x > 0.5).float()",
                line=signal.node.place.line,
            )
    return made


def require_floats_taken(error: CaptureError, model: nn.Module, x: Any, batch: Tensor, call: Call) -> None:
    """Raise CaptureError for a module that fails on ``batch``, by ``error``, and takes x in its own type or float32."""
    if error.__cause__ is None or isinstance(model, Packed):
        return
    if batch.dtype != torch.float32:
        _require_fails_in_float32(error, model, batch, call)
    given = own_types(x)
    if given.is_floating_point():
        return
    try:
        run(model, given, call)
    except CaptureError:
        return
    kind = str(given.dtype).removeprefix("torch.")
    instead = "compare it in forward, x > 0.5, or apply what needs bool to x before capture"
    if given.dtype != torch.bool:
        instead = "apply what needs integers to x before capture"
    raise CaptureError(
        f"the model takes x as {kind} alone, and capture gives it floats, as a graph computes; {instead} "
        f"({error.reason})",
        line=error.line,
    ) from error


def _require_fails_in_float32(error: CaptureError, model: nn.Module, batch: Tensor, call: Call) -> None:
    try:
        run(copy.deepcopy(model).float(), batch.float(), call)
    except Exception:  # of the module's own code, or of a copy that it does not allow
        return
    kind = str(batch.dtype).removeprefix("torch.")
    raise CaptureError(
        f"the model fails on x in {kind} and runs in float32, in which a graph computes: give model.float(), and x as "
        f"float32 ({error.reason.rpartition('; ')[0]})",
        line=error.line,
    ) from error


def require_same_in_own_types(model: nn.Module, x: Any, batch: Tensor, few: Tensor, call: Call) -> None:
    """Raise CaptureError if the module computes otherwise on its input's own types than on floats of the same values.

    x: as `capture` takes it, or joined; batch, few: all and the first of its samples in the type that is traced. A
    module that fails on its input's own types takes floats only.
    """
    given = own_types(x)
    types = {part.dtype for part in model.parts} if isinstance(model, Packed) else {given.dtype}
    if types <= {batch.dtype, torch.float16, torch.bfloat16}:
        return
    if isinstance(model, Packed):
        model.in_own_types = True
    try:
        made = run(model, given, call)
    except CaptureError:
        return
    else:
        if not all(dtype.is_floating_point for dtype in types):
            few = few if isinstance(model, Packed) else few.to(given.dtype)
            require_exact_types(one_step(record_steps(model, few, call)[1].nodes))
    finally:
        if isinstance(model, Packed):
            model.in_own_types = False
    expected = run(model, batch, call)
    made, expected = made.double(), expected.double()
    allowed = _ROUNDING * float(expected.abs().max()) if torch.float64 in types and expected.numel() else 0.0
    differing = int(((made - expected).abs() > allowed).sum())
    if differing:
        kinds = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types - {torch.float32}))
        raise CaptureError(
            f"the model gives {differing:,} of {made.numel():,} other outputs on x in {kinds} than on the same values "
            "in float32, in which a graph computes; make the input floats in forward, x = x.float(), before all else"
        )
