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


def test_microcontrollers_are_priced_by_instructions_that_were_counted() -> None:
    """Neurons with a synaptic current take several times the instructions of those that were counted."""
    program = chain()
    x = counts(program, steps=20)
    report = measure_energy(program, x)
    assert not [line.chip for line in report.chips if line.chip.startswith("stm32")]
    assert any(
        note.startswith("No microcontroller is priced") and "lif1, lif2, lif3" in note for note in report.assumptions
    )
    (line,) = [line for line in measure_energy(program, x, step_time={"stm32l4r5": 1e-3}).chips if "stm32" in line.chip]
    assert line.latency == pytest.approx((20e-3, 20e-3))
