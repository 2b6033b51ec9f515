"""The bench compares like with like: the same function and gradients, and every number lands in the table."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import training, workloads
from benchmarks.training import CONTESTANTS, Contestant, measure, network
from benchmarks.training_report import page, record, table, winners
from benchmarks.workloads import WORKLOADS, AuthorsNeuron, Stack, Workload, authors, floor
from stl_deploy._util.files import read_json

ROOT = Path(__file__).parents[2]
SMALL = Workload(
    [*workloads.block(4, 3, False), {"kind": "flatten"}, *workloads.dense(10), {"kind": "vote", "population": 1}],
    (1, 8, 8),
    5,
    6,
)


def test_the_authors_algorithm_computes_what_ours_does():
    ours, theirs = network(SMALL), authors(SMALL)
    weights = [p for n, p in ours.named_parameters() if "threshold" not in n]
    copies = [p for n, p in theirs.named_parameters() if "threshold" not in n]
    with torch.no_grad():
        for a, b in zip(weights, copies, strict=True):
            b.copy_(a)
    x = 3 * SMALL.data()[0]
    assert torch.equal(ours(x), theirs(x))
    assert ours(x).detach().any()
    weigh = torch.randn(5, 6, 10, generator=torch.Generator().manual_seed(0))
    (ours(x) * weigh).sum().backward()
    (theirs(x) * weigh).sum().backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.grad.abs().sum() > 0
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_a_part_that_is_measured_anew_leaves_the_others():
    same = {"machine": {"processor": "z", "threads": 2}, "torch": "2"}
    kept = {**same, "rounds": 7, "workloads": {"W1": 1, "W3": 1}, "cost": {"T": 1}, "by_density": {"ratio": {"0.5": 1}}}
    found = {**same, "rounds": 9, "workloads": {"W3": 2}, "cost": {}, "by_density": {"workload": "W2", "ratio": {}}}
    assert training.joined(kept, found) == {**kept, "rounds": 9, "workloads": {"W1": 1, "W3": 2}}
    found = {**found, "workloads": {}, "cost": {"batch": 2}}
    assert training.joined(kept, found) == {**kept, "rounds": 9, "cost": {"batch": 2}}


def test_a_part_on_another_machine_is_refused_before_it_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(training, "measure", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.setattr(training, "setting", lambda: {"machine": {"processor": "z", "threads": 2}, "torch": "3"})
    kept = {**training.setting(), "torch": "2"}
    (tmp_path / f"{training.STEM}.json").write_text(json.dumps({"ours": kept}))
    with pytest.raises(SystemExit, match="the page is of torch 2, this is 3: measure all parts"):
        training.main(["--part", "density", "-o", str(tmp_path)])


def test_the_floor_is_our_network_in_mode_ann():
    ann, stack = network(SMALL, mode="ann"), floor(SMALL)
    with torch.no_grad():
        for a, b in zip(ann.parameters(), stack.parameters(), strict=True):
            b.copy_(a)
    x, _ = SMALL.data()
    torch.testing.assert_close(ann(x), stack(x))
    assert float(stack(x).detach().min()) < 0


@pytest.mark.parametrize("form", ["folded", "batch first"])
def test_every_form_of_a_stack_is_the_same_function(form):
    class Sequence(AuthorsNeuron):
        def forward(self, x):
            self.begin()
            steps = [super(Sequence, self).forward(step) for step in (x if form == "folded" else x.transpose(0, 1))]
            return torch.stack(steps, 0 if form == "folded" else 1)

    x = 3 * SMALL.data()[0]
    expected, found = authors(SMALL), Stack(SMALL, Sequence, form)
    assert torch.equal(expected.rates(x), found.rates(x))
    assert expected.rates(x).detach().any()


def test_the_share_of_spikes_is_the_density():
    shares = [replace(SMALL, density=density).data()[0].mean().item() for density in (0.0, 0.2, 1.0)]
    assert shares == pytest.approx([0, 0.2, 1], abs=0.02)


def test_workloads_are_the_ones_defined():
    shapes = {name: list(network(work).shapes.values()) for name, work in WORKLOADS.items()}
    assert shapes["W1"][7] == (128, 7, 7)
    assert shapes["W2"][6] == (1568,)
    assert shapes["W3"][:6] == [(512,)] * 4 + [(10,)] * 2
    assert [(work.steps, work.batch) for work in WORKLOADS.values()] == [(4, 32), (16, 128), (50, 128)]
    assert network(WORKLOADS["W1"]).thresholds()["lif1"].shape == (128, 28, 28)


def test_settings_of_a_contestant_end_with_its_step(monkeypatch):
    monkeypatch.delenv("STL_BENCH_TEST", raising=False)
    one = Contestant(floor, environment={"STL_BENCH_TEST": "0"}, matmul="medium")
    before = torch.get_float32_matmul_precision()
    with one.settings():
        assert (os.environ["STL_BENCH_TEST"], torch.get_float32_matmul_precision()) == ("0", "medium")
    assert "STL_BENCH_TEST" not in os.environ
    assert torch.get_float32_matmul_precision() == before


@pytest.fixture
def found(monkeypatch):
    for name in ("W2", "W3"):
        monkeypatch.setitem(training.WORKLOADS, name, SMALL)
    monkeypatch.setattr(training, "apart", lambda *_, **__: 2e6)
    return measure(["W3"], 1, sizes={"T": (2, 4), "depth": (1, 2)}, densities=(0.5, 1.0))


def test_every_ratio_is_in_the_table(found):
    assert set(found["workloads"]["W3"]["ratio"]["train"]) == set(CONTESTANTS)
    assert found["workloads"]["W3"]["ratio"]["infer"]["floor"] == 1
    shown = table(found)
    assert all(name in shown for name in CONTESTANTS)
    assert "T = 4" in shown
    assert "depth = 2" in shown
    traces = 4 * 5 * 6 * (4 * 8 * 8 + 10)
    assert found["workloads"]["W3"]["peak_ratio_allowed"] == 1 + traces / 2e6
    assert f"one trace of potentials per layer would be W3 {1 + traces / 2e6:.2f}." in page({"ours": found})
    by_density = found["by_density"]["ratio"]
    assert list(by_density) == ["0.5", "1.0"]
    assert f"| 1.0 | {by_density['1.0']['train']:.2f} | {by_density['1.0']['infer']:.2f} |" in page({"ours": found})


def test_the_page_says_who_wins_by_how_much(found, tmp_path):
    row = {
        "ratio": {"train": {"floor": 1.0, "a": 3.0, "b": 2.0}, "infer": {"floor": 1.0, "a": 0.5, "b": 0.75}},
        "agreement": {"a": 1.0, "b": 0.5},
    }
    peers = {"Peer": {"version": "7", "notes": "fixed thresholds", "workloads": {"W3": row}}}
    found["workloads"]["W3"]["ratio"] = {
        "train": {"floor": 1.0, "ours": 0.5, "ours, highest": 0.8},
        "infer": {"floor": 1.0, "ours": 1.0, "ours, highest": 1.0},
    }
    assert list(winners(found, peers)) == [
        "W3, train, over ours (0.50 of the floor): Peer 4.00",
        "W3, train, over ours, highest (0.80 of the floor): Peer 2.50",
        "W3, infer, over ours (1.00 of the floor): Peer 0.50",
        "W3, infer, over ours, highest (1.00 of the floor): Peer 0.50",
    ]
    record(tmp_path, "peers", peers)
    record(tmp_path, "ours", found)
    assert set(read_json(tmp_path / "training-speed.json")) == {"ours", "peers"}
    text = (tmp_path / "training-speed.md").read_text()
    assert text == page(read_json(tmp_path / "training-speed.json"))
    assert "| W3 | Peer 7 | b | 2.00 | 0.75 |  | 50.00 |" in text
    assert "fixed thresholds" in text
    assert (tmp_path / "training-speed.svg").is_file()


@pytest.mark.parametrize("part", ["workloads", "density"])
def test_a_part_alone_goes_into_a_new_folder(part, found, tmp_path, monkeypatch):
    measured = found | {"workloads": {}, "cost": {}, "by_density": {"ratio": {}}}
    measured |= {"workloads": found["workloads"]} if part == "workloads" else {"by_density": found["by_density"]}
    monkeypatch.setattr(training, "measure", lambda *_, **__: measured)
    training.main(["--part", part, "-o", str(tmp_path / "new")])
    assert {path.name for path in (tmp_path / "new").iterdir()} >= {"training-speed.json", "training-speed.md"}


def test_peak_is_what_the_calls_add():
    bytes_ = 64 * 2**20
    script = f"""
import torch
from benchmarks.workloads import peak_of
freed = torch.ones({bytes_})
del freed
print(peak_of(lambda: torch.ones({bytes_ // 4}) is None, lambda: torch.ones(10)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0.95 * bytes_ < int(done.stdout) < 1.2 * bytes_


def test_agreement_counts_common_spikes():
    from benchmarks.peers.worker import agreement_of

    class Eager(AuthorsNeuron):
        def __init__(self, shape):
            super().__init__(shape)
            torch.nn.init.constant_(self.threshold, 0.5)

    assert agreement_of(authors, SMALL) == 1
    assert 0 < agreement_of(lambda work: Stack(work, Eager, "steps"), SMALL) < 0.9
