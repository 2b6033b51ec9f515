"""ONNX Runtime against the reference run, spike by spike: python -m benchmarks.onnx_parity runs/digits --data DIR

Four networks, each on the exact grid and with its weights as they are, in both ONNX forms. Prints the table, and
for each run that differs the first spike that does in each layer, with its potential's distance from the threshold.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import onnxruntime

from benchmarks import nets
from stl_deploy.errors import StlDeployError
from stl_deploy.exporters.margins import NearThreshold
from stl_deploy.exporters.onnx import Form, OnnxModel, export_onnx
from stl_deploy.exporters.verify import NodeParity, verify
from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.run import run

HEADER = ("network", "weights", "sums", "form", "input", "spikes compared", "differ", "within 4 ulp of θ")
_REFERENCE = "reference"
_CHUNK = 50


def measure(cases: Iterable[nets.Case]) -> dict[str, Any]:
    """The parity of every case, JSON-ready."""
    rows = [_row(case, sums) for case in cases for sums in case.programs]
    versions = {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__}
    return {"schema_version": 1, "versions": versions, "rows": [row for both in rows for row in both]}


def _row(case: nets.Case, sums: str) -> list[dict[str, Any]]:
    program, x = case.programs[sums], case.x
    print(f"{case.name}, {sums}: {x.shape[1]} samples ...", file=sys.stderr, flush=True)
    totals: dict[str, _Total] = {form: _Total() for form in get_args(Form)}
    near = NearThreshold()
    with TemporaryDirectory() as folder:
        models = {}
        for form in get_args(Form):
            export_onnx(program, Path(folder) / f"{form}.onnx", form=form)
            models[form] = OnnxModel.load(Path(folder) / f"{form}.onnx", threads=1)
        names = [node.name for node in program.spiking]
        for start in range(0, x.shape[1], _CHUNK):
            part = x[:, start : start + _CHUNK]
            runs = {_REFERENCE: run(program, part, record=names, observe=near)}
            runs |= {form: model.run(part, record=names) for form, model in models.items()}
            for parity in verify(program, runs, reference=_REFERENCE, x=part).runs:
                totals[parity.run].add(parity.nodes, start)
    proved = all(proof.exact for proof in prove_exact(program))
    shared = {
        "network": case.name,
        "weights": case.weights,
        "sums": sums,
        "proved_exact": proved,
        "input": case.source,
        "steps": len(x),
        "near_threshold": sum(near.counts.values()),
    }
    return [shared | {"form": form} | total.as_dict() for form, total in totals.items()]


class _Total:
    """Sums over the chunks, and the first difference of each layer."""

    def __init__(self) -> None:
        self.compared = self.differing = 0
        self.first: dict[str, dict[str, Any]] = {}

    def add(self, nodes: Iterable[NodeParity], start: int) -> None:
        for node in nodes:
            self.compared += node.compared
            self.differing += node.differing
            found = node.first
            if found is not None and node.node not in self.first:
                margin = None if found.margin is None else found.margin.ulps
                self.first[node.node] = {
                    "layer": node.node,
                    "step": found.step,
                    "sample": start + found.sample,
                    "neuron": list(found.neuron),
                    "expected": found.expected,
                    "found": found.found,
                    "ulps_from_threshold": margin,
                }

    def as_dict(self) -> dict[str, Any]:
        return {"compared": self.compared, "differing": self.differing, "first": list(self.first.values())}


def table(found: dict[str, Any]) -> str:
    """Markdown: the parity, and where spikes moved."""
    lines = [_line(HEADER), _line(["---"] * len(HEADER))]
    for row in found["rows"]:
        sums = "exact grid, proved" if row["proved_exact"] else row["sums"]
        source = f"{row['input']}, {row['steps']} steps"
        numbers = [f"{row[key]:,}" for key in ("compared", "differing", "near_threshold")]
        lines.append(_line([row["network"], row["weights"], sums, row["form"], source, *numbers]))
    moved = [
        f"- {row['network']}, {row['sums']}, {row['form']}: layer {first['layer']}, step {first['step']}, "
        f"sample {first['sample']}, neuron {first['neuron']}: reference {first['expected']:g}, "
        f"ONNX Runtime {first['found']:g}; the potential is {first['ulps_from_threshold']:+.3g} ulp from the threshold"
        for row in found["rows"]
        for first in row["first"]
    ]
    title = "The first spike that differs, by layer (far from the threshold: it follows from one in an earlier layer):"
    where = ["", title, "", *moved] if moved else ["", "No spike differs."]
    return "\n".join([*lines, *where]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """The command."""
    data = os.environ.get("STL_DEPLOY_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path, help="run folder of the digits network")
    parser.add_argument("--data", type=Path, default=data, help="folder with mnist/ (default: $STL_DEPLOY_DATA)")
    parser.add_argument("--mnist-run", type=Path, help="run folder of the trained MNIST network; default: untrained")
    parser.add_argument("--mnist-samples", type=int, default=1000)
    parser.add_argument("-o", "--output", type=Path, help="folder for onnx-parity.json and onnx-parity.md")
    arguments = parser.parse_args()
    try:
        cases = [nets.digits(arguments.digits), nets.residual(), nets.recurrent()]
        if arguments.data is None:
            print("the MNIST net is left out: give --data or set STL_DEPLOY_DATA", file=sys.stderr)
        else:
            cases.append(nets.paper_mnist(arguments.data, arguments.mnist_samples, arguments.mnist_run))
        found = measure(cases)
    except StlDeployError as error:
        raise SystemExit(str(error)) from None
    print(table(found))
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "onnx-parity.json").write_text(json.dumps(found, indent=1) + "\n")
        (arguments.output / "onnx-parity.md").write_text(table(found))


if __name__ == "__main__":
    main()
