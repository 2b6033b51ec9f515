"""Training steps on a CUDA card over T, with memory: ours, the ReLU floor and peers.

``make gpu`` runs it on a machine with a card and writes docs/gpu-speed.json with the card's name. Ours are by Triton's
kernels and, beside it, by torch's scan. Each peer runs in an environment of its own beside a floor of its own
(SpikingJelly by each of its implementations that is there), so ratios to the floor compare. Without a card it ends with
one sentence; ``--device cpu`` runs it small, to test the bench itself (by what the CPU has).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import on_card
from benchmarks.training import Contestant, network
from benchmarks.workloads import TINY, WORKLOADS, Workload, floor
from stl_deploy._util.files import write_json
from stl_deploy.nn import cuda
from stl_deploy.nn.network import Network
from tests.conformance.environments import environment

ROOT = Path(__file__).parents[1]
STEPS = (4, 16, 64)
IMPLEMENTATIONS: dict[str, dict[str, dict[str, str]]] = {
    "spikingjelly": {name: {"SJ_LIF_CUDA_IMPLEMENTATION": name} for name in ("cuda", "triton", "torch")},
    "snntorch": {"torch": {}},
}
"""Each peer's ways on a card, and the environment variables that ask for them (SpikingJelly 2.0's, of its LIF)."""


def measure(workload: Workload, device: str, rounds: int) -> dict[str, on_card.Row]:
    """Rows of `benchmarks.on_card` of the floor and ours."""
    contestants: dict[str, on_card.Contestant] = {
        "floor": (lambda: floor(workload), on_card.rates_of),
        "ours, torch's scan": (lambda: network(workload), _switched(kernels=False)),
    }
    if device.startswith("cuda"):
        contestants["ours"] = (lambda: network(workload), _switched(kernels=True))
    return on_card.measure(workload, contestants, device, rounds)


def _switched(*, kernels: bool) -> Callable[[nn.Module], on_card.Rates]:
    settings = Contestant(network, environment={cuda.SWITCH: str(int(kernels))}).settings

    def rates(model: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(model, Network)
        with settings():
            return model.scores(model(x))

    return lambda model: partial(rates, model)


def peer(name: str, cache: Path, workload: str, device: str, steps: int, rounds: int) -> dict[str, Any]:
    """What a peer's worker found on the card, by implementation; ``failed`` says why, where one is not to be had."""
    call = [environment(name, cache), "-m", "benchmarks.peers.worker", name, workload, "--card", device]
    found: dict[str, Any] = {}
    for implementation, settings in IMPLEMENTATIONS[name].items():
        given = [*call, str(steps), str(rounds)]
        done = subprocess.run(
            given, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, check=False
        )
        lines = (done.stderr if done.returncode else done.stdout).splitlines() or [f"exit status {done.returncode}"]
        found[implementation] = {"failed": lines[-1]} if done.returncode else json.loads(lines[-1])
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--peer", nargs="*", choices=list(IMPLEMENTATIONS), default=list(IMPLEMENTATIONS))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "stl-deploy" / "conformance")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/gpu-speed.json"))
    arguments = parser.parse_args()
    carded = arguments.device.startswith("cuda")
    if carded and not torch.cuda.is_available():
        raise SystemExit("no CUDA device found: this bench needs one (--device cpu tests the bench itself)")
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(torch.device(arguments.device)) if carded else "cpu",
        "torch": torch.__version__,
        "evidence": "measured",
        "workloads": {},
        "peers": {},
    }
    for name, workload in (WORKLOADS if carded else {"tiny": TINY}).items():
        for steps in STEPS:
            where = f"{name}, T = {steps}"
            rows = found["workloads"][where] = measure(
                replace(workload, steps=steps), arguments.device, arguments.rounds
            )
            _tell(where, rows)
            for one in arguments.peer if carded else ():
                told = peer(one, arguments.cache, name, arguments.device, steps, arguments.rounds)
                found["peers"].setdefault(one, {})[where] = told
                for way, result in told.items():
                    rows = {f"{one}, {way}, {form}": row for form, row in result.get("rows", {}).items()}
                    _tell(where, rows)
                    if not rows:
                        print(f"{where:12} {one}, {way}: {result['failed']}", flush=True)
            write_json(arguments.output, found)


def _tell(where: str, rows: dict[str, on_card.Row]) -> None:
    for name, row in rows.items():
        memory = f"{row['bytes'] / 2**20:9.1f} MiB {row['bytes_over_floor']:6.2f} x" if "bytes" in row else ""
        print(
            f"{where:12} {name:36} {row['seconds'] * 1e3:9.2f} ms {row['seconds_over_floor']:6.2f} x {memory}",
            flush=True,
        )


if __name__ == "__main__":
    main()
