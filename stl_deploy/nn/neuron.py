"""The spiking neuron of STL-SNN, with a threshold that is learned.

    v[t] = β·v[t−1] + x[t];  a spike where v >= θ;  v is then reset to 0

as in the authors' code (Sun et al. 2022, arXiv 2206.06129): the input is not scaled, and the
gradient flows through the reset. With ``reset="subtract"``, θ is subtracted from v instead. Sequences start from
rest, so samples are independent; for single steps see `stl_deploy.nn.population`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from stl_deploy._util.keywords import right_keywords
from stl_deploy._util.remedies import require_one_of
from stl_deploy.config.schema import DecayForm, Granularity, Parametrisation, Reset
from stl_deploy.errors import InputError
from stl_deploy.nn.layers import wide
from stl_deploy.nn.lif_scan import lif_scan, spike
from stl_deploy.nn.population import Population, Shape
from stl_deploy.nn.surrogate import SURROGATES, Surrogate, surrogate_of
from stl_deploy.nn.synaptic_scan import Rule, advance, step, synaptic_scan

_MEANT = {
    "beta": "decay",
    "learn_beta": "learn_decay",
    "alpha": "synapse_decay",
    "tau": "decay=1 - 1 / tau",
    "v_threshold": "threshold",
    "threshold_jitter": "jitter",
    "spike_grad": "surrogate",
    "surrogate_function": "surrogate",
    "reset_mechanism": "reset",
}
"""Keywords of configurations and of other frameworks, to ours."""


class LI(Population):
    """Leaky integrators that do not spike, ``[T, B, *shape]`` currents in, potentials out: v[t] = β·v[t−1] + x[t].

    Args:
        shape: Of a sample, as for `Population`.
        decay: β in [0, 1].
        learn_decay: Learn a, one per layer, of β = σ(a).
        stateful: Take one step a call and keep the state, as for `Population`.
        synapse_decay: Of the synaptic current, as for `Population`.
        decay_form: As for `Population`.

    Raises:
        InputError: For a β out of range.

    Examples:
        >>> potentials = LI((10,), decay=0.9)(currents)  # [T, B, 10]
    """

    @right_keywords(_MEANT)
    def __init__(
        self,
        shape: int | Sequence[int] | None = None,
        *,
        decay: float = 0.5,
        learn_decay: bool = False,
        stateful: bool = False,
        synapse_decay: float | None = None,
        decay_form: DecayForm = "free",
    ) -> None:
        super().__init__(shape, decay, learn_decay, stateful, synapse_decay, decay_form)

    def _sequence(self, x: Tensor) -> Tensor:
        if self.synaptic:
            return synaptic_scan(x, torch.ones_like(self.decay), self.decay, self.synapse_decay, _INTEGRATES)
        decay, v, potentials = self.decay, torch.zeros_like(x[0]), []
        for current in x.unbind(0):
            v = v * decay + current
            potentials.append(v)
        return torch.stack(potentials)

    def _one_step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if self.synaptic:
            return step(x, state, torch.ones_like(self.decay), self.decay, self.synapse_decay, _INTEGRATES)
        v = state * self.decay + x
        return v, v

    def extra_repr(self) -> str:
        """Return shape and decay, for ``print(network)``."""
        beta = float(self.decay.detach().mean())
        return f"{self._shape}, β {beta:.4g}" + " learned" * (self.decay_parameter is not None)


_INTEGRATES = Rule(spiking=False)


class LIF(Population):
    """A population of leaky integrate-and-fire neurons; ``[T, B, *shape]`` currents in, spikes out.

    Args:
        shape: Population shape, ``(features,)`` or ``(channels, height, width)``; None: from the first input.
        threshold: Initial θ, a number or a tensor that broadcasts to the thresholds.
        jitter: Adds jitter·N(0, 1) to each initial threshold.
        granularity: One θ per neuron, per channel (first axis of shape) or per layer.
        learn_threshold: Whether θ is trained.
        parametrisation: ``positive``: θ = θ₀·exp(ρ) with ρ = 0 initially, so θ starts exactly at θ₀, stays above 0, and
            weight decay pulls it to θ₀; ``raw``: the paper's free parameter.
        decay: β in [0, 1]; with learn_decay it is σ(a), one a per layer, and must start inside (0, 1).
        surrogate: Name of a surrogate gradient, or a callable: the derivative of the spike at v − θ, or a
            differentiable function from v − θ to spikes, as in other frameworks; default: surrogate_name.
        reset: ``zero``: a spike sets v to 0 (hard reset); ``subtract``: it subtracts θ from v (soft reset).
        detach_reset: No gradient through the spike in the reset.
        stateful: See `Population`.
        synapse_decay: Decay of a synaptic current that filters the input; None: no current.
        decay_form: See `Population`.
        multi_spike: Maximum spikes per step; above 1, a step emits trunc(v/θ) spikes with the gradient of a staircase,
            and the reset must be ``subtract``.

    Raises:
        InputError: For a θ₀ <= 0 under ``positive``, a β out of range, or an unknown granularity, reset or surrogate.

    Examples:
        >>> lif = LIF((64,), threshold=1.0, granularity="neuron")
        >>> spikes = lif(currents)  # [T, B, 64], from rest
        >>> spikes, state = lif.step(current, state)  # one step [B, 64]; state None: from rest
    """

    threshold_init: Tensor
    threshold_parameter: nn.Parameter

    @right_keywords(_MEANT)
    def __init__(
        self,
        shape: int | Sequence[int] | None = None,
        *,
        threshold: float | Tensor = 1.0,
        jitter: float = 0.0,
        granularity: Granularity = "neuron",
        learn_threshold: bool = True,
        parametrisation: Parametrisation = "positive",
        decay: float = 0.5,
        learn_decay: bool = False,
        surrogate_name: str = "arctan",
        surrogate: str | Surrogate | None = None,
        reset: Reset = "zero",
        detach_reset: bool = False,
        stateful: bool = False,
        synapse_decay: float | None = None,
        multi_spike: int = 1,
        decay_form: DecayForm = "free",
    ) -> None:
        super().__init__(shape, decay, learn_decay, stateful, synapse_decay, decay_form)
        if isinstance(multi_spike, bool) or not isinstance(multi_spike, int) or multi_spike < 1:
            raise InputError(f"expected an integer from 1 as multi_spike; found {multi_spike!r}")
        if multi_spike > 1 and reset != "subtract":
            raise InputError(f"multi_spike {multi_spike} subtracts a threshold for each spike; use reset 'subtract'")
        self.multi_spike = multi_spike
        require_one_of(granularity, Granularity, "granularity")
        require_one_of(parametrisation, Parametrisation, "parametrisation")
        require_one_of(reset, Reset, "reset")
        self.parametrisation = parametrisation
        self.granularity = granularity
        self.surrogate = surrogate_name if surrogate is None else surrogate
        self.soft_reset = reset == "subtract"  # `reset` is the method that goes back to rest
        self.detach_reset = detach_reset
        self._derivative = surrogate_of(self.surrogate)
        self._first = (threshold, jitter)
        sized = self._shape is not None or granularity == "layer"
        self._hold(self._initial(threshold_shape(self._shape or (), granularity)) if sized else None)
        self.threshold_parameter.requires_grad = learn_threshold  # as an attribute: it may have no size yet

    @property
    def threshold(self) -> Tensor:
        """The effective θ, which broadcasts to ``shape``: its full size, ``(C, 1, 1)``, or 0-dimensional."""
        if self.parametrisation == "raw":
            return self.threshold_parameter
        return self.threshold_init * torch.exp(self.threshold_parameter)

    @property
    def surrogate_name(self) -> str:
        """The surrogate's name; of a callable, its own name."""
        return self.surrogate if isinstance(self.surrogate, str) else getattr(self.surrogate, "__name__", "own")

    @property
    def plain(self) -> bool:
        """Whether threshold, decay, surrogate and reset define it, so that a norm before it can be fused with it."""
        return self.surrogate in SURROGATES and not self.stateful and self.shape_known and not self._scanned_apart

    @property
    def _scanned_apart(self) -> bool:
        """Whether `stl_deploy.nn.synaptic_scan` runs it: it has a current, several spikes, or decays per neuron."""
        return self.synaptic or self.multi_spike > 1 or self.decay.dim() > 0

    @property
    def _rule(self) -> Rule:
        return Rule(self.multi_spike, self.soft_reset, self.detach_reset, self._derivative)

    def learn_thresholds(self, granularity: Granularity) -> None:
        """Make thresholds trainable, one per ``granularity``, starting from their present values.

        Raises InputError if there are more thresholds now than ``granularity`` allows.
        """
        if granularity != self.granularity:
            if self._shape is None and granularity != "layer":
                held = self.threshold if self.granularity == "layer" else self._first[0]
                self._first, values = (held, self._first[1] if held is self._first[0] else 0.0), None
            else:
                values = expand_threshold(self.threshold.detach(), threshold_shape(self._shape or (), granularity))
            self.granularity = granularity
            self._hold(values)
        self.threshold_parameter.requires_grad = True

    def _hold(self, initial: Tensor | None) -> None:
        """Start with these thresholds; None: the constructor's, one for each neuron of the first input."""
        if initial is None:
            before = getattr(self, "threshold_init", None)
            like = {} if before is None else {"device": before.device, "dtype": before.dtype}
            self.register_buffer("threshold_init", UninitializedBuffer(**like))
            # It gets its size with the first input, in place, so that an optimiser may hold it already.
            self.register_parameter("threshold_parameter", cast(nn.Parameter, UninitializedParameter(**like)))
        else:
            self.register_buffer("threshold_init", initial)
            learned = initial.clone() if self.parametrisation == "raw" else torch.zeros_like(initial)
            self.register_parameter("threshold_parameter", nn.Parameter(learned))

    def _sequence(self, x: Tensor) -> Tensor:
        if self._scanned_apart:
            return synaptic_scan(x, self.threshold, self.decay, self.synapse_decay, self._rule)
        resets = dict(soft_reset=self.soft_reset, detach_reset=self.detach_reset)
        return lif_scan(x, self.threshold, self.decay, self._derivative, **resets)

    def _one_step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if self._scanned_apart:
            return step(x, state, self.threshold, self.decay, self.synapse_decay, self._rule)
        u, theta = state * self.decay + x, self.threshold
        spikes = spike(u, theta, self._derivative)
        return spikes, u - (theta if self.soft_reset else u) * (spikes.detach() if self.detach_reset else spikes)

    def _initial(self, size: Shape) -> Tensor:
        """Return the first thresholds; raise InputError for an invalid one."""
        threshold, jitter = self._first
        try:
            given = torch.as_tensor(threshold, dtype=torch.get_default_dtype()).detach().expand(size)
        except RuntimeError:
            raise InputError(
                f"expected as threshold a number, or a tensor that broadcasts to {list(size)}, the thresholds of "
                f"granularity '{self.granularity}'; found a tensor {list(torch.as_tensor(threshold).shape)}"
            ) from None
        noise = jitter * torch.randn(size)
        initial = given.to(noise.device) + noise
        if not bool(torch.isfinite(initial).all()):
            raise InputError(f"expected finite numbers as threshold; found {threshold!r}")
        if self.parametrisation == "positive" and not bool((initial > 0).all()):
            raise InputError(
                f"initial threshold {float(given.min()):g} with jitter {jitter:g} gives a threshold <= 0; "
                "use a larger threshold, less jitter, or the parametrisation 'raw'"
            )
        return initial

    def _settle(self, shape: Shape) -> None:
        super()._settle(shape)
        if isinstance(self.threshold_parameter, UninitializedParameter):
            self._materialise(threshold_shape(shape, self.granularity))

    @torch.no_grad()
    def _materialise(self, size: Shape) -> None:
        """Size and initialise deferred thresholds, in place."""
        initial = self._initial(size)
        for holder in (self.threshold_init, self.threshold_parameter):
            assert isinstance(holder, UninitializedBuffer | UninitializedParameter)
            holder.materialize(size)
        self.threshold_init.copy_(initial)
        self.threshold_parameter.copy_(initial if self.parametrisation == "raw" else torch.zeros_like(initial))

    def _save_to_state_dict(self, *where: Any, **options: Any) -> None:
        if isinstance(self.threshold_parameter, UninitializedParameter):
            raise InputError("a LIF's thresholds have no number before its first input; run a batch, or give its shape")
        super()._save_to_state_dict(*where, **options)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load a state; a population with deferred thresholds takes their number from it."""
        held = state_dict.get(f"{prefix}threshold_parameter")
        if isinstance(self.threshold_parameter, UninitializedParameter) and isinstance(held, Tensor):
            self._materialise(tuple(held.shape))
            if self.granularity == "neuron":
                self._shape = tuple(held.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Return shape, granularity, parametrisation, surrogate and a soft reset, for ``print(network)``."""
        shown = f"{self._shape}, θ per {self.granularity} ({self.parametrisation}), {self.surrogate_name}"
        shown += ", soft reset" * self.soft_reset + ", synapse" * self.synaptic
        return shown + f", up to {self.multi_spike} spikes" * (self.multi_spike > 1)


