"""Whole ways as a user meets them: python -m benchmarks.whole_ways -o OUT

Each in a process of its own, from its start to its end, with the memory that it took at most: the demo `run digits`
with and without the compiled path at hand, folding and writing a network of 36 million weights (the preset cifar10),
and a SEW-ResNet-18 on images of 224 x 224 through capture, proof, ONNX and energy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite.binding
import torch
from torch import Tensor, nn

import stl_deploy as stl
from benchmarks.timing import QUIET
from stl_deploy._util.files import write_json, write_text
from stl_deploy.config.load import load_config
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.nn.network import Network
from stl_deploy.pipeline.fold_network import fold

STEM = "whole-ways"
GIB = 2**30


@dataclass(frozen=True)
class Way:
    """Command, goal in seconds (and GiB), and whether the compiled path must be compiled first."""

    what: str
    command: tuple[str, ...]
    seconds: float
    gibibytes: float | None = None
    cold: bool = False


def _ours(name: str) -> tuple[str, ...]:
    return ("-m", "benchmarks.whole_ways", "--only", name)


_DEMO = ("-m", "stl_deploy", "run", "digits", "--no-twin", "--no-lava", "--overwrite", "-o", "run")
WAYS: Mapping[str, Way] = {
    "demo": Way("run digits, without twin and Lava", _DEMO, 30),
    "demo_cold": Way("the same, the compiled path compiled first", _DEMO, 45, cold=True),
    "fold": Way("fold and write 36 million weights (cifar10)", _ours("fold"), 8),
    "resnet": Way("SEW-ResNet-18 at 224 x 224, T = 4: capture, ONNX, energy", _ours("resnet"), 120, 8),
}


class Residual(nn.Module):
    """Two convolutions with their neurons, whose spikes are added to those that arrived (SEW-ADD, Fang et al. 2021)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*_layer(channels, out, 3, stride), *_layer(out, out, 3, 1))
        self.shortcut = nn.Sequential(*(_layer(channels, out, 1, stride) if stride > 1 else ()))

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]``."""
        return self.branch(x) + self.shortcut(x)


class Folded(nn.Sequential):
    """Layers that know no time, over all steps at once."""

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, ...]``."""
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _layer(channels: int, out: int, kernel: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
    return [Folded(conv, nn.BatchNorm2d(out)), stl.LIF(threshold=0.5, granularity="channel")]


class ResNet18(nn.Module):
    """SEW-ResNet-18: 11.7 million weights, learned thresholds for each channel."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [*_layer(3, 64, 7, 2), Folded(nn.MaxPool2d(3, 2, 1))]
        for before, after in ((64, 64), (64, 128), (128, 256), (256, 512)):
            blocks += [Residual(before, after, after // before), Residual(after, after, 1)]
        self.layers = nn.Sequential(*blocks)
        self.classify = Folded(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, 3, H, W]`` to the scores' mean ``[B, 1000]``."""
        return self.classify(self.layers(x)).mean(0)


def resnet() -> None:
    """Random weights; norms that have seen the image, so that every layer spikes."""
    torch.manual_seed(0)
    model, x = ResNet18(), torch.rand(1, 1, 3, 224, 224).expand(4, -1, -1, -1, -1).contiguous()
    with torch.no_grad():
        model.train()(x)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        model.train()(x)
    net = stl.capture(model.eval(), x).fold()
    net.export("net.onnx", x=x)
    net.energy(x)


def fold_many() -> None:
    """The preset cifar10 as drawn."""
    network = Network(load_config("cifar10"), (3, 32, 32), 10).eval()
    write_nir(fold(network, coding="analog", fraction_bits=8).graph, Path("net.nir"))


OURS: Mapping[str, Callable[[], None]] = {"fold": fold_many, "resnet": resnet}


def measure(names: Sequence[str], rounds: int) -> dict[str, Any]:
    """Seconds and bytes of each way, ``rounds`` times in turns."""
    rows: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "bytes": []} for name in names}
    for _ in range(rounds):
        for name in names:
            seconds, peak = _alone(WAYS[name])
            rows[name]["seconds"].append(seconds)
            rows[name]["bytes"].append(peak)
            print(f"{WAYS[name].what}: {seconds:.1f} s, {peak / GIB:.2f} GiB", flush=True)
    return rows


def _alone(way: Way) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        if way.cold:
            environment["XDG_CACHE_HOME"] = f"{folder}/cache"
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *way.command], cwd=folder, env=environment, stdout=subprocess.DEVNULL
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _peak(process.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"{way.what}: exit status {process.returncode}")
        return seconds, peak


def _peak(pid: int) -> float:
    """Bytes that a process held at most so far (Linux); what getrusage says counts this process's own before exec."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return next((1024 * float(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def page(data: dict[str, Any]) -> str:
    """The table, medians against the goals."""
    lines = [
        "# Whole ways, as a user meets them",
        "",
        "Made by `python -m benchmarks.whole_ways`: each in a process of its own, from start to end, median of "
        f"{data['rounds']}; {data['processor']}, {data['threads']} threads, torch {data['torch']}; load when it "
        f"began {data['load']:.1f}" + (" (not a quiet machine)." if data["load"] > QUIET else "."),
        "",
        "| what | seconds | goal | peak memory (GiB) | goal |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in data["ways"].items():
        way = WAYS[name]
        peak, limit = statistics.median(row["bytes"]) / GIB, way.gibibytes
        seconds = statistics.median(row["seconds"])
        lines.append(
            f"| {way.what} | {seconds:.1f} | {way.seconds:g} | {peak:.2f} | {'' if limit is None else limit} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--only", choices=list(OURS), help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/measurements"))
    options = parser.parse_args(arguments)
    if options.only:
        OURS[options.only]()
        return
    load = os.getloadavg()[0]
    if "demo" in options.way:
        _alone(WAYS["demo"])  # the compiled path is there from now on
    data = {
        "processor": llvmlite.binding.get_host_cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": load,
        "rounds": options.rounds,
        "ways": measure(options.way, options.rounds),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(options.output / f"{STEM}.json", data)
    write_text(options.output / f"{STEM}.md", page(data))


if __name__ == "__main__":
    main()
