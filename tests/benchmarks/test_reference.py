"""The reference run's speed table: that both sides compute the same, and what it says of its circumstances."""

import pytest
import yaml

from benchmarks import reference
from stl_deploy.config.load import config_of
from stl_deploy.nn.network import Network
from tests.benchmarks.test_onnx_speed import SMALL


def test_measured_times_and_the_table():
    config = config_of(yaml.safe_load(SMALL))
    network = Network(config, (1, 28, 28), 10).eval()
    made = {"small": reference.folded(network, config, 4), "loop": reference.recurrent(50, 20)}
    found = reference.measure(made, rounds=2)
    assert [row["case"] for row in found["rows"]] == ["small", "loop"]
    for row in found["rows"]:
        assert all(len(times) == 2 and min(times) > 0 for times in row["seconds"].values())
        assert row["ratio"] > 0
    row = found["rows"][0] | {"seconds": {reference.TORCH: [2.0, 4.0], reference.REFERENCE: [6.0, 3.0]}, "ratio": 1.5}
    busy = reference.table(found | {"rows": [row], "load": [0.5, 3.0]})
    assert "| small | 3000.0 | 4500.0 | 1.50 |" in busy
    assert "not quiet, so these are no results" in busy


def test_a_loop_that_computes_something_else_is_not_timed(monkeypatch):
    honest = reference.looped
    monkeypatch.setattr(reference, "looped", lambda *tensors: 1 - honest(*tensors))
    with pytest.raises(SystemExit, match="does not compute what the reference run computes"):
        reference.recurrent(50, 20)
