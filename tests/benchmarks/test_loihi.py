"""The benchmark of the integer model runs, on nets that spike in every layer."""

import json

import numpy as np
import pytest

from benchmarks import loihi, loihi_mnist
from stl_deploy.exporters.netx.convert import run_file


def test_it_runs_without_lava(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loihi, "STEPS", 2)
    monkeypatch.setattr(loihi.loihi_mnist, "measure", lambda images: loihi_mnist.run_all(images))
    loihi.main(["--no-lava", "--samples", "1", "--images", "2", "--json"])
    found = json.loads(capsys.readouterr().out)
    rows = found["rows"]
    assert found["paper"]["images"] == 2
    assert found["paper"]["output_rate"] > 0
    assert [row["net"] for row in rows] == ["mlp", "conv"]
    assert all(row["ours"] > 0 and "lava" not in row for row in rows)


def test_its_nets_spike() -> None:
    rng = np.random.default_rng(0)
    for net in loihi.nets().values():
        x = (rng.random((8, 2, *net.input_shape)) < loihi.RATE).astype(np.int32)
        assert all(spikes.any() for spikes in run_file(net, x, record=True).spikes.values())


def test_the_papers_net_is_the_presets_and_spikes() -> None:
    net = loihi_mnist.paper_net()
    shapes = [layer.shape for _, layer in net.spiking]
    assert shapes == [(128, 28, 28), (128, 14, 14), (128, 14, 14), (128, 7, 7), (2048,), (100,)]
    x = np.random.default_rng(0).random((4, 1, *loihi_mnist.IMAGE)) < loihi_mnist.RATE
    rates = [spikes.mean() for spikes in run_file(net, x, record=True).spikes.values()]
    assert all(0.001 < rate < 0.9 for rate in rates), rates
