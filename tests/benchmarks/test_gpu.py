"""The GPU bench runs without a card as far as it can, and says so where it cannot."""

import subprocess
import sys

import torch

from benchmarks import gpu
from benchmarks.gpu import measure
from benchmarks.workloads import TINY


def test_on_the_cpu_it_measures_what_is_there():
    rows = measure(TINY, "cpu", 1)
    assert set(rows) == {"floor", "ours, torch's scan"}
    assert rows["floor"]["seconds_over_floor"] == 1
    assert rows["ours, torch's scan"]["seconds"] > 0


def test_a_peer_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "environment", lambda name, cache: sys.executable)
    found = gpu.peer("snntorch", tmp_path, "W2", "cpu", 4, 1)
    assert found == {"torch": {"failed": "ModuleNotFoundError: No module named 'snntorch'"}}


def test_without_a_card_it_is_one_sentence(tmp_path):
    if torch.cuda.is_available():
        return
    command = [sys.executable, "-m", "benchmarks.gpu", "-o", tmp_path / "x.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "no CUDA device found: this bench needs one (--device cpu tests the bench itself)"
    ]
    assert not list(tmp_path.iterdir())
