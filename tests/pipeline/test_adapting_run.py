"""Thresholds that adapt, the whole way: trained, folded into a .program file, exported to C, evaluated, reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.c.compiler import find_compiler
from stl_deploy.nn.adapting import ALIF
from stl_deploy.runs.source import read
from stl_deploy.runs.trained_run import train
from stl_deploy.training.checkpoint import load_network
from tests.energy.test_verbs import main as cli

NETWORK: list[dict[str, Any]] = [
    {"kind": "linear", "features": 12},
    {"kind": "lif"},
    {"kind": "linear", "features": 4},
    {"kind": "lif", "adaptation": {"decay": 0.5, "jump": 0.2, "subtracts": "adapted"}},
    {"kind": "vote", "population": 2},
]


def config(folder: Path, network: list[dict[str, Any]] = NETWORK, **neuron: Any) -> Path:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    rates = np.where(np.arange(6)[None] // 3 == y[:, None], 0.9, 0.1)
    np.savez(folder / "mine.npz", x=(rng.random((60, 5, 6)) < rates[:, None]).astype(np.float32), y=y)
    neuron = {"reset": "subtract", "adaptation": {"jump": 0.4}} | neuron
    data = {"name": "npz", "path": "mine.npz", "encoder": "sequence", "validation_fraction": 0.2, "test_fraction": 0.2}
    training = {"epochs": 3, "lr": 0.03, "batch_size": 16, "device": "cpu"}
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"dataset": data, "network": network, "neuron": neuron, "train": training}))
    return path


def test_it_goes_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert cli(["run", str(config(tmp_path)), "-o", str(run), "--no-twin", "--no-lava"]) == 0
    assert not (run / "net.nir").exists()
    assert "net.net was not written, since Loihi cannot hold this network: node 'lif1'" in capsys.readouterr().err
    lifs = [layer for layer in load_network(run)[0].layers.values() if isinstance(layer, ALIF)]
    assert [round(float(lif.get_buffer("jump")), 3) for lif in lifs] == [0.4, 0.2]
    net = read(run)
    adaptations = [neuron.adaptation for neuron in net.program.spiking]
    assert [a and a.subtracts for a in adaptations] == ["baseline", "adapted"]
    assert net.sample is not None
    assert all(spikes.any() for spikes in net.simulate(net.sample).spikes.values())
    for call in (["check", "--target", "c"], ["eval"], ["energy"], ["report"], ["fold"], ["show"]):
        verb, *more = call
        assert cli([verb, str(run), *more]) == 0, verb
    assert (run / "net.program").is_file()
    assert cli(["quantise", str(run), "-o", str(tmp_path / "whole")]) == 1
    assert "error: node 'lif1': its reset is 'subtract'; Loihi resets to 0" in capsys.readouterr().err
    if find_compiler() is not None:
        assert cli(["export", str(run), "--to", "c", "-o", str(tmp_path / "c")]) == 0
        assert cli(["verify", str(run), "--against", str(tmp_path / "c")]) == 0


def test_it_trains_from_python_and_its_graph_is_the_program(tmp_path: Path) -> None:
    trained = train(config(tmp_path), output=tmp_path / "run")
    net = trained.graph()
    assert net.program.spiking[0].adaptation is not None
    with pytest.raises(UnsupportedError, match="a threshold that adapts, for which NIR has no node"):
        _ = net.graph


@pytest.mark.parametrize(
    ("neuron", "layer", "sentence"),
    [
        ({"adaptation": {"decay": 1.5}}, {}, "key 'neuron.adaptation.decay': expected a number < 1; found 1.5"),
        ({"adaptation": {"jum": 1}}, {}, "key 'neuron.adaptation.jum': expected decay, jump, subtracts; found 'jum'"),
        (
            {},
            {"adaptation": {"rise": 1}},
            "key 'network.1.adaptation.rise': expected decay, jump, subtracts; found 'rise'",
        ),
        ({"multi_spike": 3}, {}, "an adapting threshold takes one spike a step and no synapse: leave out multi_spike"),
        ({}, {"kind": "rlif"}, "thresholds of recurrent populations do not adapt; use lif, or adaptation: null"),
    ],
)
def test_bad_adaptations_are_one_sentence(
    neuron: dict[str, Any], layer: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = [NETWORK[0], {"kind": "lif"} | layer, *NETWORK[2:]]
    path = config(tmp_path, network, **neuron)
    assert cli(["run", str(path), "-o", str(tmp_path / "run"), "--no-twin", "--no-lava"]) == 2
    *_, last = capsys.readouterr().err.strip().split("\n")
    assert sentence in last
    assert not (tmp_path / "run").exists()
