"""Penalties on activity, added to the loss: rates off their target, synops above their budget, priced energy.

Synops are counted as `stl_deploy.energy` counts them: for each conv, linear and vote, the non-zero values that arrive,
each times the outputs it reaches inside the borders. The count is exact; its gradient is taken as if each value
counted itself (a straight-through estimate, exact where spikes arrive).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stl_deploy.config.schema import TrainConfig
from stl_deploy.energy.models.grid import synop_joules
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
    energy: energy_weight · loss · (priced synops of a sample / those of one dense pass of the ANN twin). In mode ann
    the values that are not zero count, so SNN and ANN are charged by one rule.
    """

    def __init__(self, network: Network, config: TrainConfig) -> None:
        self._config = config
        self._lifs = {name for name, layer in network.layers.items() if isinstance(layer, LIF)}
        self._readers: dict[str, list[_Reader]] = {}
        self._dense_J = 0.0
        if config.synop_budget is not None or config.energy_weight:
            key = "energy_weight" if config.synop_budget is None else "synop_budget"
            if any(isinstance(layer, RLIF) for layer in network.layers.values()):
                raise ConfigError(
                    f"key 'train.{key}': expected none with rlif, whose synops go uncounted; found one; leave it out"
                )
            for name, layer in network.layers.items():
                if isinstance(layer, nn.Conv2d | nn.Linear | Vote):
                    self._add(network, network.sources[name][0], layer)
        self.reset()

    def _add(self, network: Network, source: str, layer: nn.Conv2d | nn.Linear | Vote) -> None:
        shape = network.input_shape if source == INPUT else network.shapes[source]
        fan_out = _fan_out(layer, shape, network.classes)
        macs = int(fan_out.broadcast_to(shape).sum())
        weights = layer.weight.numel() if isinstance(layer, nn.Conv2d) else macs
        graded = source == INPUT or network.mode == "ann"
        self._readers.setdefault(source, []).append(_Reader(fan_out, synop_joules(weights, macs, graded=graded)))
        self._dense_J += macs * synop_joules(weights, macs, graded=True)

    @property
    def active(self) -> bool:
        """Whether anything is charged."""
        config = self._config
        return config.rate_target is not None or config.synop_budget is not None or config.energy_weight > 0

    def reset(self) -> None:
        """Forget the last pass."""
        self._rates: list[Tensor] = []
        self._synops: list[Tensor] = []
        self._joules: list[Tensor] = []
        self._samples = 0

    def observe(self, name: str, output: Tensor) -> None:
        """Count a layer's output, or under `INPUT` the network's input, ``[T, B, *shape]``."""
        if name in self._lifs:
            spikes, places = distributed.total(output.sum()), distributed.total(torch.tensor(float(output.numel())))
            self._rates.append(spikes / places)
        for reader in self._readers.get(name, ()):
            there = (output.detach() != 0).to(torch.float64) + (output - output.detach())
            self._synops.append(distributed.total((there * reader.fan_out.to(output.device)).sum()))
            self._joules.append(self._synops[-1] * reader.joules)
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
        if config.energy_weight:
            in_anns = torch.stack(self._joules).sum() / self._samples / self._dense_J
            total = total + (config.energy_weight * loss * in_anns).to(torch.float32)
        return total


@dataclass(frozen=True)
class _Reader:
    """A weighted layer: the outputs that each input position reaches, and the joules of one synop."""

    fan_out: Tensor
    joules: float


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