class RLIF(LIF):
    """A recurrent LIF population: spikes feed back one step later through learned all-to-all weights R.

    v[t] = β·v[t−1] + x[t] + R·s[t−1]. shape: ``(features,)``; options as for `LIF`. Whole sequences only.
    """

    def __init__(self, shape: int | Sequence[int], **options: Any) -> None:
        super().__init__(shape, **options)
        (features,) = self.shape
        self.recurrent = nn.Linear(features, features, bias=False)

    @property
    def plain(self) -> bool:
        """False: each step needs the spikes of the one before."""
        return False

    def _sequence(self, x: Tensor) -> Tensor:
        outputs, back = [], None
        held = v = torch.zeros_like(x[0])
        for current in x.unbind(0):
            arriving = current if back is None else current + wide(self.recurrent(back))
            if self._scanned_apart:
                own = (self.threshold, self.decay, self.synapse_decay, self._rule)
                back, held, v = advance(arriving, held, v, *own)
            else:
                back, v = self._one_step(arriving, v)
            outputs.append(back)
        return torch.stack(outputs)

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Raise InputError: the state would have to hold spikes, too."""
        raise InputError("a recurrent population takes whole sequences [T, B, features]; call the layer itself")


def expand_threshold(before: Tensor, size: Sequence[int]) -> Tensor:
    """Expand thresholds to ``size``, values kept; raise InputError if there are more now."""
    if before.numel() == 1:
        return before.reshape(()).expand(size).clone()
    try:
        return before.expand(size).clone()
    except RuntimeError:
        raise InputError(
            f"there are thresholds {list(before.shape)}, not one for each of {list(size)}; choose the granularity that "
            "they have, or a finer one"
        ) from None


def threshold_shape(shape: Shape, granularity: Granularity) -> Shape:
    """Return the shape of a population's threshold tensor."""
    if granularity == "neuron":
        return shape
    if granularity == "channel":
        return (shape[0], *(1,) * (len(shape) - 1))
    return ()
