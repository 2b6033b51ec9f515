"""Published measurements: the recomputed figures by hand, splits that do not leak, held-out scores."""

from __future__ import annotations

from typing import Any

import pytest

from stl_deploy.energy import validate
from stl_deploy.energy.chips.baselines import devices
from stl_deploy.energy.validate import Check, checks_of, scores
from stl_deploy.errors import ConfigError
from tests.energy.close import approx


def check(case: str, model: str) -> Check:
    return next(c for c in validate() if c.case.startswith(case) and c.model == model)


def test_pilotnet_on_loihi_2_is_underestimated_by_loihi_1_prices() -> None:
    davies = check("PilotNet (LIF) on Loihi 2, dynamic energy, events", "loihi1_davies2018")
    assert davies.predicted[0] == approx((19514660 * 23.6 + 2536144 * 81) * 1e-6)
    assert davies.error == approx(-0.39, abs=0.005)
    assert (davies.verdict, davies.split) == ("rough", "held out")


def test_arithmetic_prices_miss_a_chip_by_far() -> None:
    found = check("PilotNet (LIF) on Loihi 2, dynamic energy", "horowitz45_fp32")
    assert found.measured[0] / found.predicted[0] == approx(62, abs=1)
    assert found.verdict == "bad"


def test_the_slope_of_the_scaling_series_is_fitted_from_its_points() -> None:
    found = check("Loihi 1 scaling series, energy of ten more layers", "loihi1_davies2018")
    assert found.measured[0] == approx(16.75, abs=0.05)
    assert found.met_at == approx(0.095, abs=0.001)
    assert check("Loihi 1 scaling series, energy of ten", "loihi1_sanafe").met_at == approx(0.0635, abs=0.001)
    assert found.inside
    assert found.verdict == "bracketed"  # the range holds it, and says little


def test_errors_are_told_from_the_middle_of_ranges() -> None:
    found = check("Loihi 1 keyword spotter, all energy", "loihi1")
    assert found.predicted == approx((357.78, 419.7), rel=1e-3)
    assert found.error == approx((357.78 + 419.7) / (370.3 + 371.9) - 1, abs=1e-3)
    davies = check("DVS gesture on Loihi 1, energy of a step", "loihi1_davies2018")
    assert davies.error == approx(davies.predicted[0] / 2.5 - 1)  # published: 1 to 4


def test_no_event_price_reaches_the_keyword_spotters_published_energy() -> None:
    for model in ("loihi1_davies2018", "loihi1_sanafe"):
        found = check("Loihi 1 keyword spotter, dynamic energy over the idle power before", model)
        assert found.predicted[1] < found.measured[0] / 4
        assert found.verdict == "bad"


def test_our_rule_agrees_with_sanafe_up_to_the_hops() -> None:
    found = check("DVS gesture on Loihi 1, energy of a step, against SANA-FE", "loihi1_sanafe")
    by_hand = 42482 * 24 + 18678 * 51.2 + 10522 * 21.6 + 297.5 * 69.3 + 3020.6 * 111
    assert found.predicted[0] == approx(by_hand * 1e-6)
    assert -0.02 < found.error < 0
    assert found.split == "training"


def test_held_out_energy_meets_the_goals() -> None:
    held = [c for c in validate() if c.split == "held out" and c.quantity != "time"]
    same_chip = [c for c in held if c.model == "loihi1" and "all energy" in c.case]
    assert len(same_chip) == 5
    assert max(abs(c.error) for c in same_chip) < 0.10  # the total, given the step time
    across = [c for c in held if c.model == "loihi2_calibrated" and "all energy" in c.case]
    assert max(abs(c.error) for c in across) < 0.25
    assert abs(check("PilotNet (LIF) on Loihi 2, dynamic energy", "loihi2_calibrated").error) < 0.40


def test_a_network_scaled_up_costs_a_fixed_part_and_a_part_per_mac() -> None:
    scaled = {d.name for d in devices() if d.one_architecture}
    held = [c for c in validate() if c.split == "held out" and c.model in scaled]
    assert len(held) == 3 * 3 * 2  # 2, 6 and 10 branches: joules and seconds
    assert max(abs(c.error) for c in held if c.quantity == "energy") < 0.11
    assert max(abs(c.error) for c in held if c.quantity == "time") < 0.20


def test_brackets_without_a_measured_time_contain_the_measurement() -> None:
    times = [c for c in validate() if (c.quantity, c.per, c.split) == ("time", "step", "held out")]
    assert len(times) == 8
    assert all(c.inside for c in times)


def test_the_spinnaker_prices_are_of_one_board_and_held_against_another() -> None:
    checks = [c for c in validate() if c.model == "spinnaker1_board"]
    assert {c.split for c in checks if "48 chips" in c.case} == {"training"}
    assert {c.split for c in checks if "4 chips" in c.case and "48" not in c.case} == {"held out"}
    spiking = check("SpiNNaker 1, board of 48 chips, every neuron spiking", "spinnaker1_board")
    assert spiking.error == approx(0.0, abs=0.001)  # spikes that are not recorded, as in the series
    assert all(c.sigma is not None for c in checks)


def test_the_worst_held_out_error_comes_first() -> None:
    rows = scores(validate())
    worst = [row.held_out_worst or 0.0 for row in rows]
    assert worst == sorted(worst, reverse=True)
    loihi2 = next(row for row in rows if (row.model, row.quantity) == ("loihi2_calibrated", "energy"))
    assert (loihi2.training, loihi2.held_out) == (9, 12)
    assert loihi2.training_error is not None
    assert loihi2.held_out_error is not None
    assert loihi2.training_error < loihi2.held_out_error


def data(**split: Any) -> dict[str, Any]:
    case = {
        "id": "m",
        "case": "c",
        "kind": "events",
        "unit": "uJ",
        "per": "step",
        "measured": [1, 2],
        "how": "measured",
    }
    case |= {"how": "measured", "source": "s", "note": "", "counts": {"synop_dense": 1e6}}
    return {"measurement": [case], "split": [{"model": "loihi1_sanafe", **split}]}


def test_a_split_that_leaks_is_an_error() -> None:
    assert [c.split for c in checks_of(data(training=["m"]))] == ["training"]
    with pytest.raises(ConfigError, match=r"split of 'loihi1_sanafe': expected .*; found 'm' in both"):
        checks_of(data(training=["m"], held_out=["m"]))
    with pytest.raises(ConfigError, match=r"split of 'loihi1_sanafe': expected an id .*; found 'n'"):
        checks_of(data(held_out=["n"]))


def test_a_leak_in_disguise_is_an_error() -> None:
    """In two splits of a model, and under another name."""
    apart = data(training=["m"])
    apart["split"].append({"model": "loihi1_sanafe", "held_out": ["m"]})
    with pytest.raises(ConfigError, match="found 'm' in both"):
        checks_of(apart)
    apart["split"][1]["model"] = "loihi1_davies2018"
    assert [c.split for c in checks_of(apart)] == ["training", "held out"]
    renamed = data(training=["m"], held_out=["n"])
    renamed["measurement"].append({**renamed["measurement"][0], "id": "n", "case": "other words"})
    with pytest.raises(ConfigError, match="found 'n' in both, there as 'm'"):
        checks_of(renamed)
    renamed["measurement"][1]["id"] = "m"
    with pytest.raises(ConfigError, match="expected each id once; found 'm' twice"):
        checks_of(renamed)


def test_no_shipped_measurement_is_both_training_and_held_out() -> None:
    seen: dict[tuple[str, str], str] = {}
    for c in validate():
        assert seen.setdefault((c.model, c.case), c.split) == c.split
