"""ONNX Runtime against the reference run, spike by spike: python -m benchmarks.onnx_parity RUN... --data DIR

Trained runs, a residual and a recurrent network, and the paper's MNIST net, each on the exact grid and with its weights
as they are, in both ONNX forms, with sums in integers and in float64. Every file meets a
reference that computes as it does. Prints the table, and for each run that differs the first spike that does in each
layer, with its potential's distance from the threshold.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import nets
from stl_deploy.config.options import OnnxForm, Precision
from stl_deploy.errors import InputError, StlDeployError
from stl_deploy.exporters.onnx import OnnxModel, export_onnx
from stl_deploy.exporters.onnx.runtime import onnxruntime
from stl_deploy.graph.compare import NodeParity, Tally, compare
from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.margins import Margin, UlpMargins
from stl_deploy.graph.program import Floats, Program
from stl_deploy.graph.run import Result, run

HEADER = (
    "network",
    "weights",
    "sums",
    "files",
    "input",
    "spikes compared",
    "least rate",
    "differ",
    "within 4 ulp of θ",
)
_FILES: Mapping[str, Sequence[tuple[Precision, OnnxForm]]] = {
    nets.GRID: (("float32", "sequence"), ("float32", "step"), ("integer", "sequence")),
    nets.FLOAT: (("float32", "sequence"), ("float32", "step"), ("exact", "step")),
}
_AS_IT_IS: Sequence[Precision] = ("float32", "integer")
"""Precisions that must give the bits of the plain reference."""
_REFERENCE = "reference"
CHUNK = 50


def measure(cases: Iterable[nets.Case]) -> dict[str, Any]:
    """The parity of every case, JSON-ready."""
    rows = [_rows(case, sums) for case in cases for sums in case.programs]
    versions = {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__}
    return {"schema_version": 4, "versions": versions, "rows": [row for both in rows for row in both]}


@dataclass(eq=False)
class _File:
    """One ONNX file of a case: the Program and the sums of its reference, and what was found so far."""

    precision: Precision
    form: OnnxForm
    program: Program
    model: OnnxModel
    near: UlpMargins

    def __post_init__(self) -> None:
        self.own, self.changed = Tally(), Tally()
        self.votes: list[Floats] = []

    def compare(self, x: Floats, plain: Result) -> None:
        names = [node.name for node in self.program.spiking]
        reference = plain
        if self.precision not in _AS_IT_IS:
            reference = run(self.program, x, record=names, observe=self.near, double=self.precision == "exact")
        result = self.model.run(x, record=names)
        own = compare(self.program, reference, result, "", x=x, against=_REFERENCE)
        changed = compare(self.program, plain, result, "", against=_REFERENCE)
        self.own.add_nodes(own.nodes, x.shape[1])
        self.changed.add_nodes(changed.nodes, x.shape[1])
        self.votes.append(result.y.sum(axis=0))

    def as_dict(self, labels: Any) -> dict[str, Any]:
        row = {"precision": self.precision, "form": self.form, "bytes": self.model.path.stat().st_size}
        agreement = 1 - self.changed.differing / self.changed.compared
        accuracy = None
        if labels is not None:
            accuracy = float((np.concatenate(self.votes).argmax(axis=1) == labels).mean())
        near = sum(self.near.counts.values())
        first = [_first(node) for node in self.own.nodes.values() if node.first is not None]
        counts = {"compared": self.own.compared, "differing": self.own.differing, "first": first}
        return row | counts | {"near_threshold": near, "agreement": agreement, "accuracy": accuracy}


def _rows(case: nets.Case, sums: str) -> list[dict[str, Any]]:
    program, x = case.programs[sums], case.x
    print(f"{case.name}, {sums}: {x.shape[1]} samples ...", file=sys.stderr, flush=True)
    names = [node.name for node in program.spiking]
    with TemporaryDirectory() as folder:
        near, fired = UlpMargins(), dict.fromkeys(names, 0.0)
        files = [_file(program, precision, form, Path(folder), near) for precision, form in _FILES[sums]]
        for start in range(0, x.shape[1], CHUNK):
            part = x[:, start : start + CHUNK]
            plain = run(program, part, record=names, observe=near)
            for name in names:
                fired[name] += float(plain.recorded[name].mean()) * part.shape[1] / x.shape[1]
            for file in files:
                file.compare(part, plain)
        silent = [name for name, rate in fired.items() if not rate]
        if silent:
            raise InputError(f"{case.name}: no neuron of '{silent[0]}' fires, so agreement there says nothing")
        shared = {"network": case.name, "weights": case.weights, "sums": sums, "input": case.source, "steps": len(x)}
        shared["least_rate"] = min(fired.values())
        return [
            shared
            | file.as_dict(case.labels)
            | {"proved_exact": all(p.exact for p in prove_exact(file.program, double=file.precision == "exact"))}
            for file in files
        ]


def _file(program: Program, precision: Precision, form: OnnxForm, folder: Path, near: UlpMargins) -> _File:
    """near: what watches the run of ``program`` as it is."""
    path = folder / f"{precision}-{form}.onnx"
    export_onnx(program, path, form=form, precision=precision)
    near = near if precision in _AS_IT_IS else UlpMargins()
    return _File(precision, form, program, OnnxModel.load(path, threads=1), near)


def _first(node: NodeParity) -> dict[str, Any]:
    assert node.first is not None
    row = asdict(node.first)
    return {"layer": row.pop("node"), **row, "neuron": list(node.first.neuron)}


def table(measured: dict[str, Any]) -> str:
    """Markdown: the parity, and where spikes moved."""
    lines = ["# ONNX Runtime against the reference run", "", "Made by `python -m benchmarks.onnx_parity`.", ""]
    lines += ["Least rate: spikes per neuron and step of the layer that fires least.", ""]
    lines += [_line(HEADER), _line(["---"] * len(HEADER))]
    alike: dict[tuple[str, ...], list[str]] = {}
    for row in measured["rows"]:
        sums = f"{row['sums']}, proved exact" if row["proved_exact"] else row["sums"]
        source = f"{row['input']}, {row['steps']} steps"
        counts = (f"{row[key]:,}" for key in ("differing", "near_threshold"))
        shared = (row["network"], row["weights"], sums, source, f"{row['compared']:,}", f"{row['least_rate']:.3f}")
        alike.setdefault((*shared, *counts), []).append(f"{row['precision']} {row['form']}")
    for (network, weights, sums, *numbers), files in alike.items():
        lines.append(_line([network, weights, sums, ", ".join(files), *numbers]))
    moved = [
        f"- {row['network']}, {row['sums']}, {row['precision']}, {row['form']}: layer {first['layer']}, "
        f"step {first['step']}, sample {first['sample']}, neuron {first['neuron']}: reference {first['expected']:g}, "
        f"ONNX Runtime {first['found']:g}, {Margin(**first['margin'])}"
        for row in measured["rows"]
        for first in row["first"][:1]
    ]
    title = "The first spike that differs, in the first layer that has one (every layer's: onnx-parity.json):"
    where = ["", title, "", *moved] if moved else ["", "No spike differs."]
    return "\n".join([*lines, *where]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """The command."""
    data = os.environ.get("STL_DEPLOY_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="trained run folders")
    parser.add_argument("--data", type=Path, default=data, help="folder with mnist/ (default: $STL_DEPLOY_DATA)")
    parser.add_argument("--samples", type=int, default=1000, help="test images of a network, at most")
    parser.add_argument("-o", "--output", type=Path, help="folder for onnx-parity.json and onnx-parity.md")
    arguments = parser.parse_args()
    try:
        cases = [nets.trained(run_dir, arguments.samples) for run_dir in arguments.runs]
        cases += [nets.residual(), nets.recurrent()]
        if arguments.data is None:
            print("the paper's MNIST net is left out: give --data or set STL_DEPLOY_DATA", file=sys.stderr)
        else:
            cases.append(nets.paper_mnist(arguments.data, arguments.samples))
        measured = measure(cases)
    except StlDeployError as error:
        raise SystemExit(str(error)) from None
    print(table(measured))
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "onnx-parity.json").write_text(json.dumps(measured, indent=1) + "\n")
        (arguments.output / "onnx-parity.md").write_text(table(measured))


if __name__ == "__main__":
    main()
