"""Pick a model's output among its returned values, and name the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from stl_deploy.errors import CaptureError

Pick = int | str | None
"""The index or name of an output; None: the first tensor."""


def pick(returned: Any, output: Pick) -> Tensor:
    """Return one tensor of a model's result: by index or name, or the first.

    Raises CaptureError if there is no such output, or it is no tensor.
    """
    if output is not None:
        try:
            returned = [returned][output] if isinstance(returned, Tensor) else fields_of(returned)[output]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            raise CaptureError(
                f"output={output!r}: the model returns {_described(returned)}; name one of its outputs"
            ) from None
        if isinstance(returned, list | tuple) and all(isinstance(item, Tensor) for item in returned):
            return torch.stack(list(returned))
        if isinstance(returned, Tensor):
            return returned
    if _one_for_each_step(returned):
        return torch.stack(returned)
    first = next(tensors_in(returned), None)
    if first is None:
        raise CaptureError(f"the model returns {_described(returned)}, without a tensor; return one from forward")
    return first


def left_aside(returned: Any, output: Pick) -> int:
    """Count the returned tensors besides `pick`'s default one."""
    return 0 if output is not None or _one_for_each_step(returned) else len(list(tensors_in(returned))) - 1


def _one_for_each_step(returned: Any) -> bool:
    alike = isinstance(returned, list) and len({getattr(item, "shape", None) for item in returned}) == 1
    return alike and len(returned) > 2 and isinstance(returned[0], Tensor)


def fields_of(returned: Any) -> Any:
    """Return a dataclass, or a named tuple, as a dict of its fields; other values unchanged."""
    if isinstance(returned, tuple) and hasattr(returned, "_asdict"):
        return _Named(returned._asdict())
    if not is_dataclass(returned) or isinstance(returned, Mapping):
        return returned
    return {field.name: getattr(returned, field.name) for field in fields(returned)}


class _Named(dict[str, Any]):
    """Fields that also have a place."""

    def __missing__(self, place: int) -> Any:
        return list(self.values())[place]


def tensors_in(returned: Any) -> Iterator[Tensor]:
    """Yield every tensor in nested tuples, lists, mappings and dataclasses."""
    if isinstance(returned, Tensor):
        yield returned
        return
    returned = fields_of(returned)
    items = (
        returned.values() if isinstance(returned, Mapping) else returned if isinstance(returned, list | tuple) else ()
    )
    for item in items:
        yield from tensors_in(item)


def _described(returned: Any) -> str:
    returned = fields_of(returned)
    if isinstance(returned, Mapping):
        return f"a dict with {', '.join(map(repr, returned))}"
    if isinstance(returned, list | tuple):
        return f"{len(returned)} values"
    return f"an object of class {type(returned).__name__}"
