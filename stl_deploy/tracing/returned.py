"""What a model returns: the tensor that is meant as its output, and what stands beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from stl_deploy.errors import CaptureError

Pick = int | str | None
"""The index or name of an output; None: the first tensor."""


def pick(found: Any, output: Pick) -> Tensor:
    """One tensor of what a model returned: by index or name, or the first.

    Raises CaptureError if there is no such output, or it is no tensor.
    """
    if output is not None:
        try:
            found = [found][output] if isinstance(found, Tensor) else fields_of(found)[output]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            raise CaptureError(
                f"output={output!r}: the model returns {_described(found)}; name one of its outputs"
            ) from None
        if isinstance(found, list | tuple) and all(isinstance(item, Tensor) for item in found):
            return torch.stack(list(found))
        if isinstance(found, Tensor):
            return found
    if _one_for_each_step(found):
        return torch.stack(found)
    first = next(tensors_in(found), None)
    if first is None:
        raise CaptureError(
            f"the model returns {_described(found)}, in which there is no tensor; return one from forward"
        )
    return first


def left_aside(found: Any, output: Pick) -> int:
    """How many tensors the model returns besides the one that `pick` takes because none is named."""
    return 0 if output is not None or _one_for_each_step(found) else len(list(tensors_in(found))) - 1


def _one_for_each_step(found: Any) -> bool:
    alike = isinstance(found, list) and len({getattr(item, "shape", None) for item in found}) == 1
    return alike and len(found) > 2 and isinstance(found[0], Tensor)


def fields_of(found: Any) -> Any:
    """A dataclass, or a named tuple, as a dict of its fields; anything else as it is."""
    if isinstance(found, tuple) and hasattr(found, "_asdict"):
        return _Named(found._asdict())
    if not is_dataclass(found) or isinstance(found, Mapping):
        return found
    return {field.name: getattr(found, field.name) for field in fields(found)}


class _Named(dict[str, Any]):
    """Fields that also have a place."""

    def __missing__(self, place: int) -> Any:
        return list(self.values())[place]


def tensors_in(found: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists, mappings and dataclasses."""
    if isinstance(found, Tensor):
        yield found
        return
    found = fields_of(found)
    items = found.values() if isinstance(found, Mapping) else found if isinstance(found, list | tuple) else ()
    for item in items:
        yield from tensors_in(item)


def _described(found: Any) -> str:
    found = fields_of(found)
    if isinstance(found, Mapping):
        return f"a dict with {', '.join(map(repr, found))}"
    if isinstance(found, list | tuple):
        return f"{len(found)} values"
    return f"an object of class {type(found).__name__}"
