"""Recurrent populations, and labels of each step: by hand, trained, folded, in ONNX Runtime and in C."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from stl_deploy.config.load import apply_overrides, config_of, load_config
from stl_deploy.config.schema import DatasetConfig, RunConfig, TrainConfig
from stl_deploy.data import complete, from_arrays, load_dataset
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.exporters.c.compiler import find_compiler
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.readout import accuracy
from stl_deploy.graph.run import run
from stl_deploy.nn.network import Network
from stl_deploy.nn.neuron import RLIF
from stl_deploy.pipeline.fold_network import fold
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.runs.inputs import encode_split
from stl_deploy.training.evaluate import classification_loss, right
from stl_deploy.training.loop import train
from stl_deploy.verbs import export

STEPS = 12


def sequences(samples: int, seed: int) -> tuple[Any, Any]:
    """Rare spikes on two lines; each step's label is the line of the latest spike (0 before any)."""
    rng = np.random.default_rng(seed)
    line = np.where(rng.random((samples, STEPS)) < 0.3, rng.integers(0, 2, (samples, STEPS)), -1)
    x = (line[:, :, None] == [0, 1]).astype(np.uint8)
    y = np.zeros((samples, STEPS), np.int64)
    for step in range(STEPS):
        y[:, step] = np.where(line[:, step] >= 0, line[:, step], y[:, step - 1] if step else 0)
    return x, y


@pytest.fixture
def stepwise(tmp_path: Path) -> RunConfig:
    (x, y), (x_test, y_test) = sequences(200, 0), sequences(50, 1)
    from_arrays(x, y, x_test=x_test, y_test=y_test).write(tmp_path / "data.npz")
    linear = {"kind": "linear", "features": 16, "bias": True}
    return config_of(
        {
            "dataset": {"name": "npz", "path": str(tmp_path / "data.npz"), "encoder": "sequence"},
            "network": [linear, {"kind": "rlif"}, {"kind": "linear", "features": 2, "bias": True}, {"kind": "li"}],
            "neuron": {"decay": 0.8},
            "train": {"epochs": 12, "batch_size": 20, "lr": 0.02, "loss": "ce", "device": "cpu"},
        }
    )


