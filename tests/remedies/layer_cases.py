"""Remedies of layers that integers, readers or weights cannot take as they are: each is reached and followed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

import stl_deploy as stl
from tests.pipeline.test_time_axis import Vectors, X
from tests.remedies.cases import _found, _of_pixels
from tests.remedies.room import AtEachStep, Remedy, Room

FRAMES = torch.bernoulli(torch.full((6, 3, 1, 6, 6), 0.5), generator=torch.Generator().manual_seed(0))


class _Skip(nn.Module):
    """Averaged spikes, and those of a layer that reads them, added behind the neurons."""

    def __init__(self, divisor: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pool = nn.AvgPool2d(2, divisor_override=divisor)
        self.first = nn.Sequential(AtEachStep([nn.Conv2d(1, 2, 3, padding=1)]), stl.LIF((2, 6, 6), threshold=0.3))
        self.second = nn.Sequential(AtEachStep([nn.Conv2d(2, 2, 3, padding=1)]), stl.LIF((2, 3, 3), threshold=0.3))
        self.last = nn.Sequential(nn.Linear(18, 3), stl.LIF((3,), threshold=0.2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.first(x)
        s = self.pool(s.flatten(0, 1)).unflatten(0, s.shape[:2])
        return self.last((s + self.second(s)).flatten(2))


class _BothPooled(nn.Module):
    """Spikes and those of a layer that reads them, added and then averaged."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(AtEachStep([nn.Conv2d(1, 2, 3, padding=1)]), stl.LIF((2, 6, 6), threshold=0.1))
        self.second = nn.Sequential(AtEachStep([nn.Conv2d(2, 2, 3, padding=1)]), stl.LIF((2, 6, 6), threshold=0.1))
        self.last = nn.Sequential(AtEachStep([nn.AvgPool2d(2), nn.Flatten(), nn.Linear(18, 3)]), stl.LIF((3,)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.first(x)
        return self.last(s + self.second(s))


class _Normalised(nn.Module):
    """A picture's values, moved and scaled, before the first weights."""

    def __init__(self, scaled_first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scaled_first = scaled_first
        self.layers = nn.Sequential(nn.Linear(4, 6), stl.LIF((6,), threshold=0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x * 4 - 2 if self.scaled_first else (x - 0.5) / 0.25)


def _thirds() -> stl.SpikingGraph:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 2, 3, padding=1), stl.LIF((2, 6, 6), threshold=0.3), nn.AvgPool2d(3), nn.Flatten()]
    layers += [nn.Linear(8, 3), stl.LIF((3,), threshold=0.2)]
    return stl.capture(AtEachStep(layers), FRAMES, verify=False)


def _skip(divisor: int | None = None) -> stl.SpikingGraph:
    return stl.capture(_Skip(divisor), FRAMES, verify=False)


def _pixels() -> np.ndarray[Any, Any]:
    return np.ones((4, 2, *_of_pixels().program.inputs[0].shape), np.float32)


def _to_c(net: stl.SpikingGraph, room: Room) -> Any:
    return net.export(room.new("c"), to="c")


LAYERS = (
    Remedy(
        "tracing/time_axis.py:_memory_warnings",
        lambda room: " ".join(stl.capture(Vectors(), X).proof.warnings),
        "If x has no axis of time, [B, ...], give time='inside'",
        "If x has no axis of time, [B, ...], give --time inside",
        lambda room: stl.capture(Vectors(), X[0], time="inside"),
    ),
    Remedy(
        "graph/check.py:on_a_grid",
        lambda room: _found(stl.capture(_Normalised(), room.spikes), "c"),
        "fold the network: net.fold(input_grid=0) for spikes and counts",
        "fold the network: stl-deploy fold FILE --exact-grid -o OUT, named as FILE ends, with --input-grid 0",
        lambda room: _to_c(stl.capture(_Normalised(), room.spikes).fold(input_grid=0), room),
    ),
    Remedy(
        "graph/check.py:on_a_grid",
        lambda room: _found(stl.capture(_Normalised(scaled_first=True), room.spikes).fold(), "c"),
        "fold the network: net.fold(input_grid=0) for spikes and counts",
        "fold the network: stl-deploy fold FILE --exact-grid -o OUT, named as FILE ends, with --input-grid 0",
        lambda room: _to_c(stl.capture(_Normalised(scaled_first=True), room.spikes).fold().fold(input_grid=0), room),
    ),
    Remedy(
        "",
        lambda room: _found(_skip(), "c"),
        "pool by sums before it (divisor_override=1)",
        "pool by sums before it (divisor_override=1)",
        lambda room: _to_c(_skip(divisor=1), room),
    ),
    Remedy(
        "integers/lava_layers.py:_by_merging",
        lambda room: _thirds().quantised(),
        "or merge pools into weights: net.fold(merge_pools=True)",
        "or merge pools into weights: stl-deploy fold SOURCE --merge-pools -o FOLDED.nir",
        lambda room: _thirds().fold(merge_pools=True).quantised(),
    ),
    Remedy(
        "passes/merge_pools.py:_without_merging",
        lambda room: stl.capture(_BothPooled(), FRAMES, verify=False).fold(merge_pools=True),
        "it adds up several values; leave out merge_pools",
        "it adds up several values; leave out --merge-pools",
        lambda room: _to_c(stl.capture(_BothPooled(), FRAMES, verify=False).fold(), room),
    ),
    Remedy(
        "integers/scales.py:best_candidate",
        lambda room: room.analog.export(room.new("c"), to="c", input_grid=24),
        "give a coarser input grid (input_grid=BITS with fewer bits), smaller biases and thresholds, or onnx",
        "give a coarser input grid (--input-grid BITS with fewer bits), smaller biases and thresholds, or onnx",
        lambda room: room.analog.export(room.new("c"), to="c", input_grid=8),
    ),
    Remedy(
        "integers/scales.py:_one_threshold",
        lambda room: _of_pixels().export(room.new("net.net"), x=_pixels()),
        "or give thresholds='unrolled' (dense layers, exact)",
        "or give --thresholds unrolled (dense layers, exact)",
        lambda room: _of_pixels().export(room.new("net.net"), x=_pixels(), thresholds="unrolled"),
    ),
    Remedy(
        "",
        lambda room: room.analog.quantised(),
        "declare one: net.fold(input_grid=BITS).quantised()",
        "declare one: net.fold(input_grid=BITS).quantised()",
        lambda room: room.analog.fold(input_grid=8).quantised(),
    ),
)
