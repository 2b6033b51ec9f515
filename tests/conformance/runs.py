"""Runs rows of the matrix in a framework's environment and compares spikes."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy.errors import StlDeployError, UnsupportedError
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.exporters.nir.readers.restate import restate
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import run
from tests.conformance.cases import DIALECTS, KNOWN, SEEDS, Row
from tests.conformance.nets import NETS, Net, canonical

WORKER = Path(__file__).parent / "worker.py"


@dataclass(frozen=True)
class Result:
    """What came of one row, all seeds together: outputs compared, spikes in them, outputs that differ; or why none."""

    row: Row
    compared: int
    spikes: int
    differ: int
    reason: str
    remedy: str

    @property
    def match(self) -> float | None:
        """Share of neuron-steps that agree, in percent; None if nothing could be compared."""
        return 100 * (1 - self.differ / self.compared) if self.compared else None

    @property
    def unexplained(self) -> bool:
        """A mismatch or a failure without a known reason."""
        return (self.differ > 0 or not self.compared) and not self.reason

    def as_dict(self) -> dict[str, Any]:
        """JSON twin."""
        row = self.row
        return {
            "framework": row.framework,
            "direction": row.direction,
            "dialect": row.preset,
            "net": row.net,
            "options": row.options,
            "compared": self.compared,
            "spikes": self.spikes,
            "differ": self.differ,
            "match_percent": self.match,
            "reason": self.reason,
            "remedy": self.remedy,
        }

    def line(self) -> str:
        """One line for the terminal."""
        match = "   -    " if self.match is None else f"{self.match:7.3f}%"
        return f"{match} {self.row.name}  {self.reason}"


@dataclass
class _Case:
    """One net of a row: its files, and why it cannot be run, if so."""

    row: Row
    net: Net
    stem: str
    refused: UnsupportedError | None = None

    @property
    def program(self) -> Program:
        graph = read_nir(Path(f"{self.stem}.nir")) if self.row.direction == "read" else canonical(self.net)
        return lower(graph, DIALECTS[self.row.preset])

    def job(self) -> dict[str, Any]:
        """The worker's part."""
        paths = {"net": ".in.npz", "file": ".nir", "spikes": ".out.npz"}
        verb = "export" if self.row.direction == "read" else "load"
        files = {key: self.stem + suffix for key, suffix in paths.items()}
        return {"verb": verb, **files, "options": self.row.options}


def run_rows(rows: list[Row], python: Path, folder: Path) -> list[Result]:
    """Run all rows of one framework; ``folder`` keeps each case's input, NIR file and spikes."""
    cases = [
        _Case(row, NETS[row.net](seed, ties), f"{folder}/{row.name}-{seed}-{'ties' if ties else 'plain'}")
        for row in rows
        for seed in SEEDS
        for ties in (True, False)
    ]
    for case in cases:
        _prepare(case)
    ready = [case for case in cases if case.refused is None]
    told = dict(zip(map(id, ready), _work(ready, python, folder), strict=True))
    return [_judge(row, [case for case in cases if case.row is row], told) for row in rows]


def _prepare(case: _Case) -> None:
    layers = json.dumps(case.net.layers)
    np.savez(case.stem + ".in.npz", layers=layers, **case.net.arrays)
    if case.row.direction == "write":
        try:
            write_nir(restate(case.program, case.row.framework).graph, Path(case.stem + ".nir"))
        except UnsupportedError as error:
            case.refused = error


def _work(cases: list[_Case], python: Path, folder: Path) -> list[dict[str, str]]:
    jobs, done = folder / "jobs.json", folder / "done.json"
    jobs.write_text(json.dumps([case.job() for case in cases]))
    command = [str(python), str(WORKER), cases[0].row.framework, str(jobs), str(done)]
    with (folder / "worker.log").open("w") as log:
        subprocess.run(command, check=True, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return list(json.loads(done.read_text()))


def _judge(row: Row, cases: list[_Case], told: dict[int, dict[str, str]]) -> Result:
    compared = fired = differ = 0
    for case in cases:
        if case.refused is not None:
            return Result(row, 0, 0, 0, case.refused.reason, case.refused.remedy)
        answer = told[id(case)]
        if answer["status"] == "unsupported":
            return Result(row, 0, 0, 0, answer["reason"], "")
        if answer["status"] == "failed":
            return Result(row, 0, 0, 0, "", answer["reason"])
        try:
            for ours, theirs in spikes(case.program, case.net.arrays["x"], Path(case.stem + ".out.npz"), row):
                compared += theirs.size
                fired += int(theirs.sum())
                differ += int((ours != theirs).sum())
        except StlDeployError as error:
            return Result(row, 0, 0, 0, "", str(error))
    reason, remedy = KNOWN.get((row.preset, row.net), ("", "")) if differ else ("", "")
    return Result(row, compared, fired, differ, reason, remedy)


def spikes(program: Program, x: Any, path: Path, row: Row) -> list[tuple[Any, Any]]:
    """Ours and theirs, layer by layer in order, each ``[T, B, ...]``."""
    names = [node.name for node in program.spiking]
    ours = run(program, x, record=names).recorded
    late = row.direction == "read" and DIALECTS[row.preset].emit == "next_step"
    with np.load(path) as theirs:
        layers = [name for name in theirs.files if name.startswith("s")]
        assert len(layers) == len(names), (layers, names)
        return [(_one_late(ours[name]) if late else ours[name], theirs[f"s{i}"]) for i, name in enumerate(names)]


def _one_late(x: Any) -> Any:
    return np.concatenate([np.zeros_like(x[:1]), x[:-1]])
