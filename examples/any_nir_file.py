"""Take anyone's NIR file the whole way: check it, export it, verify the export, count what it costs.

    python examples/any_nir_file.py network.nir --dialect snntorch --input x.npz -o out/

Without arguments it first writes a small network without a dialect, and reads it by NIR's own equations.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import nir
import numpy as np

from stl_deploy import verbs
from stl_deploy._util.console import Console


def strangers_network(path: Path) -> None:
    """Two layers of LIF neurons, every neuron with a threshold of its own, and no word on how it is meant."""
    rng = np.random.default_rng(0)
    shape = (20,)
    ones = np.ones(shape, np.float32)
    lif = nir.LIF(
        tau=ones * np.float32(2e-4),
        r=ones * 2,
        v_leak=ones * 0,
        v_threshold=rng.uniform(0.5, 1.5, shape).astype(np.float32),
        v_reset=ones * 0,
    )
    weight = rng.integers(-8, 9, (20, 30)).astype(np.float32) / 16
    readout = rng.integers(-8, 9, (4, 20)).astype(np.float32) / 16
    nir.write(
        path,
        nir.NIRGraph.from_list(
            nir.Affine(weight, rng.integers(0, 4, 20).astype(np.float32) / 16), lif, nir.Linear(readout)
        ),
    )


def main() -> None:
    """Check, export, verify, cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, nargs="?")
    parser.add_argument("--dialect", default=None)
    parser.add_argument("--input", type=Path, default=None)
    parser.add_argument("-o", "--output", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.network is not None and arguments.input is None:
        parser.error("give --input X.npz, x [T, B, *shape], with a network of your own")
    say = Console()
    with tempfile.TemporaryDirectory() as folder:
        output = arguments.output or Path(folder)
        network = arguments.network or Path(folder) / "network.nir"
        if arguments.network is None:
            strangers_network(network)
        x = arguments.input or Path(folder) / "x.npz"
        if arguments.input is None:
            spikes = np.random.default_rng(1).random((25, 40, 30)) < 0.2
            np.savez(x, x=spikes.astype(np.float32))
        dialect = arguments.dialect
        verbs.check(network, dialect=dialect, say=say)
        if arguments.network is None:
            dialect = "spec"  # a file without a word on how it is meant goes nowhere until someone says it
        for target, name in (("onnx", "network.onnx"), ("netx", "network.net")):
            verbs.export(network, target, output / name, dialect=dialect, input_file=x, say=say)
        verbs.energy(network, x, dialect=dialect, output=output, say=say)


if __name__ == "__main__":
    main()
