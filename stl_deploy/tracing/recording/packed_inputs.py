"""Pack several inputs of a module into one array of all features, on which it is traced."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stl_deploy._util.arrays import as_array, require_held_by_float32
from stl_deploy.config.options import Time
from stl_deploy.errors import CaptureError
from stl_deploy.graph.program import Shape

_PLAIN = (bool, int, float, str, type(None))
"""Kinds of arguments beside tensors, the same in every call."""


@dataclass(frozen=True)
class Part:
    """One of a module's inputs. name: the argument's or the key; node: the graph's; start: among all features.

    dtype: as it was given.
    """

    name: str
    node: str
    shape: Shape
    start: int
    dtype: torch.dtype = torch.float32

    @property
    def stop(self) -> int:
        """The place behind its last feature."""
        return self.start + prod(self.shape)


class Packed(nn.Module):
    """A module of several inputs as one of a single input, whose last axis holds the features of all.

    how: ``each``: forward takes them one by one; ``named``: as keywords; ``mapping``: in one dict.
    """

    def __init__(self, model: nn.Module, parts: Sequence[Part], how: str, leading: int) -> None:
        super().__init__()
        self._orig_mod = model  # names of modules leave this one out, as they do torch.compile's
        self.parts, self.how, self.leading = tuple(parts), how, leading
        self.in_own_types = False
        signature = _signature(model)
        arguments = [] if signature is None else list(signature.parameters.values())
        taken = {part.name for part in parts} if how == "named" else set()
        first_state = {"each": len(parts), "named": 0, "mapping": 1}[how]
        states = [argument for argument in arguments[first_state:] if argument.name not in taken]

        def forward(x: Tensor, **passed: Any) -> Any:
            return self._called(x, passed)

        first = inspect.Parameter("x", inspect.Parameter.POSITIONAL_ONLY)
        forward.__signature__ = inspect.Signature([first, *states])  # type: ignore[attr-defined]
        self.forward = forward

    def shown(self, x: Tensor) -> str:
        """Return the inputs that x holds by name and shape, as a sentence names them."""
        lead = x.shape[: self.leading]
        return ", ".join(f"'{part.name}' of shape {[*lead, *part.shape]}" for part in self.parts)

    def _called(self, x: Tensor, passed: Mapping[str, Any]) -> Any:
        lead = x.shape[: self.leading]
        each = {part.name: x[..., part.start : part.stop].reshape(*lead, *part.shape) for part in self.parts}
        if self.in_own_types:
            each = {part.name: each[part.name].to(part.dtype) for part in self.parts}
        if self.how == "mapping":
            return self._orig_mod(each, **passed)
        if self.how == "named":
            return self._orig_mod(**each, **passed)
        return self._orig_mod(*each.values(), **passed)


class Applied(nn.Module):
    """A module whose forward is called with some arguments that are no tensors, such as a number of steps."""

    def __init__(self, model: nn.Module, signature: inspect.Signature, values: Mapping[str, Any]) -> None:
        super().__init__()
        self._orig_mod = model

        def forward(*arrays: Tensor, **passed: Any) -> Any:
            given = {**passed, **dict(zip(left, arrays, strict=False)), **values}
            bound = inspect.BoundArguments(signature, OrderedDict(given))
            return model(*bound.args, **bound.kwargs)  # some arguments may be positional only

        left = {name: each for name, each in signature.parameters.items() if name not in values}
        forward.__signature__ = signature.replace(parameters=list(left.values()))  # type: ignore[attr-defined]
        self.forward = forward


def apply_plain(model: nn.Module, x: Any) -> tuple[nn.Module, Any]:
    """Return a model that holds the arguments in ``x`` that are no tensors, and the tensors left; else both unchanged.

    x: a tuple in the order of forward's arguments, or a dict by their names.
    """
    signature = _signature(model)
    if not isinstance(x, Mapping | tuple) or signature is None:
        return model, x
    parameters = signature.parameters
    given = dict(x) if isinstance(x, Mapping) else dict(zip(parameters, x, strict=False))
    given = {name: value.item() if getattr(value, "shape", None) == () else value for name, value in given.items()}
    plain = {name: value for name, value in given.items() if isinstance(value, _PLAIN)}
    if not plain or len(given) < len(x) or not set(given) <= set(parameters):
        return model, x
    arrays = {name: value for name, value in given.items() if name not in plain}
    changed = {name: value for name, value in plain.items() if value is not parameters[name].default}
    applied = Applied(model, signature, changed) if changed else model
    if len(arrays) == 1 and next(iter(arrays)) == next(iter(parameters)):
        return applied, *arrays.values()
    return applied, arrays if isinstance(x, Mapping) else tuple(arrays.values())


def pack(model: nn.Module, x: Any, time: Time) -> tuple[nn.Module, Any]:
    """Return a model of several inputs as one of a single input, and x likewise; both unchanged for a single x.

    x: a tuple of tensors, in the order of forward's arguments, or a dict by argument, or the one dict that forward
    takes. Raises CaptureError for inputs of different numbers of steps or samples, or names that no node can have.
    """
    model, x = apply_plain(model, x)
    needed, arguments, most = _arguments(model)
    if isinstance(x, Mapping) and set(x) <= set(arguments):
        x = {name: x[name] for name in arguments if name in x}  # as a tuple of them would be read
    leading = 1 if time == "inside" else 2
    given = _tensors(x, len(needed), most, arguments, leading)
    if given is None or not isinstance(model, nn.Module):
        return model, x
    if isinstance(x, Mapping):
        names = [str(name) for name in x]
        how = "named" if set(names) <= set(arguments) else "mapping"
    else:
        enough = len(arguments) >= len(given)
        names, how = arguments[: len(given)] if enough else [f"x{i}" for i in range(len(given))], "each"
    for name, tensor in zip(names, given, strict=True):
        if tensor.numel():
            require_held_by_float32(as_array(tensor), f"inputs: '{name}'")
    tensors = [tensor if tensor.is_floating_point() else tensor.float() for tensor in given]
    _require_taken(model, names, how)
    for name, tensor in zip(names, tensors, strict=True):
        if not name.isidentifier():
            raise CaptureError(f"inputs: expected names of letters, digits and '_'; found {name!a}; rename it")
        if tensor.dim() < leading or tensor.shape[:leading] != tensors[0].shape[:leading] or not tensor.numel():
            raise CaptureError(
                f"inputs: expected {'[B, ...]' if leading == 1 else '[T, B, ...]'} of the same leading sizes; found "
                f"{list(tensors[0].shape)} for '{names[0]}' and {list(tensor.shape)} for '{name}'"
            )
    shapes = [tuple(tensor.shape[leading:]) for tensor in tensors]
    starts = [0, *accumulate(prod(shape) for shape in shapes)]
    places = zip(names, shapes, starts, given, strict=False)
    parts = [Part(name, name, shape, start, tensor.dtype) for name, shape, start, tensor in places]
    lead = tensors[0].shape[:leading]
    joined = torch.cat([tensor.reshape(*lead, -1) for tensor in tensors], -1)
    return Packed(model, parts, how, 1 if time in ("inside", "step") else 2), joined


def require_values(x: Tensor | NDArray[Any]) -> None:
    """Raise CaptureError for a tensor without values, or of samples of several lengths."""
    if isinstance(x, Tensor) and x.is_meta:
        raise CaptureError("x has no values (it is on the meta device); give a real batch")
    if isinstance(x, Tensor) and x.is_nested:
        raise CaptureError("x is nested; expected samples of one length, in one array: x.to_padded_tensor(0.0)")


def _signature(model: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(model.forward)
    except (TypeError, ValueError, AttributeError):  # of a scripted module, or of none
        return None


def _arguments(model: Any) -> tuple[list[str], list[str], int]:
    """Return names of arguments that forward needs, of all that it takes by name, and how many it takes by place."""
    signature = _signature(model)
    parameters = () if signature is None else signature.parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    most = 2**30 if len(named) < len(parameters) or signature is None else len(named)
    return [p.name for p in named if p.default is p.empty], [p.name for p in named], most


def _require_taken(model: nn.Module, names: Sequence[str], how: str) -> None:
    """Raise CaptureError for inputs that forward's arguments do not take."""
    signature = _signature(model)
    if signature is None:
        return
    try:
        if how == "named":
            signature.bind(**dict.fromkeys(names))
        else:
            signature.bind(*([names] if how == "mapping" else names))
    except TypeError as error:
        expected = ", ".join(signature.parameters)
        raise CaptureError(
            f"inputs: expected those of forward({expected}); found {', '.join(names)} ({error}); give a tuple in the "
            "order of its arguments, or a dict by their names"
        ) from None


