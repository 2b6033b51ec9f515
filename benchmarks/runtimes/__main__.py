"""Our networks in other runtimes: ``python -m benchmarks.runtimes [--runtime NAME ...] [--network NAME ...] [-o DIR]``

Ten networks, each written in every form of ONNX and by torch.export, are loaded and run; outputs and spikes are
compared with the reference run, bit by bit, and the time with ONNX Runtime's. Each runtime gets a virtual environment
of its own (pinned in requirements/), and every file a process of its own, so that a crash is one row.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.runtimes.networks import NETWORKS
from benchmarks.timing import QUIET
from stl_deploy.exporters.onnx import OnnxModel, export_onnx
from stl_deploy.graph.program import Floats, Program
from stl_deploy.graph.run import run
from stl_deploy.nn.program_module import ProgramModule
from tests.conformance.environments import environment

STEPS, SAMPLES = 8, 2
FORMS: dict[str, dict[str, Any]] = {
    "sequence": {},
    "sequence, static": {"steps": STEPS, "batch": SAMPLES},
    "unrolled": {"form": "unrolled", "steps": STEPS, "batch": SAMPLES},
    "step": {"form": "step", "batch": SAMPLES},
}
OWN = "onnxruntime"
OF_ONNX = {OWN: "ONNX Runtime", "openvino": "OpenVINO", "iree": "IREE", "tract": "tract", "emx": "emx C"}
EXPORTED, EXPORTED_STEPS = "torch.export", 4
OF_TORCH = {"litert": "LiteRT", "executorch": "ExecuTorch"}
"""They take what torch.export makes of ``net.module()``, which puts out no spikes but those of its last layer."""
RUNTIMES = OF_ONNX | OF_TORCH
OPSETS = {"iree": 18}
"""Higher than our lowest: IREE knows GreaterOrEqual from opset 16 on."""
_DEADLINE = 600
WORKER = Path(__file__).parent / "worker.py"
REQUIREMENTS = Path(__file__).parent / "requirements"


def measure(runtimes: Mapping[str, Path], networks: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield rows of every network, form and runtime. runtimes: the Python of each."""
    for network in networks:
        program = NETWORKS[network]()
        x = drawn(program)
        own: dict[str, float] = {}
        for form, runtime in itertools.product((*FORMS, EXPORTED), runtimes):
            if (form == EXPORTED) != (runtime in OF_TORCH):
                continue
            print(f"{network}, {form}, {runtime} ...", file=sys.stderr, flush=True)
            with TemporaryDirectory() as folder:
                if form == EXPORTED:
                    result = _exported(program, x[:EXPORTED_STEPS], runtime, runtimes[runtime], Path(folder))
                else:
                    options = {**FORMS[form], "opset": OPSETS.get(runtime)}
                    result = _one(program, x, options, runtime, runtimes[runtime], Path(folder))
            if runtime == OWN:
                own[form] = result["seconds"]
            if "seconds" in result and form == EXPORTED:
                result["over_own"] = result["seconds"] / EXPORTED_STEPS / (own["sequence, static"] / STEPS)
            elif "seconds" in result:
                result["over_own"] = result["seconds"] / own[form]
            yield {"network": network, "form": form, "runtime": runtime, **result}


def drawn(program: Program) -> Floats:
    """Return random spikes ``[T, B, *shape]`` for a network."""
    shape = (STEPS, SAMPLES, *program.inputs[0].shape)
    return (np.random.default_rng(0).random(shape) < 0.4).astype(np.float32)


