"""Training and inference against the floor, the same layers as an ANN with time folded into the batch.

    python -m benchmarks.training [--rounds 7] [--threads N] [--workload W1 ...] [--contestant NAME ...] [-o OUT]
    python -m benchmarks.training --part sizes          # alone, on the same machine: the rest of the page stays

Every contestant takes one step per round, in turn, so that what else the machine does hits all alike; the ratio is
of medians. A training step is forward, backward and Adam. The authors' algorithm (github sunhongze/STL-SNN) is
re-expressed here: a loop over time through all layers, batch norm of each step apart, plain autograd, plain Adam.
Peak memory is that of a process of its own that takes two training steps, less what it holds before them; the median
of three.
`As met` are seconds in a process of its own as a user starts it: ours with the settings of allocator and OpenMP that
the command line makes, the authors' algorithm with the C library's defaults. ``ours`` takes what training takes by
itself: the fastest setting for float32 products with float32's rounding (`stl_deploy.training.matmul_precision`);
``our products`` gives it to the floor, ``highest`` takes it from ours, ``bfloat16`` is asked for.
Writes training-speed.json, .md and .svg; ``python -m benchmarks.peers`` adds other frameworks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import llvmlite.binding
import torch
from torch import Tensor, nn

from benchmarks import AS_IT_COMES
from benchmarks.training_report import STEM, record, table
from benchmarks.workloads import (
    TINY,
    WORKLOADS,
    Stack,
    Workload,
    against_floor,
    authors,
    floor,
    inference,
    interleaved,
    peak_of,
    small_mlp,
    training_step,
)
from stl_deploy._util.files import read_json
from stl_deploy._util.system import keep_large_buffers
from stl_deploy.config.schema import MatmulChoice, RunConfig
from stl_deploy.nn.network import Network
from stl_deploy.training.matmul_precision import matmul_precision, settle

SIZES = {
    "T": (4, 8, 16, 32, 64, 128, 256),
    "batch": (8, 16, 32, 64, 128, 256, 512),
    "width": (32, 64, 128, 256, 512, 1024, 2048),
    "depth": (1, 2, 4, 8, 16, 32),
}
DENSITIES = (0.05, 0.2, 0.5, 1.0)
PARTS = ("workloads", "sizes", "density")
_AS_MET = ("authors' algorithm", "ours")
_TURNS = 3


def network(workload: Workload, **train: Any) -> Network:
    """The workload as a network of ours, a learned threshold per neuron; ``train`` goes to the configuration."""
    data = {
        "dataset": {"name": "mnist", "T": workload.steps},
        "network": workload.layers,
        "neuron": {"threshold": 1.0, "conv_granularity": "neuron"},
        "train": {"mode": "stl", **train},
    }
    torch.manual_seed(0)
    return Network(RunConfig.model_validate(data), workload.shape, 10)


@dataclass(frozen=True)
class Contestant:
    """A contestant's construction and settings.

    Adam fused or plain, environment variables, precision of float32 products, synapses in bfloat16 by autocast.
    """

    build: Callable[[Workload], nn.Module]
    fused_adam: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    matmul: MatmulChoice = "highest"
    bfloat16: bool = False

    @contextmanager
    def settings(self, device: str = "cpu") -> Iterator[None]:
        """Its settings, inside, on a device of this type."""
        before = {key: os.environ.get(key) for key in self.environment}
        os.environ.update(self.environment)
        try:
            with (
                matmul_precision(settle(self.matmul, device=device)),
                torch.autocast(device, torch.bfloat16, enabled=self.bfloat16),
            ):
                yield
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})

    def steps(self, workload: Workload) -> dict[str, Callable[[], None]]:
        """A training step and an inference on a workload."""
        model = self.build(workload)
        train = training_step(workload, model, _rates(model), fused_adam=self.fused_adam)
        return {"train": self._set(train), "infer": self._set(inference(workload, model))}

    def _set(self, step: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            with self.settings():
                step()

        return run


CONTESTANTS: dict[str, Contestant] = {
    "floor": Contestant(floor),
    "floor, our products": Contestant(floor, matmul="auto"),
    "floor, bfloat16": Contestant(floor, bfloat16=True),
    "ours": Contestant(network, matmul="auto"),
    "ours, highest": Contestant(network),
    "ours, bfloat16": Contestant(network, matmul="auto", bfloat16=True),
    "ours, torch only": Contestant(network, environment={"STL_DEPLOY_FUSED": "0"}, matmul="auto"),
    "authors' algorithm": Contestant(authors, fused_adam=False),
}
"""By name; add a line to compare more."""


def _rates(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return model.rates if isinstance(model, Stack) else lambda x: model(x).mean(0)


def cost_over(size: str, values: Sequence[int], rounds: int, *, memory: bool) -> dict[str, Any]:
    """Median seconds, and peak bytes, of our training step on a small MLP, for each value of one of its sizes."""
    results: dict[str, Any] = {"seconds": {}, "peak_bytes": {}}
    for value in values:
        step = CONTESTANTS["ours"].steps(small_mlp(**{size: value}))["train"]
        results["seconds"][str(value)] = interleaved({"ours": step}, rounds)["ours"]
        if memory:
            results["peak_bytes"][str(value)] = apart("--peak", f"{size}={value}", "ours")
    return results


def by_density(workload: str, densities: Sequence[float], rounds: int) -> dict[str, Any]:
    """Our ratios to the floor by the share of the input that spikes: the input's convolution runs by events."""
    results: dict[str, Any] = {"workload": workload, "ratio": {}}
    for density in densities:
        work = replace(WORKLOADS[workload], density=density)
        steps = {name: CONTESTANTS[name].steps(work) for name in ("floor", "ours")}
        seconds = {kind: interleaved({n: s[kind] for n, s in steps.items()}, rounds) for kind in ("train", "infer")}
        results["ratio"][str(density)] = {kind: against_floor(values)["ours"] for kind, values in seconds.items()}
    return results


