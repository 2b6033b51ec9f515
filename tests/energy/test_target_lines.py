"""Lines that depend on a target: Xylo's, the microcontrollers', UP5K's; none for a network that its check refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stl_deploy.config.options import EnergyOptions
from stl_deploy.energy.measure import measure_energy
from stl_deploy.exporters.verilog.target import VerilogFormat, VerilogOptions
from stl_deploy.graph.program import Adaptation, Program
from stl_deploy.pipeline.energy import checked, energy
from stl_deploy.verbs.listings import prices
from tests.energy.nets import f32, lif, linear, start
from tests.energy.nets import program as spiking
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


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"adaptation": Adaptation(decay=f32(0.9), jump=f32(0.1))},
            "adapting threshold or late reset that fire at most once a step, unlike lif[.]$",
        ),
        ({"reset": "subtract_delayed"}, "late reset that fire at most once a step, unlike lif[.]$"),
        ({"reset": "value_delayed", "v_reset": f32(0)}, "late reset that fire at most once a step, unlike lif[.]$"),
        ({}, ""),
    ],
)
def test_only_neurons_whose_instructions_were_counted_have_a_line(changes: dict[str, Any], reason: str) -> None:
    """Measured in QEMU: 24,000 instructions were predicted for a network of adapting neurons that took 90,000."""
    net = spiking(start((4000,)), replace(lif("lif", "in", (4000,), 1), **changes))
    report = measure_energy(net, np.ones((2, 1, 4000), np.float32))
    notes = [note for note in report.assumptions if note.startswith("No microcontroller is priced")]
    assert bool(notes) == bool(reason)
    assert all(re.search(reason, note) for note in notes)
    assert len([line for line in report.chips if line.chip.startswith("stm32")]) == (0 if reason else 4)


def test_networks_smaller_than_those_counted_need_a_step_time() -> None:
    net, x = small(np.random.default_rng(0), 24, 10), np.ones((6, 4, 8), np.float32)
    report = measure_energy(net, x)
    assert not [line.chip for line in report.chips if line.chip.startswith("stm32")]
    assert any("at least 3,940 neuron updates a step; this one has 34" in note for note in report.assumptions)


def small(rng: np.random.Generator, hidden: int, outputs: int) -> Program:
    return spiking(
        start((8,)),
        linear("a", "in", rng.integers(-9, 10, (hidden, 8))),
        lif("lif1", "a", (hidden,), 12),
        linear("b", "lif1", rng.integers(-9, 10, (outputs, hidden))),
        lif("lif2", "b", (outputs,), 12),
    )


@pytest.mark.parametrize(("hidden", "outputs"), [(24, 10), (5, 3)])
def test_clocks_on_up5k_are_those_of_the_check(hidden: int, outputs: int) -> None:
    rng = np.random.default_rng(0)
    net, x = small(rng, hidden, outputs), (rng.random((6, 40, 8)) < 0.4).astype(np.float32)
    report = energy(net, x, EnergyOptions())
    (line,) = [each for each in report.chips if each.chip == "up5k"]
    found = VerilogFormat().check_for(net, VerilogOptions(device="up5k", x=x))
    (said,) = [each.reason for each in found if each.slug == "fpga-clocks"]
    assert line.latency is not None
    assert said.startswith(f"{line.latency[0] * 24e6:,.0f} clocks an inference")
    assert not report.checked.refused


def test_networks_that_a_check_refuses_have_no_line_and_a_reason() -> None:
    program = chain((4, 8, 10))  # several spikes a step, and more outputs than Audio 2 has
    report = energy(program, counts(program, steps=20), EnergyOptions(step_time={"xylo_audio2": 1e-3}))
    assert not {"up5k", "xylo_audio2"} & {line.chip for line in report.chips}
    notes = [note for note in report.assumptions if note.startswith("No energy of")]
    assert "several spikes" in notes[0]
    assert "10 output neurons; Xylo Audio 2 holds 8" in notes[1]
    assert set(checked(program, counts(program, steps=20)).refused) == {"up5k"}


def test_input_that_integers_cannot_take_is_a_reason() -> None:
    net = small(np.random.default_rng(0), 5, 3)
    refused = checked(net, np.full((2, 1, 8), 1 / 3, np.float32)).refused["up5k"]
    assert refused
    assert "\n" not in refused


@pytest.mark.parametrize(("outputs", "inputs", "reason"), [(16000, 1, "16,000 neurons"), (1050, 1000, "1,050,000")])
def test_what_up5k_surely_cannot_hold_is_said_at_once(outputs: int, inputs: int, reason: str) -> None:
    net = spiking(start((inputs,)), linear("a", "in", np.ones((outputs, inputs))), lif("lif1", "a", (outputs,)))
    assert reason in checked(net, np.ones((1, 1, inputs), np.float32)).refused["up5k"]


@pytest.mark.usefixtures("any_size")
def test_prices_list_the_power_of_every_line_with_its_source() -> None:
    """Power times time is the line's energy without events; of UP5K all of it."""
    powers = {row["name"]: row for row in prices() if row["scope"] == "power"}
    rng = np.random.default_rng(0)
    net, x = small(rng, 5, 3), (rng.random((6, 4, 8)) < 0.4).astype(np.float32)
    report = energy(net, x, EnergyOptions())
    lines = {line.chip: line for line in report.chips if line.latency is not None}
    assert "up5k" in lines
    assert set(lines) == set(powers) - {"xylo_audio2"}  # which cannot hold this network
    for name, line in lines.items():
        row, latency = powers[name], line.latency
        assert latency is not None
        assert row["source"] == line.source
        standing = [line.floor or (0.0, 0.0), line.stepping or (0.0, 0.0)]
        joules = line.total if line.floor is None else tuple(map(sum, zip(*standing, strict=True)))
        if not name.startswith("stm32"):  # whose cycles have a range beside the power's
            assert joules == pytest.approx([w * s for w, s in zip(row["watts"], latency, strict=True)])
