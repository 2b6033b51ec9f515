"""Our ONNX files in other runtimes: ``python -m benchmarks.runtimes [--runtime NAME ...] [-o DIR]``

Ten networks, each written in every form, are loaded and run; outputs and spikes are compared with the reference run,
bit by bit, and the time with ONNX Runtime's. Each runtime gets a virtual environment of its own (pinned in
requirements/), and every file a process of its own, so that a crash is one row.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from benchmarks.runtimes.networks import NETWORKS
from benchmarks.timing import QUIET
from stl_deploy.exporters.onnx import OnnxModel, export_onnx
from stl_deploy.graph.program import Floats, Program
from stl_deploy.graph.run import run
from tests.conformance.environments import environment

STEPS, SAMPLES = 8, 2
FORMS: dict[str, dict[str, Any]] = {
    "sequence": {},
    "sequence, static": {"steps": STEPS, "batch": SAMPLES},
    "unrolled": {"form": "unrolled", "steps": STEPS, "batch": SAMPLES},
    "step": {"form": "step", "batch": SAMPLES},
}
OWN = "onnxruntime"
RUNTIMES = {OWN: "ONNX Runtime", "openvino": "OpenVINO", "iree": "IREE", "tract": "tract", "emx": "emx C"}
OPSETS = {"iree": 18}
"""Higher than our lowest: IREE knows GreaterOrEqual from opset 16 on."""
_DEADLINE = 60
WORKER = Path(__file__).parent / "worker.py"
REQUIREMENTS = Path(__file__).parent / "requirements"


def measure(runtimes: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Rows of every network, form and runtime. runtimes: the Python of each."""
    rows = []
    for network, make in NETWORKS.items():
        program = make()
        rng = np.random.default_rng(0)
        x = (rng.random((STEPS, SAMPLES, *program.inputs[0].shape)) < 0.4).astype(np.float32)
        for form, options in FORMS.items():
            for runtime, python in runtimes.items():
                print(f"{network}, {form}, {runtime} ...", file=sys.stderr, flush=True)
                with TemporaryDirectory() as folder:
                    result = _one(program, x, {**options, "opset": OPSETS.get(runtime)}, runtime, python, Path(folder))
                rows.append({"network": network, "form": form, "runtime": runtime, **result})
    return rows


