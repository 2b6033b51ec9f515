"""Penalties on spiking, added to the loss: rates off their target, synops above their budget.

Synops are counted as `stl_deploy.energy` counts them: for each conv, linear and vote, the non-zero values that arrive,
each times the outputs it reaches inside the borders. The count is exact; its gradient is taken as if each value
counted itself (a straight-through estimate, exact where spikes arrive).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stl_deploy.config.schema import TrainConfig
from stl_deploy.errors import ConfigError
from stl_deploy.nn.layers import Vote
from stl_deploy.nn.network import INPUT, Network
from stl_deploy.nn.neuron import LIF, RLIF
from stl_deploy.training import distributed

_LEAST = 1e-9
"""Synops of a silent pass, whose logarithm is asked for."""


class Regulariser:
    """Charge for one forward pass: pass `observe` to the network, then call `penalty`.

    rate: rate_weight · mean over LIF layers of (spikes per neuron and step − rate_target)².
    synops: synop_weight · loss · max(0, log(synops per sample / synop_budget)), the loss taken as a number. So the
    charge does not outweigh a loss that has become small, nor one of another scale (mean squared errors of scores begin
    at 0.1, cross-entropies above 2).
    """

    def __init__(self, network: Network, config: TrainConfig) -> None:
        self._config = config
        self._lifs = {name for name, layer in network.layers.items() if isinstance(layer, LIF)}
        self._readers: dict[str, list[Tensor]] = {}
        if config.synop_budget is not None:
            if any(isinstance(layer, RLIF) for layer in network.layers.values()):
                raise ConfigError(
                    "key 'train.synop_budget': expected none with rlif, whose synops go uncounted; found a budget"
                )
            for name, layer in network.layers.items():
                if isinstance(layer, nn.Conv2d | nn.Linear | Vote):
                    source = network.sources[name][0]
                    shape = network.input_shape if source == INPUT else network.shapes[source]
                    self._readers.setdefault(source, []).append(_fan_out(layer, shape, network.classes))
        self.reset()

    @property
    def active(self) -> bool:
        """Whether anything is charged."""
        return self._config.rate_target is not None or self._config.synop_budget is not None

    def reset(self) -> None:
        """Forget the last pass."""
        self._rates: list[Tensor] = []
        self._synops: list[Tensor] = []
        self._samples = 0

    def observe(self, name: str, output: Tensor) -> None:
        """Count a layer's output, or under `INPUT` the network's input, ``[T, B, *shape]``."""
        if name in self._lifs:
            spikes, places = distributed.total(output.sum()), distributed.total(torch.tensor(float(output.numel())))
            self._rates.append(spikes / places)
        for fan_out in self._readers.get(name, ()):
            there = (output.detach() != 0).to(torch.float64) + (output - output.detach())
            self._synops.append(distributed.total((there * fan_out.to(output.device)).sum()))
            self._samples = int(distributed.total(torch.tensor(output.shape[1])))

    @property
    def synops(self) -> Tensor:
        """Return synops per sample of the pass, 0-dimensional float64."""
        return torch.stack(self._synops).sum() / self._samples

    def penalty(self, loss: float | Tensor = 1.0) -> Tensor:
        """Return the charge for the pass, 0-dimensional float32. loss: its classification loss, without gradient."""
        config = self._config
        total = torch.zeros(())
        if config.rate_target is not None and self._rates:
            off = torch.stack(self._rates) - config.rate_target
            total = config.rate_weight * off.square().mean()
        if config.synop_budget is not None:
            above = functional.relu(torch.log(self.synops.clamp(min=_LEAST) / config.synop_budget))
            total = total + (config.synop_weight * loss * above).to(torch.float32)
        return total


def _fan_out(layer: nn.Conv2d | nn.Linear | Vote, shape: tuple[int, ...], classes: int) -> Tensor:
    """Return for each input position the number of outputs that it reaches, float64 ``[*shape]`` (broadcast)."""
    if isinstance(layer, Vote):
        return torch.tensor(float(classes), dtype=torch.float64)
    if isinstance(layer, nn.Linear):
        return torch.tensor(float(layer.out_features), dtype=torch.float64)
    with torch.enable_grad():
        x = torch.zeros((1, *shape), dtype=torch.float64, requires_grad=True)
        ones = torch.ones(layer.weight.shape, dtype=torch.float64)
        reached = functional.conv2d(x, ones, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        (fan_out,) = torch.autograd.grad(reached.sum(), x)
    return fan_out[0]
