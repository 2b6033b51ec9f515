"""The C target against ONNX Runtime and torch, one sample at a time on one thread: python -m benchmarks.c_speed -o OUT

Drawn networks, one of the digits net's size and one of an MNIST net's at several rates: the share of spikes in what
arrives at each layer of weights; and the runs that are named, with their test samples. All are called from Python, turn
by turn, with 32 samples, one after the other, each in the form that they take. Of each sample the least time of all
turns counts (whatever else the machine does only adds to it), of a contender the mean of its samples. The C spikes as
its integers say (checked here), which differ from the float network by rounding.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import llvmlite.binding
import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.timing import QUIET
from stl_deploy._util.files import read_input, whole_file, write_npz, write_text
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.c.compiler import find_compiler, run_program
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.target import CFormat, read_folder
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel
from stl_deploy.graph.program import Conv, Input, Linear, Neuron, Node, Operand, Output, Pool, Program, Reshape, Shape
from stl_deploy.graph.run import run
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.simulate import simulate
from tests.conformance.environments import environment

F = np.float32
SAMPLES = 32
"""Samples that each contender computes in its turn, one by one."""
NATIVE, PORTABLE = "C, -O3 -march=native", "C, -O3"
FLOAT, INTEGER, EAGER = "ORT, float", "ORT, integer", "torch eager"
SNNTORCH = "snnTorch"
ROOT = Path(__file__).parents[1]
BUILDS = {NATIVE: ("-O3", "-march=native"), PORTABLE: ("-O3",)}
WRAPPER = """
#include "net.h"

static net_state state;
int run(const int32_t *x, int32_t steps, int32_t *y);
int run(const int32_t *x, int32_t steps, int32_t *y)
{
    net_init(&state);
    for (int32_t t = 0; t < steps; t++)
        if (net_step(&state, x + t * NET_INPUTS, y + t * NET_OUTPUTS) != 0)
            return -1;
    return 0;
}
"""


def network(shape: Shape, channels: tuple[int, int], dense: int, steps: int, rate: float, seed: int = 0) -> Program:
    """Two blocks of 3 x 3 convolution, neurons and max pooling, then dense neurons and a vote for ten.

    Thresholds: one for each channel, so that about ``rate`` of what arrives at the next layer of weights are spikes.
    """
    rng = np.random.default_rng(seed)
    nodes: list[Node] = [Input(name="in", shape=shape, operands=())]
    x = (rng.random((steps, 32, *shape)) < rate).astype(F)

    def add(kind: type[Node], name: str, made: Shape, **fields: Any) -> None:
        nodes.append(kind(name=name, shape=made, operands=(Operand(nodes[-1].name),), **fields))

    def neurons(name: str) -> None:
        made = nodes[-1].shape
        program = Program((*nodes, Output(name="o", shape=made, operands=(Operand(nodes[-1].name),))), 1e-4)
        currents = run(program, x).y
        if len(made) == 3:
            windows = currents.reshape(*currents.shape[:3], made[1] // 2, 2, made[2] // 2, 2)
            currents = windows.max(axis=(4, 6))
        rows = np.moveaxis(currents, 2, 0).reshape(made[0], -1)
        theta = np.maximum(np.quantile(rows, 1 - rate, axis=1), 0.05).astype(F)
        decay = np.asarray(0.5, F)
        add(Neuron, name, made, decay=decay, threshold=theta.reshape(-1, *(1,) * (len(made) - 1)))

    size = shape
    for block, out in enumerate(channels, start=1):
        weight = _on_grid(rng.normal(0, (2 / (9 * size[0])) ** 0.5, (out, size[0], 3, 3)))
        window: dict[str, Any] = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
        made = (out, *size[1:])
        add(Conv, f"conv{block}", made, weight=weight, bias=None, input_shape=size, **window)
        neurons(f"lif{block}")
        pooled = (out, size[1] // 2, size[2] // 2)
        two: dict[str, Any] = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0)), "divisor": 1}
        add(Pool, f"pool{block}.sum", pooled, input_shape=made, **two)
        add(Neuron, f"pool{block}", pooled, decay=None, threshold=np.asarray(0.5, F))
        size = pooled
    flat = int(np.prod(size))
    add(Reshape, "flat", (flat,), input_shape=size)
    weight = _on_grid(rng.normal(0, (2 / flat) ** 0.5, (dense, flat)))
    add(Linear, "fc", (dense,), weight=weight, bias=None, input_shape=(flat,))
    neurons("lif3")
    vote = np.kron(np.eye(10), np.full((1, dense // 10), 10 / dense)).astype(F)
    add(Linear, "vote", (10,), weight=vote, bias=None, input_shape=(dense,))
    add(Output, "out", (10,))
    return Program(tuple(nodes), 1e-4)


def _on_grid(weight: NDArray[Any]) -> NDArray[np.float32]:
    """Multiples of 1/1024, as folding on the exact grid leaves them, so that every form can be exported."""
    return (np.round(weight * 1024) / 1024).astype(F)


def cases() -> dict[str, tuple[Program, NDArray[Any]]]:
    """Each drawn network and its input."""
    drawn = {"digits size, 40 %": ((1, 8, 8), 0.4)}
    drawn |= {f"MNIST size, {100 * rate:g} %": ((1, 28, 28), rate) for rate in (0.05, 0.1, 0.2, 0.5)}
    return {
        name: (network(shape, (32, 64), 100, 4, rate), spikes(shape, rate)) for name, (shape, rate) in drawn.items()
    }


def spikes(shape: Shape, rate: float, steps: int = 4) -> NDArray[np.float32]:
    """Drawn input ``[T, B, *shape]``."""
    return (np.random.default_rng(1).random((steps, SAMPLES, *shape)) < rate).astype(F)


def trained(folder: Path) -> tuple[Program, NDArray[Any]]:
    """A run's network and its first test samples."""
    x, _ = read_input(folder / "test.npz")
    return lower(read_nir(folder / "net.nir")), x[:, :SAMPLES].astype(F)


