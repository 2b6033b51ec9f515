"""Weights of some epochs kept beside the checkpoint."""

import pytest
import torch
from safetensors.torch import load_file

from stl_deploy.config.load import apply_overrides, load_config
from stl_deploy.errors import InputError
from stl_deploy.training.checkpoint import FOLDER, load_network, snapshots
from stl_deploy.training.loop import train


def config(*changes):
    narrow = ["network.0.channels=2", "network.4.channels=2", "network.10.features=10", "network.12.population=1"]
    return apply_overrides(load_config("digits"), [*narrow, *changes])


def test_every_second_epoch_is_kept_as_it_was(tmp_path):
    train(config("train.epochs=2", "train.keep_every=2"), tmp_path)
    after_two = load_file(tmp_path / "checkpoint.safetensors")
    train(config("train.epochs=5", "train.keep_every=2"), tmp_path, resume=True)
    kept = snapshots(tmp_path)
    assert list(kept) == [2, 4]
    network, _ = load_network(tmp_path, kept[2])
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, after_two[f"model/{name}"]), name


def test_a_new_training_leaves_none_of_the_old(tmp_path):
    train(config("train.epochs=3", "train.keep_every=1"), tmp_path)
    assert list(snapshots(tmp_path)) == [1, 2, 3]
    train(config("train.epochs=2", "train.keep_every=2"), tmp_path)
    assert list(snapshots(tmp_path)) == [2]
    train(config("train.epochs=1"), tmp_path)
    assert list(snapshots(tmp_path)) == []


def test_keeping_can_begin_when_a_training_goes_on(tmp_path):
    train(config("train.epochs=1"), tmp_path)
    train(config("train.epochs=2", "train.keep_every=1"), tmp_path, resume=True)
    assert list(snapshots(tmp_path)) == [2]


def test_a_damaged_snapshot_is_named(tmp_path):
    train(config("train.epochs=1", "train.keep_every=1"), tmp_path)
    (path,) = snapshots(tmp_path).values()
    assert path == tmp_path / FOLDER / "epoch-00001.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"epoch-00001\.safetensors: truncated, damaged"):
        load_network(tmp_path, path)
