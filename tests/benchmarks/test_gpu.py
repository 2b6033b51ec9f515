"""The GPU bench runs without a card as far as it can, and says so where it cannot."""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import measure
from benchmarks.training import trace_bytes
from benchmarks.workloads import TINY, AuthorsNeuron


def test_on_the_cpu_it_measures_what_is_there():
    rows = measure(TINY, "cpu", 1)
    assert set(rows) == {"floor", "floor, bfloat16", gpu.BY_TORCH}
    assert rows["floor"]["seconds_over_floor"] == 1
    assert rows[gpu.BY_TORCH]["seconds"] > 0


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, of its tracer
def test_the_compiled_scan_is_one_graph_with_the_authors_spikes():
    torch.manual_seed(0)
    x, plain = torch.rand(5, 3, 4) * 2, AuthorsNeuron((4,))
    made = gpu.CompiledScan((4,), backend="aot_eager")(x)
    assert torch.equal(made, torch.stack([plain(step) for step in x]))
    assert made.any()


@pytest.mark.filterwarnings("ignore")  # torch's own, of its tracer; as errors they would be told as a failure
def test_the_compiled_scan_has_rows_at_every_workload(monkeypatch):
    """torch compiles the code of a line for eight shapes at most; these are ten."""
    monkeypatch.setattr(gpu, "CompiledScan", partial(gpu.CompiledScan, backend="eager"))
    for steps in range(2, 7):
        found = gpu.compiled(replace(TINY, steps=steps), "cpu", 1)
        assert set(found.get("rows", found)) == {"floor", gpu.COMPILED}, found


def test_what_torch_compile_cannot_do_is_told(monkeypatch):
    def broken(*_):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(gpu, "CompiledScan", broken)
    assert gpu.compiled(TINY, "cpu", 1) == {"failed": "no compiler at all"}


def test_goals_say_what_was_reached():
    """By hand: 0.5 MiB of floor and a quarter of the float32 trace allowed."""
    byte_trace = trace_bytes(TINY) / 4
    floor_row = {"seconds": 1.0, "seconds_over_floor": 1.0, "bytes": 2.0**19, "bytes_over_floor": 1.0}
    ours = {"seconds": 1.1, "seconds_over_floor": 1.1, "bytes": 2.0**19 + byte_trace, "bytes_over_floor": 0.0}
    ours["bytes_over_floor"] = ours["bytes"] / floor_row["bytes"]
    told = {
        "cuda": {"failed": "x"},
        "triton": {"rows": {"floor": floor_row, "multi-step": {"seconds_over_floor": 1.32}}},
    }
    found = gpu.goals(TINY, {"floor": floor_row, "ours": ours}, {"spikingjelly": told})
    assert [one["met"] for one in found.values()] == [True, True, False]
    assert found["times as fast as SpikingJelly's fastest"]["reached"] == pytest.approx(1.2)
    ours["bytes_over_floor"] += 1e-3
    assert not gpu.goals(TINY, {"floor": floor_row, "ours": ours}, {})["memory, floors"]["met"]


def test_the_page_tells_rows_goals_and_what_did_not_run():
    row = {"seconds": 0.002, "seconds_over_floor": 1.0, "bytes": 2.0**21, "bytes_over_floor": 1.0}
    goal = {"a step, floors": {"reached": 1.2, "goal": 1.15, "met": False}}
    workload = {"rows": {"floor": row}, "compiled": {"failed": "no compiler"}, "peers": {}, "goals": goal}
    page = gpu.page({"device": "a card", "torch": "2", "workloads": {"W1, T = 4": workload}})
    assert "| W1, T = 4 | floor | 2.00 | 1.00 | 2.0 | 1.00 |" in page
    assert "| W1, T = 4 | a step, floors | 1.20 | 1.15 | no |" in page
    assert "- W1, T = 4, compiled: no compiler" in page


def test_a_peer_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "environment", lambda name, cache: sys.executable)
    found = gpu.peer("snntorch", tmp_path, "W2", "cpu", 4, 1)
    assert found == {"torch": {"failed": "ModuleNotFoundError: No module named 'snntorch'"}}


def test_a_peer_whose_environment_cannot_be_made_is_told(monkeypatch, tmp_path):
    def offline(*_):
        raise subprocess.CalledProcessError(1, ["pip"])

    monkeypatch.setattr(gpu, "environment", offline)
    found = gpu.peer("spikingjelly", tmp_path, "W2", "cpu", 4, 1)
    assert set(found) == {"cuda", "triton", "torch"}
    assert "could not be made" in found["cuda"]["failed"]


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
