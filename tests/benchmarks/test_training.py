"""The bench compares like with like: the same function and gradients, and every number lands in the table."""

import torch

from benchmarks import training
from benchmarks.training import MODEL_NAMES, WORKLOADS, StepByStep, Workload, contestants, measure, table

SMALL = Workload(
    [*training._block(4, 3, False), {"kind": "flatten"}, *training._dense(10), {"kind": "vote", "population": 1}],
    (1, 8, 8),
    5,
    6,
)


def test_the_authors_algorithm_computes_what_ours_does():
    ours, theirs = SMALL.network(), StepByStep(SMALL.network())
    x, _ = training._batch(SMALL)
    x = 3 * x
    assert torch.equal(ours(x), theirs(x))
    assert ours(x).detach().any()
    weights = torch.randn(5, 6, 10, generator=torch.Generator().manual_seed(0))
    (ours(x) * weights).sum().backward()
    (theirs(x) * weights).sum().backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.grad.abs().sum() > 0
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_workloads_are_the_ones_defined():
    shapes = {name: list(work.network().shapes.values()) for name, work in WORKLOADS.items()}
    assert shapes["W1"][7] == (128, 7, 7)
    assert shapes["W2"][6] == (1568,)
    assert shapes["W3"][:6] == [(512,)] * 4 + [(10,)] * 2
    assert [(work.steps, work.batch) for work in WORKLOADS.values()] == [(4, 32), (16, 128), (50, 128)]
    assert WORKLOADS["W1"].network().thresholds()["lif1"].shape == (128, 28, 28)
    floor, _ = contestants(WORKLOADS["W3"])["floor"]
    assert floor.mode == "ann"


def test_every_ratio_is_in_the_table(monkeypatch):
    monkeypatch.setitem(training.WORKLOADS, "W3", SMALL)
    found = measure(["W3"], 1, memory=False, times=(2, 4))
    assert set(found["workloads"]["W3"]["ratio"]["train"]) == set(MODEL_NAMES)
    assert found["workloads"]["W3"]["ratio"]["infer"]["floor"] == 1
    shown = table(found)
    assert all(name in shown for name in MODEL_NAMES)
    assert "T = 4" in shown
