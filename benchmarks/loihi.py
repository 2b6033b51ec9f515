"""Our integer model against real Lava, the same network files and input, in one run: python -m benchmarks.loihi

Samples per second; malloc's thresholds are raised as `stl-deploy simulate` does. Lava's rate is marginal: two runs of
different length, behind one that is not counted, so that its import and start (4 s and more) fall out. Every spike of
the runs is compared as well. Without Lava's side environment only our model is timed.
Then the paper's MNIST net through our model, with its peak memory (`benchmarks.loihi_mnist`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import loihi_mnist
from benchmarks.timing import QUIET
from stl_deploy._util.system import keep_large_buffers
from stl_deploy.exporters.lava import environment
from stl_deploy.exporters.lava.target import run_lava
from stl_deploy.exporters.netx.convert import run_file
from stl_deploy.exporters.netx.file import write_netx
from stl_deploy.exporters.netx.layers import ConvLayer, DenseLayer, FlattenLayer, InputLayer, NetxFile
from stl_deploy.graph.compare import Tally
from stl_deploy.graph.threads import threads
from stl_deploy.integers.net import IntegerNeuron, Shape

STEPS = 16
RATE = 0.15
"""Share of inputs that are 1."""
ROUNDS = 9
LAVA_SAMPLES = {"mlp": (10, 210), "conv": (2, 42)}


def nets() -> dict[str, NetxFile]:
    """784-512-512-10, and 28x28 through convolutions of 16 and 32 channels to 10."""
    rng = np.random.default_rng(0)
    flat = InputLayer(shape=(784,))
    image = InputLayer(shape=(1, 28, 28))
    first, second = _conv(rng, 16, (1, 28, 28)), _conv(rng, 32, (16, 28, 28))
    return {
        "mlp": NetxFile((flat, _dense(rng, 512, 784), _dense(rng, 512, 512), _dense(rng, 10, 512))),
        "conv": NetxFile((image, first, second, FlattenLayer(), _dense(rng, 10, 32 * 28 * 28, 500))),
    }


def _dense(rng: np.random.Generator, outputs: int, inputs: int, threshold: int | None = None) -> DenseLayer:
    weight = rng.integers(-100, 110, (outputs, inputs), dtype=np.int32)
    return DenseLayer(weight=weight, neuron=_neuron(threshold or 50 * int(np.sqrt(inputs))))


def _conv(rng: np.random.Generator, channels: int, arriving: Shape) -> ConvLayer:
    weight = rng.integers(-100, 110, (channels, arriving[0], 3, 3), dtype=np.int32)
    neuron = _neuron(50 * int(np.sqrt(weight[0].size)))
    return ConvLayer(weight=weight, input_shape=arriving, padding=(1, 1), neuron=neuron)


def _neuron(threshold: int) -> IntegerNeuron:
    return IntegerNeuron(v_decay=2048, threshold=np.array(threshold, np.int32))


def measure(name: str, net: NetxFile, samples: int, lava: bool) -> dict[str, Any]:
    """Rates of one network, and spikes of Lava that our model did not predict."""
    rng = np.random.default_rng(1)
    few, many = LAVA_SAMPLES[name]
    x = (rng.random((STEPS, max(samples, many), *net.input_shape)) < RATE).astype(np.int32)
    timings: dict[str, Any] = {"net": name, "steps": STEPS, "ours": samples / _median(net, x[:, :samples])}
    if lava:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.net"
            write_netx(net, path)
            _lava(net, path, x[:, :few])
            seconds = {count: _lava(net, path, x[:, :count]) for count in (few, many)}
        longer = seconds[many][0] - seconds[few][0]
        timings["lava"] = (many - few) / longer if longer > 0 else None
        timings["ratio"] = timings["ours"] / timings["lava"] if longer > 0 else None
        timings["spikes_differing"] = sum(differing for _, differing in seconds.values())
    return timings


def _median(net: NetxFile, x: NDArray[Any]) -> float:
    times = []
    run_file(net, x)
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run_file(net, x)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _lava(net: NetxFile, path: Path, x: NDArray[Any]) -> tuple[float, int]:
    """Seconds of a run, and spikes that differ from our model's."""
    start = time.perf_counter()
    run = run_lava(path, x, deadline=300)
    seconds = time.perf_counter() - start
    tally = Tally()
    tally.add(run_file(net, x, record=True).spikes, run.spikes)
    return seconds, tally.differing


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; see the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loihi", description=__doc__)
    parser.add_argument("--samples", type=int, default=128, help="samples that our model runs")
    parser.add_argument("--images", type=int, default=1000, help="images through the MNIST net")
    parser.add_argument("--no-lava", action="store_true", help="time our model alone")
    parser.add_argument("--json", action="store_true", help="data instead of a table")
    options = parser.parse_args(arguments)
    lava = not options.no_lava and environment.status().ready
    load = os.getloadavg()[0]
    keep_large_buffers()
    rows = [measure(name, net, options.samples, lava) for name, net in nets().items()]
    paper = loihi_mnist.measure(options.images)
    if options.json:
        print(json.dumps({"load": load, "threads": threads(), "rows": rows, "paper": paper}, indent=2))
        return
    print(f"{threads()} threads, load {load:.1f}{', the machine was busy' if load > QUIET else ''}")
    for row in rows:
        print(f"{row['net']}: samples of {row['steps']} steps per second: ours {row['ours']:.0f}{_beside(row)}")
    print(
        f"{paper['net']}: {paper['images']} images of {paper['steps']} steps in {paper['seconds']:.1f} s, "
        f"peak memory {paper['peak_gb']:.2f} GB"
    )


def _beside(row: dict[str, Any]) -> str:
    if "lava" not in row:
        return ""
    if row["lava"] is None:
        return "   Lava: the machine was too busy to tell (the longer run took less time)"
    return f"   Lava {row['lava']:.1f}   {row['ratio']:.0f}x   {row['spikes_differing']} spikes differ"


if __name__ == "__main__":
    main()
