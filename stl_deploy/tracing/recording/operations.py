"""Values of a recorded run and the operations between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stl_deploy.graph.program import Rounding
from stl_deploy.tracing.recording.source_lines import Place
from stl_deploy.tracing.recording.watched import leaves

_SEQUENCES = (tuple, list)
_NESTED = (*_SEQUENCES, dict)
_PLAIN = {int, float, bool, str, type(None), torch.dtype}
"""Types of most arguments that hold nothing else."""
COMPARES = ("gt", "ge", "lt", "le", "eq", "ne", "heaviside", "sign")
"""Operations whose results are spikes, or what spikes are made of."""
ROUNDS: dict[str, Rounding] = {"trunc": "down", "floor": "down", "round": "half_even"}
"""Operations whose results are counts of spikes, or what counts are made of, and how each rounds."""


@dataclass(eq=False, repr=False)  # a repr would write out all that it reads, again and again
class Value:
    """One tensor value: output ``index`` of ``op``, or a leaf: a tensor from before the run.

    strides: where its values lay in memory, as kernels round by that; empty where they lay as they stand.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    op: Op | None = None
    index: int = 0
    leaf: Tensor | None = None
    constant: bool = True
    kept: Tensor | None = None
    strides: tuple[int, ...] = ()
    _evaluated: Tensor | None = field(default=None, repr=False)

    @property
    def memory(self) -> tuple[int, ...]:
        """Its axes, the outermost in memory first; empty where they lie as they stand, or values are repeated."""
        axes = range(len(self.strides))
        memory = tuple(sorted(axes, key=lambda at: -self.strides[at]))
        return memory if all(self.strides) and memory != tuple(axes) else ()

    def tensor(self) -> Tensor:
        """The tensor of a constant value."""
        if self.leaf is not None:
            return self.leaf
        if self._evaluated is None:
            assert self.op is not None
            assert self.constant
            self._evaluated = self.op.outputs_on(Value.tensor)[self.index]
        return self._evaluated


@dataclass(eq=False, repr=False)  # a repr would write out all that it reads, again and again
class Op:
    """One operation. ``name`` is ATen's without overload; ``args`` and ``kwargs`` hold Values in the place of tensors.

    ``writes``: the argument that torch's own form of it would write into, a copy of which is written into here.
    ``within``: where that is a part of a tensor, the sizes of its axes but the first, as kernels round by them.
    ``scatter``: the operation puts ``args[1]`` in the place of what ``name`` would take out of ``args[0]``.
    """

    name: str
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    place: Place
    writes: str | int | None = None
    scatter: bool = False
    within: tuple[int, ...] = ()
    outputs: tuple[Value, ...] = ()
    inputs: tuple[Value, ...] = field(init=False)
    """The values it reads."""

    def __post_init__(self) -> None:
        self.inputs = tuple(item for item in leaves((self.args, self.kwargs)) if isinstance(item, Value))

    def outputs_on(self, tensor: Callable[[Value], Tensor]) -> list[Tensor]:
        """Return its outputs, computed by torch on the tensors that ``tensor`` gives for its inputs."""
        args, kwargs = map_tree((self.args, self.kwargs), Value, tensor)
        if self.scatter:
            whole = args[0].clone()
            self.func(whole, *args[2:], **kwargs).copy_(args[1])
            return [whole]
        if self.writes is not None:
            if isinstance(self.writes, int):
                written = args[self.writes].clone()
                args = (*args[: self.writes], written, *args[self.writes + 1 :])
            else:
                written = kwargs[self.writes].clone()
                kwargs = {**kwargs, self.writes: written}
            self.func(*args, **kwargs)
            return [written]
        outputs = self.func(*args, **kwargs)
        return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def map_tree(tree: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Return ``tree`` with every instance of ``kind`` in it changed."""
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, dict):
        return {key: map_tree(item, kind, change) for key, item in tree.items()} if tree else tree
    if not isinstance(tree, _SEQUENCES):
        return tree
    changed = list(tree)
    for at, item in enumerate(changed):
        if type(item) in _PLAIN:
            continue
        if isinstance(item, kind):
            changed[at] = change(item)
        elif isinstance(item, _NESTED) and item:
            changed[at] = map_tree(item, kind, change)
    return type(tree)(changed)
