"""Captures of the frameworks' own nets: ``python -m tests.conformance.capture [--frameworks NAME ...] [--record]``.

Each framework's environment also gets stl-deploy. Writes docs/measurements/capture-conformance.json and .md, and with
``--record`` the golden files of the daily tests. Exit status 1 where a capture is refused or its replay differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.conformance.environments import REQUIREMENTS, environment

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).parent / "capture_worker.py"
GOLDEN = ROOT / "tests" / "tracing" / "golden"
FRAMEWORKS = (
    "snntorch",
    "snntorch-oldest",
    "spikingjelly",
    "spikingjelly-oldest",
    "norse",
    "sinabs",
    "rockpool",
    "dcls",
    "torch",
)
"""Each with the requirements of its newest version, or of the oldest that works with today's torch."""
_ENVIRONMENTS = {"torch": "norse"}
"""Nets in plain torch need nothing else; they run in an environment that is there."""
_MODULES = {"torch": "torch_alone"}
_HEAD = """# Captures of nets of other frameworks, and of papers

Weights, norms and input are drawn. *Replayed*: values of the module and of the captured step in torch's own kernels, in
up to ten runs (x, fresh input, other ranges, batch sizes and numbers of steps); none may differ. *Layers*: spikes of
the folded graph on the reference run, each layer given the module's own inputs. *End to end*: spikes that differ with
nothing given. Of snnTorch and SpikingJelly the newest version and the oldest that runs with this torch as it is (older
ones make tensor classes that torch cannot follow, or have other modules); other versions are captured with a warning.
snnTorch 0.8's Synaptic, given its state by hand, takes its potential for its current, so that it grows by 1.7 a step.
Norse before 1.1 comes as source alone, which is compiled against the torch at hand, and has no rows. Rockpool's
neurons, which count spikes, are Cells.
The nets of torch are papers' networks in plain torch: Yin et al.'s SRNN, whose adaptation starts at the baseline.

Repeat it with `python -m tests.conformance.capture`. Versions: {versions}.

Each net stands in [capture-conformance.json](capture-conformance.json).

| framework | nets | spiking neurons | replayed | differ | layers: spikes | differ | farthest from θ | end to end |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
"""


def main() -> int:
    """Capture the nets asked for; the others keep their committed rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS))
    parser.add_argument("--nets", nargs="+", default=[])
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "stl-deploy" / "conformance")
    parser.add_argument("--record", action="store_true", help="write the golden files of the daily tests")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for framework in options.frameworks:
        python = _with_ours(environment(_ENVIRONMENTS.get(framework, framework), options.cache))
        rows += _work(python, framework, options.nets, GOLDEN if options.record else None)
    path = ROOT / "docs" / "measurements" / "capture-conformance.json"
    old = json.loads(path.read_text())["rows"] if path.is_file() else []
    found = {(row["framework"], row["net"]): row for row in [*old, *rows]}
    write(sorted(found.values(), key=lambda row: FRAMEWORKS.index(row["framework"])), path)
    return int(any(_fails(row) for row in rows))


def _fails(row: dict[str, Any]) -> bool:
    return bool(row.get("replay_differing", 1))


def _with_ours(python: Path) -> Path:
    """Install this checkout where the environment has none of ours, or another one."""
    show = [python, "-c", "import stl_deploy; print(stl_deploy.__file__)"]
    shown = subprocess.run(show, cwd="/", capture_output=True, text=True, check=False).stdout
    if shown.strip() != str(ROOT / "stl_deploy" / "__init__.py"):
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-e", ROOT], check=True)
    return python


def _work(python: Path, framework: str, nets: list[str], golden: Path | None) -> list[dict[str, Any]]:
    if golden is not None:
        golden.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"
        name, _, oldest = framework.partition("-")
        name = _MODULES.get(name, name)
        command = [str(python), str(WORKER), name, str(told), "-" if oldest or golden is None else str(golden), *nets]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return [row | {"framework": framework} for row in json.loads(told.read_text())]


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the rows and the page that shows them."""
    versions = {
        name: dict(
            line.split("==") for line in (REQUIREMENTS / f"{_ENVIRONMENTS.get(name, name)}.txt").read_text().split()
        )
        for name in FRAMEWORKS
    }
    path.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n")
    shown = ", ".join(
        f"{name.partition('-')[0]} {_pinned(name, pins)}" for name, pins in versions.items() if name != "torch"
    )
    torch = next(iter(versions.values()))["torch"]
    lines = [_HEAD.format(versions=f"{shown}; torch {torch}, on the CPU")]
    for framework in FRAMEWORKS:
        captured = [row for row in rows if row["framework"] == framework and "replay_compared" in row]
        if captured:
            lines.append(_line(f"{framework.partition('-')[0]} {_pinned(framework, versions[framework])}", captured))
    lines += [_refusal(row) for row in rows if "replay_compared" not in row]
    path.with_suffix(".md").write_text("".join(lines))


def _pinned(framework: str, pins: dict[str, str]) -> str:
    return pins[framework.partition("-")[0]]


def _line(framework: str, rows: list[dict[str, Any]]) -> str:
    """A framework's captures: sums over its nets, and the farthest that a spike that differs is from its threshold."""
    keys = ("neurons", "replay_compared", "replay_differing", "layers_compared", "layers_differing")
    counts = [f"{sum(row[key] for row in rows):,}" for key in keys]
    farthest = max(row["farthest_ulp"] for row in rows)
    end_to_end = sum(row["end_to_end_differing"] for row in rows)
    return f"| {framework} | {len(rows)} | {' | '.join(counts)} | {farthest:g} ulp | {end_to_end:,} |\n"


def _refusal(row: dict[str, Any]) -> str:
    return f"\nNot captured: {row['framework']}, {row['net']}: {row.get('refused') or row.get('failed')}\n"


if __name__ == "__main__":
    sys.exit(main())
