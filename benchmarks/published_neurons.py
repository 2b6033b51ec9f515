"""Capture networks of published neurons, export both ONNX forms and C with float32, cost them, compare every spike.

Fifty kinds, each in a feed-forward and a recurrent layer, and networks whose layers are more than a neuron's
arithmetic: ``python -m benchmarks.published_neurons -o docs/measurements``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import stl_deploy as stl
from stl_deploy.errors import StlDeployError
from stl_deploy.exporters.c.floats.target import CFloats
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel, OnnxStream
from stl_deploy.graph.cell import Cell
from stl_deploy.graph.program import Floats
from tests.tracing.more_neurons import MORE
from tests.tracing.neurons import KINDS, Net
from tests.tracing.structures import IMAGES, STRUCTURES, X

_RECURRENT = ", recurrent"


@dataclass
class Row:
    """One network. refused: why it is not captured or costed. states: values that the Cells' proof calls measured.

    compared, differing: spikes of the reference run, of ONNX's sequence and its steps, and of C. apart: the largest
    difference of an output from the module's.
    """

    network: str
    refused: str = ""
    form: str = ""
    compared: int = 0
    differing: int = 0
    apart: float = 0.0
    measured: str = ""


def row(name: str, model: nn.Module, x: Tensor, folder: Path) -> Row:
    """Capture a network, export it, cost it and compare it with its module."""
    made = Row(name)
    model.eval()
    try:
        net = stl.capture(model, x, progress=False)
        net.energy(x.numpy())
    except StlDeployError as error:
        made.refused = str(error)
        return made
    proof = net.proof
    assert proof is not None
    made.form = "Cell" if any(net.program.of(Cell)) else "neuron"
    made.measured = ", ".join(sorted({op for layer in proof.layers for op in layer.measured}))
    made.compared, made.differing = proof.end_to_end["compared"], proof.end_to_end["differing"]
    names = [node.name for node in net.program.compared]
    expected = net.simulate(x.numpy(), record=True)
    made.apart = float(np.abs(expected.y - model(x).detach().numpy()).max())
    in_c = CFloats(net.program, COptions()).run(net.sample, record=True).recorded
    for spikes in [*_in_onnx(net, folder, names), in_c]:
        made.compared += sum(spikes[name].size for name in names)
        made.differing += sum(int((spikes[name] != expected.spikes[name]).sum()) for name in names)
    return made


def _in_onnx(net: stl.SpikingGraph, folder: Path, names: list[str]) -> Iterator[dict[str, Floats]]:
    """Yield the spikes of both ONNX forms on the network's sample."""
    paths = [folder / "sequence.onnx", folder / "step.onnx"]
    export_onnx(net.program, paths[0], form="sequence")
    export_onnx(net.program, paths[1], form="step")
    yield dict(OnnxModel.load(paths[0]).run(net.sample, record=names).recorded)
    stream = OnnxStream(OnnxModel.load(paths[1]), record=names)
    steps = [stream.step(x_t).recorded for x_t in net.sample]
    yield {name: np.stack([each[name] for each in steps]) for name in names}


def networks() -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Yield name, module and input of each network."""
    for name, kind in (KINDS | MORE).items():
        for recurrent in (False, True):
            yield f"{name}{_RECURRENT * recurrent}", Net(kind, recurrent=recurrent), X
    for name, build in STRUCTURES.items():
        yield name, build(), IMAGES if name.startswith("residual") else X


def table(rows: list[Row]) -> str:
    """Return the page: the count, and a line for each network."""
    entered = [each for each in rows if not each.refused and not each.differing]
    lines = [
        "# Networks of published neurons",
        "",
        "Each neuron is written anew from its paper's equations; weights and input are drawn. A neuron's row adds up",
        "its feed-forward and its recurrent network. *Spikes*: those of the reference run against the module's, and of",
        "both ONNX forms and C with float32 against the reference run. *Apart*: the largest difference of an output",
        "from the module's, in each network. *Measured*: operations that libraries round otherwise, so that equal",
        "spikes are measured, not proved. Every network's energy was modelled.",
        "",
        f"{len(entered)} of {len(rows)} networks enter. Repeat it with `make published`.",
        "",
        "| network | captured as | spikes | differ | apart | measured |",
        "|---|---|---:|---:|---:|---|",
    ]
    lines += [f"| {each.network} | refused: {each.refused} | | | | |" for each in rows if each.refused]
    captured = [each for each in rows if not each.refused]
    for name, pair in groupby(captured, lambda each: each.network.removesuffix(_RECURRENT)):
        networks = list(pair)
        compared, differing = sum(each.compared for each in networks), sum(each.differing for each in networks)
        forms = ", ".join(sorted({each.form for each in networks}))
        measured = ", ".join(sorted({each.measured for each in networks}))
        apart = ", ".join(f"{each.apart:.1g}" for each in networks)
        lines.append(f"| {name} | {forms} | {compared:,} | {differing:,} | {apart} | {measured} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Print a line for each network, and the count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="folder for published-neurons.json and published-neurons.md")
    arguments = parser.parse_args()
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, model, x in networks():
            rows.append(row(name, model, x, Path(folder)))
            print(f"{name}: {rows[-1].refused or f'{rows[-1].differing} spikes differ'}", file=sys.stderr, flush=True)
    print(table(rows))
    if arguments.output is not None:
        (arguments.output / "published-neurons.json").write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")
        (arguments.output / "published-neurons.md").write_text(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
