"""The benchmark of the integer model runs, on nets that spike in every layer."""

import json

import numpy as np
import pytest

from benchmarks import loihi
from stl_deploy.exporters.loihi.simulate import simulate


def test_it_runs_without_lava(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loihi, "STEPS", 2)
    loihi.main(["--no-lava", "--samples", "1", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["net"] for row in rows] == ["mlp", "conv"]
    assert all(row["ours"] > 0 and "lava" not in row for row in rows)


def test_its_nets_spike() -> None:
    rng = np.random.default_rng(0)
    for net in loihi.nets().values():
        x = (rng.random((8, 2, *net.input_shape)) < loihi.RATE).astype(np.int32)
        assert all(spikes.any() for spikes in simulate(net, x, record=True).spikes.values())
