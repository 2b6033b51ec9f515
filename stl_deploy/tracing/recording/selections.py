"""Follow values selected by a mask of the input, ``x[mask]``, until they are written back, ``y[mask] = x[mask]``.

How many values there are depends on the input; ``y = where(mask, x, y)``, which is the same, has fixed shapes. In
between, elementwise operations are applied to all of ``x``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stl_deploy.errors import CaptureError
from stl_deploy.tracing.recording.operations import Value, map_tree
from stl_deploy.tracing.recording.watched import leaves

_WRITES_BACK = ("index_put_", "index_put")
_KEEPS = ("view", "detach", "alias")
"""Operations that torch applies to a selection before it writes it back."""


@dataclass(eq=False)
class Selection:
    """``whole[mask]``. mask_value: the mask's value, by which the same mask is known."""

    whole: Tensor
    mask: Tensor
    mask_value: Value


class Selections:
    """The selections among a recorder's values. value_of: the value of a tensor; register: makes one for a tensor."""

    def __init__(self, value_of: Callable[[Tensor], Value], register: Callable[[Tensor], Value]) -> None:
        self._value_of, self._register = value_of, register
        self._known: dict[Value, Selection] = {}

    def __contains__(self, item: object) -> bool:
        return bool(self._known) and self._of(item) is not None

    def select(self, recorder: Any, func: Any, x: Tensor, index: Any) -> Tensor | None:
        """Return ``x[mask]``; None where the index is no mask of all values."""
        if len(index) != 1 or index[0] is None or index[0].dtype != torch.bool or index[0].shape != x.shape:
            return None
        with recorder:
            whole, mask = x.clone(), index[0].clone()  # either may be written into before the selection is used
        return self._keep(func(x, index), Selection(whole, mask, self._value_of(index[0])))

    def read(self, recorder: Any, func: Any, args: Any, kwargs: Any, refusal: CaptureError) -> Any:
        """Apply an operation that reads selections; None where it reads none.

        Raises the refusal for one that neither works by element nor writes back where the values are from.
        """
        if not self._known:
            return None
        read = {item: known for item in leaves((args, kwargs)) if (known := self._of(item)) is not None}
        if not read:
            return None
        name, own = func._schema.name.split("::")[1], next(iter(read.values()))
        if any(known.mask_value is not own.mask_value for known in read.values()):
            raise refusal
        if name in _WRITES_BACK and len(args) == 3 and args[0] not in read:
            if len(args[1]) != 1 or self._value_of(args[1][0]) is not own.mask_value:
                raise refusal
            with recorder:
                made = torch.where(own.mask, read[args[2]].whole, args[0])
                return args[0].copy_(made) if name.endswith("_") else made
        if name in _KEEPS:
            return self._keep(func(*args, **kwargs), own)
        others = [item for item in leaves((args, kwargs)) if isinstance(item, Tensor) and item not in read]
        if torch.Tag.pointwise not in func.tags or any(item.dim() for item in others):
            raise refusal
        written = name.endswith("_")
        with recorder:
            whole = func(*map_tree(args, Tensor, lambda x: _whole(read, x, written)), **kwargs)
        return self._keep(func(*args, **kwargs), Selection(whole, own.mask, own.mask_value))

    def _of(self, item: object) -> Selection | None:
        return self._known.get(self._value_of(item)) if isinstance(item, Tensor) else None

    def _keep(self, values: Tensor, selection: Selection) -> Tensor:
        self._known[self._register(values)] = selection
        return values


def _whole(read: dict[Tensor, Selection], x: Tensor, written: bool) -> Tensor:
    """Return all values for the selected ones; a copy if they are written into."""
    if x not in read:
        return x
    return read[x].whole.clone() if written else read[x].whole