def _tensors(x: Any, needed: int, most: int, arguments: Sequence[str], leading: int) -> list[Tensor] | None:
    """Return several inputs as tensors; None for one, which a list of its steps is, too.

    Arrays of one shape in a list are inputs if forward needs as many, and steps if it takes fewer (as in a tuple).
    Raises CaptureError where they may be either.
    """
    if not isinstance(x, Mapping | tuple | list) or not len(x):
        return None
    parts = list(x.values()) if isinstance(x, Mapping) else list(x)
    if not all(isinstance(part, Tensor | np.ndarray) for part in parts):
        if isinstance(x, Mapping):
            raise CaptureError("inputs: expected a tensor or array for each name; found other values")
        return None
    for part in parts:
        require_values(part)
    tensors = [part.detach().cpu() if isinstance(part, Tensor) else torch.as_tensor(part) for part in parts]
    count = len(tensors)
    alike = len({tuple(tensor.shape) for tensor in tensors}) == 1
    if not isinstance(x, Mapping) and alike:
        if count == 1 and leading == 2:
            raise CaptureError(
                f"x: expected one array, or a tuple or dict of several inputs; found a {type(x).__name__} of one "
                f"array, {list(tensors[0].shape)}, which would be a single time step; give the array itself, x[0]"
            )
        if count == 1 or (count > most and (isinstance(x, list) or count != 2)):
            return None
        if isinstance(x, list) and (count != needed or tensors[0].dim() <= leading):
            raise CaptureError(
                f"x is a list of {count} arrays of one shape, which may be {count} steps or inputs of "
                f"forward({', '.join(arguments)}); give steps as one array, torch.stack(x), or inputs as a tuple"
            )
    if any(tensor.is_complex() for tensor in tensors):
        raise CaptureError("inputs: expected real numbers; found complex ones")
    return tensors
