"""What only a CUDA card can show, run by ``make gpu``: the same spikes and training there as on the CPU."""

import os

import pytest
import torch

from stl_deploy.config.load import apply_overrides, load_config
from stl_deploy.data import load_dataset
from stl_deploy.nn import cuda
from stl_deploy.nn.network import Network
from stl_deploy.training.loop import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine: make gpu")


@pytest.fixture
def digits():
    return apply_overrides(load_config("digits"), ["train.epochs=2", "train.device=cuda"])


def test_the_network_takes_the_kernels_and_spikes_as_with_torchs_operations(digits, monkeypatch):
    torch.manual_seed(0)
    network = Network(digits, (1, 8, 8), 10).cuda().eval()
    x = torch.rand(4, 32, 1, 8, 8, device="cuda")
    assert cuda.installed()
    with torch.no_grad():
        _, by_kernels = network.record(x)
        monkeypatch.setenv(cuda.SWITCH, "0")
        _, by_torch = network.record(x)
    for name, spikes in by_torch.items():
        assert torch.equal(spikes, by_kernels[name]), name


def test_training_resumes_to_the_same_bits(digits, tmp_path):
    torch.use_deterministic_algorithms(True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        whole = train(digits, tmp_path / "whole")
        train(apply_overrides(digits, ["train.epochs=1"]), tmp_path / "part")
        part = train(digits, tmp_path / "part", resume=True)
    finally:
        torch.use_deterministic_algorithms(False)
    for (name, a), (_, b) in zip(whole.network.state_dict().items(), part.network.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_digits_are_learned_as_on_the_cpu(tmp_path):
    config = apply_overrides(load_config("digits"), ["train.device=cuda"])
    assert train(config, tmp_path).test.accuracy > 0.96
    assert len(load_dataset(config.dataset).test) > 300
