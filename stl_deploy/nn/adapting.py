"""LIF neurons whose thresholds adapt (ALIF, as in LSNNs: Bellec et al. 2018, arXiv 1803.09574).

    a[t] = ρ·a[t−1] + jump·s[t−1];   u[t] = β·v[t−1] + x[t];   s[t] = 1 where u[t] >= θ + a[t]
    v[t] = (1 − s[t])·u[t], the hard reset;   u[t] − θ·s[t] or u[t] − (θ + a[t])·s[t], the soft ones

Torch's autograd differentiates each step, through the adaptation, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stl_deploy._util.remedies import require_one_of
from stl_deploy.errors import InputError
from stl_deploy.graph.program import Subtracts
from stl_deploy.nn.layers import wide
from stl_deploy.nn.lif_scan import spike
from stl_deploy.nn.neuron import LIF


class ALIF(LIF):
    """A LIF population whose threshold rises by ``jump`` with each spike and decays back by ``adaptation_decay``.

    Args:
        adaptation_decay: ρ in [0, 1).
        jump: At least 0.
        subtracts: Amount that a soft reset subtracts: the ``baseline`` θ or the ``adapted`` threshold θ + a.

    Other options as for `LIF`, except synapse_decay and multi_spike.

    Raises:
        InputError: For a decay out of range, and as `LIF`.

    Examples:
        >>> alif = ALIF((64,), threshold=1.0, adaptation_decay=0.95, jump=0.2)
        >>> spikes = alif(currents)  # [T, B, 64], from rest
        >>> spikes, state = alif.step(current, state)  # one step; state [3, B, 64]: potential, a, last spikes
    """

    def __init__(
        self,
        shape: int | Sequence[int] | None = None,
        *,
        adaptation_decay: float = 0.9,
        jump: float = 0.1,
        subtracts: Subtracts = "baseline",
        **options: Any,
    ) -> None:
        if not 0 <= adaptation_decay < 1:
            raise InputError(
                f"expected an adaptation_decay from 0 to below 1; found {adaptation_decay!r}, with which the threshold "
                "never falls back or diverges"
            )
        if not 0 <= jump < float("inf"):
            raise InputError(f"expected a jump of at least 0; found {jump!r}")
        require_one_of(subtracts, Subtracts, "subtracts")
        for name, none in (("synapse_decay", None), ("multi_spike", 1)):
            if options.get(name, none) != none:
                raise InputError(f"an adapting threshold takes one spike a step and no synapse: leave out {name}")
        super().__init__(shape, **options)
        self.subtracts: Subtracts = subtracts
        self.register_buffer("adaptation_decay", torch.tensor(float(adaptation_decay)))
        self.register_buffer("jump", torch.tensor(float(jump)))

    @property
    def plain(self) -> bool:
        """No: no scan knows the adaptation."""
        return False

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step: currents ``[B, *shape]`` and the state of the step before to spikes and state ``[3, B, *shape]``.

        state: potential, adaptation and spikes; None: from rest. Raises InputError for other shapes.
        """
        self._check(x, ("B",))
        x = wide(x)
        if state is None:
            state = torch.zeros((3, *x.shape), dtype=x.dtype, device=x.device)
        if state.shape != (3, *x.shape):
            raise InputError(
                f"currents are {list(x.shape)} and the state {list(state.shape)}; one state goes with one batch: call "
                "reset(), or pass state=None to start from rest"
            )
        spikes, *parts = self._stepped(x, *state.unbind(0))
        return spikes, torch.stack([*parts, spikes])

    def _sequence(self, x: Tensor) -> Tensor:
        v = a = s = torch.zeros_like(x[0])
        outputs = []
        for current in x.unbind(0):
            s, v, a = self._stepped(current, v, a, s)
            outputs.append(s)
        return torch.stack(outputs)

    def _stepped(self, x: Tensor, v: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes, what they leave of the potential, and the adaptation."""
        theta = self.threshold
        a = a * self.get_buffer("adaptation_decay") + self.get_buffer("jump") * s
        level = theta + a
        u = v * self.decay + x
        s = spike(u, level, self._derivative)
        taken = u if not self.soft_reset else level if self.subtracts == "adapted" else theta
        return s, u - taken * (s.detach() if self.detach_reset else s), a

    def extra_repr(self) -> str:
        """As of `LIF`, with the adaptation."""
        decay, jump = float(self.get_buffer("adaptation_decay")), float(self.get_buffer("jump"))
        return f"{super().extra_repr()}, adapts by {jump:.4g}, decay {decay:.4g}"