def _one(
    program: Program, x: Floats, options: Mapping[str, Any], runtime: str, python: Path, folder: Path
) -> dict[str, Any]:
    """Write the file, run it in the runtime, and compare."""
    path = folder / "model.onnx"
    export_onnx(program, path, **options)
    model = OnnxModel.load(path)
    interface, graph = model.interface, onnx.load(path).graph
    outputs = [value.name for value in graph.output]
    spec = {
        "form": interface.form,
        "inputs": [value.name for value in graph.input],
        "outputs": outputs,
        "states": [[state.tensor, state.next_tensor] for state in interface.states],
        "shapes": [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.output],
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    name = interface.inputs[program.inputs[0].name]
    np.savez(folder / "input.npz", **{name: x}, **model.rest(SAMPLES))
    done = _work(python, runtime, folder)
    if "failed" in done:
        return done
    with np.load(folder / "output.npz") as stored:
        made = {name: stored[f"o{i}"] for i, name in enumerate(outputs)}
    names = list(interface.spikes)
    expected = run(program, x, record=names)
    spikes = [(made[interface.spikes[name]], expected.recorded[name]) for name in names]
    values = [(made[interface.outputs[name]], y) for name, y in expected.outputs.items()]
    return {
        **done,
        "spikes": sum(wanted.size for _, wanted in spikes),
        "spikes_differing": _differing(spikes),
        "outputs": sum(wanted.size for _, wanted in values),
        "outputs_differing": _differing(values),
    }


def _work(python: Path, runtime: str, folder: Path) -> dict[str, Any]:
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [str(python), str(WORKER), runtime, str(folder)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_DEADLINE, env=settings, cwd=folder
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"takes more than {_DEADLINE} s"}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"ends with status {done.returncode}"]
        return {"failed": last[0][:500]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _differing(pairs: Sequence[tuple[Floats, Floats]]) -> int:
    return sum(wanted.size if got.shape != wanted.shape else int((got != wanted).sum()) for got, wanted in pairs)


def table(report: Mapping[str, Any]) -> str:
    """Markdown: a line for each runtime and form, and what failed."""
    own = {(row["network"], row["form"]): row["seconds"] for row in report["rows"] if row["runtime"] == OWN}
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in report["rows"]:
        grouped[row["runtime"], row["form"]].append(row)
    lines = ["# Our ONNX files in other runtimes", "", "Made by `make runtimes`.", ""]
    lines += ["| runtime | form | opset | run | spikes | differ | outputs | differ | time, ONNX Runtime = 1 |"]
    lines += ["|---|---|---|---:|---:|---:|---:|---:|---:|"]
    failures: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for (runtime, form), rows in grouped.items():
        ran = [row for row in rows if "failed" not in row]
        sums = {
            key: sum(row[key] for row in ran) for key in ("spikes", "spikes_differing", "outputs", "outputs_differing")
        }
        ratios = [row["seconds"] / own[row["network"], form] for row in ran]
        ratio = f"{statistics.median(ratios):.2f}" if ratios else "-"
        title = f"{RUNTIMES[runtime]} {report['versions'][runtime]}"
        counts = " | ".join(f"{count:,}" for count in sums.values())
        opset = OPSETS.get(runtime, "lowest")
        lines.append(f"| {title} | {form} | {opset} | {len(ran)} of {len(rows)} | {counts} | {ratio} |")
        for row in rows:
            if "failed" in row:
                failures[RUNTIMES[runtime], form, _cause(row["failed"])].append(row["network"])
    if failures:
        lines += ["", "| fails | form | networks | message |", "|---|---|---|---|"]
        for (runtime, form, message), networks in failures.items():
            lines.append(f"| {runtime} | {form} | {', '.join(networks)} | `{message}` |")
    quiet = "" if max(report["load"]) < QUIET else ", with other work on the machine, so times are no results"
    lines += [
        "",
        f"T = {report['steps']}, B = {report['samples']}, one thread, medians over networks of the fastest run{quiet}. "
        "Counts are of bits that differ from the reference run. *sequence* has free T and B.",
    ]
    return "\n".join(lines) + "\n"


def _cause(message: str) -> str:
    """The first line of a message, without the names of nodes and files in it."""
    first = re.sub(r'node #\d+ "[^"]*"|/tmp/\S+: ', "", message.splitlines()[0])
    return " ".join(first.split())[:160].replace("|", "/")


def _version(runtime: str) -> str:
    if runtime == OWN:
        return version("onnxruntime")
    return (REQUIREMENTS / f"{runtime}.txt").read_text().splitlines()[0].split("==")[1]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", nargs="+", choices=list(RUNTIMES), default=list(RUNTIMES))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "stl-deploy" / "conformance")
    parser.add_argument("-o", "--output", type=Path, help="folder for onnx-runtimes.json and onnx-runtimes.md")
    options = parser.parse_args()
    names = list(dict.fromkeys([OWN, *options.runtime]))
    pythons = {
        name: Path(sys.executable) if name == OWN else environment(name, options.cache, REQUIREMENTS) for name in names
    }
    before = os.getloadavg()[0]
    rows = measure(pythons)
    report = {
        "schema_version": 1,
        "steps": STEPS,
        "samples": SAMPLES,
        "versions": {name: _version(name) for name in names},
        "load": [before, os.getloadavg()[0]],
        "rows": rows,
    }
    print(table(report))
    if options.output is not None:
        (options.output / "onnx-runtimes.json").write_text(json.dumps(report, indent=1) + "\n")
        (options.output / "onnx-runtimes.md").write_text(table(report))


if __name__ == "__main__":
    main()
