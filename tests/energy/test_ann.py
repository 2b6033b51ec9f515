"""A trained ANN twin: its non-zero MACs against a dense count with torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from stl_deploy.energy import measure_energy
from stl_deploy.energy.counts.taps import dense_macs
from stl_deploy.errors import InputError
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Conv, Linear, Operand, Program, Reshape
from stl_deploy.nn.network import Network
from stl_deploy.pipeline.fold_network import fold
from stl_deploy.runs.ann_twin import measure_twin
from stl_deploy.runs.configure import configure
from stl_deploy.runs.train import train
from stl_deploy.training.checkpoint import load_network
from tests.energy.nets import conv, f32, lif, linear, pool, program, start

NETWORK = (
    'network=[{"kind": "conv", "channels": 3, "kernel": 3, "padding": 1}, {"kind": "norm"}, {"kind": "lif"}, '
    '{"kind": "pool", "op": "avg"}, {"kind": "flatten"}, {"kind": "linear", "features": 20}, {"kind": "lif"}, '
    '{"kind": "vote", "population": 2}]'
)


def spiking() -> Program:
    nodes = (
        start((1, 8, 8)),
        conv("conv1", "in", np.ones((3, 1, 3, 3)), (1, 8, 8), padding=((1, 1), (1, 1))),
        lif("lif1", "conv1", (3, 8, 8)),
        pool("pool1", "lif1", (3, 8, 8), divisor=4),
    )
    flat = Reshape(name="flat", shape=(48,), operands=(Operand("pool1"),), input_shape=(3, 4, 4))
    rest = (linear("linear1", "flat", np.ones((20, 48))), lif("lif2", "linear1", (20,)))
    return program(*nodes, flat, *rest, linear("vote", "lif2", np.ones((10, 20))))


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twin") / "ann"
    train(configure("digits", ("train.mode=ann", "train.epochs=1", NETWORK)), folder)
    return folder


def image(steps: int = 1) -> np.ndarray:
    one = np.random.default_rng(0).integers(0, 3, (1, 70, 1, 8, 8)) / 2
    return f32(np.repeat(one, steps, axis=0))


@torch.no_grad()
def dense(folder: Path, x: np.ndarray) -> int:
    """Events times fan-out, as a convolution and a product of ones."""
    network, _ = load_network(folder)
    outputs: dict[str, torch.Tensor] = {}
    network(torch.from_numpy(x), outputs.__setitem__)
    total = _first_layer(x) + 20 * (outputs["flatten1"] != 0).sum().item() + 10 * (outputs["lif2"] != 0).sum().item()
    return round(total)


def _first_layer(x: np.ndarray) -> float:
    events = torch.from_numpy((x != 0).astype(np.float32))[0]
    return torch.nn.functional.conv2d(events, torch.ones(3, 1, 3, 3), padding=1).sum().item()


def test_zeros_are_counted_in_the_trained_twin(ann: Path) -> None:
    x = image()
    twin = measure_twin(spiking(), ann, x, np.zeros(70, np.int64))
    assert twin.macs_nonzero == dense(ann, x)
    assert 0.05 < twin.fraction < 1
    assert twin.samples == 70
    layers = {name: node for name, node in spiking().by_name.items() if isinstance(node, Conv | Linear)}
    assert set(twin.by_layer) == set(layers)
    each = [share * dense_macs(layers[name]) for name, share in twin.by_layer.items()]
    assert sum(each) == pytest.approx(twin.macs_nonzero / 70)
    assert twin.by_layer["conv1"] == pytest.approx(_first_layer(x) / dense_macs(layers["conv1"]) / 70)
    assert twin.accuracy is not None
    report = measure_energy(spiking(), image(4), twin=twin).as_dict()
    assert report["ann_twin"]["label"] == "measured"
    assert report["ann_twin"]["macs_zero_skipping"][0] == twin.macs_nonzero / 70


def test_a_repeated_input_is_one_frame_and_a_changing_one_is_not(ann: Path) -> None:
    assert measure_twin(spiking(), ann, image(3)) == measure_twin(spiking(), ann, image())
    changing = np.concatenate([image(), image() * 0])
    twin = measure_twin(spiking(), ann, changing)
    assert (twin.samples, twin.frames) == (140, 2)


def test_another_topology_is_refused(ann: Path) -> None:
    other = program(start((1, 8, 8)), conv("conv9", "in", np.ones((3, 1, 3, 3)), (1, 8, 8)))
    with pytest.raises(InputError, match="expected layer 'conv9'"):
        measure_twin(other, ann, image())
    other = program(start((2, 8, 8)), conv("conv1", "in", np.ones((3, 2, 3, 3)), (2, 8, 8)))
    with pytest.raises(
        InputError, match=r"weights of 'conv1' are \[3, 1, 3, 3\], in the spiking network \[3, 2, 3, 3\]"
    ):
        measure_twin(other, ann, image())


def test_spikes_that_would_come_back_meet_nothing_in_the_twin(tmp_path: Path) -> None:
    layers = (
        'network=[{"kind": "flatten"}, {"kind": "linear", "features": 12}, {"kind": "rlif"}, '
        '{"kind": "linear", "features": 20}, {"kind": "lif"}, {"kind": "vote", "population": 2}]'
    )
    config = configure("digits", ("train.epochs=1", layers))
    recurrent = lower(fold(Network(config, (1, 8, 8), 10).eval(), coding="analog", fraction_bits=4).graph)
    train(configure("digits", ("train.mode=ann", "train.epochs=1", layers)), tmp_path / "ann")
    twin = measure_twin(recurrent, tmp_path / "ann", image())
    assert twin.by_layer["rlif1_recurrent"] == 0
    assert twin.by_layer["linear1"] == pytest.approx((image() != 0).mean())
    assert 0 < twin.by_layer["linear2"] < 1


@pytest.mark.slow
def test_a_spiking_run_is_no_ann_twin(tmp_path: Path) -> None:
    train(configure("digits", ("train.epochs=1", NETWORK)), tmp_path / "snn")
    with pytest.raises(InputError, match="expected an ANN, trained with mode='ann'; found mode stl"):
        measure_twin(spiking(), tmp_path / "snn", image())
