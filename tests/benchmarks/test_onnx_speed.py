"""The speed table: that what it compares computes the same, and what it says of its circumstances."""

import dataclasses

import pytest
import yaml

from benchmarks import onnx_speed
from stl_deploy.config.load import config_of
from stl_deploy.exporters.onnx import OnnxModel
from stl_deploy.nn.network import Network

SMALL = """
dataset: {name: mnist, T: 3, encoder: bernoulli, validation_fraction: 0.1}
network: [{kind: conv, channels: 2, kernel: 3}, {kind: lif}, {kind: pool, op: max}, {kind: flatten},
  {kind: linear, features: 10}, {kind: lif}, {kind: vote, population: 1}]
train: {epochs: 1}
"""


def test_measured_times_and_the_table():
    config = config_of(yaml.safe_load(SMALL))
    network = Network(config, (1, 28, 28), 10).eval()
    found = onnx_speed.measure({"small": (network, config)}, threads=1, rounds=2, batches=(1,))
    (row,) = found["rows"]
    assert set(row["seconds"]) == set(onnx_speed.CONTENDERS)
    assert all(len(times) == 2 and min(times) > 0 for times in row["seconds"].values())
    assert row["ratios"][onnx_speed.MODEL] == 1
    row["seconds"] = {name: [2.0, 4.0] for name in row["seconds"]} | {onnx_speed.SCAN: [1.0, 2.0]}
    row["ratios"] = onnx_speed.ratios(row)
    export = {"seconds": 1.0, "peak_growth_mib": 8.0, "weights_mib": 4.0, "times": 2.0}
    busy = onnx_speed.table(found | {"load": [0.5, 3.0], "export": export})
    assert "| small | 3 | 1 | 1 (3000.0 ms) | 1.00 | 1.00 | 0.50 | 1.00 | 1.00 | 1.00 | +500.00 |" in busy
    assert "not quiet, so these are no results" in busy
    assert "2.00 times its 4 MiB of weights" in busy
    assert "not quiet" not in onnx_speed.table(found | {"load": [0.5, 1.0]})


def test_a_contender_that_computes_something_else_is_not_timed(monkeypatch):
    config = config_of(yaml.safe_load(SMALL))
    network = Network(config, (1, 28, 28), 10).eval()
    honest = OnnxModel.run

    def wrong(model, x, **options):
        result = honest(model, x, **options)
        return dataclasses.replace(result, outputs={name: y + 1 for name, y in result.outputs.items()})

    monkeypatch.setattr(OnnxModel, "run", wrong)
    with pytest.raises(SystemExit, match="does not compute what the Scan form computes"):
        onnx_speed.measure({"small": (network, config)}, threads=1, rounds=1, batches=(1,))
