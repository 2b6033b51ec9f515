"""Spiking transformers and a detector's blocks, each written anew from its paper, with drawn weights and statistics.

Spikformer (Zhou et al. 2023), Spike-driven Transformer V1 to V3 (Yao et al. 2023, 2024, 2025), QKFormer (Zhou et al.
2024) and SpikeYOLO (Luo et al. 2024). They take images ``[B, 3, side, side]``, shown at each of their steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

HEADS, CLASSES = 4, 10


class Size(NamedTuple):
    """Channels, blocks and the side of an image."""

    channels: int
    blocks: int
    side: int


class Spikes(nn.Module):
    """Leaky neurons over ``[T, B, ...]``, reset to 0."""

    def __init__(self, threshold: float = 1.0) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes."""
        v, spikes = torch.zeros_like(x[0]), []
        for current in x:
            v = v + (current - v) / 2
            s = (v >= self.threshold).float()
            v = v * (1 - s)
            spikes.append(s)
        return torch.stack(spikes)


class Counts(nn.Module):
    """Up to four spikes at once, as I-LIF neurons train: a rounded and bounded current."""

    def forward(self, x: Tensor) -> Tensor:
        """Return counts in fourths."""
        return torch.round(x.clamp(0, 4)) / 4


class Layer(nn.Module):
    """Weights and their norm, on ``[T, B, C, H, W]``."""

    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """Return currents."""
        currents: Tensor = self.norm(self.conv(x.flatten(0, 1)))
        return currents.unflatten(0, x.shape[:2])


class Repeated(nn.Module):
    """A convolution of several that training keeps apart: 1x1, norm, border of what the norm makes of 0, 3x3, 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.three = nn.Conv2d(channels, channels, 3, groups=channels, bias=False)
        self.last, self.end = nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return currents."""
        y = functional.pad(self.norm(self.one(x.flatten(0, 1))), (1, 1, 1, 1))
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        border = norm.bias - norm.running_mean * norm.weight / torch.sqrt(norm.running_var + norm.eps)
        border = border.reshape(1, -1, 1, 1)
        y[:, :, :1], y[:, :, -1:], y[:, :, :, :1], y[:, :, :, -1:] = border, border, border, border
        currents: Tensor = self.end(self.last(self.three(y)))
        return currents.unflatten(0, x.shape[:2])


def split(x: Tensor) -> Tensor:
    """Return ``[T, B, C, H, W]`` as tokens of heads, ``[T, B, heads, H·W, C/heads]``."""
    return x.flatten(3).transpose(-1, -2).unflatten(-1, (HEADS, -1)).transpose(2, 3).contiguous()


def together(x: Tensor, like: Tensor) -> Tensor:
    """Return tokens of heads as an image of a shape."""
    return x.transpose(3, 4).reshape(like.shape).contiguous()


