"""Read the state dicts in a file of ``torch.save``, without running pickled code.

A reader for `isolated`. Classes and functions that the file names beside tensors are replaced by `_Record`, which keeps
the data and does nothing: a training's arguments, an optimiser, or a whole pickled module are data like any other.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stl_deploy._util.isolated import Answer
from stl_deploy.errors import InputError

_DEEPEST = 4
"""Of mappings in one another around a state dict."""


class _Record:
    """Stand-in for an object of any class. ``state``: its attributes, if it is one with attributes."""

    state: Any = None

    def __new__(cls, *arguments: Any) -> _Record:
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_checkpoint(path: Path) -> Answer:
    """Return [place, name, type, shape] of every tensor of every state dict, and their bytes.

    The place of a state dict is its key in the file, ``""`` where the file is the state dict itself.
    Raises InputError for a file that is damaged or holds no state dict.
    """
    loaded = _load(path)
    states = dict(_states(loaded, ""))
    if not states:
        raise InputError(
            f"{path}: expected a state dict of tensors; found none in a {type(loaded).__name__}; save a state_dict()"
        )
    forms, contents = [], []
    for place, state in states.items():
        for name, tensor in state.items():
            content = _content(path, name, tensor)
            forms.append((place, name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)))
            contents.append(content.numpy())
    return forms, contents


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_stand_ins(path)):
            warnings.simplefilter("ignore")  # of pickle's protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch has errors of many types for damaged files
        if "memory" in str(error):
            raise MemoryError from None
        raise InputError(
            f"{path}: damaged, truncated or no file of torch.save ({type(error).__name__}); write it again with "
            "torch.save(model.state_dict(), PATH)"
        ) from None


def _stand_ins(path: Path) -> list[Any]:
    """Return a `_Record` for each name in the file that torch does not load."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # a file of torch before 1.6, which torch cannot look through
        return []
    return [_stand_in(*name.rpartition(".")) for name in names]


def _stand_in(module: str, _: str, name: str) -> type[_Record]:
    return type(name, (_Record,), {"__module__": module})


def _states(value: Any, place: str) -> Iterator[tuple[str, Mapping[Any, Tensor]]]:
    """Yield the state dicts in a value of the file, by their place in it."""
    if _is_module(value):
        value = dict(_tensors_of_module(value, ""))
    if not isinstance(value, dict) or place.count(".") >= _DEEPEST:
        return
    # an empty dict is no state dict: `optimizer.state` of a fresh training is one
    if value and all(isinstance(part, Tensor) for part in value.values()):
        yield place, value
        return
    for key, part in value.items():
        if isinstance(key, str):
            yield from _states(part, f"{place}.{key}" if place else key)


def _is_module(value: Any) -> bool:
    return isinstance(value, _Record) and isinstance(value.state, dict) and "_modules" in value.state


def _tensors_of_module(module: _Record, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yield what ``state_dict()`` of a pickled torch module would hold."""
    fleeting = module.state.get("_non_persistent_buffers_set") or ()
    for kind in ("_parameters", "_buffers"):
        for name, tensor in dict(module.state.get(kind) or {}).items():
            if isinstance(tensor, Tensor) and name not in fleeting:
                yield f"{prefix}{name}", tensor
    for name, part in dict(module.state["_modules"] or {}).items():
        if _is_module(part):
            yield from _tensors_of_module(part, f"{prefix}{name}.")


def _content(path: Path, name: Any, tensor: Tensor) -> Tensor:
    """Return a tensor's bytes, uint8."""
    if not isinstance(name, str) or tensor.is_complex():
        raise InputError(f"{path}: expected tensors of real numbers by name; found {str(name)!a} of {tensor.dtype}")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise InputError(f"{path}: {name!a}: expected a dense tensor; found {tensor.layout} on {tensor.device}")
    try:
        return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    except RuntimeError as error:
        if "memory" in str(error):
            raise MemoryError from None
        raise InputError(f"{path}: {name!a} cannot be read ({type(error).__name__})") from None
