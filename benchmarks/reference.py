"""The reference run against torch: python -m benchmarks.reference -o OUT

The paper's MNIST net, 32 samples of 4 steps, against the torch model that it was folded from; and 1,000 steps of 1,000
neurons with all-to-all recurrence against the same loop in torch. Same threads for both, interleaved, medians.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import nn

from benchmarks.nets import folded_program
from benchmarks.timing import QUIET, interleave
from stl_deploy.config.load import load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.exporters.nir.dialect import PRESETS
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Floats
from stl_deploy.graph.run import run
from stl_deploy.nn.network import Network
from stl_deploy.nn.program_module import ProgramModule
from stl_deploy.pipeline.fold_network import fold

TORCH, REFERENCE = "torch", "reference run"
Contenders = dict[str, Callable[[], Any]]


def folded(network: Network, config: RunConfig, batch: int) -> Contenders:
    """A network as trained, and its folded graph run here; raises SystemExit if the two graphs differ in a vote."""
    rng = np.random.default_rng(0)
    x = (rng.random((config.time_steps, batch, *network.input_shape)) < 0.2).astype(np.float32)
    tensor = torch.from_numpy(x)
    liven(network, tensor)
    program = folded_program(network, config, 255, True)
    last = program.spiking[-1].name
    _require_same(
        run(program, x, record=[last]).recorded[last], _spikes(fold(network, coding="spikes").network, tensor, last)
    )
    return {TORCH: lambda: _inferred(network, tensor), REFERENCE: lambda: run(program, x)}


def liven(network: Network, x: torch.Tensor) -> None:
    """Weights drawn so wide that all layers spike, and norms that have seen the input."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=3 / module.weight[0].numel() ** 0.5)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(x)
    network.eval()


@torch.inference_mode()
def _spikes(module: ProgramModule, x: torch.Tensor, layer: str) -> Any:
    _, spikes = module.record(x)
    return spikes[layer].numpy()


@torch.inference_mode()
def _inferred(network: nn.Module, x: torch.Tensor) -> Any:
    return network(x).numpy()


def recurrent(neurons: int, steps: int) -> Contenders:
    """A population that reads its own last spikes, one sample; raises SystemExit if torch puts out other spikes."""
    rng = np.random.default_rng(0)
    inputs = neurons // 10
    enter, loop = (_on_grid(rng, neurons, count) for count in (inputs, neurons))
    x = (rng.random((steps, 1, inputs)) < 0.3).astype(np.float32)
    one = np.ones(neurons, np.float32)
    nodes = {
        "input": nir.Input(np.array([inputs])),
        "enter": nir.Linear(enter),
        "lif": nir.LIF(2e-4 * one, 2 * one, 0 * one, one, 0 * one),
        "loop": nir.Linear(loop),
        "output": nir.Output(np.array([neurons])),
    }
    edges = [("input", "enter"), ("enter", "lif"), ("lif", "loop"), ("loop", "lif"), ("lif", "output")]
    program = lower(nir.NIRGraph(nodes, edges, type_check=False), PRESETS["stl"])
    tensors = [torch.from_numpy(array) for array in (enter, loop, x)]
    _require_same(run(program, x).y, looped(*tensors))
    return {TORCH: lambda: looped(*tensors), REFERENCE: lambda: run(program, x)}


def _on_grid(rng: np.random.Generator, neurons: int, inputs: int) -> Floats:
    """Weights whose sums are exact in any order."""
    step = 2.0 ** -math.floor(math.log2(2 * inputs**0.5))
    return (rng.integers(-8, 9, (neurons, inputs)) * step).astype(np.float32)


@torch.inference_mode()
def looped(enter: torch.Tensor, loop: torch.Tensor, x: torch.Tensor) -> Any:
    """The recurrent network step by step in torch."""
    v = spikes = torch.zeros(x.shape[1], len(loop))
    timings = []
    for now in nn.functional.linear(x, enter):
        v = 0.5 * v + (now + nn.functional.linear(spikes, loop))
        spikes = (v >= 1).float()
        v = torch.where(v >= 1, 0.0, v)
        timings.append(spikes)
    return torch.stack(timings).numpy()


def _require_same(ours: Any, theirs: Any) -> None:
    if not np.array_equal(ours, theirs) or not ours.any():
        raise SystemExit("torch does not compute what the reference run computes")


def cases() -> dict[str, Contenders]:
    """The two that the documentation quotes."""
    torch.manual_seed(0)
    config = load_config("mnist")
    network = Network(config, (1, 28, 28), 10).eval()
    return {
        f"paper's MNIST net, B=32, T={config.time_steps}": folded(network, config, 32),
        "1,000 recurrent neurons, B=1, T=1,000": recurrent(1000, 1000),
    }


def measure(made: Mapping[str, Contenders], rounds: int) -> dict[str, Any]:
    """Times of every case, JSON-ready; ``ratio`` is the reference run's median over torch's.

    OMP_NUM_THREADS sets the threads of both; without it they take one for each core.
    """
    before, rows = os.getloadavg()[0], []
    for name, contenders in made.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        times = interleave(contenders, rounds)
        ratio = statistics.median(times[REFERENCE]) / statistics.median(times[TORCH])
        rows.append({"case": name, "seconds": times, "ratio": ratio})
    return {
        "schema_version": 1,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "load": [before, os.getloadavg()[0]],
        "versions": {"numpy": np.__version__, "torch": torch.__version__},
        "rows": rows,
    }


def table(timings: Mapping[str, Any]) -> str:
    """Markdown."""
    lines = ["# The reference run against torch", "", "Made by `python -m benchmarks.reference`.", ""]
    lines += ["| case | torch, ms | reference run, ms | ratio |", "|---|---|---|---|"]
    for row in timings["rows"]:
        torch_ms, ours = (1000 * statistics.median(row["seconds"][name]) for name in (TORCH, REFERENCE))
        lines.append(f"| {row['case']} | {torch_ms:.1f} | {ours:.1f} | {row['ratio']:.2f} |")
    load = max(timings["load"])
    quiet = "" if load < QUIET else " - the machine was not quiet, so these are no results"
    lines += [
        "",
        f"{timings['threads']} thread(s), medians of {timings['rounds']} interleaved rounds, load {load:.1f}{quiet}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("-o", "--output", type=Path, help="folder for reference-speed.json and reference-speed.md")
    arguments = parser.parse_args()
    timings = measure(cases(), arguments.rounds)
    print(table(timings))
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "reference-speed.json").write_text(json.dumps(timings, indent=1) + "\n")
        (arguments.output / "reference-speed.md").write_text(table(timings))


if __name__ == "__main__":
    main()
