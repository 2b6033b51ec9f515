"""Measure the peers: ``python -m benchmarks.peers [--peer NAME ...] [--workload W1 ...] [--rounds 7] [-o OUT]``.

Each peer gets a virtual environment of its own (pinned in tests/conformance/requirements) and takes turns there with
the floor, so that ratios to the floor can be compared between environments. Adds to training-speed.json and .md what
``python -m benchmarks.training`` wrote, and prints who wins by how much.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.training_report import record, winners
from benchmarks.workloads import WORKLOADS, against_floor
from stl_deploy._util.files import read_json
from tests.conformance.environments import environment

ROOT = Path(__file__).parents[2]
PEERS = ("snntorch", "spikingjelly", "norse", "sinabs")
_NAMES = {"snntorch": "snnTorch", "spikingjelly": "SpikingJelly", "norse": "Norse", "sinabs": "Sinabs"}
_LARGE = str(2**30)
_SETTINGS = {"MALLOC_MMAP_THRESHOLD_": _LARGE, "MALLOC_TRIM_THRESHOLD_": _LARGE, "OMP_WAIT_POLICY": "passive"}
"""Variables that our command line sets for itself, set for every peer, too."""


def measure(
    python: Path, peer: str, workloads: Sequence[str], rounds: int, threads: int, *, memory: bool
) -> dict[str, Any]:
    """A peer's version, notes and rows, as benchmarks.training has them."""
    report: dict[str, Any] = {"workloads": {}}
    for workload in workloads:
        answer = _ask(python, threads, peer, workload, str(rounds), str(threads))
        report |= {key: answer.pop(key) for key in ("version", "torch", "notes")}
        answer["ratio"] = {kind: against_floor(seconds) for kind, seconds in answer["seconds"].items()}
        if memory:
            answer["peak_bytes"] = {
                form: _ask(python, threads, peer, workload, "--peak", form) for form in answer["seconds"]["train"]
            }
            answer["peak_ratio"] = against_floor(answer["peak_bytes"])
        report["workloads"][workload] = answer
    return report


def _ask(python: Path, threads: int, *arguments: str) -> Any:
    environment = {**os.environ, **_SETTINGS, "OMP_NUM_THREADS": str(threads)}
    call = [str(python), "-m", "benchmarks.peers.worker", *arguments]
    done = subprocess.run(call, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the environments, measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--workload", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "stl-deploy" / "conformance")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "measurements")
    options = parser.parse_args(arguments)
    report = {}
    for peer in options.peer:
        python = environment(peer, options.cache)
        report[_NAMES[peer]] = measure(python, peer, options.workload, options.rounds, options.threads, memory=True)
    record(options.output, "peers", report)
    ours = read_json(options.output / "training-speed.json").get("ours")
    print("\n".join(winners(ours, report)) if ours else "run python -m benchmarks.training to compare with ours")


if __name__ == "__main__":
    main()