def _exported(program: Program, x: Floats, runtime: str, python: Path, folder: Path) -> dict[str, Any]:
    """Export the network's module by torch, run that in the runtime, and compare."""
    module = ProgramModule(program).eval().requires_grad_(False)
    torch.export.save(torch.export.export(module, (torch.from_numpy(x),), strict=True), folder / "model.pt2")
    spec = {"form": EXPORTED, "inputs": ["x"], "outputs": ["y"]}
    (folder / "spec.json").write_text(json.dumps(spec))
    np.savez(folder / "input.npz", x=x)
    done = _work(python, runtime, folder)
    if "failed" in done:
        return done
    with np.load(folder / "output.npz") as stored:
        values = [(stored["o0"], run(program, x).y)]
    return {
        **done,
        "spikes": 0,
        "spikes_differing": 0,
        "outputs": values[0][1].size,
        "outputs_differing": _differing(values),
    }


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
    if done.returncode < 0:
        return {"failed": f"ends with signal {-done.returncode}"}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"ends with status {done.returncode}"]
        return {"failed": last[0][:500]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _differing(pairs: Sequence[tuple[Floats, Floats]]) -> int:
    return sum(wanted.size if got.shape != wanted.shape else int((got != wanted).sum()) for got, wanted in pairs)


def table(report: Mapping[str, Any]) -> str:
    """Markdown: a line for each runtime and form, and what failed."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in report["rows"]:
        grouped[row["runtime"], row["form"]].append(row)
    lines = ["# Our networks in other runtimes", "", "Made by `make runtimes`.", ""]
    lines += ["| runtime | form | opset | run | spikes | differ | outputs | differ | time, ONNX Runtime = 1 |"]
    lines += ["|---|---|---|---:|---:|---:|---:|---:|---:|"]
    failures: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for (runtime, form), rows in grouped.items():
        ran = [row for row in rows if "failed" not in row]
        sums = {
            key: sum(row[key] for row in ran) for key in ("spikes", "spikes_differing", "outputs", "outputs_differing")
        }
        ratios = [row["over_own"] for row in ran]
        ratio = f"{statistics.median(ratios):.2f}" if ratios else "-"
        title = f"{RUNTIMES[runtime]} {report['versions'][runtime]}"
        counts = " | ".join(f"{count:,}" for count in sums.values())
        opset = "-" if form == EXPORTED else OPSETS.get(runtime, "lowest")
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
        "Counts are of values that differ in any bit from the reference run. *sequence* has free T and B. "
        f"*torch.export* is of `net.module()` on {EXPORTED_STEPS} steps; its time is of a step, against that of "
        "*sequence, static*.",
    ]
    return "\n".join(lines) + "\n"


def _cause(message: str) -> str:
    """The first line of a message, without the names of nodes and files in it."""
    first = re.sub(r"""node #\d+ "[^"]*"|for '[^']*' (?=in )|/tmp/\S+: """, "", message.splitlines()[0])
    return " ".join(first.split())[:160].replace("|", "/")


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["form"], row["runtime"], row["network"]


def _version(runtime: str) -> str:
    if runtime == OWN:
        return version("onnxruntime")
    return (REQUIREMENTS / f"{runtime}.txt").read_text().splitlines()[0].split("==")[1]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", nargs="+", choices=list(RUNTIMES), default=list(RUNTIMES))
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "stl-deploy" / "conformance")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="folder for onnx-runtimes.json and .md; rows of other runtimes and networks in them stay",
    )
    options = parser.parse_args()
    names = list(dict.fromkeys([OWN, *options.runtime]))
    pythons = {
        name: Path(sys.executable) if name == OWN else environment(name, options.cache, REQUIREMENTS) for name in names
    }
    before, kept = os.getloadavg()[0], list[dict[str, Any]]()
    file = None if options.output is None else options.output / "onnx-runtimes.json"
    if file is not None and file.exists():
        kept = json.loads(file.read_text())["rows"]
    report: dict[str, Any] = {"schema_version": 2, "steps": STEPS, "samples": SAMPLES}
    order = {key: i for i, key in enumerate(itertools.product((*FORMS, EXPORTED), RUNTIMES, NETWORKS))}
    rows = {_key(row): row for row in kept if _key(row) in order}
    for row in measure(pythons, options.network):
        rows[_key(row)] = row
        report["rows"] = [rows[key] for key in order if key in rows]
        report["versions"] = {each["runtime"]: _version(each["runtime"]) for each in report["rows"]}
        report["load"] = [before, os.getloadavg()[0]]
        if file is not None:
            file.write_text(json.dumps(report, indent=1) + "\n")
            file.with_suffix(".md").write_text(table(report))
    print(table(report))


if __name__ == "__main__":
    main()