def measure(
    networks: Mapping[str, tuple[Program, NDArray[Any]]], rounds: int, snntorch: Path | None = None
) -> dict[str, Any]:
    """Times of every case, JSON-ready. snntorch: a Python that has it."""
    torch.set_num_threads(1)
    before, rows = os.getloadavg()[0], []
    for name, (program, x) in networks.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        with TemporaryDirectory() as folder:
            times = least(contenders(program, x, Path(folder)), rounds)
            if snntorch is not None:
                times[SNNTORCH] = in_snntorch(snntorch, program, x, Path(folder), rounds)
        rows.append({"network": name, "steps": len(x), "rates": rates(program, x), "seconds": times})
    return {
        "schema_version": 2,
        "rounds": rounds,
        "load": [before, os.getloadavg()[0]],
        "compiler": _version(),
        "processor": llvmlite.binding.get_host_cpu_name(),
        "rows": [row | {"ratios": ratios(row["seconds"])} for row in rows],
    }


Contender = tuple[Callable[[Any], Any], Sequence[Any]]
"""A function of one sample, and the samples in the form that it takes."""


def least(entrants: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender's samples, each the least of its turns."""
    times = {name: [math.inf] * len(samples) for name, (_, samples) in entrants.items()}
    for _ in range(rounds):
        for name, (call, samples) in entrants.items():
            for i, given in enumerate(samples):
                start = time.perf_counter()
                call(given)
                times[name][i] = min(times[name][i], time.perf_counter() - start)
    return times


def contenders(program: Program, x: NDArray[Any], folder: Path) -> dict[str, Contender]:
    """Build the contenders."""
    CFormat().write(program, folder / "c", COptions(x=x))
    graph, _ = read_folder(folder / "c")
    whole = to_integers(x, graph.input.scale)
    expected = simulate(graph, whole).y
    made: dict[str, Contender] = {}
    for name, options in BUILDS.items():
        call = _library(folder, name, options, len(x), expected.shape[2])
        samples = [(ctypes.c_int32 * whole[:, i].size)(*whole[:, i].flat) for i in range(x.shape[1])]
        for i, given in enumerate(samples):
            if not np.array_equal(np.frombuffer(call(given), np.int32), expected[:, i].reshape(-1)):
                raise SystemExit(f"{name} does not compute what its integers say")
        made[name] = call, samples
    inputs = [np.ascontiguousarray(x[:, i : i + 1]) for i in range(x.shape[1])]
    for name, precision in ((FLOAT, "float32"), (INTEGER, "integer")):
        path = folder / f"{precision}.onnx"
        try:
            export_onnx(program, path, precision=precision, record=False)  # type: ignore[arg-type]
        except UnsupportedError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        model = OnnxModel.load(path, threads=1)
        session, entry = model.session, model.session.get_inputs()[0].name
        made[name] = partial(session.run, None), [{entry: given} for given in inputs]
    made[EAGER] = partial(eager, program), [torch.from_numpy(given) for given in inputs]
    return made


def _library(folder: Path, name: str, options: tuple[str, ...], steps: int, outputs: int) -> Callable[[Any], Any]:
    """The C as a function of one sample, a ctypes array ``[T, *shape]``, in this process."""
    compiler = find_compiler()
    assert compiler is not None
    place = folder / f"build{len(list(folder.iterdir()))}"
    place.mkdir()
    (place / "run.c").write_text(WRAPPER)
    files = [str(place / "run.c"), str(folder / "c" / "net.c"), "-I", str(folder / "c")]
    flags = ["-std=c99", *options, "-shared", "-fPIC", "-o", str(place / "net.so")]
    run_program([compiler, *flags, *files], b"", what=name)
    function = ctypes.CDLL(str(place / "net.so")).run
    function.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p]

    output = ctypes.c_int32 * (steps * outputs)

    def call(given: Any) -> Any:
        y = output()
        function(given, steps, y)
        return y

    return call