class Attention(nn.Module):
    """Spiking self-attention of a kind, with the projections that it has."""

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        self.kind, own = kind, Repeated if kind in ("V2", "V3") else lambda c: Layer(c, c)
        self.q, self.k, self.v, self.out = (own(channels) for _ in range(4))
        fires = Counts if kind == "V3" else Spikes
        self.fires, self.mixed = fires(), Counts() if kind == "V3" else Spikes(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the currents, or what else is added to x."""
        spikes = x if self.kind in ("Spikformer", "QKFormer") else self.fires(x)
        q, k = self.fires(self.q(spikes)), self.fires(self.k(spikes))
        if self.kind == "QKFormer":
            gates = self.mixed(q.unflatten(2, (HEADS, -1)).sum(3, keepdim=True))
            mixed = (gates * k.unflatten(2, (HEADS, -1))).flatten(2, 3)
            spikes = self.fires(self.out(mixed))
            return spikes
        q, k, v = split(q), split(k), split(self.fires(self.v(spikes)))
        if self.kind == "Spikformer":
            return self.fires(self.out(self.mixed(together(q @ k.transpose(-2, -1) @ v * 0.25, x))))
        if self.kind == "V1":
            return self.out(together(q * self.mixed((k * v).sum(-2, keepdim=True)), x))
        return self.out(self.mixed(together(q @ (k.transpose(-2, -1) @ v) * 0.25, x)))


class Block(nn.Module):
    """Attention, then two layers; spikes are added up, or potentials."""

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        self.attention, self.adds_spikes = Attention(kind, channels), kind in ("Spikformer", "QKFormer")
        self.wide, self.narrow = Layer(channels, 4 * channels), Layer(4 * channels, channels)
        self.fires = Counts() if kind == "V3" else Spikes()

    def forward(self, x: Tensor) -> Tensor:
        """Return x and what the block adds."""
        x = x + self.attention(x)
        if self.adds_spikes:
            return x + self.fires(self.narrow(self.fires(self.wide(x))))
        return x + self.narrow(self.fires(self.wide(self.fires(x))))


class Transformer(nn.Module):
    """Convolutions that halve the image twice, blocks, and the mean of all tokens and steps before a linear layer."""

    def __init__(self, kind: str, size: Size, steps: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        channels = size.channels
        self.steps, self.adds_spikes = steps, kind in ("Spikformer", "QKFormer")
        self.fires = Counts() if kind == "V3" else Spikes()
        self.enter, self.second = Layer(3, channels // 2, 3), Layer(channels // 2, channels, 3)
        self.third, self.pool = Layer(channels, channels, 3), nn.MaxPool2d(2)
        self.blocks = nn.Sequential(*(Block(kind, channels) for _ in range(size.blocks)))
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Return class scores ``[B, classes]``."""
        x = self._halved(self.fires(self.enter(image.expand(self.steps, *image.shape))))
        x = self.third(self._halved(self.fires(self.second(x))))
        x = self.blocks(self.fires(x) if self.adds_spikes else x)
        spikes = x if self.adds_spikes else self.fires(x)
        scores: Tensor = self.head(spikes.flatten(3).mean(3)).mean(0)
        return scores

    def _halved(self, x: Tensor) -> Tensor:
        halved: Tensor = self.pool(x.flatten(0, 1))
        return halved.unflatten(0, x.shape[:2])


class Detector(nn.Module):
    """SpikeYOLO at one step: inverted separable and plain convolutions of counts, added to potentials, and a head."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        torch.manual_seed(0)
        channels = size.channels
        self.enter, self.counts = Layer(3, channels, 7, 2), Counts()
        self.up = nn.ModuleList(Layer(channels, 2 * channels) for _ in range(size.blocks))
        self.depth = nn.ModuleList(Layer(2 * channels, 2 * channels, 7, groups=2 * channels) for _ in self.up)
        self.down = nn.ModuleList(Layer(2 * channels, channels) for _ in self.up)
        self.mix = nn.ModuleList(Repeated(channels) for _ in self.up)
        self.head = nn.Conv2d(channels, 4 + CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return boxes and class scores of each place, ``[B, 4 + classes, H, W]``."""
        x = self.enter(image[None])
        for up, depth, down, mix in zip(self.up, self.depth, self.down, self.mix, strict=True):
            x = x + down(self.counts(depth(self.counts(up(self.counts(x))))))
            x = x + mix(self.counts(x))
        boxes: Tensor = self.head(self.counts(x)[0])
        return boxes


@torch.no_grad()
def with_statistics(model: nn.Module, batch: Tensor, bias: float = 0.4) -> nn.Module:
    """Give batch norms drawn factors, biases around ``bias``, and statistics of a batch, as training leaves them."""
    generator = torch.Generator().manual_seed(0)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.weight.uniform_(0.8, 1.8, generator=generator)
        norm.bias.normal_(bias, 0.3, generator=generator)
    model.train()(batch)
    for norm in norms:
        assert norm.running_var is not None
        norm.running_var.clamp_(min=0.02)
    return model.eval()


def vision(*, whole: bool) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Yield name, module and input of each network; ``whole``: in sizes that papers publish."""
    generator = torch.Generator().manual_seed(1)
    sizes = {
        "Spikformer": Size(384, 4, 32) if whole else Size(64, 2, 16),
        "V1": Size(512, 2, 32) if whole else Size(64, 2, 16),
        "V2": Size(384, 4, 32) if whole else Size(64, 2, 16),
        "V3": Size(384, 4, 32) if whole else Size(64, 2, 16),
        "QKFormer": Size(384, 4, 32) if whole else Size(64, 2, 16),
    }
    for kind, size in sizes.items():
        images = torch.rand(6, 3, size.side, size.side, generator=generator)
        model = Transformer(kind, size, 1 if kind == "V3" else 4)
        name = f"Spike-driven Transformer {kind}" if kind.startswith("V") else kind
        yield name, with_statistics(model, images), images[:2]
    size = Size(128, 4, 64) if whole else Size(16, 2, 32)
    images = torch.rand(6, 3, size.side, size.side, generator=generator)
    yield "SpikeYOLO, blocks", with_statistics(Detector(size), images), images[:2]
