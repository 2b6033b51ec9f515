"""One line per chip by hand: power x time, stepping, events; the predicted step; microcontrollers; baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy._util.units import between
from stl_deploy.energy import measure_energy
from stl_deploy.energy.chips.baselines import Device, Row, baselines, devices
from stl_deploy.energy.chips.lines import ChipLine, core_of, cores
from stl_deploy.energy.chips.model import chip_model, chip_models, parse_chip
from stl_deploy.energy.chips.time import Work, fastest, parse_step_times, step_time
from stl_deploy.energy.prices.chip import Checked, OnChip
from stl_deploy.errors import ConfigError, InputError
from stl_deploy.graph.program import Program
from stl_deploy.report.energy_page import page
from tests.energy.close import approx
from tests.energy.nets import f32, lif, linear, pool, program, start

PJ, NS = 1e-12, 1e-9
X = f32([[[1, 0]], [[0, 0]]])  # one sample, two steps, one event


def two_layers() -> Program:
    return program(
        start((2,)),
        linear("a", "in", np.ones((3, 2))),
        lif("hidden", "a", (3,)),
        linear("b", "hidden", np.ones((2, 3))),
        lif("out_", "b", (2,)),
    )


def line(chip: str, step: float | None = None) -> ChipLine:
    given = None if step is None else {chip: step}
    return next(c for c in measure_energy(two_layers(), X, step_time=given).chips if c.chip == chip)


def test_the_step_of_loihi_by_hand() -> None:
    # a mean step: hidden 3 accesses, 1.5 updates, 1.5 spikes, 1.5 synops, .5 messages in; out_ 2, 1, 1, 3 and 1.5
    hidden = 3 * 6.0 + 1.5 * 3.7 + 1.5 * 30 + 1.5 * 3.8
    out = 2 * 6.0 + 1 * 3.7 + 1 * 30 + 3 * 3.8
    found = line("loihi1")
    assert found.step is not None
    # low: from a core each to a neuron each, four to a tile: one tile holds four cores
    best = min(max(hidden / a, out / b) for a in (1, 2, 3) for b in (1, 2) if a + b <= 4) + 600
    assert found.step[0] == approx(best * NS)
    assert found.step[1] == approx((hidden + out + (0.5 + 1.5) * 16 + 600) * NS)
    assert found.latency == approx((2 * found.step[0], 2 * found.step[1]))
    assert found.step_source == "predicted: neurocores only, input and output excluded"


def test_the_events_of_a_pool_take_time_as_they_take_energy() -> None:
    net = program(start((1, 2, 2)), pool("sum", "in", (1, 2, 2)), lif("max", "sum", (1, 1, 1), 0.5, None))
    x = f32(np.ones((2, 1, 1, 2, 2)))
    found = next(c for c in measure_energy(net, x).chips if c.chip == "loihi1")
    one = 6.0 + 3.7 + 30 + 4 * 3.1  # four events of the window at a convolution's latency
    assert found.step == approx(((one + 600) * NS, (one + 4 * 16 + 600) * NS))


def test_power_flows_for_the_whole_latency() -> None:
    found = line("loihi1", step=1e-3)
    assert (found.step_source, found.latency) == ("given", (2e-3, 2e-3))
    assert found.floor == approx((96.2e-3 * 2e-3,) * 2)  # a chip that runs is warm; 29.54 mW are before its first run
    assert found.stepping == approx((10.03e-3 * 2e-3,) * 2)
    low = min(9 * 23.6 + 5 * 81 + 5 * 52 + 5 * 1.7, 9 * 35.5 + 10 * 51.2 + 5 * 21.6 + 5 * 69.3) * PJ
    assert found.events[0] == approx(low)
    assert found.total == approx(
        (found.floor[0] + found.stepping[0] + low, found.floor[1] + found.stepping[1] + found.events[1])
    )  # type: ignore[index]
    data = found.as_dict()
    assert data["edp_Js"] == approx([found.total[0] * 2e-3, found.total[1] * 2e-3])
    assert data["inferences_per_J"] == approx([1 / found.total[1], 1 / found.total[0]])


def test_no_step_of_loihi_2_is_shorter_than_the_shortest_measured() -> None:
    found = line("loihi2_calibrated")
    assert found.step is not None
    assert found.step[0] == approx(1.164e-6)
    assert found.sigma is not None
    assert found.sigma > 0


def test_cores_draw_power_while_they_work_and_the_first_is_in_the_stepping_power() -> None:
    chip = chip_model("loihi2_calibrated")
    assert chip.working((1e-3, 2e-3), 1) == (0.0, 0.0)
    assert chip.working((1e-3, 2e-3), 11) == approx((10 * 1.71e-3 * 1e-3, 10 * 2.66e-3 * 2e-3))
    assert chip_model("loihi1").working((1e-3, 1e-3), 11) is None
    predicted, waiting = line("loihi2_calibrated"), line("loihi2_calibrated", step=1e-3)
    assert predicted.active_cores == waiting.active_cores
    assert predicted.active_cores is not None
    assert predicted.active_cores[0] == 2  # a core for each layer
    assert predicted.cores is not None
    assert waiting.cores == approx(predicted.cores)  # a longer step is waiting, which draws no core's power
    short = line("loihi2_calibrated", step=1e-9)
    assert short.cores is not None
    fewest, most = (count - 1 for count in predicted.active_cores)
    assert short.cores == approx((min(fewest, most) * 1.71e-3 * 2e-9, max(fewest, most) * 2.66e-3 * 2e-9))


def test_without_pruned_weights_the_low_end_of_a_line_is_less() -> None:
    whole = np.ones((3, 2))
    pruned = whole * [[1, 0], [0, 0], [0, 0]]
    lines = []
    for weights in (whole, pruned):
        net = program(start((2,)), linear("a", "in", weights), lif("n", "a", (3,)))
        chips = measure_energy(net, f32([[[1, 1]]]), step_time={"loihi1": 1e-6}).chips
        lines.append(next(each for each in chips if each.chip == "loihi1"))
    before, after = (each.events for each in lines)
    # the low end is of the 2018 table: one synapse instead of six, and two neurons fewer fire
    assert after[0] < before[0] - 4 * 23.6 * PJ


def test_spinnaker_steps_last_a_millisecond() -> None:
    found = line("spinnaker1")
    assert found.latency == (2e-3, 2e-3)
    assert found.floor == approx((2.671 * 2e-3, 23.05 * 2e-3))
    # deviations: 9 dense events at 1,290, 10 neuron-steps at 4,100, 5 spikes at 11,300 pJ
    assert found.sigma == approx(np.hypot(np.hypot(9 * 1290, 10 * 4100), 5 * 11300) * PJ)


def test_a_step_time_is_of_the_chip_that_it_names() -> None:
    """One measured step used to reach every chip, so that a microcontroller ran faster than its clock."""
    told, predicted = measure_energy(two_layers(), X, step_time={"loihi1": 1e-6}), measure_energy(two_layers(), X)
    for ours, theirs in zip(told.chips, predicted.chips, strict=True):
        assert (ours == theirs) is (ours.chip != "loihi1")
        assert (ours.step_source == "given") is (ours.chip == "loihi1")
    assert any("as given for loihi1 1 µs" in text for text in told.assumptions)
    assert not any("as given" in text for text in predicted.assumptions)


@pytest.mark.usefixtures("any_size")
def test_no_microcontroller_steps_faster_than_its_clock_allows() -> None:
    least = line("stm32l4r5").latency[0] / X.shape[0]  # type: ignore[index]
    with pytest.raises(InputError, match=r"step time of stm32l4r5: expected at least .* at 120 MHz; found"):
        line("stm32l4r5", step=0.9 * least)
    assert line("stm32l4r5").evidence == "measured"
    assert line("stm32l4r5", step=1.1 * least).evidence == "unverified"  # power of other runs, a time nobody checked


@pytest.mark.usefixtures("any_size")
def test_power_and_events_say_each_how_they_are_known() -> None:
    known = {c.chip: (c.evidence, c.events_evidence) for c in measure_energy(two_layers(), X).chips}
    assert known["loihi1"] == ("measured", ("simulated", "calibrated"))
    assert known["spinnaker1"] == ("measured", ("measured",))
    assert {known[d.key] for d in devices() if d.microcontroller} == {("measured", ("simulated",))}


def test_what_is_not_published_is_null_and_not_0() -> None:
    data = line("spinnaker2").as_dict()
    assert [data[key] for key in ("floor_J", "latency_s", "edp_Js", "step_time_s", "step_time_source")] == [None] * 5
    assert data["total_J"] == data["events_J"]


@pytest.mark.usefixtures("any_size")
def test_a_microcontroller_pays_for_the_instructions_of_each_synop_and_update() -> None:
    device = next(d for d in devices() if d.name.startswith("STM32L4R5"))
    found, core = line(device.key), core_of(device)
    assert (core.name, device.hz) == ("Cortex-M4", 120e6)
    fitted = 9 * core.per_synop + 10 * core.per_update
    cycles = [fitted * stray * each for stray, each in zip(core.strays, core.cycles, strict=True)]
    assert found.latency == approx(tuple(each / 120e6 for each in cycles))
    # 203.4 uJ in 5.25 ms of 120 MHz are 323 pJ a cycle, the least; 43.8 mW of "vww" 365 pJ, the most
    assert found.total == approx((cycles[0] * 322.8 * PJ, cycles[1] * 365.3 * PJ), rel=1e-3)
    assert found.step_source is not None
    assert "(simulated)" in found.step_source
    assert "(assumed) at 120 MHz" in found.step_source
    given = line(device.key, step=0.5)
    assert given.latency == (1.0, 1.0)
    assert given.total == approx(device.watts)


def test_instructions_are_the_fit_to_what_the_emulator_counted() -> None:
    """The list holds what `benchmarks.mcu.instructions` found, training and held-out networks apart."""
    recorded = json.loads((Path(__file__).parents[2] / "docs" / "measurements" / "mcu-instructions.json").read_text())
    for core in cores():
        rows = [row | row["instructions"] for row in recorded["rows"] if core.name in row["instructions"]]
        sizes = np.array([[row["synops"], row["updates"]] for row in rows])
        counted = np.array([row[core.name] for row in rows])
        training = np.array([row["training"] for row in rows])
        assert 3 < training.sum() < len(rows)
        fit = np.linalg.lstsq(sizes[training] / counted[training, None], np.ones(training.sum()), rcond=None)[0]
        assert fit == approx([core.per_synop, core.per_update], rel=1e-3)
        strays = counted / (sizes @ fit)
        assert core.strays[0] <= strays.min() < 1 < strays.max() <= core.strays[1]
        assert core.strays == approx((strays.min(), strays.max()), abs=0.01)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"loihi1": 0.0}, "step time of loihi1: expected the seconds of one measured time step, more than 0; found 0"),
        ({"loihi1": -1.0}, "more than 0; found -1"),
        ({"loihi1": float("nan")}, "more than 0; found nan"),
        ({"loihi1": float("inf")}, "more than 0; found inf"),
        ({"lohi1": 1e-3}, r"step time: expected one of loihi1, .*; found 'lohi1' \(did you mean 'loihi1'\?\)"),
        ({"spinnaker1": 1e-3}, "spinnaker1 steps in real time"),
        (1e-3, 'expected a chip and its seconds, as in {"loihi1": 66e-6}; found 0.001'),
    ],
)
def test_a_step_time_names_a_chip_and_is_positive(given: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        measure_energy(two_layers(), X, step_time=given)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["66e-6"], "expected CHIP=SECONDS, as in loihi1=66e-6; found '66e-6'"),
        (["loihi1=fast"], "expected seconds after 'loihi1=', or a time with its unit"),
        (["loihi1=1", "loihi1=2"], "expected each chip once; found 'loihi1' twice"),
    ],
)
def test_a_step_time_on_the_command_line(texts: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_step_times(texts)


def test_the_fastest_step_over_all_ways_to_share_cores_out() -> None:
    chip = chip_model("loihi1")
    works = [Work(4, 0, 0, 0, 0, 0, 1, 1.0), Work(3, 0, 0, 0, 0, 0, 1, 1.0)]
    sync = {1: 600, 2: 1000}
    for seconds in ([8e-6, 3e-6], [100e-9, 50e-9], [1e-6, 9e-6]):
        ways = [
            max(seconds[0] / a, seconds[1] / b) + sync[-(-(a + b) // 4)] * NS for a in range(1, 5) for b in range(1, 4)
        ]
        assert fastest(seconds, works, chip)[0] == approx(min(ways))


def test_a_network_of_more_cores_needs_more_chips_and_floors() -> None:
    wide = 1024 * 129
    net = program(start((wide,)), lif("n", "in", (wide,)))
    report = measure_energy(net, np.zeros((1, 1, wide), np.float32), step_time={"loihi1": 1e-3})
    found = next(c for c in report.chips if c.chip == "loihi1")
    assert found.chips == 2
    assert found.floor == approx((2 * 96.2e-6,) * 2)
    assert step_time([], chip_model("loihi1"))[0] == approx(600e-9)


def test_the_verdict_says_so_where_the_network_could_not_be_placed() -> None:
    refused = OnChip("Loihi 1", reason="'p' cannot be placed on Loihi 1")
    report = measure_energy(two_layers(), X, chip=refused)
    assert "It could not be placed on Loihi 1: no energy of that chip is quoted." in report.verdict
    assert not [line for line in report.chips if line.chip == "loihi1"]
    data = report.as_dict()
    assert data["not_placed"] == {"loihi1": "'p' cannot be placed on Loihi 1"}
    priced = {entry["price"]: entry["snn"] for entry in data["energy"] if entry["price"].startswith("loihi1")}
    assert priced == {"loihi1_davies2018": None, "loihi1_sanafe": None}
    shown = page(report)
    assert f'<th scope="row">{chip_model("loihi1").title}</th><td colspan="3">not placed' in shown
    assert "On Loihi 1 an inference takes " in measure_energy(two_layers(), X).verdict  # nobody tried


def test_the_verdict_names_loihi() -> None:
    report = measure_energy(two_layers(), X, step_time={"loihi1": 1e-3})
    found = next(c for c in report.chips if c.chip == "loihi1")
    low, high = (float(f"{1e6 * end:.2g}") for end in found.total)
    assert f"On Loihi 1 an inference takes {between(f'{low:g}', f'{high:g}')} µJ" in report.verdict
    assert "and 2 ms" in report.verdict
    how = "modelled from measured power, the 2018 table and SANA-FE's prices)."
    assert report.verdict.endswith(f"2 ms ({how}")
    assert measure_energy(two_layers(), X).verdict.endswith(f"s (neurocores only; {how}")


GOOD = """
title = "Mine"
evidence = "measured"
source = "bench"
caveat = "none"
events = ["loihi1_sanafe"]
cores = 4
running = ["warm"]
[floors.warm]
value = 1
unit = "mW"
"""


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('unit = "mW"', 'unit = "mJ"', r"chip 'mine': 'floors.warm': expected unit uW, mW, W; found 'mJ'"),
        ('source = "bench"', 'source = ""', r"found no 'source', or an empty one"),
        ('"measured"', '"guessed"', r"'evidence': expected measured.*; found 'guessed'"),
        (
            "value = 1",
            "value = 1\nsigma = -1",
            r"'floors.warm': expected as sigma a number from 0 up.*; found -1",
        ),
        ("cores = 4", "cores = 0", r"'cores': expected an integer from 1 up; found 0"),
        ("cores = 4", "kernels = 4", r"expected keys .*; found 'kernels'"),
        ("cores = 4", "cores = [", r"not TOML"),
        ('["warm"]', '["cold"]', r"'running': expected regimes of 'floors': warm; found \['cold'\]"),
        ('["warm"]', "[]", r"'running': expected regimes of 'floors': warm; found \[\]"),
    ],
)
def test_a_chip_s_file_is_checked(old: str, new: str, sentence: str) -> None:
    assert parse_chip(GOOD, "mine").cores == 4
    with pytest.raises(ConfigError, match=sentence):
        parse_chip(GOOD.replace(old, new), "mine")


def test_chips_by_name() -> None:
    assert [chip.name for chip in chip_models()] == [
        "loihi1",
        "loihi2_calibrated",
        "spinnaker1",
        "spinnaker2",
        "xylo_audio2",
    ]
    with pytest.raises(ConfigError, match=r"expected a chip: loihi1, .*; found 'loihi'"):
        chip_model("loihi")


def test_a_baseline_lies_between_the_published_networks_next_in_size() -> None:
    rows = Row("ad", 100, 10.0, 1.0), Row("kws", 1000, 50.0, 5.0), Row("ic", 10000, 200.0, 40.0), Row("vww", 5000, 1, 1)
    device = Device("d", "s", rows).without(rows[3])
    assert device.predict(5000) == (approx((100.0, 250.0)), approx((20.0, 25.0)))
    assert device.predict(50)[0] == approx((5.0, 10.0))
    assert device.predict(20000)[0] == approx((400.0, 1000.0))
    assert device.predict(1000)[0] == approx((50.0, 50.0))


def test_one_architecture_in_several_sizes_has_a_fixed_cost_and_a_cost_per_mac() -> None:
    rows = Row("kws", 100, 11.0, 1.1), Row("4 branches", 400, 14.0, 1.4), Row("10 branches", 1000, 99.0, 99.0)
    device = Device("d", "s", rows, one_architecture=True).without(rows[2])
    assert device.predict(1000) == (approx((20.0, 20.0)), approx((2.0, 2.0)))  # 10 + 0.01 a MAC
    assert device.predict(0)[0] == approx((10.0, 10.0))
    strays = Device("d", "s", (*rows[:2], Row("0 branches", 100, 9.0, 1.1)), one_architecture=True)
    low, high = strays.predict(100)[0]
    assert low <= 9.0
    assert high >= 11.0
    assert high / low == approx(11 / 9)


def test_the_published_macs_of_mlperf_tiny() -> None:
    macs = {row.net: row.macs for device in devices() for row in device.rows if "MLPerf" in device.source}
    assert macs == {"ad": 264192, "ic": 12501632, "kws": 2656768, "vww": 7489664}
    found = json.loads(json.dumps(baselines(246888)))
    assert {"GAP9 650 mV 240 MHz", "Jetson TX1", "Quadro K4000 (GPU)"} <= {b["device"] for b in found}
    assert all(0 < b["ann_J"][0] <= b["ann_J"][1] for b in found)


def test_up5k_takes_the_mean_of_the_samples_clocks() -> None:
    """At 24 MHz, and with a power between the two that are published."""
    report = measure_energy(two_layers(), X, checked=Checked(clocks=(1000, 3000)))
    (found,) = (each for each in report.chips if each.chip == "up5k")
    assert found.latency == approx((2000 / 24e6, 2000 / 24e6))
    assert found.total == approx((1.219 * 1162e-6 * 2000 / 24e6, 12.05e-3 * 2000 / 24e6))
    assert found.evidence == "unverified"
    assert found.step_source is not None
    assert "2,000 clocks" in found.step_source
    assert line("up5k", step=1e-3).latency == approx((X.shape[0] * 1e-3, X.shape[0] * 1e-3))
    assert not [each for each in measure_energy(two_layers(), X).chips if each.chip == "up5k"]


def test_a_refused_chip_has_no_line_even_with_its_step_time() -> None:
    refused = Checked({"up5k": "too wide", "xylo_audio2": "too tall"}, clocks=(1000,))
    report = measure_energy(two_layers(), X, checked=refused, step_time={"up5k": 1e-3, "xylo_audio2": 1e-3})
    assert not {"up5k", "xylo_audio2"} & {each.chip for each in report.chips}
    assert "No energy of up5k: too wide." in report.assumptions