def test_a_recurrent_population_by_hand():
    population = RLIF((2,), threshold=1.0, decay=0.5)
    population.recurrent.weight = torch.nn.Parameter(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    currents = torch.tensor([[[1.0, 0.0]], [[0.5, 1.5]], [[0.8, 0.7]]])
    assert population(currents).tolist() == [[[1, 0]], [[0, 0]], [[1, 0]]]
    population.recurrent.weight.data.zero_()
    assert population(currents).tolist() == [[[1, 0]], [[0, 1]], [[1, 0]]]
    with pytest.raises(InputError, match="whole sequences"):
        population.step(currents[0])


def test_sums_of_real_input_and_of_spikes_that_come_back_are_exact_where_they_are_largest_in_two_neurons(stepwise):
    torch.manual_seed(0)
    network = Network(stepwise, (6,), 2).eval()
    layers = dict(network.named_modules())
    with torch.no_grad():  # 64878.8 of 2^16 and 32439.4 of 2^15: odd when they are rounded, so that no bit is left over
        for name, row, value in (("linear1", 0, 64878.8 / 2**16), ("rlif1.recurrent", 1, 0.98)):
            layers[f"layers.{name}"].weight.zero_()
            layers[f"layers.{name}"].weight[row, 0] = value
        layers["layers.linear1"].bias.zero_()
    folded = fold(network, coding="analog", fraction_bits=8)
    assert all(proof.exact for proof in prove_exact(lower(folded.graph)))
    assert folded.grids[0].bits == pytest.approx(23 + math.log2(32439 / 2**15 + 0.98), abs=1e-4)  # not a bit less


def test_loss_and_accuracy_of_each_step():
    outputs = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]], [[0.0, 3.0]]])
    labels = torch.tensor([[0, 1, 0]])
    each = [float(torch.nn.functional.cross_entropy(outputs[t], labels[:, t])) for t in range(3)]
    for loss in ("ce", "tet"):
        found = classification_loss(outputs, outputs.mean(0), labels, TrainConfig(loss=loss, ce_scale=1.0))
        assert float(found) == pytest.approx(sum(each) / 3)
    found = classification_loss(outputs, outputs.mean(0), labels, TrainConfig(loss="mse"))
    assert float(found) == pytest.approx((1 / 2 + 0 + (1 + 9) / 2) / 3)
    assert float(right(outputs, outputs.mean(0), labels)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("thresholds", ["keep", "weights"])
def test_steps_learned_by_a_recurrent_net_and_deployed(stepwise, tmp_path, thresholds):
    result = train(stepwise, tmp_path / "run")
    assert result.test.accuracy > 0.9
    folded = fold(result.network, coding="spikes", thresholds=thresholds)
    program = lower(folded.graph)
    assert {node.name for node in program.nodes} >= {"rlif1", "rlif1_recurrent"}
    assert all(proof.exact for proof in prove_exact(program))
    config = stepwise.model_copy(update={"dataset": complete(stepwise.dataset)})
    test = encode_split(config, load_dataset(config.dataset).test)
    outputs, spikes = folded.network.record(torch.from_numpy(test.x))
    reference = run(program, test.x, record=["rlif1"])
    np.testing.assert_array_equal(reference.y, outputs.numpy())
    np.testing.assert_array_equal(reference.recorded["rlif1"], spikes["rlif1"].numpy())
    assert 0.01 < spikes["rlif1"].mean() < 0.9
    assert accuracy(program, reference, test.labels) == pytest.approx(result.test.accuracy, abs=0.02)
    silenced = {**dict(result.network.state_dict()), "layers.rlif1.recurrent.weight": torch.zeros(16, 16)}
    result.network.load_state_dict(silenced)
    assert not torch.equal(result.network.record(torch.from_numpy(test.x))[1]["rlif1"], spikes["rlif1"])
    if thresholds == "weights":
        return
    fold_run(tmp_path / "run", tmp_path / "run" / "net.nir")
    export(tmp_path / "run", "onnx", tmp_path / "net.onnx")  # read back and run: a difference raises
    if find_compiler() is not None:
        export(tmp_path / "run", "c", tmp_path / "net-c")


def test_what_labels_of_each_step_do_not_go_with(stepwise, tmp_path):
    x, y = sequences(20, 2)
    with pytest.raises(
        InputError, match=r"'y': expected integers \[20, 12\], a label for each .*; found int64 \[20, 11\]"
    ):
        from_arrays(x, y[:, 1:])
    with pytest.raises(ConfigError, match="'ann', which sees one step"):
        train(apply_overrides(stepwise, ["train.mode=ann"]), tmp_path / "ann")
    from_arrays(x[:, :, 0], y).write(tmp_path / "static.npz")
    with pytest.raises(ConfigError, match="expected one label for each sample; found one for each step"):
        load_dataset(DatasetConfig(name="npz", path=str(tmp_path / "static.npz"), encoder="direct"))
    with pytest.raises(ConfigError, match="rlif"):
        train(apply_overrides(stepwise, ["train.synop_budget=10"]), tmp_path / "charged")
    pictures = {"dataset": {"name": "digits"}, "network": [{"kind": "conv", "channels": 2}, {"kind": "rlif"}]}
    with pytest.raises(ConfigError, match=r"network\.1 \(rlif\): expected an input of one axis.*; found 2x6x6"):
        Network(config_of(pictures), (1, 8, 8), 10)


def test_the_qt_database_is_read_and_damage_is_told(tmp_path):
    rng = np.random.default_rng(0)
    for name, samples in (("QTDB_train.mat", 6), ("QTDB_test.mat", 3)):
        labels = rng.integers(0, 6, (samples, 9))
        one_hot = np.eye(6, dtype=np.uint8)[labels]
        one_hot[:, -1] = 0
        savemat(tmp_path / name, {"x": rng.integers(-1, 2, (samples, 9, 4)).astype(np.int16), "y": one_hot})
    config = DatasetConfig(name="qtdb_ecg", path=str(tmp_path), encoder="sequence", validation_fraction=0.34)
    data = load_dataset(config)
    assert (data.input_shape, data.classes) == ((4,), 6)
    assert [tuple(split.labels.shape) for split in (data.train, data.validation, data.test)] == [(4, 9), (2, 9), (3, 9)]
    assert data.test.labels[:, :-1].tolist() == labels[:, :-1].tolist()
    assert not data.test.labels[:, -1].any()
    assert data.test.pixels.min() == -1
    # What a run's configuration keeps of two files is read back from it.
    kept = DatasetConfig(**config.model_dump(exclude_unset=True), sha256=data.digest)
    assert load_dataset(kept).digest == kept.sha256
    (tmp_path / "QTDB_test.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(InputError, match=r"QTDB_test\.mat"):
        load_dataset(config.model_copy(update={"path": str(tmp_path / "."), "seed": 1}))
    savemat(tmp_path / "QTDB_test.mat", {"x": np.zeros((3, 9, 4)), "y": one_hot})
    with pytest.raises(
        InputError, match=r"QTDB_test\.mat: x is float64 \[3, 9, 4\], y uint8 \[3, 9, 6\]; get it again"
    ):
        load_dataset(config)
    savemat(tmp_path / "QTDB_test.mat", {"x": np.zeros((1, 2**25 + 1), np.uint8), "y": one_hot}, do_compression=True)
    with pytest.raises(InputError, match=r"QTDB_test\.mat: .*more than 33,554,432 values"):
        load_dataset(config)
    with pytest.raises(ConfigError, match=r"'dataset\.path': expected .* for qtdb_ecg; found none"):
        load_dataset(load_config("qtdb_ecg").dataset)
    (tmp_path / "QTDB_test.mat").unlink()
    with pytest.raises(InputError, match=r"QTDB_test\.mat: no such file"):
        load_dataset(config)
