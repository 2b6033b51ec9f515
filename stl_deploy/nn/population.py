"""Common parts of neuron populations: shape, given or inferred; sequences from rest, or one step and a state.

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

from stl_deploy._util.remedies import require_one_of
from stl_deploy.config.schema import DecayForm
from stl_deploy.errors import InputError
from stl_deploy.nn.layers import wide
from stl_deploy.nn.synaptic_scan import rest

Shape = tuple[int, ...]
_LEAST_AXES, _UNCLEAR_AXES = 3, 4


class Population(nn.Module):
    """Neurons with a decay β in [0, 1], fixed or learned as σ(a), and optionally a decaying synaptic current.

    shape: of one sample at one step, ``(features,)`` or ``(channels, height, width)``; None: that of the first input.
    stateful: forward takes one step ``[B, *shape]`` and goes on from the step before, until `reset`.
    synapse_decay: of the current, as decay; None: input acts in its own step. decay_form: ``shift`` holds decays on
    1 - 2^-k: the nearest if they are fixed, one learned k for each neuron if not (see `stl_deploy.nn.population`).
    """

    def __init__(
        self,
        shape: int | Sequence[int] | None,
        decay: float,
        learn_decay: bool,
        stateful: bool,
        synapse_decay: float | None = None,
        decay_form: DecayForm = "free",
    ) -> None:
        super().__init__()
        require_one_of(decay_form, DecayForm, "decay_form")
        self.decay_form = decay_form
        self._shape = None if shape is None else _checked(shape)
        self.stateful = stateful
        self._state: Tensor | None = None
        self.decay_parameter = self._hold_decay("_fixed_decay", "decay", decay, learn_decay)
        self.synapse_parameter: nn.Parameter | None = None
        self.synaptic = synapse_decay is not None
        if synapse_decay is not None:
            self.synapse_parameter = self._hold_decay("_fixed_synapse", "synapse_decay", synapse_decay, learn_decay)

    def _hold_decay(self, buffer: str, name: str, decay: float, learn: bool) -> nn.Parameter | None:
        """Register a decay as a buffer of that name, or return the parameter that it is learned by."""
        if not (0 < decay < 1 if learn else 0 <= decay <= 1):
            accepted = "a number between 0 and 1, ends excluded" if learn else "a number from 0 to 1"
            raise InputError(f"expected {accepted} as {name}; found {decay!r}")
        shift = self.decay_form == "shift"
        if shift and not learn:
            decay = 1 - 2.0 ** -nearest_shift(decay)
        if shift and learn and self._shape is None:
            raise InputError("expected a shape where decays of the form shift are learned, one a neuron; found none")
        self.register_buffer(buffer, None if learn else torch.tensor(decay), persistent=not learn)
        if not learn:
            return None
        if shift:
            return nn.Parameter(torch.full(self._shape or (), -math.log2(1 - decay)))
        return nn.Parameter(torch.tensor(math.log(decay / (1 - decay))))

    @property
    def shape(self) -> Shape:
        """Shape of one sample at one step; raises InputError as long as it is neither given nor inferred."""
        if self._shape is None:
            raise InputError(f"the shape of this {type(self).__name__} is not known before its first input; give it")
        return self._shape

    @property
    def shape_known(self) -> bool:
        """Whether the shape was given, or inferred from a first input."""
        return self._shape is not None

    @property
    def decay(self) -> Tensor:
        """The effective β: 0-dimensional, or one a neuron where shifts are learned."""
        return self._effective(self.decay_parameter, "_fixed_decay")

    @property
    def synapse_decay(self) -> Tensor | None:
        """The effective decay of the synaptic current, as `decay`; None without a synapse."""
        return self._effective(self.synapse_parameter, "_fixed_synapse") if self.synaptic else None

    def hold_decays(self, decay: Tensor, synapse: Tensor | None) -> None:
        """Fix these decays; each broadcasts to the shape. synapse: None without a current."""
        for buffer, parameter, value in (
            ("_fixed_decay", "decay_parameter", decay),
            ("_fixed_synapse", "synapse_parameter", synapse),
        ):
            if value is not None:
                setattr(self, parameter, None)
                self.register_buffer(buffer, value.detach().clone())

    def _effective(self, parameter: nn.Parameter | None, buffer: str) -> Tensor:
        if parameter is None:
            return self.get_buffer(buffer)
        return shift_decay(parameter) if self.decay_form == "shift" else torch.sigmoid(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Map currents ``[T, B, *shape]`` to outputs of the same shape, every call from rest.

        A stateful population takes one step ``[B, *shape]`` and goes on where the last one ended.
        Outputs have the currents' type, but are float32 where those are bfloat16. Raises InputError for other shapes.
        """
        if self.stateful:
            y, self._state = self.step(x, self._state)
            return y
        self._check(x, ("T", "B"))
        return self._sequence(wide(x))

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map one step's currents ``[B, *shape]`` and the last potential to outputs and potential.

        With a synapse the state is ``[2, B, *shape]``, the synaptic current before the potential.

        state: None: from rest. Raises InputError for other shapes, or a state of another batch.
        """
        self._check(x, ("B",))
        if state is not None and state.shape != (2, *x.shape)[not self.synaptic :]:
            raise InputError(
                f"currents are {list(x.shape)} and the state {list(state.shape)}; one state goes with one batch: call "
                "reset(), or pass state=None to start from rest"
            )
        x = wide(x)
        return self._one_step(x, rest(x, self.synaptic) if state is None else state)

    def reset(self) -> None:
        """Return to rest, if the state is kept inside."""
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
        axes = len(leading)
        if x.shape[axes:] == self.shape and (len(x) or axes == 1):
            return
        expected = f"[{', '.join([*leading, *map(str, self.shape)])}]"
        other = x.shape[3 - axes :] == self.shape
        remedy = "give it currents of its shape"
        if other and axes > 1:
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
        """Return the state without potentials: copies and pickles begin at rest."""
        return {**self.__dict__, "_state": None}


def _checked(shape: int | Sequence[int]) -> Shape:
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if not sizes or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise InputError(f"expected a shape of whole sizes from 1, as (64,) or (16, 8, 8); found {shape!r}")
    return sizes


MOST = 15
"""The largest k, of four bits."""


def nearest_shift(decay: float) -> int:
    """Return the k of the decay 1 - 2^-k nearest to ``decay`` in the logarithm of the loss; raise InputError for 1."""
    if not 0 <= decay < 1:
        raise InputError(f"expected a decay from 0 to below 1, of the form 1 - 2^-k; found {decay:g}")
    return min(MOST, round(-math.log2(1 - decay)))


def shift_decay(k: Tensor) -> Tensor:
    """Return 1 - 2^-round(k), exact, with the gradient of 1 - 2^-k in k; k is kept within 0 and 15."""
    whole = k.detach().round().clamp(0, MOST).long()
    lost = torch.tensor([2.0**-shift for shift in range(MOST + 1)], dtype=k.dtype, device=k.device)[whole]
    if not k.requires_grad:
        return 1 - lost
    return 1 - lost * (1 - math.log(2) * (k - k.detach()))
