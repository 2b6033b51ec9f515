"""The matrix as JSON and as a table for the docs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.conformance.cases import ROWS, SEEDS
from tests.conformance.environments import REQUIREMENTS

_HEAD = """# Conformance: what other frameworks mean by a NIR file

Every row was run: networks with random weights, {seeds} seeds, each once with weights and thresholds on a coarse
grid, so that potentials often lie exactly on the threshold, and once with real-valued weights; 25 steps, 4 samples.
The output of every neuron of every layer at every step is compared. *Read*: the framework builds the network, runs it
and writes its NIR file; stl-deploy reads that file in the dialect named and runs it. *Write*: stl-deploy restates a
network of its own for the framework (`export --to nir --for ...`), which loads and runs it. A row holds all networks of
one dialect and direction; each network stands in [conformance.json](conformance.json).

Repeat it with `python -m tests.conformance`. Versions: {versions}.
"""


_COLUMNS = ("framework", "dialect", "options", "networks", "every spike equal", "outputs compared", "spikes in them")


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
        parts += [_line(group) for group in _groups(rows, direction)]
        parts += ["\nNot run:\n", *_refusals(rows, direction)]
    (docs / "conformance.md").write_text("\n".join(parts) + "\n")


def _groups(rows: list[dict[str, Any]], direction: str) -> list[list[dict[str, Any]]]:
    """The rows of a direction by framework, dialect and options."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["direction"] == direction:
            groups.setdefault((row["framework"], row["dialect"], json.dumps(row["options"])), []).append(row)
    return list(groups.values())


def _line(group: list[dict[str, Any]]) -> str:
    first, ran = group[0], [row for row in group if row["compared"]]
    options = ", ".join(f"{key}={value}" for key, value in first["options"].items())
    equal = sum(row["match_percent"] == 100 for row in ran)
    counts = (len(ran), equal, sum(row["compared"] for row in ran), sum(row["spikes"] for row in ran))
    return f"| {first['framework']} | {first['dialect']} | {options} | {' | '.join(f'{n:,}' for n in counts)} |"


def _refusals(rows: list[dict[str, Any]], direction: str) -> list[str]:
    """A line per framework and reason, with the networks that it keeps from being run."""
    nets: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["direction"] == direction and not row["compared"]:
            reason = re.sub(r"'n\d+'", "another neuron", row["reason"])
            nets.setdefault((row["framework"], reason), []).append(row["net"])
    return [f"- {name}: {reason} ({', '.join(dict.fromkeys(names))})" for (name, reason), names in nets.items()]
