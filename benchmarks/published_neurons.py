"""Count the published neurons that enter: captured, equal in both ONNX forms, and costed.

Fifty kinds, each in a feed-forward and a recurrent layer: ``python -m benchmarks.published_neurons``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import stl_deploy as stl
from stl_deploy.errors import StlDeployError
from stl_deploy.exporters.onnx.export import export_onnx
from stl_deploy.exporters.onnx.model import OnnxModel, OnnxStream
from tests.tracing.more_neurons import MORE
from tests.tracing.neurons import KINDS, Kind, Net

X = (torch.rand(16, 3, 8, generator=torch.Generator().manual_seed(5)) < 0.5).float()


def enters(kind: Kind, *, recurrent: bool, folder: Path) -> str:
    """Return how far a network comes: "" if all the way, else what stopped it."""
    try:
        net = stl.capture(Net(kind, recurrent=recurrent), X, progress=False)
    except StlDeployError as error:
        return f"not captured: {error}"
    x = X.numpy()
    names = [node.name for node in net.program.compared]
    expected = net.simulate(x, record=True).spikes
    for form in ("sequence", "step"):
        path = folder / f"{form}.onnx"
        export_onnx(net.program, path, form=form)  # type: ignore[arg-type]
        if form == "sequence":
            spikes = OnnxModel.load(path).run(x, record=names).recorded
        else:
            stream = OnnxStream(OnnxModel.load(path), record=names)
            steps = [stream.step(x_t).recorded for x_t in x]
            spikes = {name: np.stack([each[name] for each in steps]) for name in names}
        differing = sum(int((spikes[name] != expected[name]).sum()) for name in names)
        if differing:
            return f"{differing} spikes differ in ONNX's form '{form}'"
    try:
        net.energy(x)
    except StlDeployError as error:
        return f"not costed: {error}"
    return ""


def main() -> int:
    """Print a line for each network, and the count."""
    done = entered = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in (KINDS | MORE).items():
            for recurrent in (False, True):
                why = enters(kind, recurrent=recurrent, folder=Path(folder))
                done, entered = done + 1, entered + (not why)
                print(f"{name}{', recurrent' * recurrent}: {why or 'enters'}", flush=True)
    print(f"{entered} of {done} networks enter")
    return 0


if __name__ == "__main__":
    sys.exit(main())
