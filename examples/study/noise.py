"""Accuracy of a trained network under noise on its input or on its hidden spikes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from stl_deploy.config.schema import RunConfig
from stl_deploy.data import Split, encode
from stl_deploy.nn.network import Network

Noise = Callable[[Tensor, float, torch.Generator], Tensor]
_BATCH = 1000


def gaussian(x: Tensor, level: float, draws: torch.Generator) -> Tensor:
    """Pixels plus N(0, level²), kept in [0, 1]."""
    return (x + level * torch.randn(x.shape, generator=draws)).clamp(0, 1)


def salt_and_pepper(x: Tensor, level: float, draws: torch.Generator) -> Tensor:
    """A share ``level`` of the pixels is replaced, by 0 or 1 with equal chance."""
    drawn = torch.rand(x.shape, generator=draws)
    return torch.where(drawn < level, (drawn < level / 2).to(x.dtype), x)


def deletion(spikes: Tensor, level: float, draws: torch.Generator) -> Tensor:
    """Every spike is lost with chance ``level``."""
    return spikes * (torch.rand(spikes.shape, generator=draws) >= level)


def insertion(spikes: Tensor, level: float, draws: torch.Generator) -> Tensor:
    """Where there is no spike, one appears with chance ``level``."""
    return torch.maximum(spikes, (torch.rand(spikes.shape, generator=draws) < level).to(spikes.dtype))


ON_INPUT: dict[str, Noise] = {"gaussian": gaussian, "salt and pepper": salt_and_pepper}
ON_SPIKES: dict[str, Noise] = {"spike deletion": deletion, "spike insertion": insertion}
KINDS = (*ON_INPUT, *ON_SPIKES)


def under_noise(
    network: Network, split: Split, config: RunConfig, levels: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Accuracy by kind of noise and level. Draws depend on the run's seed, kind and level, not on the network."""
    return {
        kind: {
            f"{level:g}": accuracy_under(network, split, config, kind, level, _draws(config.train.seed, kind, level))
            for level in levels
        }
        for kind in KINDS
    }


@torch.no_grad()
def accuracy_under(
    network: Network, split: Split, config: RunConfig, kind: str, level: float, draws: torch.Generator
) -> float:
    """Accuracy in [0, 1] on a split. Noise on the input falls on the image, the same at every step of time."""
    network.eval()
    hidden = [lif for _, lif in network.lifs][:-1] if kind in ON_SPIKES else []
    handles = [lif.register_forward_hook(_hook(ON_SPIKES[kind], level, draws)) for lif in hidden]
    correct = 0
    try:
        for index in torch.arange(len(split)).split(_BATCH):
            images = split.images(index)
            images = ON_INPUT[kind](images, level, draws) if kind in ON_INPUT else images
            outputs = network(encode(images, config.time_steps, config.encoder), every_layer=True)  # else no hook runs
            correct += int((network.decide(outputs) == split.labels[index]).sum())
    finally:
        for handle in handles:
            handle.remove()
    return correct / len(split)


def _hook(
    noise: Noise, level: float, draws: torch.Generator
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    return lambda _module, _inputs, spikes: noise(spikes, level, draws)


def _draws(seed: int, kind: str, level: float) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {kind} {level:g}".encode()))
