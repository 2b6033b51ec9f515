"""The workloads of the training benchmarks, their floor and the clock; needs torch alone, so that every peer runs it.

A `Stack` is one workload with neurons of anyone's: the synapses, norms and pools are torch's own in all of them.
"""

from __future__ import annotations

import ctypes
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Layers = list[dict[str, Any]]
Shape = tuple[int, ...]
Form = Literal["folded", "batch first", "steps"]
CLASSES = 10


def block(channels: int, kernel: int, norm: bool) -> Layers:
    """Convolution, norm (if any), neurons and pool."""
    norms: Layers = [{"kind": "norm"}] if norm else []
    conv = {"kind": "conv", "channels": channels, "kernel": kernel, "padding": kernel // 2, "bias": not norm}
    return [conv, *norms, {"kind": "lif"}, {"kind": "pool"}]


def dense(*features: int) -> Layers:
    """Linear layers, each with its neurons."""
    return [layer for n in features for layer in ({"kind": "linear", "features": n}, {"kind": "lif"})]


@dataclass(frozen=True)
class Workload:
    """Layers, input shape of a sample, time steps, batch size, and the share of the input that spikes."""

    layers: Layers
    shape: Shape
    steps: int
    batch: int
    density: float = 0.2

    def data(self) -> tuple[Tensor, Tensor]:
        """Fixed random spikes ``[T, B, *shape]`` and labels ``[B]``."""
        draws = torch.Generator().manual_seed(0)
        x = (torch.rand((self.steps, self.batch, *self.shape), generator=draws) < self.density).float()
        return x, torch.randint(0, CLASSES, (self.batch,), generator=draws)


def small_mlp(T: int = 16, batch: int = 32, width: int = 128, depth: int = 1) -> Workload:
    """The workload of the cost curves: ``depth`` hidden layers of ``width`` neurons."""
    return Workload([*dense(*[width] * depth, 10), {"kind": "vote", "population": 1}], (784,), T, batch)


WORKLOADS = {
    "W1": Workload(
        [
            *block(128, 5, True),
            *block(128, 5, True),
            {"kind": "flatten"},
            *dense(2048, 100),
            {"kind": "vote", "population": 10},
        ],
        (1, 28, 28),
        4,
        32,
    ),
    "W2": Workload(
        [
            *block(16, 3, False),
            *block(32, 3, False),
            {"kind": "flatten"},
            *dense(128, 10),
            {"kind": "vote", "population": 1},
        ],
        (1, 28, 28),
        16,
        128,
    ),
    "W3": Workload([*dense(512, 512, 10), {"kind": "vote", "population": 1}], (784,), 50, 128),
}

TINY = Workload(
    [*block(4, 3, True), {"kind": "flatten"}, *dense(10), {"kind": "vote", "population": 1}], (1, 8, 8), 4, 4
)


class Stack(nn.Module):
    """A workload whose neurons ``neuron(shape)`` makes, shape being that of a sample at one step.

    folded: everything but the neurons sees ``[T·B, ...]``, neurons map ``[T, B, *shape]``; batch first: the same with
    ``[B·T, ...]`` and ``[B, T, *shape]``; steps: all layers at one step, then the next, neurons map ``[B, *shape]`` and
    forget at ``begin()``. Takes ``[T, B, *shape]``; gives votes over time and batch, T first or, batch first, B.
    """

    def __init__(self, workload: Workload, neuron: Callable[[Shape], nn.Module], form: Form) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.layers = nn.ModuleList()
        self.neurons: list[nn.Module] = []
        shape = workload.shape
        for spec in workload.layers:
            if spec["kind"] == "lif":
                self.neurons.append(neuron(shape))
                self.layers.append(self.neurons[-1])
            else:
                layer = _layer(spec, shape)
                self.layers.append(layer)
                with torch.no_grad():
                    shape = tuple(layer.eval()(torch.zeros(2, *shape)).shape[1:])
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Votes ``[T, B, classes]``, or ``[B, T, classes]``."""
        if self.form == "steps":
            for neuron in self.neurons:
                if hasattr(neuron, "begin"):
                    neuron.begin()
            return torch.stack([self._all(step) for step in x])
        x = x.transpose(0, 1) if self.form == "batch first" else x
        outer = x.shape[:2]
        for layer in self.layers:
            x = layer(x) if layer in self.neurons else layer(x.flatten(0, 1)).unflatten(0, outer)
        return x

    def rates(self, x: Tensor) -> Tensor:
        """Mean votes ``[B, classes]``."""
        return self(x).mean(1 if self.form == "batch first" else 0)

    def _all(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _Vote(nn.Module):
    def __init__(self, population: int) -> None:
        super().__init__()
        self.population = population

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.population)).mean(-1)


def _layer(spec: Mapping[str, Any], shape: Shape) -> nn.Module:
    match spec["kind"]:
        case "conv":
            kernel = spec["kernel"]
            return nn.Conv2d(shape[0], spec["channels"], kernel, padding=spec["padding"], bias=spec["bias"])
        case "linear":
            return nn.Linear(shape[0], spec["features"], bias=False)
        case "norm":
            return nn.BatchNorm2d(shape[0])
        case "pool":
            return nn.MaxPool2d(2)
        case "flatten":
            return nn.Flatten()
        case _:
            return _Vote(spec["population"])


def floor(workload: Workload) -> Stack:
    """The same layers as an ANN with time folded into the batch; its readout is linear."""
    last = sum(spec["kind"] == "lif" for spec in workload.layers)
    made = iter(range(1, last + 1))
    return Stack(workload, lambda _: nn.ReLU() if next(made) < last else nn.Identity(), "folded")


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad / (1 + (math.pi * x) ** 2)


class AuthorsNeuron(nn.Module):
    """The neuron of github sunhongze/STL-SNN, re-expressed: one threshold per neuron, plain autograd, step by step."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.ones(shape))
        self.begin()

    def begin(self) -> None:
        """Go to rest."""
        self.potential: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of one step, ``[B, *shape]``."""
        u = x if self.potential is None else 0.5 * self.potential + x
        spikes: Tensor = _Spike.apply(u - self.threshold)  # type: ignore[no-untyped-call]
        self.potential = (1 - spikes) * u
        return spikes


def authors(workload: Workload) -> Stack:
    """The authors' algorithm: all layers at one step, then the next; batch norm of each step apart."""
    return Stack(workload, AuthorsNeuron, "steps")


def training_step(
    workload: Workload, model: nn.Module, rates: Callable[[Tensor], Tensor], *, fused_adam: bool, device: str = "cpu"
) -> Callable[[], None]:
    """One forward, backward and Adam step; ``rates`` maps input ``[T, B, ...]`` to mean votes ``[B, classes]``."""
    x, labels = (tensor.to(device) for tensor in workload.data())
    targets = functional.one_hot(labels, CLASSES).to(x.dtype)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(learned, fused=fused_adam)

    def step() -> None:
        model.train()
        loss = functional.mse_loss(rates(x), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def inference(workload: Workload, model: nn.Module) -> Callable[[], None]:
    """One forward pass in evaluation mode."""
    x, _ = workload.data()

    def step() -> None:
        model.eval()
        with torch.no_grad():
            model(x)

    return step


def interleaved(steps: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each, one of each per round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def against_floor(values: Mapping[str, float]) -> dict[str, float]:
    """Ratios to the floor."""
    return {name: value / values["floor"] for name, value in values.items()}


def peak_of(step: Callable[[], None], warm_up: Callable[[], None]) -> int:
    """Bytes that two calls need at most on top of what this process holds before them (Linux with glibc).

    warm_up: the same on `TINY`, so that libraries and code that are loaded once are there before. What malloc keeps of
    freed memory is given back first: it would serve the calls unseen.
    """
    warm_up()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _resident("VmRSS")
    step()
    step()
    return _resident("VmHWM") - before


def _resident(key: str) -> int:
    """Bytes resident now (VmRSS) or at most since clear_refs (VmHWM): of this program alone, unlike ru_maxrss."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))
