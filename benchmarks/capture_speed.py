"""Seconds of `capture`: many steps, many layers, published sizes: python -m benchmarks.capture_speed -o OUT

Each network in a process of its own, in turns. ``--against FOLDER``: also by another checkout with its .venv.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.published_vision import Size, Transformer, with_statistics
from benchmarks.timing import QUIET
from benchmarks.whole_ways import ResNet18

STEM = "capture-speed"


class Layer(nn.Module):
    """Weights and leaky neurons, step by step."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.fc = nn.Linear(before, after)
        nn.init.uniform_(self.fc.weight, -8 / before, 16 / before)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, before]`` to spikes."""
        v, spikes = x.new_zeros(x.shape[1], self.fc.out_features), []
        for i in self.fc(x):
            v = v + (i - v) / 2
            s = (v >= 1.0).float()
            v = v * (1 - s)
            spikes.append(s)
        return torch.stack(spikes)


Case = Callable[[], tuple[nn.Module, Tensor]]


def _stack(steps: int, layers: int) -> Case:
    return lambda: (nn.Sequential(*(Layer(8, 8) for _ in range(layers))), torch.rand(steps, 4, 8) * 2)


def _resnet() -> tuple[nn.Module, Tensor]:
    x = torch.rand(4, 2, 3, 32, 32)
    return with_statistics(ResNet18(), x), x


def _transformer() -> tuple[nn.Module, Tensor]:
    images = torch.rand(6, 3, 32, 32)
    return with_statistics(Transformer("Spikformer", Size(64, 4, 32), 4), images), images[:2]


@dataclass(frozen=True)
class Network:
    """One network. goal: seconds."""

    what: str
    make: Case
    goal: float


NETWORKS: Mapping[str, Network] = {
    "first": Network("one layer of 8 neurons, T = 8", _stack(8, 1), 0.6),
    "t1000": Network("two layers, T = 1,000", _stack(1000, 2), 3),
    "t10000": Network("two layers, T = 10,000", _stack(10_000, 2), 30),
    "layers32": Network("32 layers, T = 8", _stack(8, 32), 2),
    "layers1000": Network("1,000 layers, T = 4", _stack(4, 1000), 600),
    "resnet": Network("SEW-ResNet-18 on 32 x 32, T = 4", _resnet, 11.5),
    "transformer": Network("Spikformer of 4 blocks of 64 channels on 32 x 32, T = 4", _transformer, 7),
}


@dataclass(frozen=True)
class Times:
    """One capture in a process of its own: its seconds, seconds of the processor, and calls of forward."""

    wall: float
    processor: float
    calls: int


def alone(name: str) -> Times:
    """Capture a network in this process."""
    import stl_deploy as stl

    torch.manual_seed(0)
    model, x = NETWORKS[name].make()
    calls: list[int] = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    time_of = "inside" if x.dim() == 4 else "first"
    wall, processor = time.perf_counter(), time.process_time()
    stl.capture(model, x, time=time_of, progress=False)  # type: ignore[arg-type]
    return Times(time.perf_counter() - wall, time.process_time() - processor, len(calls))


def measure(names: Sequence[str], folders: Mapping[str, Path], rounds: int) -> dict[str, dict[str, list[Times]]]:
    """Measure each network by each checkout, ``rounds`` times in turns."""
    rows: dict[str, dict[str, list[Times]]] = {name: {which: [] for which in folders} for name in names}
    for _ in range(rounds):
        for name in names:
            for which, folder in folders.items():
                command = [folder / ".venv/bin/python", "-P", "-W", "ignore", __file__, "--only", name]
                environment = {**os.environ, "PYTHONPATH": str(folder)}
                made = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
                times = Times(**json.loads(made.stdout.splitlines()[-1]))
                rows[name][which].append(times)
                print(name, which, times, flush=True)
    return rows


def page(rows: Mapping[str, Mapping[str, Sequence[Times]]], load: float) -> str:
    """Return the table, medians against the goals."""
    quiet = "" if load <= QUIET else " (not a quiet machine, so the processor's seconds say more)"
    lines = [
        "# Seconds of capture",
        "",
        "Made by `python -m benchmarks.capture_speed`: median of captures, each the first in a process of its own, so "
        f"with the load of modules; one thread; load when it began {load:.1f}{quiet}.",
        "",
        "| network | package | seconds | of the processor | goal | calls of forward |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, of in rows.items():
        for which, times in of.items():
            wall, processor = (statistics.median(getattr(t, kind) for t in times) for kind in ("wall", "processor"))
            network = NETWORKS[name]
            lines.append(
                f"| {network.what} | {which} | {wall:.2f} | {processor:.2f} | {network.goal:g} | {times[0].calls} |"
            )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", choices=list(NETWORKS), help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.only:
        print(json.dumps(asdict(alone(options.only))))
        return
    load = os.getloadavg()[0]
    folders = {"this": Path(__file__).resolve().parent.parent}
    if options.against is not None:
        folders = {"before": options.against.resolve(), **folders}
    table = page(measure(options.network, folders, options.rounds), load)
    print(table)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / f"{STEM}.md").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
