"""Hold two calls of a model from rest against one another: a graph gives the same of the same input, always."""

from __future__ import annotations

import gc
import itertools
import operator
import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stl_deploy._util.remedies import remedy
from stl_deploy.errors import CaptureError
from stl_deploy.tracing.recording.model_state import (
    Weights,
    as_found,
    attributes,
    bring_to_rest,
    containers,
    is_plain,
    require_undrawn,
    shake,
)
from stl_deploy.tracing.recording.running import Call, PassedState, called, pick, run, stepped, to_eval

_CALLS = (2**10, 2**30)
"""As many calls' worth of change is given to what a call changes, in one; the larger for changes that are tiny."""
_AFFORDED = 20_000
"""Operations that calls in a row may compute, and the most calls: lists, counters and generators act after several."""
_IN_A_ROW = 256
_KEPT = 10_000
"""The most objects in which a model's code is taken to keep something."""
_COUNTED = 2**10
"""The most for integers, as a loop may run as often, and a tensor be as long, as they say."""
_LARGEST = 2**50
"""Larger integers are left alone."""
_WRITABLE = (list, deque, dict, OrderedDict, defaultdict)


def require_repeatable(
    model: nn.Module,
    x: Tensor,
    other: Tensor,
    call: Call,
    made: Tensor | None = None,
    operations: int = _AFFORDED,
    larger: Tensor | None = None,
) -> Tensor | None:
    """Raise CaptureError unless a call from rest gives the same after one on another input, and after many.

    What draws numbers, keeps state, or keeps what it made of an earlier input does not; nor does what changes, a
    little in each call, a number that it reads. made: the output of a call on ``x`` from rest. operations: of a call.
    larger: an input of other sizes, which comes first. Returns the output on that while torch records gradients, or
    None where it fails so.
    """
    calls = min(_IN_A_ROW, _AFFORDED // operations)
    sizes = _OtherSizes(larger)
    try:
        why = _unrepeatable(model, x, other, call, made, calls, sizes)
    except CaptureError:  # what the larger input left does not fit x
        if larger is None:
            raise
        sizes.x = None
        why = _unrepeatable(model, x, other, call, made, calls, sizes)
    if why and made is not None:  # in a record, text of values is other text
        why = _unrepeatable(model, x, other, call, None, calls, sizes)
    if why:
        raise CaptureError(
            f"{why}; start from rest in forward"
            + remedy(cli=" or in a method reset()", python=", in a method reset(), or give reset=...")
        )
    return sizes.made


@dataclass
class _OtherSizes:
    """An input of other sizes, and what a model makes of it while torch records gradients."""

    x: Tensor | None
    made: Tensor | None = None

    def run(self, model: nn.Module, call: Call) -> None:
        """Leave in the model what a call on it leaves."""
        if self.x is None:
            return
        for gradients in (True, False):
            with suppress(CaptureError), torch.set_grad_enabled(gradients):  # takes no other sizes, or no gradients
                outputs = _outputs(model, self.x, call, seed=1)
                made = (torch.stack(outputs) if call.time == "step" else outputs[0]).detach()
                self.made = made if gradients else None
                return


def _unrepeatable(
    model: nn.Module, x: Tensor, other: Tensor, call: Call, made: Tensor | None, in_a_row: int, sizes: _OtherSizes
) -> str:
    """Return why a model gives something else on ``x`` after other calls; nothing if it does not.

    other: of the size of x, as a state may be kept until another size comes. sizes: others, which may be kept.
    """
    if made is not None:
        first = list(made) if call.time == "step" else [made]
    else:
        with as_found(model), torch.no_grad():
            to_eval(model)
            first = _outputs(model, x, call, seed=0)
    for calls in _CALLS:
        with as_found(model), torch.no_grad():
            to_eval(model)
            sizes.run(model, call)
            _outputs(model, other, call, seed=1)
            before, kept = _numbers_at_rest(model, call), _kept(model)
            if not _same(first, _outputs(model, x, call, seed=1)):
                return (
                    "the module gives something else on the same input after another call: it draws numbers, or "
                    "keeps state between calls"
                )
            after = _numbers_at_rest(model, call)
            # A counter or a generator may act at its n-th call only; where nothing is kept, it cannot.
            for again in range(3, in_a_row if kept != _kept(model) else 0):
                if not _same(first, _outputs(model, x, call, seed=1)):
                    return f"the module gives something else on the same input in call {again}"
            changed = _change_often(model, before, after, calls)
            overflown = not all(bool(number.isfinite().all()) for number in before.values())
            if not changed and not (overflown and sizes.x is not None):
                return ""
            sizes.x = None
            try:
                if _same(first, _outputs(model, x, call, seed=1)):
                    continue
            except CaptureError:  # what fails, fails for the user, too
                continue
            return (
                f"each call changes {', '.join(map(repr, changed[:3]))}, on which what the module gives depends, and "
                "a graph gives the same in every call; change it in training only (if self.training)"
            )
    return ""


def _kept(model: nn.Module) -> list[Any]:
    """Return the numbers and sizes of all that a model's own code may keep from call to call, in order."""
    classes = [type(module) for module in nn.Module.modules(model)]
    own = {each.__module__ for each in classes if not each.__module__.startswith("torch.")}
    waiting = [attribute for module in nn.Module.modules(model) for attribute in attributes(module).values()] + classes
    met, marks = set[int](), list[Any]()
    while waiting and len(met) < _KEPT:
        item = waiting.pop()
        if isinstance(item, str | int | float | itertools.count):
            marks.append(repr(item))
        elif id(item) not in met and not isinstance(item, nn.Module | Tensor | ModuleType):
            met.add(id(item))
            marks.append(operator.length_hint(item, -1) if isinstance(item, Iterable) else _random_state(item))
            function = isinstance(item, FunctionType)
            if function and item.__module__ in own:
                waiting += [item.__globals__.get(name) for name in item.__code__.co_names]
                waiting += [item.__closure__, item.__defaults__]
            elif not (function or (isinstance(item, type) and item.__module__ not in own)):
                waiting += gc.get_referents(item)
    return marks


def _random_state(item: object) -> str:
    """Return the state of a generator of random numbers; nothing for other objects."""
    match item:
        case random.Random():
            return repr(random.Random.getstate(item))
        case np.random.Generator():
            return repr(item.bit_generator.state)
        case torch.Generator():
            return repr(item.get_state().tolist())
    return ""


def _outputs(model: nn.Module, x: Tensor, call: Call, *, seed: int) -> list[Tensor]:
    """Return what a model makes of ``x`` from rest; raise CaptureError if that changes its parameters."""
    weights = Weights(model)
    bring_to_rest(model, call.reset)
    shake(seed)
    made = stepped(model, x, call) if call.time == "step" else [called(model, x.clone(), call)]
    outputs = [pick(returned, call.output).clone() for returned in made]
    weights.require_unchanged()
    require_undrawn(seed)
    return outputs


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(p.shape == q.shape and bool(((p == q) | (p != p)).all()) for p, q in zip(a, b, strict=True))


def gradient_warnings(model: nn.Module, x: Tensor, call: Call, made: Tensor) -> Iterator[str]:
    """Warn of a module that computes something else than ``made`` where gradients are recorded, beyond rounding."""
    try:
        recorded = run(model, x, call, gradients=True)
    except CaptureError:  # a write in place, of which torch takes no gradient
        return
    if not torch.allclose(recorded, made, rtol=1e-3, atol=1e-5, equal_nan=True):
        yield "the model computes something else while torch records gradients; the graph is that of torch.no_grad()"


def keeps_state(model: nn.Module, x: Tensor, call: Call) -> bool:
    """Return whether a second call, given the state that the first one kept or returned, gives something else."""
    outputs = []
    with as_found(model), torch.no_grad():
        to_eval(model)
        bring_to_rest(model, call.reset)
        try:
            passed = PassedState.of(model, call)
            for _ in range(2):
                shake(0)
                outputs.append(pick(called(model, x.clone(), call, passed), call.output).clone())
        except CaptureError:  # its second argument is no state
            return False
    once, again = outputs
    return once.shape != again.shape or not bool(((once == again) | (once != once)).all())


def _numbers_at_rest(model: nn.Module, call: Call) -> dict[str, Tensor]:
    """Bring a model to rest and copy every number that its modules hold besides their parameters, by name."""
    bring_to_rest(model, call.reset)
    return {name: _as_tensor(table[key]).clone() for name, table, key in _numbers(model)}


def _change_often(model: nn.Module, before: dict[str, Tensor], after: dict[str, Tensor], calls: int) -> list[str]:
    """Change a model's numbers as often as ``calls`` calls would, if each does as one did; return their names.

    before, after: what it held at rest, before and after that one.
    """
    changed, written = [], set[int]()
    for name, table, key in list(_numbers(model)):
        was, became, item = before.get(name), after.get(name), table[key]
        if was is None or became is None or (was.shape, was.dtype) != (became.shape, became.dtype):
            continue
        if bool(((was == became) | (became != became)).all()):
            continue
        changed.append(name)
        floats = was.dtype.is_floating_point
        wide = torch.float64 if floats else torch.int64
        many = became.to(wide) + (calls if floats else min(calls, _COUNTED)) * (became.to(wide) - was.to(wide))
        if not isinstance(item, Tensor):
            table[key] = type(item)(many.item())
        elif id(item) not in written:
            written.add(id(item))
            try:
                item.data.copy_(many)  # in its own memory, which others may share
            except RuntimeError:  # a view that repeats one number, or a tensor of inference mode
                table[key] = many.to(was.dtype)
    return changed


def _numbers(model: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, container and key of each number, and tensor of numbers, that is no parameter."""
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        inner = [(f"{path}.{name}", item) for name, item in containers(module).items() if type(item) in _WRITABLE]
        for where, table in ((path, module._buffers), (path, module.__dict__), *inner):
            for key, item in table.items() if isinstance(table, dict) else enumerate(table):
                if _is_tensor_of_numbers(item) if isinstance(item, Tensor) else _is_number(item):
                    yield f"{where}.{key}".lstrip("."), table, key


def _is_number(item: Any) -> bool:
    return isinstance(item, float | np.floating) or (type(item) is int and abs(item) < _LARGEST)


def _is_tensor_of_numbers(tensor: Tensor) -> bool:
    return is_plain(tensor) and not (tensor.is_quantized or tensor.dtype.is_complex or tensor.dtype == torch.bool)


def _as_tensor(item: Any) -> Tensor:
    if isinstance(item, Tensor):
        return item
    return torch.tensor(item, dtype=torch.int64 if type(item) is int else torch.float64)
