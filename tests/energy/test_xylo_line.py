"""Xylo's line: only with a step time, and nothing but the maker's powers times it."""

from __future__ import annotations

import pytest

from stl_deploy.energy.measure import measure_energy
from tests.exporters.xylo.nets import chain, counts


def test_only_a_step_time_makes_a_line() -> None:
    program = chain()
    x = counts(program, steps=20)
    assert "xylo_audio2" not in {line.chip for line in measure_energy(program, x).chips}
    (line,) = [
        one for one in measure_energy(program, x, step_time={"xylo_audio2": 1e-3}).chips if one.chip == "xylo_audio2"
    ]
    assert line.total == pytest.approx((0.216e-3 * 20e-3, 0.507e-3 * 20e-3))
    assert line.floor == line.total
    assert line.events == (0, 0)
    assert line.evidence == "measured"
    assert line.as_dict()["label"] == "modelled"
    assert "nothing was held out" in line.note
