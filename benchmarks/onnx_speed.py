"""ONNX Runtime against torch eager inference: python -m benchmarks.onnx_speed -o OUT

The paper's MNIST net and W2 (small convolutions, 16 steps), batch 1 and 32, same threads for both, interleaved in one
run, medians. Also the step form's cost per step, and time and memory of writing the paper's MNIST net.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.nets import folded_program
from benchmarks.timing import QUIET, interleave
from stl_deploy.config.load import config_of, load_config
from stl_deploy.config.schema import RunConfig
from stl_deploy.exporters.onnx import OnnxModel, OnnxStream, export_onnx
from stl_deploy.exporters.onnx.runtime import onnxruntime
from stl_deploy.graph.program import Conv, Linear, Program
from stl_deploy.nn.fused import SWITCH
from stl_deploy.nn.network import Network
from stl_deploy.pipeline.fold_network import fold

W2 = """
dataset: {name: mnist, T: 16, encoder: bernoulli, validation_fraction: 0.1}
network:
  - {kind: conv, channels: 16, kernel: 3, padding: 1}
  - {kind: lif}
  - {kind: pool, op: max}
  - {kind: conv, channels: 32, kernel: 3, padding: 1}
  - {kind: lif}
  - {kind: pool, op: max}
  - {kind: flatten}
  - {kind: linear, features: 128}
  - {kind: lif}
  - {kind: linear, features: 10}
  - {kind: lif}
  - {kind: vote, population: 1}
train: {epochs: 1}
"""
MODEL, FOLDED = "torch, the model", "torch, folded"
BLOCKS = "torch, compiled blocks"
SCAN, UNROLLED, STEP, INTEGER = "ORT, Scan", "ORT, unrolled", "ORT, step by step", "ORT, integer"
CONTENDERS = (MODEL, FOLDED, BLOCKS, SCAN, UNROLLED, STEP, INTEGER)
_MIB = 2**20


def networks() -> dict[str, tuple[Network, RunConfig]]:
    """The two, with drawn weights: what they spike does not change how long they take."""
    torch.manual_seed(0)
    configs = {"paper's MNIST net": load_config("mnist"), "W2": config_of(yaml.safe_load(W2))}
    return {name: (Network(config, (1, 28, 28), 10).eval(), config) for name, config in configs.items()}


def measure(
    nets: Mapping[str, tuple[Network, RunConfig]], threads: int, rounds: int, batches: Sequence[int] = (1, 32)
) -> dict[str, Any]:
    """Times of every case, JSON-ready."""
    torch.set_num_threads(threads)
    before = os.getloadavg()[0]
    rows = []
    with TemporaryDirectory() as folder:
        for name, (network, config) in nets.items():
            for batch in batches:
                print(f"{name}, batch {batch} ...", file=sys.stderr, flush=True)
                times = interleave(_contenders(network, config, batch, threads, Path(folder)), rounds)
                rows.append({"network": name, "steps": config.time_steps, "batch": batch, "seconds": times})
    return {
        "schema_version": 1,
        "threads": threads,
        "rounds": rounds,
        "load": [before, os.getloadavg()[0]],
        "versions": {"onnxruntime": onnxruntime.__version__, "torch": torch.__version__},
        "rows": [row | {"ratios": ratios(row)} for row in rows],
    }


def _contenders(
    network: Network, config: RunConfig, batch: int, threads: int, folder: Path
) -> dict[str, Callable[[], Any]]:
    program = folded_program(network, config, 255, True)
    folded = fold(network, coding="spikes").network.eval()
    for form in ("sequence", "step"):
        export_onnx(program, folder / f"{form}.onnx", form=form, record=False)
    scan, step = (OnnxModel.load(folder / f"{form}.onnx", threads=threads) for form in ("sequence", "step"))
    export_onnx(program, folder / "integer.onnx", precision="integer", record=False)
    integer = OnnxModel.load(folder / "integer.onnx", threads=threads)
    export_onnx(program, folder / "flat.onnx", form="unrolled", steps=config.time_steps, batch=batch, record=False)
    flat = OnnxModel.load(folder / "flat.onnx", threads=threads)
    rng = np.random.default_rng(0)
    x = (rng.random((config.time_steps, batch, 1, 28, 28)) < 0.2).astype(np.float32)
    stream, tensor = OnnxStream(step), torch.from_numpy(x)

    def stepped() -> Any:
        stream.reset()
        return np.stack([stream.step(now).y for now in x])

    @torch.inference_mode()
    def eager(net: Network) -> Any:
        os.environ[SWITCH] = "0"
        try:
            return net(tensor).numpy()
        finally:
            os.environ.pop(SWITCH)

    @torch.inference_mode()
    def blocks() -> Any:
        return network(tensor).numpy()

    calls: dict[str, Callable[[], Any]] = {
        MODEL: lambda: eager(network),
        FOLDED: lambda: eager(folded),
        BLOCKS: blocks,
        SCAN: lambda: scan.run(x).y,
        UNROLLED: lambda: flat.run(x).y,
        STEP: stepped,
        INTEGER: lambda: integer.run(x).y,
    }
    expected = calls[SCAN]()
    for name in (FOLDED, UNROLLED, STEP, INTEGER):
        if not np.array_equal(calls[name](), expected):
            raise SystemExit(f"{name} does not compute what the Scan form computes")
    return calls


def ratios(row: Mapping[str, Any]) -> dict[str, float]:
    """Median time over the median time of the model in torch."""
    floor = statistics.median(row["seconds"][MODEL])
    return {name: statistics.median(times) / floor for name, times in row["seconds"].items()}


def measure_export() -> dict[str, float]:
    """Seconds and memory to write the paper's MNIST net; Linux only, for the memory."""
    network, config = networks()["paper's MNIST net"]
    program = folded_program(network, config, 255, True)
    weights = _weight_bytes(program)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    with TemporaryDirectory() as folder:
        start = time.perf_counter()
        export_onnx(program, Path(folder) / "net.onnx")
        seconds = time.perf_counter() - start
    grown = _status("VmHWM") - before
    return {
        "seconds": seconds,
        "weights_mib": weights / _MIB,
        "peak_growth_mib": grown / _MIB,
        "times": grown / weights,
    }


