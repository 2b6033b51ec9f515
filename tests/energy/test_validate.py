"""Published measurements: the recomputed figures, worked by hand here."""

from __future__ import annotations

import pytest

from stl_deploy.energy import validate
from stl_deploy.energy.validate import Check
from tests.energy.close import approx


def check(case: str, price: str) -> Check:
    return next(c for c in validate() if c.case.startswith(case) and c.price == price)


def test_pilotnet_on_loihi_2_is_underestimated_by_loihi_1_prices() -> None:
    davies = check("PilotNet (LIF) on Loihi 2, dynamic energy", "loihi1_davies2018")
    assert davies.predicted[0] == approx((19514660 * 23.6 + 2536144 * 81) * 1e-6)
    assert davies.error == approx(-0.39, abs=0.005)
    assert davies.verdict == "rough"


def test_arithmetic_prices_miss_a_chip_by_far() -> None:
    found = check("PilotNet (LIF) on Loihi 2, dynamic energy", "horowitz45_fp32")
    assert found.measured[0] / found.predicted[0] == approx(62, abs=1)
    assert found.verdict == "bad"


def test_the_slope_of_the_scaling_series_is_fitted_from_its_points() -> None:
    found = check("Loihi 1 scaling, energy of ten more layers", "loihi1_davies2018")
    assert found.measured[0] == approx(16.75, abs=0.05)
    assert found.met_at == approx(0.095, abs=0.001)
    assert check("Loihi 1 scaling, energy of ten", "loihi1_sanafe").met_at == approx(0.0635, abs=0.001)


def test_no_event_price_reaches_the_keyword_spotters_published_energy() -> None:
    for price in ("loihi1_davies2018", "loihi1_sanafe"):
        found = check("Loihi 1 keyword spotter, dynamic energy over the idle power before", price)
        assert found.predicted[1] < found.measured[0] / 4
        assert found.verdict == "bad"
        total = check("Loihi 1 keyword spotter, all energy", price)
        assert total.verdict == "good"


def test_our_rule_agrees_with_sanafe_up_to_the_hops() -> None:
    found = check("DVS gesture on Loihi 1, energy of a step, against SANA-FE", "loihi1_sanafe")
    by_hand = 42482 * 24 + 18678 * 51.2 + 10522 * 21.6 + 297.5 * 69.3 + 3020.6 * 111
    assert found.predicted[0] == approx(by_hand * 1e-6)
    assert -0.02 < found.error < 0


def test_static_power_explains_a_sigma_delta_frame() -> None:
    found = check("PilotNet (sigma-delta)", "static power x time")
    assert found.predicted[0] == approx(281.775 / 16.87)
    assert found.error == approx(0.022, abs=0.001)


def test_meeting_a_wide_range_is_no_success() -> None:
    assert (
        check("DVS gesture on Loihi 1, energy of a step, against the published", "loihi1_sanafe").verdict == "bracketed"
    )


@pytest.mark.parametrize("case", ["no spikes", "every neuron", "one to one", "one source", "random"])
def test_spinnaker_rows(case: str) -> None:
    found = check(f"SpiNNaker board, {case}", "spinnaker1_board")
    assert found.verdict == "good"
    assert abs(found.error) < 0.015


def test_every_check_names_its_source_and_says_how_it_went() -> None:
    found = validate()
    assert len(found) == 24
    assert {c.verdict for c in found} == {"good", "rough", "bad", "bracketed"}
    for one in found:
        assert one.source
        assert one.note
        assert one.as_dict()["predicted"] == list(one.predicted)


def test_what_uses_its_own_measurement_is_no_prediction() -> None:
    roles = {c.case: c.role for c in validate()}
    own = {case for case, role in roles.items() if role == "consistency"}
    assert len([case for case in own if case.startswith("SpiNNaker board")]) == 5
    assert {case.split(",")[0] for case in own if "SpiNNaker" not in case} == {
        "Loihi 1 keyword spotter",
        "PilotNet (sigma-delta) on Loihi 2",
        "DVS gesture on Loihi 1",
    }
    assert [case for case, role in roles.items() if role == "shortcut"] == [
        "PilotNet (LIF) on Loihi 2, dynamic energy, synops counted as spikes x K x K x C_out"
    ]
    assert not [c for c in validate() if c.role == "prediction" and c.verdict == "good"]
