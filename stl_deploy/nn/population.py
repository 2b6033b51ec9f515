"""What populations of neurons share: their shape, given or inferred; sequences from rest, or one step and a state.

lif = LIF((64,))
spikes = lif(currents)                     # [T, B, 64], from rest
spikes, state = lif.step(current, state)   # [B, 64]; state None: from rest

lif = LIF((64,), stateful=True)            # keeps its state itself
spikes = lif(current)                      # [B, 64], goes on from the step before
lif.reset()
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stl_deploy.errors import InputError
from stl_deploy.nn.layers import wide

Shape = tuple[int, ...]
_LEAST_AXES, _UNCLEAR_AXES = 3, 4


class Population(nn.Module):
    """Neurons with a decay β in [0, 1], fixed or learned as σ(a).

    shape: of one sample at one step, ``(features,)`` or ``(channels, height, width)``; None: that of the first input.
    stateful: forward takes one step ``[B, *shape]`` and goes on from the step before, until `reset`.
    """

    def __init__(self, shape: int | Sequence[int] | None, decay: float, learn_decay: bool, stateful: bool) -> None:
        super().__init__()
        if not (0 < decay < 1 if learn_decay else 0 <= decay <= 1):
            accepted = "a number between 0 and 1, ends excluded" if learn_decay else "a number from 0 to 1"
            raise InputError(f"expected {accepted} as decay; found {decay!r}")
        self._shape = None if shape is None else _checked(shape)
        self.stateful = stateful
        self._state: Tensor | None = None
        self.decay_parameter: nn.Parameter | None = None
        if learn_decay:
            self.decay_parameter = nn.Parameter(torch.tensor(math.log(decay / (1 - decay))))
        self.register_buffer("_fixed_decay", None if learn_decay else torch.tensor(decay), persistent=not learn_decay)

    @property
    def shape(self) -> Shape:
        """Of one sample at one step; raises InputError as long as it is neither given nor inferred."""
        if self._shape is None:
            raise InputError(f"the shape of this {type(self).__name__} is not known before its first input; give it")
        return self._shape

    @property
    def shape_known(self) -> bool:
        """Whether the shape was given, or inferred from a first input."""
        return self._shape is not None

    @property
    def decay(self) -> Tensor:
        """The effective β, 0-dimensional."""
        if self.decay_parameter is not None:
            return torch.sigmoid(self.decay_parameter)
        return self.get_buffer("_fixed_decay")

    def forward(self, x: Tensor) -> Tensor:
        """Currents ``[T, B, *shape]`` to outputs of the same shape, every call from rest.

        A stateful population takes one step ``[B, *shape]`` and goes on where the last one ended.
        Outputs have the currents' type, but are float32 where those are bfloat16. Raises InputError for other shapes.
        """
        if self.stateful:
            y, self._state = self.step(x, self._state)
            return y
        self._check(x, ("T", "B"))
        return self._sequence(wide(x))

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step: currents ``[B, *shape]`` and the potential left by the step before to outputs and potential.

        state: None: from rest. Raises InputError for other shapes, or a state of another batch.
        """
        self._check(x, ("B",))
        if state is not None and state.shape != x.shape:
            raise InputError(
                f"currents are {list(x.shape)} and the state {list(state.shape)}; one state goes with one batch: call "
                "reset(), or pass state=None to begin anew"
            )
        x = wide(x)
        return self._one_step(x, torch.zeros_like(x) if state is None else state)

    def reset(self) -> None:
        """Back to rest, where the state is kept inside."""
        self._state = None

    def _sequence(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _one_step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _settle(self, shape: Shape) -> None:
        """Take the shape inferred from a first input."""
        self._shape = shape

    def _check(self, x: Tensor, leading: tuple[str, ...]) -> None:
        """Raise InputError unless ``x`` is floating point of shape ``[*leading, *shape]``; infer the shape."""
        if not x.is_floating_point():
            raise InputError(f"expected currents in floating point; found {x.dtype}; give x.float()")
        if self._shape is None:
            self._settle(self._inferred(x, leading))
        if x.shape[len(leading) :] == self.shape and x.dim() == len(leading) + len(self.shape):
            return
        expected = f"[{', '.join([*leading, *map(str, self.shape)])}]"
        other = x.dim() == len(self.shape) + 3 - len(leading) and x.shape[x.dim() - len(self.shape) :] == self.shape
        remedy = "give it currents of its shape"
        if other and leading == ("T", "B"):
            remedy = (
                "is this one step, [B, ...]? its batch would be read as time: use lif.step(x, state), or stateful=True"
            )
        elif other:
            remedy = "is this a whole sequence? call the layer itself, without stateful=True"
        raise InputError(f"expected currents {expected}; found {list(x.shape)}; {remedy}")

    def _inferred(self, x: Tensor, leading: tuple[str, ...]) -> Shape:
        if len(leading) == 1:
            if x.dim() < 2:
                raise InputError(f"expected currents of one step [B, *shape]; found {list(x.shape)}; add a batch axis")
            return tuple(x.shape[1:])
        if x.dim() < _LEAST_AXES:
            raise InputError(
                f"expected a sequence of currents [T, B, *shape]; found {list(x.shape)}; is this one step, [B, ...]? "
                "its batch would be read as time: use lif.step(x, state), or stateful=True"
            )
        if x.dim() == _UNCLEAR_AXES:
            raise InputError(
                f"currents are {list(x.shape)} and no shape was given: one step [B, C, H, W], whose batch would be "
                f"read as time, or a sequence [T, B, C, L]? give the shape, for instance {type(self).__name__}("
                f"{tuple(x.shape[1:])}) or {type(self).__name__}({tuple(x.shape[2:])})"
            )
        return tuple(x.shape[2:])

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles begin at rest."""
        return {**self.__dict__, "_state": None}


def _checked(shape: int | Sequence[int]) -> Shape:
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if not sizes or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise InputError(f"expected a shape of whole sizes from 1, as (64,) or (16, 8, 8); found {shape!r}")
    return sizes
