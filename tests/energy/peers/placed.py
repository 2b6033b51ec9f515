"""The digits network on Loihi's cores for SANA-FE: its synapses, the first layer's spikes, where neurons stand."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from stl_deploy.energy.prices.chip import Placement
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Conv, Linear, Neuron, Node, Pool, Program
from stl_deploy.graph.run import run
from stl_deploy.pipeline.energy import on_loihi
from tests.energy.brute import indices, synapse_list

GOLDEN = Path(__file__).parents[1] / "golden"
NET, INPUT = GOLDEN / "digits.nir.gz", GOLDEN / "digits.npz"
"""A trained digits network, and a few of its test images: written by ``record.py digits=RUN``."""


def keep(run_dir: Path) -> None:
    """Take the network and five test images of a run folder."""
    NET.write_bytes(gzip.compress((run_dir / "net.nir").read_bytes(), 9, mtime=0))
    with np.load(run_dir / "test.npz") as archive:
        np.savez_compressed(INPUT, x=archive["x"][:, :5])


def digits() -> tuple[Program, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.nir"
        path.write_bytes(gzip.decompress(NET.read_bytes()))
        program = lower(read_nir(path))
    with np.load(INPUT) as archive:
        return program, archive["x"]


def arrays(program: Program, x: np.ndarray, placement: Placement) -> dict[str, Any]:
    """What the worker reads; positions are flat, in (C, H, W) order."""
    first, *rest = (node for node in program.spiking)
    spikes = run(program, x, record=[first.name]).recorded[first.name]
    found: dict[str, Any] = {
        "layers": np.array([node.name for node in rest]),
        "first/core": cores_of(placement, first),
        "first/spikes": spikes.reshape(*spikes.shape[:2], -1),
    }
    for node in rest:
        found |= {f"{node.name}/{key}": value for key, value in _layer(program, node, placement).items()}
    return found


def cores_of(placement: Placement, node: Node) -> np.ndarray:
    """The core of each neuron."""
    held = [(i, core) for i, core in enumerate(placement.cores) if core.node == node.name]
    return np.concatenate([np.full(core.last - core.first, i) for i, core in held])


def _layer(program: Program, node: Neuron, placement: Placement) -> dict[str, Any]:
    before = program.by_name[node.operands[0].node]
    assert isinstance(before, Linear | Conv | Pool)
    taps, _ = synapse_list(before)
    inputs = {at: i for i, at in enumerate(indices(before.input_shape))}
    outputs = {at: i for i, at in enumerate(indices(before.shape))}
    bias = getattr(before, "bias", None)
    wide = (-1, *(1,) * (len(before.shape) - 1))
    shift = np.zeros(before.shape) if bias is None else np.broadcast_to(bias.reshape(wide), before.shape)
    assert node.threshold is not None
    return {
        "core": cores_of(placement, node),
        "kind": "dense" if isinstance(before, Linear) else "conv",
        "pairs": np.array([(inputs[i], outputs[o]) for i, o, _ in taps]),
        "weight": np.array([w for _, _, w in taps]),
        "bias": shift.reshape(-1),
        "threshold": np.broadcast_to(node.threshold, node.shape).reshape(-1).astype(float),
        "decay": 0.0 if node.decay is None else float(node.decay),
    }


def placements(program: Program) -> dict[str, Placement]:
    return {one.name: one for one in on_loihi(program).placements}
