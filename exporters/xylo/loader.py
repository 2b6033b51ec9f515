"""Write a script beside a specification that loads it on a board. It was not run on a board."""

from __future__ import annotations

from stl_deploy._util.units import counted
from stl_deploy.exporters.xylo.devices import Device
from stl_deploy.exporters.xylo.layout import Layout
from stl_deploy.exporters.xylo.specification import INPUT_CAP

FILE = "load_on_board.py"


def script(device: Device, layout: Layout) -> str:
    """Return Python for Rockpool 3.1.0 with samna, for the board owner's own environment."""
    mode = "Spike" if all(population.spikes for population in layout.populations if population.output) else "Vmem"
    return f'''"""Load specification.npz on {device.title} and run an input. UNTESTED: it was never run on a board.

It needs Rockpool 3.1.0 with samna (pip install "rockpool[xylo]", AGPL-3; samna downloads its binaries from SynSense),
and a {device.title} development kit. Written by stl-deploy; manifest and neurons.json say from what.

    python {FILE} X.npz Y.npz        x [T, B, ...], spike counts 0 to {INPUT_CAP}; y [T + {layout.skew}, B, outputs]

The outputs are {counted(layout.skew, "step")} late (neurons.json: skew). Each sample is given a network of its own, so
that it starts from rest: Rockpool's reset_state does nothing on some boards.
"""

import sys
from pathlib import Path

import numpy as np
from rockpool.devices.xylo.{device.package} import XyloSamna, config_from_specification, {device.finder}

HERE = Path(__file__).parent
DT = 1e-3
ROWS = ("dash_mem", "dash_mem_out", "dash_syn", "dash_syn_out", "threshold", "threshold_out", "bias_hidden", "bias_out")
SHIFTS = ("weight_shift_in", "weight_shift_rec", "weight_shift_out")


def configuration():
    """The board's configuration, validated by samna."""
    with np.load(HERE / "specification.npz", allow_pickle=False) as arrays:
        spec = dict(arrays)
    weights = {{name: spec[name] for name in ("weights_in", "weights_rec", "weights_out")}}
    rows = {{name: spec[name] for name in ROWS}}
    shifts = {{name: int(spec[name]) for name in SHIFTS}}
    targets = spec["aliases"].tolist()
    aliases = [[target] if target >= 0 else [] for target in targets] if max(targets) >= 0 else None
    config, valid, message = config_from_specification(**weights, **rows, **shifts, aliases=aliases)
    if not valid:
        raise SystemExit(f"samna refuses the configuration: {{message}}")
    return config


def main(source, target):
    """Run x on the first board that is connected; write y."""
    boards = {device.finder}()
    if not boards:
        raise SystemExit("no {device.title} development kit found; connect one")
    x = np.load(source, allow_pickle=False)["x"]
    if not np.isin(x, range({INPUT_CAP + 1})).all():
        raise SystemExit("expected spike counts 0 to {INPUT_CAP} in x; found other values")
    x = x.reshape(*x.shape[:2], -1)
    late = np.zeros(({layout.skew}, *x.shape[1:]), x.dtype)
    samples = []
    for sample in np.moveaxis(np.concatenate([x, late]), 1, 0):
        network = XyloSamna(boards[0], configuration(), dt=DT, output_mode="{mode}")
        y, _, _ = network.evolve(sample.astype(int))
        samples.append(y)
    np.savez(target, y=np.stack(samples, axis=1))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
'''
