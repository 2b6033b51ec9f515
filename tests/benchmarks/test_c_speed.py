"""The speed bench: its networks spike at the rates they say, every contender computes them, the table is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import c_speed
from stl_deploy.exporters.c.compiler import find_compiler, why_none
from stl_deploy.graph.run import run

F = np.float32


def test_rates_are_as_asked() -> None:
    program = c_speed.network((1, 12, 12), (8, 8), 20, 4, 0.2)
    x = (np.random.default_rng(2).random((4, 40, 1, 12, 12)) < 0.2).astype(F)
    rates = c_speed.rates(program, x)
    assert all(0.1 < rates[name] < 0.35 for name in ("pool1", "pool2", "lif3")), rates


def test_plain_torch_is_the_network() -> None:
    program = c_speed.network((1, 12, 12), (8, 8), 20, 4, 0.2)
    x = (np.random.default_rng(2).random((4, 5, 1, 12, 12)) < 0.2).astype(F)
    np.testing.assert_allclose(c_speed.eager(program, torch.from_numpy(x)).numpy(), run(program, x).y, atol=1e-5)


@pytest.mark.skipif(find_compiler() is None, reason=why_none())
def test_measuring_a_small_one(tmp_path: Path) -> None:
    program = c_speed.network((1, 12, 12), (8, 32), 20, 2, 0.2)
    found = c_speed.measure({"small": (program, c_speed.spikes((1, 12, 12), 0.2, 2))}, rounds=2)
    (row,) = found["rows"]
    names = {*c_speed.BUILDS, c_speed.FLOAT, c_speed.INTEGER, c_speed.EAGER}
    assert set(row["seconds"]) == names
    row["seconds"] = {name: [2e-4, 4e-4] for name in names} | {c_speed.NATIVE: [1e-4, 1e-4]}
    row["ratios"] = c_speed.ratios(row["seconds"])
    text = c_speed.table(found | {"load": [0.1, 9.0]})
    assert "| small | 100 µs (1.0x) | 300 µs (3.0x) |" in text
    assert "the machine was not quiet" in text
    assert "snnTorch" not in text
    row["seconds"][c_speed.SNNTORCH] = [7e-4, 9e-4]
    row["ratios"] = c_speed.ratios(row["seconds"])
    assert "| snnTorch |" in c_speed.table(found | {"load": [0.1, 0.1]})
    assert "| 800 µs (8.0x) |" in c_speed.table(found | {"load": [0.1, 0.1]})
    c_speed.plot({"rows": [row | {"network": "MNIST size, 20 %"}]}, tmp_path)
    assert "µs a sample" in (tmp_path / "c-speed.svg").read_text()
