"""Training and inference against the floor, the same layers as an ANN with time folded into the batch.

    python -m benchmarks.training [--rounds 7] [--threads N] [--workload W1 ...] [-o benchmarks/results/training.json]

Every contestant takes one step per round, in turn, so that what else the machine does hits all alike; the ratio is
of medians. A training step is forward, backward and Adam. The authors' algorithm (github sunhongze/STL-SNN) is
re-expressed here: a loop over time through all layers, batch norm of each step apart, plain autograd, plain Adam.
Peak memory is that of a process of its own that takes two training steps, less what it holds before them.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stl_deploy._allocator import keep_large_buffers
from stl_deploy.config import RunConfig
from stl_deploy.files import write_json
from stl_deploy.network import Network
from stl_deploy.neuron import LIF

Layers = list[dict[str, Any]]
MODEL_NAMES = ("floor", "ours", "authors' algorithm")


def _block(channels: int, kernel: int, norm: bool) -> Layers:
    norms: Layers = [{"kind": "norm"}] if norm else []
    conv = {"kind": "conv", "channels": channels, "kernel": kernel, "padding": kernel // 2, "bias": not norm}
    return [conv, *norms, {"kind": "lif"}, {"kind": "pool"}]


def _dense(*features: int) -> Layers:
    return [layer for n in features for layer in ({"kind": "linear", "features": n}, {"kind": "lif"})]


@dataclass(frozen=True)
class Workload:
    """Layers, input shape of a sample, time steps and batch size."""

    layers: Layers
    shape: tuple[int, ...]
    steps: int
    batch: int

    def network(self, mode: str = "stl") -> Network:
        """The network of our configuration, thresholds per neuron."""
        neuron = {"threshold": 1.0, "conv_granularity": "neuron"}
        dataset = {"name": "mnist", "T": self.steps}
        data = {"dataset": dataset, "network": self.layers, "neuron": neuron, "train": {"mode": mode}}
        torch.manual_seed(0)
        return Network(RunConfig.model_validate(data), self.shape, 10)


WORKLOADS = {
    "W1": Workload(
        [
            *_block(128, 5, True),
            *_block(128, 5, True),
            {"kind": "flatten"},
            *_dense(2048, 100),
            {"kind": "vote", "population": 10},
        ],
        (1, 28, 28),
        4,
        32,
    ),
    "W2": Workload(
        [
            *_block(16, 3, False),
            *_block(32, 3, False),
            {"kind": "flatten"},
            *_dense(128, 10),
            {"kind": "vote", "population": 1},
        ],
        (1, 28, 28),
        16,
        128,
    ),
    "W3": Workload([*_dense(512, 512, 10), {"kind": "vote", "population": 1}], (784,), 50, 128),
}


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad / (1 + (math.pi * x) ** 2)


class StepByStep(nn.Module):
    """The authors' algorithm on the layers of a network: all layers at one step, then the next step."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.layers = network.layers

    def forward(self, x: Tensor) -> Tensor:
        """Votes ``[T, B, classes]``."""
        state: dict[str, Tensor] = {}
        votes = []
        for step in x:
            y = step
            for name, layer in self.layers.items():
                if isinstance(layer, LIF):
                    u = layer.decay * state[name] + y if name in state else y
                    y = _Spike.apply(u - layer.threshold)  # type: ignore[no-untyped-call]
                    state[name] = (1 - y) * u
                else:
                    y = layer(y)
            votes.append(y)
        return torch.stack(votes)


def contestants(workload: Workload) -> dict[str, tuple[nn.Module, bool]]:
    """Each model and whether its Adam is torch's fused one."""
    models = (workload.network("ann"), workload.network(), StepByStep(workload.network()))
    return dict(zip(MODEL_NAMES, zip(models, (True, True, False), strict=True), strict=True))


