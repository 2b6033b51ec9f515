"""Time of single steps at batch 1, and its parts: python -m benchmarks.onnx_steps [--rounds N]

Four steps of the paper's MNIST net, by ONNX Runtime and by torch, against torch's one call for all four. One call
reads the 51 MB of dense weights once, steps read them four times: the products alone are measured beside them.
One thread, interleaved; medians of the ratios of each round.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.nets import folded_program
from benchmarks.onnx_speed import networks
from benchmarks.timing import interleave
from stl_deploy.exporters.onnx import OnnxModel, OnnxStream, export_onnx
from stl_deploy.graph.program import Program
from stl_deploy.nn.fused import SWITCH
from stl_deploy.nn.program_module import Population, ProgramModule

ONE_CALL = "torch, one call"
DENSE, CONVOLUTION = "torch, the dense product of each step", "torch, the second convolution"


def contenders(folder: Path) -> dict[str, Callable[[], Any]]:
    """Ways to compute the same four steps, and two parts of them."""
    network, config = networks()["paper's MNIST net"]
    program = folded_program(network, config, 255, True)
    x = (np.random.default_rng(0).random((config.time_steps, 1, 1, 28, 28)) < 0.2).astype(np.float32)
    tensor = torch.from_numpy(x)
    streams = {}
    for precision in ("float32", "integer"):
        path = folder / f"{precision}.onnx"
        export_onnx(program, path, form="step", precision=precision, record=False)
        streams[precision] = OnnxStream(OnnxModel.load(path, threads=1))

    def stepped(stream: OnnxStream) -> Any:
        stream.reset()
        return np.stack([stream.step(now).y for now in x])

    layers = ProgramModule(program).eval()
    weights: Any = program.by_name
    dense, kernel = (torch.from_numpy(weights[name].weight) for name in ("linear1", "conv2"))
    spikes, maps = (tensor.new_ones(1, dense.shape[1]), tensor.new_ones(len(x), kernel.shape[1], 14, 14))
    calls: dict[str, Callable[[], Any]] = {
        ONE_CALL: lambda: network(tensor).numpy(),
        "torch, step by step": lambda: torch_steps(layers, program, tensor),
        "ONNX Runtime, step by step, float32": lambda: stepped(streams["float32"]),
        "ONNX Runtime, step by step, integer": lambda: stepped(streams["integer"]),
    }
    expected = calls[ONE_CALL]()
    for name, call in calls.items():
        if not np.array_equal(call(), expected):
            raise SystemExit(f"{name} does not compute what one call computes")
    parts = {
        DENSE: lambda: [functional.linear(spikes, dense) for _ in x],
        CONVOLUTION: lambda: functional.conv2d(maps, kernel, padding=2),
    }
    return calls | parts


def torch_steps(layers: ProgramModule, program: Program, x: torch.Tensor) -> Any:
    """Run a chain one time step after the other, as a loop over ``x[t]`` in torch does."""
    states: dict[str, Any] = {}
    outputs = []
    for now in x:
        value = now
        for node in program.nodes:
            layer = layers.layer(node)
            if isinstance(layer, Population):
                state = states.setdefault(node.name, layer.rest(value))
                value = layer.step(value, state)
            elif layer is not None:
                value = layer(value)
            value = value.reshape(len(now), *node.shape)
        outputs.append(value.numpy())
    return np.stack(outputs)


def table(times: Mapping[str, list[float]]) -> str:
    """Markdown: the median of each round's ratio to one call."""
    lines = ["| four steps at batch 1 | time, torch's one call = 1 |", "|---|---:|"]
    for name, seconds in times.items():
        ratio = statistics.median(own / call for own, call in zip(seconds, times[ONE_CALL], strict=True))
        lines.append(f"| {name} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    os.environ[SWITCH] = "0"
    with TemporaryDirectory() as folder, torch.inference_mode():
        times = interleave(contenders(Path(folder)), rounds)
    print(table(times))
    print(f"\n{rounds} rounds, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
