"""Run the public conformance kit through the frameworks' own readers: ``python -m tests.conformance.kit``.

Each framework reads every graph in an environment of its own; the last neurons' spikes are the output. Writes
docs/measurements/nir-conformance.json and docs/measurements/nir-conformance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from stl_deploy.exporters.nir.conformance.builder import Case
from stl_deploy.exporters.nir.conformance.kit import (
    LEVELS,
    STATUSES,
    Expected,
    Outcome,
    agreement,
    cases,
    judge,
    write_case,
)
from tests.conformance.environments import REQUIREMENTS, environment
from tests.conformance.runs import WORKER


class Reader(NamedTuple):
    """One reader: the environment that it runs in, the dialect that it is judged by, its time step, its options."""

    environment: str
    dialect: str
    dt: float = 1e-4
    options: Mapping[str, str] = MappingProxyType({})


READERS = {
    "snntorch": Reader("snntorch", "spec"),
    "snntorch, oldest": Reader("snntorch-oldest", "spec"),
    "norse": Reader("norse", "spec", options={"dt": "1e-4"}),
    "spikingjelly": Reader("spikingjelly", "spikingjelly"),
    "sinabs": Reader("sinabs", "sinabs_reader", 1.0),
    "sinabs, hard reset": Reader("sinabs", "sinabs_hard", 1.0, {"reset": "hard"}),
    "rockpool": Reader("rockpool", "rockpool", 1e-3),
    "spyx": Reader("spyx", "spyx", 1.0),
}
OLDEST = "-oldest"
FEWEST = 5
"""Graphs of one reason that the page names."""
ROOT = Path(__file__).parents[2]


def read_kit(reader: Reader, python: Path, folder: Path) -> list[Outcome]:
    """Run every graph of the kit through one framework's reader."""
    dialect, dt, options = reader.dialect, reader.dt, dict(reader.options)
    module = reader.environment.removesuffix(OLDEST)
    chosen = cases(dt)
    written = [write_case(case, folder, dt) for case in chosen]
    jobs = []
    for case in chosen:
        np.savez(folder / f"{case.name}.in.npz", x=case.x)
        files = {"net": ".in.npz", "file": ".nir", "spikes": ".out.npz"}
        jobs.append({"verb": "load", "options": options} | {k: f"{folder}/{case.name}{v}" for k, v in files.items()})
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [str(python), str(WORKER), module, str(folder / "jobs.json"), str(folder / "done.json")]
    with (folder / "worker.log").open("w") as log:
        subprocess.run(command, check=True, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    told = json.loads((folder / "done.json").read_text())
    return [
        _outcome(case, answer, expected, dialect, folder)
        for case, answer, (_, _, expected) in zip(chosen, told, written, strict=True)
    ]


def _outcome(case: Case, answer: dict[str, str], expected: Expected, dialect: str, folder: Path) -> Outcome:
    if answer["status"] != "done":
        status = "unsupported" if answer["status"] == "unsupported" else "failed"
        return Outcome(case.name, case.level, case.about, status, reason=answer["reason"])  # type: ignore[arg-type]
    with np.load(folder / f"{case.name}.out.npz") as spikes:
        if not spikes.files:
            return Outcome(case.name, case.level, case.about, "failed", reason="no neurons in what was read")
        return judge(case, spikes[f"s{len(spikes.files) - 1}"], expected, dialect)


def table(results: dict[str, Any]) -> Iterator[str]:
    """The page: a row per reader with its equal graphs by level, then what keeps the others from being equal."""
    yield "# NIR conformance kit: results\n"
    yield "Frameworks' own NIR readers on the graphs of `stl-deploy nir-conformance` (measured; remake with"
    yield "`python -m tests.conformance.kit`). Each reader is compared with the dialect named. *Failed*: the reader"
    yield "raised an error or returned another shape. Sinabs 3.1.3 and Rockpool 3.1.0 pin nir 1.0.4, which refuses"
    yield "files with `v_reset`. SpikingJelly 0.0.0.0.14 has no NIR reader. Every graph's result stands in"
    yield "[nir-conformance.json](nir-conformance.json).\n"
    yield "| reader | version | dialect | " + " | ".join((*LEVELS, *STATUSES)) + " |"
    yield "|---|---|---|" + "---:|" * (len(LEVELS) + len(STATUSES))
    for name, result in results.items():
        by_level = [[graph["status"] for graph in result["graphs"] if graph["level"] == level] for level in LEVELS]
        equal = [f"{statuses.count('equal')} of {len(statuses)}" for statuses in by_level]
        counts = Counter(graph["status"] for graph in result["graphs"])
        cells = [name, result["version"], result["dialect"], *equal, *(str(counts[status]) for status in STATUSES)]
        yield f"| {' | '.join(cells)} |"
    yield "\n## Reasons that keep five graphs or more from being equal\n"
    yield "| reader | graphs | reason |\n|---|---:|---|"
    for name, result in results.items():
        reasons = Counter(_reason(graph) for graph in result["graphs"] if graph["status"] != "equal")
        for reason, count in reasons.most_common():
            if count >= FEWEST:
                yield f"| {name} | {count} | {reason} |"


def _reason(graph: dict[str, Any]) -> str:
    """Why a graph is not equal, without what differs between two graphs of one reason: shapes and numbers."""
    if graph["status"] == "differs":
        return "outputs differ"
    return re.sub(r"\d+(x\d+)?", "N", " ".join(graph["reason"].replace("|", "\\|").split()))


def _version(environment: str) -> str:
    lines = (REQUIREMENTS / f"{environment}.txt").read_text().splitlines()
    package = environment.removesuffix(OLDEST)
    found = [line.split("==")[1].split()[0] for line in lines if line.lower().startswith(f"{package}==")]
    return found[0] if found else metadata.version(package)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the frameworks asked for; the others keep their committed results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", nargs="+", choices=list(READERS), default=list(READERS))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "stl-deploy" / "conformance")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "measurements")
    options = parser.parse_args(arguments)
    kept = options.docs / "nir-conformance.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for framework in options.frameworks:
        with tempfile.TemporaryDirectory() as folder:
            reader = READERS[framework]
            outcomes = read_kit(reader, environment(reader.environment, options.cache), Path(folder))
        results[framework] = {
            "version": _version(reader.environment),
            "dialect": reader.dialect,
            "counts": dict(Counter(outcome.status for outcome in outcomes)),
            "agreement": agreement(outcomes),
            "graphs": [outcome.as_dict() for outcome in outcomes],
        }
        print(framework, results[framework]["counts"], results[framework]["agreement"], file=sys.stderr)
    results = {name: results[name] for name in READERS if name in results}
    kept.write_text(json.dumps(results, indent=1) + "\n")
    (options.docs / "nir-conformance.md").write_text("\n".join(table(results)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
