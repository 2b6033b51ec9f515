"""Training steps on a CUDA card: our Triton scan, torch's scan and the ReLU floor, over T, with peak memory.

``make gpu`` runs it on a machine with a card and writes docs/gpu-speed.json with the card's name. Without a card it
ends with one sentence; ``--device cpu`` runs it small, to test the bench itself (torch's scan alone).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.timing import interleave
from benchmarks.workloads import CLASSES, TINY, WORKLOADS, Stack, Workload, floor
from stl_deploy._util.files import write_json
from stl_deploy.nn import cuda
from stl_deploy.nn.neuron import LIF

STEPS = (4, 16, 64)


def _switched(step: Callable[[], None], kernels: bool) -> Callable[[], None]:
    def run() -> None:
        os.environ[cuda.SWITCH] = "1" if kernels else "0"
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def _step(workload: Workload, model: nn.Module, device: str) -> Callable[[], None]:
    x, labels = (tensor.to(device) for tensor in workload.data())
    targets = functional.one_hot(labels, CLASSES).to(x.dtype)
    optimiser = torch.optim.Adam(model.parameters())

    def step() -> None:
        votes: Tensor = model(x)
        loss = functional.mse_loss(votes.mean(0), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def measure(workload: Workload, device: str, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds and peak bytes of one training step of each, and their ratios to the floor's."""
    stacks: dict[str, tuple[Stack, bool]] = {
        "floor": (floor(workload), False),
        "torch scan": (Stack(workload, LIF, "folded"), False),
    }
    if device.startswith("cuda"):
        stacks["triton scan"] = (Stack(workload, LIF, "folded"), True)
    calls = {
        name: _switched(_step(workload, stack.to(device), device), kernels) for name, (stack, kernels) in stacks.items()
    }
    seconds = {name: sorted(times)[len(times) // 2] for name, times in interleave(calls, rounds).items()}
    peaks = {name: _peak(call, device) for name, call in calls.items()}
    return {
        name: {
            "seconds": seconds[name],
            "peak_bytes": peaks[name],
            "time_over_floor": seconds[name] / seconds["floor"],
            "memory_over_floor": peaks[name] / peaks["floor"] if peaks["floor"] else float("nan"),
        }
        for name in calls
    }


def _peak(call: Callable[[], None], device: str) -> int:
    if not device.startswith("cuda"):
        return 0
    torch.cuda.reset_peak_memory_stats()
    call()
    return int(torch.cuda.max_memory_allocated())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/gpu-speed.json"))
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("no CUDA device found: this bench needs one (--device cpu tests the bench itself)")
    on_card = arguments.device.startswith("cuda")
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(0) if on_card else "cpu",
        "torch": torch.__version__,
        "evidence": "measured",
        "workloads": {},
    }
    chosen = WORKLOADS if on_card else {"tiny": TINY}
    for name, workload in chosen.items():
        for steps in STEPS:
            rows = measure(replace(workload, steps=steps), arguments.device, arguments.rounds)
            found["workloads"][f"{name}, T = {steps}"] = rows
            for way, row in rows.items():
                print(
                    f"{name} T={steps:3} {way:12} {row['seconds'] * 1e3:9.2f} ms {row['time_over_floor']:6.2f} x floor"
                )
    write_json(arguments.output, found)


if __name__ == "__main__":
    main()