def training_step(workload: Workload, model: nn.Module, fused: bool) -> Callable[[], None]:
    """One forward, backward and Adam step on fixed random spikes."""
    x, labels = _batch(workload)
    targets = functional.one_hot(labels, 10).to(x.dtype)
    optimiser = torch.optim.Adam(model.parameters(), fused=fused)

    def step() -> None:
        loss = functional.mse_loss(model.train()(x).mean(0), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def inference(workload: Workload, model: nn.Module) -> Callable[[], None]:
    """One forward pass in evaluation mode."""
    x, _ = _batch(workload)

    def step() -> None:
        with torch.no_grad():
            model.eval()(x)

    return step


def interleaved(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds of each, one of each per round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def against_floor(seconds: dict[str, float]) -> dict[str, float]:
    """Ratios to the floor."""
    return {name: value / seconds["floor"] for name, value in seconds.items()}


def cost_in_time(steps: Sequence[int], rounds: int) -> dict[int, float]:
    """Median seconds of our training step on a small MLP for each T."""
    found = {}
    for T in steps:
        workload = Workload([*_dense(128, 10), {"kind": "vote", "population": 1}], (784,), T, 32)
        found[T] = interleaved({"ours": training_step(workload, workload.network(), True)}, rounds)["ours"]
    return found


def peak_memory(workload: str, contestant: str) -> int:
    """Bytes that two training steps need on top, in a process of their own."""
    call = [sys.executable, "-m", "benchmarks.training", "--peak", workload, contestant]
    return int(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def _print_peak(workload: str, contestant: str) -> None:
    model, fused = contestants(WORKLOADS[workload])[contestant]
    step = training_step(WORKLOADS[workload], model, fused)
    before = _resident("VmRSS")
    step()
    step()
    print(_resident("VmHWM") - before)


def _resident(key: str) -> int:
    """Bytes resident now (VmRSS) or at most so far (VmHWM): Linux; of this program alone, unlike ru_maxrss."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def _batch(workload: Workload) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    x = (torch.rand((workload.steps, workload.batch, *workload.shape), generator=draws) < 0.2).float()
    return x, torch.randint(0, 10, (workload.batch,), generator=draws)


def measure(names: Sequence[str], rounds: int, *, memory: bool = True, times: Sequence[int] = ()) -> dict[str, Any]:
    """Everything, JSON-ready."""
    found: dict[str, Any] = {
        "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "torch": torch.__version__,
        "rounds": rounds,
        "workloads": {},
    }
    for name in names:
        models = contestants(WORKLOADS[name])
        train = {n: training_step(WORKLOADS[name], *model) for n, model in models.items()}
        infer = {n: inference(WORKLOADS[name], model) for n, (model, _) in models.items()}
        seconds = {"train": interleaved(train, rounds), "infer": interleaved(infer, rounds)}
        row: dict[str, Any] = {"seconds": seconds, "ratio": {k: against_floor(v) for k, v in seconds.items()}}
        if memory:
            peaks = {n: float(peak_memory(name, n)) for n in MODEL_NAMES}
            row |= {"peak_bytes": peaks, "peak_ratio": against_floor(peaks)}
        found["workloads"][name] = row
    found["seconds_in_T"] = cost_in_time(times, rounds)
    return found


def table(found: dict[str, Any]) -> str:
    """The ratios for people."""
    lines = [f"{'ratio to the floor':<20}{'train':>22}{'infer':>22}{'peak memory':>14}"]
    for workload, row in found["workloads"].items():
        for name in MODEL_NAMES:
            cells = [
                f"{row['ratio'][k][name]:.2f} ({row['seconds'][k][name] * 1e3:.0f} ms)" for k in ("train", "infer")
            ]
            peak = f"{row['peak_ratio'][name]:.2f}" if "peak_ratio" in row else ""
            lines.append(f"{workload} {name:<17}{cells[0]:>22}{cells[1]:>22}{peak:>14}")
    lines += [f"T = {T:<4} {seconds * 1e3:8.1f} ms a training step" for T, seconds in found["seconds_in_T"].items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--workload", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/training.json"))
    options = parser.parse_args(arguments)
    keep_large_buffers()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.peak:
        _print_peak(*options.peak)
        return
    found = measure(options.workload, options.rounds, times=(4, 8, 16, 32, 64, 128, 256))
    write_json(options.output, json.loads(json.dumps(found)))
    print(table(found))


if __name__ == "__main__":
    main()