def _weight_bytes(program: Program) -> int:
    return sum(node.weight.nbytes for node in program.nodes if isinstance(node, Linear | Conv))


def _status(key: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def table(calls: Mapping[str, Any]) -> str:
    """Markdown."""
    lines = ["# ONNX Runtime against torch eager inference", "", "Made by `python -m benchmarks.onnx_speed`.", ""]
    lines += [_line(["network", "T", "batch", *CONTENDERS, "step form, ms per step more"])]
    lines += [_line(["---"] * (len(CONTENDERS) + 4))]
    for row in calls["rows"]:
        median = {name: statistics.median(times) for name, times in row["seconds"].items()}
        ratios = [f"{row['ratios'][name]:.2f}" for name in CONTENDERS]
        ratios[0] = f"1 ({1000 * median[MODEL]:.1f} ms)"
        more = 1000 * (median[STEP] - median[SCAN]) / row["steps"]
        lines.append(_line([row["network"], str(row["steps"]), str(row["batch"]), *ratios, f"{more:+.2f}"]))
    load = max(calls["load"])
    quiet = "" if load < QUIET else " - the machine was not quiet, so these are no results"
    export = calls.get("export")
    lines += [
        "",
        f"{calls['threads']} thread(s), medians of {calls['rounds']} interleaved rounds, load {load:.1f}{quiet}.",
    ]
    if export is not None:
        lines += [
            "",
            f"Writing the paper's MNIST net: {export['seconds']:.1f} s; at the peak memory had grown by "
            f"{export['peak_growth_mib']:.0f} MiB, {export['times']:.2f} times its {export['weights_mib']:.0f} MiB of "
            "weights.",
        ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--export-only", action="store_true", help="measure the export alone and print JSON")
    parser.add_argument("-o", "--output", type=Path, help="folder for onnx-speed.json and onnx-speed.md")
    arguments = parser.parse_args()
    if arguments.export_only:
        print(json.dumps(measure_export()))
        return
    command = [sys.executable, "-m", "benchmarks.onnx_speed", "--export-only"]
    export = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    calls = measure(networks(), arguments.threads, arguments.rounds) | {"export": export}
    print(table(calls))
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "onnx-speed.json").write_text(json.dumps(calls, indent=1) + "\n")
        (arguments.output / "onnx-speed.md").write_text(table(calls))


if __name__ == "__main__":
    main()
