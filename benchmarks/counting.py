"""Cost of counting: python -m benchmarks.counting -o OUT

The paper's MNIST net on 1,000 drawn images of 4 steps, in parts of 64: run, and run and counted. Interleaved, medians.
Images are 0/1 with a fifth of the pixels set, as many as MNIST's are not 0. Memory is Python's and numpy's peak while
counting a quarter of the images and all of them, drawn as they are needed.

And the verb `energy` beside the verb `simulate`, as commands with all they load and write: five convolutions of 16
channels, as many images of 16 x 16 in 4 steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.nets import folded_program
from benchmarks.reference import liven
from benchmarks.timing import QUIET, interleave
from stl_deploy.config.load import config_of, load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.energy.counts.count import Part, count_stream
from stl_deploy.exporters.nir.file import write_nir
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import run
from stl_deploy.nn.network import Network
from stl_deploy.pipeline.fold_network import fold

RUN, COUNT = "run", "run and count"
LIMIT, VERB_LIMIT = 1.3, 1.15
"""Largest cost of counting over that of running; and of the verb `energy` over that of `simulate`."""
_PART = 64
_FIVE = (
    "dataset: {name: mnist, T: 4, encoder: bernoulli}\nnetwork:\n"
    + "  - {kind: conv, channels: 16, kernel: 3, padding: 1}\n  - {kind: lif}\n" * 5
    + "  - {kind: flatten}\n  - {kind: linear, features: 10}\n  - {kind: lif}\n  - {kind: vote, population: 1}\n"
)


def parts(program: Program, steps: int, samples: int) -> Iterator[Part]:
    """Drawn images, ``_PART`` at a time."""
    rng = np.random.default_rng(0)
    for start in range(0, samples, _PART):
        shape = (1, min(_PART, samples - start), *program.inputs[0].shape)
        yield np.repeat((rng.random(shape) < 0.2).astype(np.float32), steps, axis=0), None


def make(network: Network, config: RunConfig) -> Program:
    """The folded graph of a drawn network whose layers all spike."""
    rng = np.random.default_rng(1)
    x = (rng.random((config.time_steps, _PART, *network.input_shape)) < 0.2).astype(np.float32)
    liven(network, torch.from_numpy(x))
    return folded_program(network, config, 255, True)


def measure(program: Program, steps: int, samples: int, rounds: int) -> dict[str, Any]:
    """Times and peaks of memory, JSON-ready; ``ratio``: counting over running, medians."""
    before = os.getloadavg()[0]
    kept = list(parts(program, steps, samples))

    def only_run() -> None:
        for x, _ in kept:
            run(program, x)

    contenders = {RUN: only_run, COUNT: lambda: count_stream(program, kept, "spikes")}
    times = interleave(contenders, rounds)
    middle = {name: statistics.median(seconds) for name, seconds in times.items()}
    kept.clear()
    return {
        "schema_version": 1,
        "samples": samples,
        "steps": steps,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "seconds": times,
        "ratio": middle[COUNT] / middle[RUN],
        "peak_bytes": {str(n): _peak(program, steps, n) for n in (samples // 4, samples)},
        "load": [before, os.getloadavg()[0]],
        "versions": {"numpy": np.__version__},
    }


def _peak(program: Program, steps: int, samples: int) -> int:
    tracemalloc.start()
    try:
        count_stream(program, parts(program, steps, samples), "spikes")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def verbs(samples: int, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of the commands ``simulate`` and ``energy`` on one drawn network and input, interleaved."""
    config = config_of(yaml.safe_load(_FIVE))
    network = Network(config, (1, 16, 16), 10).eval()
    x = (np.random.default_rng(2).random((config.time_steps, samples, 1, 16, 16)) < 0.2).astype(np.float32)
    liven(network, torch.from_numpy(x[:, :_PART]))
    with tempfile.TemporaryDirectory() as folder:
        net, given, y = (Path(folder) / name for name in ("net.nir", "x.npz", "y.npz"))
        write_nir(fold(network, coding="spikes").graph, net)
        np.savez(given, x=x)
        command: list[str | Path] = [sys.executable, "-m", "stl_deploy", "-q"]
        lines = {
            "simulate": [*command, "simulate", net, "--input", given, "--backend", "reference", "-o", y],
            "energy": [*command, "energy", net, "--input", given],
        }
        times: dict[str, list[float]] = {name: [] for name in lines}
        for _ in range(rounds):
            for name, line in lines.items():
                times[name].append(_cpu_seconds(line))
        return times


def _cpu_seconds(line: Sequence[str | Path]) -> float:
    """Of a command: other work on the machine counts little."""
    before = os.times()
    subprocess.run(line, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def table(data: Mapping[str, Any]) -> str:
    """Markdown."""
    lines = ["# What counting costs", "", "Made by `python -m benchmarks.counting`.", "", "| | s |", "|---|---|"]
    lines += [f"| {name} | {statistics.median(seconds):.2f} |" for name, seconds in data["seconds"].items()]
    lines += [
        f"| `stl-deploy {name}`, CPU | {statistics.median(seconds):.2f} |" for name, seconds in data["verbs"].items()
    ]
    simulate, energy = (statistics.median(data["verbs"][name]) for name in ("simulate", "energy"))
    peaks = "; ".join(f"{int(n):,} images: {peak / 1e6:.0f} MB" for n, peak in data["peak_bytes"].items())
    rounds = len(data["verbs"]["energy"])
    load = max(data["load"])
    quiet = "" if load < QUIET else " - the machine was not quiet, so these are no results"
    lines += [
        "",
        f"The paper's MNIST net, {data['samples']:,} images, T = {data['steps']}. Counting over running: "
        f"{data['ratio']:.2f} (at most {LIMIT} is wanted). Peak memory while counting, {peaks}.",
        f"CPU time of the command `energy` over that of `simulate`, five convolutions of 16 channels, as many images: "
        f"{energy / simulate:.2f} (at most {VERB_LIMIT} is wanted).",
        f"{data['threads']} thread(s), medians of {data['rounds']} interleaved rounds (of the commands: {rounds}), "
        f"load {load:.1f}{quiet}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, help="folder for counting-speed.json and counting-speed.md")
    arguments = parser.parse_args()
    config = load_config("mnist")
    torch.manual_seed(0)
    program = make(Network(config, (1, 28, 28), 10).eval(), config)
    print(f"{arguments.samples:,} images ...", file=sys.stderr, flush=True)
    data = measure(program, config.time_steps, arguments.samples, arguments.rounds)
    data["verbs"] = verbs(arguments.samples, arguments.rounds)
    data["load"].append(os.getloadavg()[0])
    print(table(data))
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "counting-speed.json").write_text(json.dumps(data, indent=1) + "\n")
        (arguments.output / "counting-speed.md").write_text(table(data))


if __name__ == "__main__":
    main()
