"""What only a CUDA card can show, run by ``make gpu``: spikes, training, resuming and processes there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stl_deploy.config.load import apply_overrides, dump_config, load_config
from stl_deploy.data import encode, load_dataset
from stl_deploy.nn import cuda
from stl_deploy.pipeline.fold_network import fold
from stl_deploy.training.checkpoint import load_network
from stl_deploy.training.loop import train
from stl_deploy.training.matmul_precision import matmul_precision
from stl_deploy.training.pretrained.unpacking import unpack

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # here: the first product of the process settles it
if not torch.cuda.is_available():
    pytest.skip("no CUDA device on this machine: make gpu", allow_module_level=True)


@pytest.fixture
def digits():
    return apply_overrides(load_config("digits"), ["train.epochs=2", "train.device=cuda"])


def test_the_network_takes_the_kernels_and_spikes_as_with_torchs_operations(tmp_path, monkeypatch):
    """But where a norm's rounding brings a potential to the other side of its threshold."""
    monkeypatch.delenv(cuda.SWITCH, raising=False)
    unpack("digits", tmp_path)
    network, seen = load_network(tmp_path)[0].cuda(), []  # trained: all layers spike
    torch.manual_seed(0)
    x = torch.rand(4, 32, 1, 8, 8).cuda()
    assert cuda.ready(x)
    with torch.no_grad():
        network(x, lambda name, _: seen.append(name))
        _, by_kernels = network.record(x)
        monkeypatch.setenv(cuda.SWITCH, "0")
        _, by_torch = network.record(x)
    assert not any(name.startswith("norm") for name in seen)
    for name, spikes in by_torch.items():
        assert spikes.any(), name
        assert (spikes != by_kernels[name]).float().mean() < 1e-4, name


def test_a_folded_network_spikes_as_on_the_cpu(tmp_path):
    """To the bit: on the exact grid no order of summation changes a sum."""
    unpack("digits", tmp_path)
    network, config = load_network(tmp_path)
    folded = fold(network, coding="analog", fraction_bits=4).network
    images = load_dataset(config.dataset).test.images(slice(100))
    x = encode(images, config.time_steps, config.encoder, torch.Generator())
    _, here = folded.record(x)
    # cuDNN may take Winograd for convolutions of 3 by 3, whose factors are off the grid.
    with matmul_precision("highest"), torch.backends.cudnn.flags(enabled=False):
        _, there = folded.cuda().record(x.cuda())
    for name, spikes in here.items():
        assert spikes.any(), name
        assert torch.equal(spikes, there[name].cpu()), name


def test_training_resumes_to_the_same_bits(digits, tmp_path):
    torch.use_deterministic_algorithms(True)
    try:
        whole = train(digits, tmp_path / "whole")
        train(apply_overrides(digits, ["train.epochs=1"]), tmp_path / "part")
        part = train(digits, tmp_path / "part", resume=True)
    finally:
        torch.use_deterministic_algorithms(False)
    for (name, a), (_, b) in zip(whole.network.state_dict().items(), part.network.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_two_processes_share_one_card(digits, tmp_path):
    """As the batch of one, by gloo where there are fewer cards than processes; dropout would differ."""
    digits = apply_overrides(digits, ["network.8.p=0"])
    (tmp_path / "digits.yaml").write_text(dump_config(digits))
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "stl_deploy"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0"}
    subprocess.run([*call, "train", tmp_path / "digits.yaml", "-o", tmp_path / "two"], env=environment, check=True)
    train(digits, tmp_path / "one")
    two, one = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    )
    assert two == pytest.approx(one, rel=0.05)


@pytest.mark.skipif("STL_DEPLOY_DATA" not in os.environ, reason="STL_DEPLOY_DATA names no folder of datasets")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_epoch_of_cifar10(precision, tmp_path):
    """Of the deep net, on the images unpacked into STL_DEPLOY_DATA/cifar10/train and test."""
    data = Path(os.environ["STL_DEPLOY_DATA"]) / "cifar10"
    if not (data / "train").is_dir():
        pytest.skip(f"{data} has no folder train of unpacked images")
    changes = [f"dataset.data_dir={data}", "train.epochs=1", "train.one_step_epochs=0", "train.device=cuda"]
    config = apply_overrides(load_config("cifar10_small"), [*changes, f"train.precision={precision}"])
    assert train(config, tmp_path).test.accuracy > 0.4


def test_digits_are_learned_as_on_the_cpu(tmp_path):
    config = apply_overrides(load_config("digits"), ["train.device=cuda"])
    assert train(config, tmp_path).test.accuracy > 0.96
    assert len(load_dataset(config.dataset).test) > 300