@torch.inference_mode()
def eager(program: Program, x: torch.Tensor) -> torch.Tensor:
    """A chain in plain torch: synapses over all steps at once, neurons step by step."""
    for node in program.nodes:
        steps = x.shape[:2]
        if isinstance(node, Conv | Linear):
            weight, bias = torch.from_numpy(node.weight), None if node.bias is None else torch.from_numpy(node.bias)
        if isinstance(node, Conv):
            x = functional.conv2d(x.flatten(0, 1), weight, bias, padding=1).unflatten(0, steps)
        elif isinstance(node, Linear):
            x = functional.linear(x, weight, bias)
        elif isinstance(node, Pool):
            x = functional.max_pool2d(x.flatten(0, 1), 2).unflatten(0, steps)
        elif isinstance(node, Reshape):
            x = x.flatten(2)
        elif isinstance(node, Neuron) and node.decay is not None and node.threshold is not None:
            theta, v, spikes = torch.from_numpy(node.threshold), torch.zeros_like(x[0]), []
            for now in x:
                v = float(node.decay) * v + now
                spike = v > theta
                v = v * ~spike
                spikes.append(spike)
            x = torch.stack(spikes).to(x.dtype)
    return x


def in_snntorch(python: Path, program: Program, x: NDArray[Any], folder: Path, rounds: int) -> list[float]:
    """Seconds of each sample in snnTorch's own environment, after the others; raises SystemExit if its output differs.

    Its `Leaky` has the same rule (reset to 0 in the step of the spike), so on this grid its votes are the reference's.
    """
    arrays: dict[str, NDArray[Any]] = {"x": x.astype(F)}
    kinds: list[str] = []
    for node in program.nodes:
        kind = {Conv: "conv", Linear: "linear", Pool: "pool", Reshape: "reshape", Neuron: "neuron"}.get(type(node))
        if kind is None or (isinstance(node, Neuron) and node.decay is None):  # the neuron of a max pool
            continue
        for name in ("weight", "bias", "decay", "threshold"):
            if getattr(node, name, None) is not None:
                arrays[f"{len(kinds)}.{name}"] = np.asarray(getattr(node, name), F)
        kinds.append(kind)
    write_npz(folder / "chain.npz", arrays | {"kinds": np.array(kinds)})
    call = [str(python), "-m", "benchmarks.peers.snntorch_single", str(folder / "chain.npz"), str(rounds)]
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(call, cwd=ROOT, env=settings, stdout=subprocess.PIPE, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    if not np.allclose(answer["y"], run(program, x.astype(F)).y.reshape(-1), atol=1e-5):
        raise SystemExit("snnTorch does not compute what the reference does")
    seconds: list[float] = answer["seconds"]
    return seconds


def rates(program: Program, x: NDArray[Any]) -> dict[str, float]:
    """Spikes per neuron and step, by spiking node."""
    recorded = run(program, x, record=[node.name for node in program.spiking]).recorded
    return {name: float(spikes.mean()) for name, spikes in recorded.items()}


def ratios(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Mean time of each contender over that of the C compiled for this machine."""
    return {name: fmean(values) / fmean(times[NATIVE]) for name, values in times.items()}


def _version() -> str:
    compiler = find_compiler()
    assert compiler is not None
    return run_program([compiler, "--version"], b"", what=compiler).decode().splitlines()[0]


NOT_HERE = """\
snn-mlir 1.0.0 is not compared: its packages lack the compiler (snn-opt), and it has one threshold a layer and no max
pooling.
"""


def table(data: Mapping[str, Any]) -> str:
    """Markdown."""
    names = [*BUILDS, FLOAT, INTEGER, EAGER]
    names += [SNNTORCH] if any(SNNTORCH in row["seconds"] for row in data["rows"]) else []
    lines = ["# The C target's speed", "", "Made by `python -m benchmarks.c_speed` ([what is compared](../c.md)).", ""]
    lines += ["| network | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in data["rows"]:
        micro = {name: 1e6 * fmean(times) for name, times in row["seconds"].items()}
        cells = [f"{micro[name]:.0f} µs ({row['ratios'][name]:.1f}x)" if name in micro else "-" for name in names]
        lines.append(f"| {row['network']} | " + " | ".join(cells) + " |")
    load = max(data["load"])
    quiet = "" if load < QUIET else " - the machine was not quiet"
    lines += [
        "",
        f"One thread, batch 1, the least of {data['rounds']} rounds, {data['compiler']}, {data['processor']}, "
        f"load {load:.1f}{quiet}.",
    ]
    return "\n".join(lines) + "\n\n" + NOT_HERE


def plot(data: Mapping[str, Any], folder: Path) -> None:
    """c-speed.svg: time over the spike rate of the networks of MNIST's size."""
    rows = {float(row["network"].split()[2]): row for row in data["rows"] if row["network"].startswith("MNIST")}
    with mpl.rc_context({"svg.hashsalt": "stl-deploy", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(5, 2.8), layout="constrained")
        axes = figure.subplots()
        for name in (*BUILDS, FLOAT, INTEGER):
            axes.plot(list(rows), [1e6 * fmean(row["seconds"][name]) for row in rows.values()], "o-", label=name)
        axes.set(xlabel="spikes in what arrives, %", ylabel="µs a sample of 4 steps", ylim=(0, None), xlim=(0, None))
        axes.legend(frameon=False, ncols=2)
        with whole_file(folder / "c-speed.svg") as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders to time, too")
    parser.add_argument("--rounds", type=int, default=51)
    parser.add_argument(
        "--snntorch", nargs="?", type=Path, const=Path(), help="also snnTorch: its Python, else an environment is made"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder for c-speed.json, .md and .svg")
    arguments = parser.parse_args()
    if find_compiler() is None:
        raise SystemExit("no C compiler found; install one, for example gcc")
    python: Path | None = arguments.snntorch
    if python == Path():
        python = environment("snntorch", Path.home() / ".cache" / "stl-deploy" / "conformance")
    data = measure({run.name: trained(run) for run in arguments.runs} | cases(), arguments.rounds, python)
    print(table(data))
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        write_text(arguments.output / "c-speed.json", json.dumps(data, indent=1) + "\n")
        write_text(arguments.output / "c-speed.md", table(data) + "\n![Time over the spike rate](c-speed.svg)\n")
        plot(data, arguments.output)


if __name__ == "__main__":
    main()
