"""The matrix as JSON and as a table for the docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conformance.cases import ROWS, SEEDS
from tests.conformance.environments import REQUIREMENTS

_HEAD = """# Conformance: what other frameworks mean by a NIR file

Every row was run: networks with random weights, {seeds} seeds, each once with weights and thresholds on a coarse
grid, so that potentials often lie exactly on the threshold, and once with real-valued weights; 25 steps, 4 samples.
The output of every neuron of every layer at every step is compared. *Read*: the framework builds the network, runs it
and writes its NIR file; stl-deploy reads that file in the dialect named and runs it. *Write*: stl-deploy restates a
network of its own for the framework (`export --to nir --for ...`), which loads and runs it.

Repeat it with `python -m tests.conformance`. Versions: {versions}.
"""


_COLUMNS = ("framework", "dialect", "net", "options", "outputs compared", "spikes in them", "match", "why not")


def merged(docs: Path, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The new results and, for rows that were not run, the ones written before, in the order of the rows."""
    path = docs / "conformance.json"
    old = json.loads(path.read_text())["rows"] if path.is_file() else []
    found = {_key(row): row for row in [*old, *results]}
    wanted = [
        _key(
            {
                "framework": r.framework,
                "direction": r.direction,
                "dialect": r.preset,
                "net": r.net,
                "options": r.options,
            }
        )
        for r in ROWS
    ]
    return [found[key] for key in wanted if key in found]


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return (row["framework"], row["direction"], row["dialect"], row["net"], json.dumps(row["options"]))


def write(rows: list[dict[str, Any]], docs: Path) -> None:
    """Write conformance.json and conformance.md."""
    docs.mkdir(exist_ok=True)
    versions = {
        path.stem: dict(line.split("==") for line in path.read_text().split())
        for path in REQUIREMENTS.glob("*.txt")
        if not path.stem.endswith(("-oldest", "dcls"))  # captures alone are held with these
    }
    data = {"seeds": list(SEEDS), "versions": dict(sorted(versions.items())), "rows": rows}
    (docs / "conformance.json").write_text(json.dumps(data, indent=1) + "\n")
    shown = ", ".join(f"{name} {pins[name]}" for name, pins in sorted(versions.items()))
    parts = [_HEAD.format(seeds=len(SEEDS), versions=shown)]
    for direction, title in (("read", "Read: their file, their spikes"), ("write", "Write: our file, their spikes")):
        parts += [f"\n## {title}\n", f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
        parts += [_line(row) for row in rows if row["direction"] == direction]
    (docs / "conformance.md").write_text("\n".join(parts) + "\n")


def _line(row: dict[str, Any]) -> str:
    match = "-" if row["match_percent"] is None else f"{row['match_percent']:.3f} %"
    match = "100 %" if row["match_percent"] == 100 else match
    options = ", ".join(f"{key}={value}" for key, value in row["options"].items())
    why = "; ".join(part for part in (row["reason"], row["remedy"]) if part)
    compared, spikes = (f"{row[key]:,}" if row["compared"] else "-" for key in ("compared", "spikes"))
    cells = (row["framework"], row["dialect"], row["net"], options, compared, spikes, match, why)
    return f"| {' | '.join(cells)} |"