def peak_memory(workload: str, contestant: str) -> float:
    """Bytes that two training steps need on top, in a process of their own: the median of several, as malloc's luck is.

    One buffer more or less fits between others from run to run, of the same code.
    """
    return statistics.median(apart("--peak", workload, contestant) for _ in range(_TURNS))


def trace_bytes(workload: Workload) -> int:
    """Bytes of one trace of potentials for each LIF layer, in float32."""
    neurons = sum(math.prod(lif.shape) for _, lif in network(workload).lifs)
    return 4 * neurons * workload.steps * workload.batch


def as_met(workload: str, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of training steps and inference, each contestant in processes of its own, in turns; median of medians."""
    seconds: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in _AS_MET} for kind in ("train", "infer")}
    for _ in range(_TURNS):
        for name in _AS_MET:
            for kind in seconds:
                arguments = ("--alone", workload, name, kind, "--rounds", str(rounds))
                threads = ("--threads", str(torch.get_num_threads()))
                seconds[kind][name].append(apart(*arguments, *threads, as_it_comes=name != "ours"))
    return {kind: {name: statistics.median(values) for name, values in by.items()} for kind, by in seconds.items()}


def apart(*arguments: str, as_it_comes: bool = False) -> float:
    """The number that this benchmark prints when it is called so in a process of its own."""
    call = [sys.executable, "-m", "benchmarks.training", *arguments]
    environment = {**os.environ}
    if as_it_comes:
        environment.pop("OMP_WAIT_POLICY", None)
        environment[AS_IT_COMES] = "1"
    return float(subprocess.run(call, check=True, capture_output=True, text=True, env=environment).stdout)


def _print_peak(workload: str, contestant: str) -> None:
    size, _, value = workload.partition("=")
    work = small_mlp(**{size: int(value)}) if value else WORKLOADS[workload]
    keep_large_buffers()
    step, warm_up = (CONTESTANTS[contestant].steps(each)["train"] for each in (work, TINY))
    print(peak_of(step, warm_up))


def _print_alone(workload: str, contestant: str, kind: str, rounds: int) -> None:
    if contestant != "authors' algorithm":
        keep_large_buffers()
    step = CONTESTANTS[contestant].steps(WORKLOADS[workload])[kind]
    print(interleaved({contestant: step}, rounds)[contestant])


def setting() -> dict[str, Any]:
    """Machine and version of torch within which seconds can be compared."""
    processor = llvmlite.binding.get_host_cpu_name()
    return {"machine": {"processor": processor, "threads": torch.get_num_threads()}, "torch": torch.__version__}


def refuse_another_setting(kept: Mapping[str, Any]) -> None:
    """Raises SystemExit where the page is of another machine or torch."""
    for key, value in setting().items():
        if kept[key] != value:
            raise SystemExit(f"the page is of {key} {kept[key]}, this is {value}: measure all parts")


def measure(
    names: Sequence[str],
    rounds: int,
    *,
    contestants: Sequence[str] = tuple(CONTESTANTS),
    memory: bool = True,
    met: bool = True,
    sizes: Mapping[str, Sequence[int]] | None = None,
    densities: Sequence[float] = (),
) -> dict[str, Any]:
    """Everything, JSON-ready."""
    results: dict[str, Any] = {
        **setting(),
        "float32_products": settle("auto"),
        "rounds": rounds,
        "workloads": {},
    }
    chosen = {name: CONTESTANTS[name] for name in dict.fromkeys(("floor", *contestants))}
    for name in names:
        steps = {n: contestant.steps(WORKLOADS[name]) for n, contestant in chosen.items()}
        seconds = {kind: interleaved({n: s[kind] for n, s in steps.items()}, rounds) for kind in ("train", "infer")}
        row: dict[str, Any] = {"seconds": seconds, "ratio": {k: against_floor(v) for k, v in seconds.items()}}
        if memory:
            peaks = {n: peak_memory(name, n) for n in chosen}
            row |= {"peak_bytes": peaks, "peak_ratio": against_floor(peaks)}
            row["peak_ratio_allowed"] = 1 + trace_bytes(WORKLOADS[name]) / peaks["floor"]
        if met:
            row["as_met"] = as_met(name, rounds)
        results["workloads"][name] = row
    results["cost"] = {size: cost_over(size, values, rounds, memory=memory) for size, values in (sizes or {}).items()}
    results["by_density"] = by_density("W2", densities, rounds)
    return results


def joined(kept: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Replace earlier measurements by new ones of the same name."""
    parts = {
        "workloads": {**kept["workloads"], **results["workloads"]},
        "cost": results["cost"] or kept["cost"],
        "by_density": results["by_density"] if results["by_density"]["ratio"] else kept["by_density"],
    }
    return {**kept, **results, **parts}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--workload", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--contestant", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--part", nargs="+", choices=PARTS, help="measure these alone; default: all, anew")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/measurements"))
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.peak:
        _print_peak(*options.peak)
    elif options.alone:
        _print_alone(*options.alone, options.rounds)
    else:
        keep_large_buffers()
        parts = options.part or PARTS
        earlier = options.output / f"{STEM}.json"
        kept = read_json(earlier)["ours"] if options.part and earlier.is_file() else None
        if kept:
            refuse_another_setting(kept)
        measured = measure(
            options.workload if "workloads" in parts else (),
            options.rounds,
            contestants=options.contestant,
            sizes=SIZES if "sizes" in parts else None,
            densities=DENSITIES if "density" in parts else (),
        )
        results = json.loads(json.dumps(measured))  # keys as the file has them
        if kept:
            results = joined(kept, results)
        record(options.output, "ours", results)
        print(table(results))


if __name__ == "__main__":
    main()
