"""Training steps on a CUDA card over T, with memory: ours, the ReLU floor and peers.

``make gpu`` runs it on a machine with a card and writes gpu-speed.json and .md with the card's name. Ours are by
Triton's kernels and, beside them, by torch's scan. A scan that torch.compile makes of plain operations has a floor of
its own, and so has each peer, in an environment of its own (SpikingJelly by each of its implementations that is there),
so ratios to the floor compare. Without a card it ends with one sentence; ``--device cpu`` runs it small, to test the
bench itself (by what the CPU has).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import on_card
from benchmarks.training import Contestant, network, trace_bytes
from benchmarks.training_report import markdown
from benchmarks.workloads import TINY, WORKLOADS, AuthorsNeuron, Shape, Stack, Workload, floor
from stl_deploy._util.files import write_json, write_text
from stl_deploy._util.untrusted import one_line
from stl_deploy.nn import cuda
from stl_deploy.nn.network import Network
from tests.conformance.environments import environment

ROOT = Path(__file__).parents[1]
STEPS = (4, 16, 64)
IMPLEMENTATIONS: dict[str, dict[str, dict[str, str]]] = {
    "spikingjelly": {name: {"SJ_LIF_CUDA_IMPLEMENTATION": name} for name in ("cuda", "triton", "torch")},
    "snntorch": {"torch": {}},
}
"""Each peer's ways on a card, and the environment variables that ask for them (SpikingJelly 2.0's, of its LIF; its own
``cuda`` is compiled where it is installed from source with SJ_BUILD_NATIVE_CUDA=1, and fails otherwise)."""
BY_TORCH = "ours, torch's scan"
COMPILED = "plain scan, torch.compile"
Found = dict[str, Any]

_AT_MOST_THE_FLOOR = 1.15
_FASTER_THAN_SPIKINGJELLY = 1.3


class CompiledScan(nn.Module):
    """The authors' neuron, its loop over a sequence ``[T, B, *shape]`` made one by torch.compile."""

    def __init__(self, shape: Shape, **options: Any) -> None:
        super().__init__()
        self.neuron = AuthorsNeuron(shape)
        self.compile(fullgraph=True, dynamic=False, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes from rest."""
        self.neuron.begin()
        return torch.stack([self.neuron(step) for step in x.unbind(0)])


def measure(workload: Workload, device: str, rounds: int) -> dict[str, on_card.Row]:
    """Rows of `benchmarks.on_card` of the floor and ours, in float32 and with synapses in bfloat16."""
    kind = torch.device(device).type
    contestants = {BY_TORCH: Contestant(network, environment={cuda.SWITCH: "0"})}
    for name, settings in (("", {}), (", bfloat16", {"bfloat16": True})):
        contestants["floor" + name] = Contestant(floor, **settings)
        if kind == "cuda":
            contestants["ours" + name] = Contestant(network, environment={cuda.SWITCH: "1"}, **settings)
    entries = {
        name: (partial(entry.build, workload), partial(_rates, entry, kind)) for name, entry in contestants.items()
    }
    return on_card.measure(workload, entries, device, rounds)


def compiled(workload: Workload, device: str, rounds: int) -> Found:
    """`COMPILED` beside a floor: ``rows``, or why there are none, ``failed``."""
    builds = {"floor": partial(floor, workload), COMPILED: lambda: Stack(workload, CompiledScan, "folded")}
    entries = {name: (build, on_card.rates_of) for name, build in builds.items()}
    torch._dynamo.reset()  # else earlier workloads count: one function is compiled for eight shapes at most
    try:
        return {"rows": on_card.measure(workload, entries, device, rounds)}
    except Exception as error:  # whatever a compiler raises
        return {"failed": one_line(error)}


def _rates(contestant: Contestant, kind: str, model: nn.Module) -> on_card.Rates:
    plain: on_card.Rates = on_card.rates_of(model) if isinstance(model, Stack) else lambda x: _scores(model, x)

    def rates(x: Tensor) -> Tensor:
        with contestant.settings(kind):
            return plain(x)

    return rates


def _scores(model: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(model, Network)
    return model.scores(model(x))


def peer(name: str, cache: Path, workload: str, device: str, steps: int, rounds: int) -> Found:
    """Results of a peer's worker on the card, by implementation; ``failed`` gives the reason where there are none."""
    try:
        python = environment(name, cache)
    except subprocess.CalledProcessError as error:
        return {way: {"failed": f"its environment could not be made ({error})"} for way in IMPLEMENTATIONS[name]}
    call = [python, "-m", "benchmarks.peers.worker", name, workload, "--card", device]
    rows: Found = {}
    for implementation, settings in IMPLEMENTATIONS[name].items():
        given = [*call, str(steps), str(rounds)]
        done = subprocess.run(
            given, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, check=False
        )
        lines = (done.stderr if done.returncode else done.stdout).splitlines() or [f"exit status {done.returncode}"]
        rows[implementation] = {"failed": lines[-1]} if done.returncode else json.loads(lines[-1])
    return rows


def goals(workload: Workload, rows: Mapping[str, on_card.Row], peers: Mapping[str, Found]) -> dict[str, Found]:
    """Compare the measurements with each goal that they bear on.

    Memory: at most the floor's and a byte for each neuron, step and sample.
    """
    if "ours" not in rows:
        return {}
    ours = rows["ours"]
    allowed = 1 + trace_bytes(workload) / 4 / rows["floor"]["bytes"]
    reached: list[tuple[str, float, float, Callable[[float, float], bool]]] = [
        ("a step, floors", ours["seconds_over_floor"], _AT_MOST_THE_FLOOR, float.__le__),
        ("memory, floors", ours["bytes_over_floor"], allowed, float.__le__),
    ]
    theirs = [
        row["seconds_over_floor"]
        for way in peers.get("spikingjelly", {}).values()
        for form, row in way.get("rows", {}).items()
        if form != "floor"
    ]
    if theirs:
        times = min(theirs) / ours["seconds_over_floor"]
        reached.append(("times as fast as SpikingJelly's fastest", times, _FASTER_THAN_SPIKINGJELLY, float.__ge__))
    return {name: {"reached": now, "goal": goal, "met": holds(now, goal)} for name, now, goal, holds in reached}


def page(data: Found) -> str:
    """docs/measurements/gpu-speed.md."""
    head = ("workload", "contestant", "ms a training step", "floors", "MiB on top", "floors")
    wanted = ("workload", "goal", "reached", "wanted", "met")
    rows, reached, failed = [], [], []
    for where, measured in data["workloads"].items():
        for name, result in _results(measured):
            rows += [(where, *_cells(", ".join((*name, form)), row)) for form, row in result.get("rows", {}).items()]
            failed += [f"- {where}, {', '.join(name)}: {result['failed']}"] if "failed" in result else []
        for goal, goal_row in measured["goals"].items():
            cells = (f"{goal_row['reached']:.2f}", f"{goal_row['goal']:.2f}", "yes" if goal_row["met"] else "no")
            reached.append((where, goal, *cells))
    blocks = [
        "# Training on a GPU",
        f"Made by `make gpu` on {data['device']}, torch {data['torch']}; measured, medians of contestants that take "
        "turns. Floor: the same layers as an ANN with time folded into the batch; float32 without TF32.",
        markdown(head, rows),
        *(["## Goals", markdown(wanted, reached)] if reached else []),
        *(["## What did not run", "\n".join(failed)] if failed else []),
    ]
    return "\n\n".join(blocks) + "\n"


def _results(measured: Found) -> list[tuple[tuple[str, ...], Found]]:
    """Measurements of a workload by name, each with a floor of its own."""
    peers = [((one, way), result) for one, ways in measured["peers"].items() for way, result in ways.items()]
    return [((), {"rows": measured["rows"]}), (("compiled",), measured["compiled"]), *peers]


def _cells(name: str, row: on_card.Row) -> tuple[str, ...]:
    memory = (f"{row['bytes'] / 2**20:.1f}", f"{row['bytes_over_floor']:.2f}") if "bytes" in row else ("", "")
    return name, f"{row['seconds'] * 1e3:.2f}", f"{row['seconds_over_floor']:.2f}", *memory


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--peer", nargs="*", choices=list(IMPLEMENTATIONS), default=list(IMPLEMENTATIONS))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "stl-deploy" / "conformance")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/measurements/gpu-speed.json"))
    arguments = parser.parse_args()
    carded = arguments.device.startswith("cuda")
    if carded and not torch.cuda.is_available():
        raise SystemExit("no CUDA device found: this bench needs one (--device cpu tests the bench itself)")
    data: Found = {
        "device": torch.cuda.get_device_name(torch.device(arguments.device)) if carded else "the CPU",
        "torch": torch.__version__,
        "evidence": "measured",
        "workloads": {},
    }
    for name, sized in (WORKLOADS if carded else {"tiny": TINY}).items():
        for steps in STEPS:
            where, workload = f"{name}, T = {steps}", replace(sized, steps=steps)
            row: Found = {"rows": measure(workload, arguments.device, arguments.rounds), "peers": {}}
            row["compiled"] = compiled(workload, arguments.device, arguments.rounds)
            _free()
            for framework in arguments.peer if carded else ():
                row["peers"][framework] = peer(
                    framework, arguments.cache, name, arguments.device, steps, arguments.rounds
                )
            row["goals"] = goals(workload, row["rows"], row["peers"])
            data["workloads"][where] = row
            write_json(arguments.output, data)
            write_text(arguments.output.with_suffix(".md"), page(data))
            print(where, flush=True)
    print(page(data))


def _free() -> None:
    """Leave the card's memory to others."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
