"""Hold two calls of a model from rest against one another: a graph gives the same of the same input, always."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from stl_deploy._util.remedies import remedy
from stl_deploy.errors import CaptureError
from stl_deploy.tracing.model_state import Weights, as_found, bring_to_rest, is_container, is_plain, shake
from stl_deploy.tracing.running import Call, PassedState, called, pick, stepped, to_eval

_CALLS = (2**10, 2**30)
"""As many calls' worth of change is given to what a call changes, in one; the larger for changes that are tiny."""
_MOST = 2**50
"""Larger integers are left alone: so many calls' worth of change would not fit 64 bits."""


def require_repeatable(model: nn.Module, x: Tensor, other: Tensor, call: Call) -> None:
    """Raise CaptureError unless a call from rest gives the same after one on another input, and after many.

    What draws numbers, keeps state, or keeps what it made of an earlier input does not; nor does what changes, a
    little in each call, a number that it reads.
    """
    why = _unrepeatable(model, x, other, call)
    if why:
        raise CaptureError(
            f"{why}; start from rest in forward"
            + remedy(cli=" or in a method reset()", python=", in a method reset(), or give reset=...")
        )


def _unrepeatable(model: nn.Module, x: Tensor, other: Tensor, call: Call) -> str:
    """Return why a model gives something else on ``x`` after other calls; nothing if it does not."""
    first, _ = _outputs_of(model, (x,), call)
    again, held = _outputs_of(model, (other, x), call)
    if not _same(first, again):
        return (
            "the module gives something else on the same input after another call: it draws numbers, or keeps state "
            "between calls"
        )
    for calls in _CALLS:
        with as_found(model):
            changed = _change_often(model, *held, calls)
            try:
                if not changed or _same(first, _outputs_of(model, (x,), call)[0]):
                    continue
            except CaptureError:
                pass  # it fails with a number that it reaches
            return (
                f"each call changes {', '.join(map(repr, changed[:3]))}, on which what the module gives depends, and "
                "a graph gives the same in every call; change it in training only (if self.training)"
            )
    return ""


def _outputs_of(
    model: nn.Module, inputs: tuple[Tensor, ...], call: Call
) -> tuple[list[Tensor], tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Return the outputs on the last of ``inputs``, and the numbers that the model held before the first and the last.

    It is brought to rest before each.
    """
    held = []
    with as_found(model), torch.no_grad():
        to_eval(model)
        weights = Weights(model)
        for each in inputs:
            bring_to_rest(model, call.reset)
            held.append(_held_numbers(model))
            shake(len(inputs))
            made = stepped(model, each, call) if call.time == "step" else [called(model, each.clone(), call)]
            outputs = [pick(returned, call.output).clone() for returned in made]
            weights.require_unchanged()
    return outputs, (held[0], held[-1])


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(p.shape == q.shape and bool(((p == q) | (p != p)).all()) for p, q in zip(a, b, strict=True))


def keeps_state(model: nn.Module, x: Tensor, call: Call) -> bool:
    """Return whether a second call, given the state that the first one kept or returned, gives something else."""
    outputs = []
    with as_found(model), torch.no_grad():
        to_eval(model)
        bring_to_rest(model, call.reset)
        try:
            passed = PassedState.of(model)
            for _ in range(2):
                shake(0)
                outputs.append(pick(called(model, x.clone(), call, passed), call.output).clone())
        except CaptureError:  # its second argument is no state
            return False
    once, again = outputs
    return once.shape != again.shape or not bool(((once == again) | (once != once)).all())


def _held_numbers(model: nn.Module) -> dict[str, Tensor]:
    """Copy every number that a model's modules hold besides their parameters, by name: tensors, ints and floats."""
    return {name: torch.as_tensor(table[key]).clone() for name, table, key in _numbers(model)}


def _change_often(model: nn.Module, before: dict[str, Tensor], after: dict[str, Tensor], calls: int) -> list[str]:
    """Give a model what many calls make of its numbers if each changes them as one did; return the changed ones' names.

    before, after: what it held at rest, before and after a call.
    """
    changed = []
    for name, table, key in list(_numbers(model)):
        was, became = before.get(name), after.get(name)
        if was is None or became is None or (was.shape, was.dtype) != (became.shape, became.dtype):
            continue
        if was.dtype == torch.bool or bool(((was == became) | (became != became)).all()):
            continue
        changed.append(name)
        wide = torch.float64 if was.dtype.is_floating_point else was.dtype if was.dtype.is_complex else torch.int64
        many = was.to(wide) + calls * (became.to(wide) - was.to(wide))
        table[key] = many.to(was.dtype) if isinstance(table[key], Tensor) else many.item()
    return changed


def _numbers(model: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, container and key of each number, and tensor of numbers, that is no parameter."""
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        inner = [(f"{path}.{key}", item) for key, item in module.__dict__.items() if is_container(key, item)]
        for where, table in ((path, module._buffers), (path, module.__dict__), *inner):
            for key, item in table.items() if isinstance(table, dict) else enumerate(table):
                if is_plain(item) if isinstance(item, Tensor) else _is_number(item):
                    yield f"{where}.{key}".lstrip("."), table, key


def _is_number(item: Any) -> bool:
    return isinstance(item, float) or (isinstance(item, int) and abs(item) < _MOST)
