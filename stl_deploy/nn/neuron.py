"""The spiking neuron of STL-SNN, with a threshold that is learned.

    v[t] = β·v[t−1] + x[t];  a spike where v >= θ;  v is then reset to 0

as in the authors' code (Sun et al. 2022, arXiv 2206.06129): the input is not scaled, and the
gradient flows through the reset. Every call starts from rest, so samples never touch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from stl_deploy.config.schema import Granularity, Parametrisation
from stl_deploy.errors import InputError
from stl_deploy.nn.layers import wide
from stl_deploy.nn.lif_scan import lif_scan
from stl_deploy.nn.surrogate import surrogate

Shape = tuple[int, ...]


class _Leaky(nn.Module):
    """A decay β in [0, 1], fixed or learned as σ(a)."""

    def __init__(self, decay: float, learn: bool) -> None:
        super().__init__()
        if not (0 < decay < 1 if learn else 0 <= decay <= 1):
            accepted = "a number between 0 and 1, ends excluded," if learn else "a number from 0 to 1"
            raise InputError(f"decay is {decay!r}; {accepted} is accepted")
        self.decay_parameter: nn.Parameter | None = None
        if learn:
            self.decay_parameter = nn.Parameter(torch.tensor(math.log(decay / (1 - decay))))
        self.register_buffer("_fixed_decay", None if learn else torch.tensor(decay), persistent=not learn)

    @property
    def decay(self) -> Tensor:
        """The effective β, 0-dimensional."""
        if self.decay_parameter is not None:
            return torch.sigmoid(self.decay_parameter)
        return self.get_buffer("_fixed_decay")


class LI(_Leaky):
    """Leaky integrators that do not spike, ``[T, B, *shape]`` currents in, potentials out: v[t] = β·v[t−1] + x[t].

    decay: β in [0, 1]; with learn_decay it is σ(a), one a per layer. Raises InputError for a β out of range.
    """

    def __init__(self, shape: Shape, *, decay: float = 0.5, learn_decay: bool = False) -> None:
        super().__init__(decay, learn_decay)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Currents ``[T, B, *shape]`` to potentials of the same shape; every call starts from rest.

        Potentials have the currents' type, but are float32 where those are bfloat16.
        """
        decay, potentials = self.decay, list(wide(x).unbind(0))
        for step in range(1, len(potentials)):
            potentials[step] = potentials[step - 1] * decay + potentials[step]
        return torch.stack(potentials)


class LIF(_Leaky):
    """A population of leaky integrate-and-fire neurons; ``[T, B, *shape]`` currents in, spikes out.

    shape: of the population, ``(features,)`` or ``(channels, height, width)``.
    threshold, jitter: initial θ is threshold + jitter·N(0, 1), drawn per threshold.
    granularity: one θ per neuron, per channel (first axis of shape) or for the whole layer.
    parametrisation: ``positive`` θ = θ₀·exp(ρ) with ρ = 0 at first, so θ starts exactly at θ₀,
        can never reach 0, and weight decay pulls it to θ₀; or ``raw``, the paper's free parameter.
    decay: β in [0, 1]; with learn_decay it is σ(a), one a per layer, and must start inside (0, 1).
    surrogate: name of the surrogate gradient. detach_reset: no gradient through the reset.

    Raises InputError for a θ₀ <= 0 under ``positive``, or a β out of range.
    """

    threshold_init: Tensor

    def __init__(
        self,
        shape: Shape,
        *,
        threshold: float = 1.0,
        jitter: float = 0.0,
        granularity: Granularity = "neuron",
        parametrisation: Parametrisation = "positive",
        decay: float = 0.5,
        learn_decay: bool = False,
        surrogate_name: str = "arctan",
        detach_reset: bool = False,
    ) -> None:
        super().__init__(decay, learn_decay)
        self.shape = shape
        self.parametrisation = parametrisation
        self.granularity = granularity
        self.surrogate_name = surrogate_name
        self.detach_reset = detach_reset
        self._derivative = surrogate(surrogate_name)
        size = threshold_shape(shape, granularity)
        initial = torch.full(size, threshold) + jitter * torch.randn(size)
        if parametrisation == "positive" and not bool((initial > 0).all()):
            raise InputError(
                f"initial threshold {threshold:g} with jitter {jitter:g} gives a threshold <= 0; "
                "use a larger threshold, less jitter, or the parametrisation 'raw'"
            )
        self.register_buffer("threshold_init", initial)
        self.threshold_parameter = nn.Parameter(initial.clone() if parametrisation == "raw" else torch.zeros(size))

    @property
    def threshold(self) -> Tensor:
        """The effective θ, which broadcasts to ``shape``: its full size, ``(C, 1, 1)``, or 0-dimensional."""
        if self.parametrisation == "raw":
            return self.threshold_parameter
        return self.threshold_init * torch.exp(self.threshold_parameter)

    @property
    def plain(self) -> bool:
        """Whether threshold, decay and surrogate say all: it may then run in a fast block (`stl_deploy.nn.fused`)."""
        return True

    def forward(self, x: Tensor) -> Tensor:
        """Currents ``[T, B, *shape]`` to spikes (0 or 1) of the same shape, float32 where the currents are bfloat16."""
        return lif_scan(x, self.threshold, self.decay, self._derivative, detach_reset=self.detach_reset)

    def extra_repr(self) -> str:
        """Shape, granularity, parametrisation and surrogate, for ``print(network)``."""
        return f"{self.shape}, θ per {self.granularity} ({self.parametrisation}), {self.surrogate_name}"


def threshold_shape(shape: Shape, granularity: Granularity) -> Shape:
    """The shape of the threshold tensor of a population."""
    if granularity == "neuron":
        return shape
    if granularity == "channel":
        return (shape[0], *(1,) * (len(shape) - 1))
    return ()
