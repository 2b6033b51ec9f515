"""Ten networks that have every kind of node between them, on grids on which sums are exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

import stl_deploy
from stl_deploy.graph.program import (
    Adaptation,
    Concat,
    Conv,
    Delay,
    Gather,
    Input,
    Linear,
    MaxPool,
    Operand,
    Output,
    Product,
    Program,
    Scale,
    Synapse,
)
from tests.exporters.onnx.nets import F, chain, conv, digits, flatten, linear, neuron, pool
from tests.graph import cells


def _weights(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).integers(-2, 3, shape) / 4


def _residual() -> Program:
    """Spikes that skip a convolution, added to its currents."""
    end = Output(name="output", shape=(4, 6, 6), operands=(Operand("lif2"),))
    first = chain((1, 6, 6), conv(_weights(4, 1, 3, 3), "conv1"), neuron("lif1")).nodes[:-1]
    back = conv(_weights(4, 4, 3, 3), "conv2")((4, 6, 6), (Operand("lif1"),))
    last = neuron("lif2", decay=0.75)((4, 6, 6), (Operand("conv2"), Operand("lif1")))
    return Program((*first, back, last, end), 1e-4)


def _recurrent() -> Program:
    """A population that reads its own last spikes through a matrix."""
    first = chain((6,), linear(_weights(8, 6))).nodes[:-1]
    lif = neuron("lif")((8,), (Operand("fc"), Operand("loop", 1)))
    loop = linear(_weights(8, 8), name="loop")((8,), (Operand("lif"),))
    return Program((*first, lif, loop, Output(name="output", shape=(8,), operands=(Operand("lif"),))), 1e-4)


def _delays() -> Program:
    late = np.array([0, 1, 3, 0, 2, 1])

    def delay(shape: Any, sources: Any) -> Delay:
        return Delay(name="late", shape=shape, operands=sources, steps=late)

    return chain((6,), delay, linear(_weights(5, 6)), neuron(decay=0.75))


def _synapses() -> Program:
    fields = {
        "synapse": Synapse("euler", F(0.5), None),
        "adaptation": Adaptation(F(0.5), F(0.25)),
        "reset": "subtract",
        "v_min": F(-1),
    }
    return chain((6,), linear(_weights(8, 6)), neuron("adapting", **fields), linear(_weights(4, 8), name="out"))


class _Relus(nn.Module):
    """A ReLU network of a convolution, a max pool and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.last = nn.Conv2d(1, 4, 3), nn.Linear(16, 8), nn.Linear(8, 3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.max_pool2d(self.conv(x).relu(), 2)
        return self.last(self.first(pooled.flatten(1)).relu())


def _converted() -> Program:
    """Its ReLUs as counts of spikes, with the thresholds that the conversion calibrates."""
    x = (torch.rand(64, 1, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    return _on_a_grid(stl_deploy.convert(_Relus(), x, levels=4, progress=False).program)


def _attention() -> Program:
    """Products of spikes as matrices and element by element, a scale, a concatenation and an order."""

    def node(kind: Any, name: str, shape: Any, *sources: str, **fields: Any) -> Any:
        return kind(name=name, shape=shape, operands=tuple(map(Operand, sources)), **fields)

    spikes = neuron("lif", decay=0.5)((4, 4), (Operand("input"),))
    return Program(
        (
            Input(name="input", shape=(4, 4), operands=()),
            spikes,
            node(Product, "scores", (4, 4), "lif", "input", operand_shapes=((4, 4), (4, 4))),
            node(Product, "gated", (4, 4), "scores", "lif", operand_shapes=((4, 4), (4, 4)), matrices=False),
            node(Scale, "scaled", (4, 4), "gated", scale=F(0.5)),
            node(Concat, "both", (8, 4), "scaled", "lif", sizes=(4, 4)),
            node(Gather, "order", (8, 4), "both", indices=np.arange(32).reshape(4, 8).T, input_shape=(8, 4)),
            neuron("end", decay=0.75)((8, 4), (Operand("order"),)),
            Output(name="output", shape=(8, 4), operands=(Operand("end"),)),
        ),
        1e-4,
    )


def _pools() -> Program:
    """Average and largest of windows."""

    def largest(shape: Any, sources: Any) -> MaxPool:
        window: Any = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}
        return MaxPool(name="max", shape=(shape[0], 3, 3), operands=sources, input_shape=shape, **window)

    end = (flatten(), linear(_weights(3, 36)), neuron("lif2"))
    return chain((1, 12, 12), conv(_weights(4, 1, 3, 3)), pool(4), largest, neuron("lif1"), *end)


class _Residual(nn.Module):
    """Two convolutions with a skip over the second, in plain torch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(i, 4, 3, padding=1, bias=False) for i in (1, 4))
        self.last = nn.Linear(4 * 36, 3)
        with torch.no_grad():
            for weight in (self.first.weight, self.second.weight, self.last.weight, self.last.bias):
                weight.copy_(torch.randint(-2, 3, weight.shape, generator=torch.Generator().manual_seed(0)) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c = (torch.zeros(()) for _ in range(3))
        steps = []
        for now in x:
            a = 0.5 * a + self.first(now)
            spikes = (a > 1).float()
            a = a - spikes
            b = 0.75 * b + self.second(spikes) + spikes
            more = (b > 1).float()
            b = b * (1 - more)
            c = 0.5 * c + self.last(more.flatten(1))
            end = (c > 0.5).float()
            c = c - 0.5 * end
            steps.append(end)
        return torch.stack(steps)


def _captured() -> Program:
    x = (torch.rand(4, 3, 1, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    return stl_deploy.capture(_Residual(), x, progress=False).program


def _cells() -> Program:
    """A Cell that reads its own spikes."""
    return _on_a_grid(cells.recurrent())


def _on_a_grid(program: Program) -> Program:
    """Round weights and biases to multiples of 2^-10, whose sums no order changes."""
    rounded = [
        replace(node, weight=_grid(node.weight), bias=_grid(node.bias)) if isinstance(node, Linear | Conv) else node
        for node in program.nodes
    ]
    return replace(program, nodes=tuple(rounded))


def _grid(values: Any) -> Any:
    return None if values is None else np.round(1024 * values) / np.float32(1024)


NETWORKS: dict[str, Callable[[], Program]] = {
    "convolutions": digits,
    "pools": _pools,
    "residual": _residual,
    "captured residual": _captured,
    "recurrent": _recurrent,
    "delays": _delays,
    "synapses, adaptation": _synapses,
    "converted ANN": _converted,
    "attention, orders": _attention,
    "cells": _cells,
}
