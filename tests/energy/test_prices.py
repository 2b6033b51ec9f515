"""Price lists: what is shipped, and what a user's file may hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from stl_deploy.energy import list_prices, load_prices
from stl_deploy.energy.prices.price_list import TERMS
from stl_deploy.errors import ConfigError, InputError
from tests.energy.close import approx

GOOD = """
title = "Mine"
scope = "arithmetic"
node = "28 nm"
year = 2020
evidence = "measured"
source = "bench"

[terms]
mac = { value = 2.0, unit = "pJ", sigma = 0.5 }
sram_8KB = { value = [1, 2], unit = "nJ/64bit" }
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_users_list_is_read_in_si_units(tmp_path: Path) -> None:
    prices = load_prices(written(tmp_path, GOOD))
    assert (prices.name, prices.scope, prices.evidence) == ("mine", "arithmetic", "measured")
    assert prices.terms["mac"].low == prices.terms["mac"].high == approx(2e-12)
    assert (prices.terms["sram_8KB"].low, prices.terms["sram_8KB"].high) == approx((1e-9, 2e-9))
    assert prices.terms["sram_8KB"].text == "1 to 2 nJ/64bit"
    assert prices.as_dict()["terms"]["mac"] == {
        "value": "2 ± 0.5 pJ",
        "si": [2e-12, 2e-12],
        "sigma": 0.5e-12,
        "note": "",
    }


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("value = 2.0", "value = -2.0", r"'mac': expected as value a number from 0 up.*; found -2.0"),
        ("value = 2.0", "value = nan", r"'mac': expected as value .*; found nan"),
        ("value = 2.0", "value = true", r"'mac': expected as value .*; found True"),
        ("[1, 2]", "[2, 1]", r"'sram_8KB': expected as value .*; found \[2, 1\]"),
        (
            ", sigma = 0.5",
            "",
            r"'mac' has no sigma; measured prices say their standard deviation, or sigma = \"not pub",
        ),
        (
            "sigma = 0.5",
            "sigma = -0.5",
            r"'mac': expected as sigma a number from 0 up, in pJ, or \"not published\"; found -0.5",
        ),
        ("sigma = 0.5 }", "sigma = 0.5, note = 3 }", r"'mac': expected a text as note; found 3"),
        ('"bench"', '" "', r"'source': expected where each price was published; found an empty text"),
        (
            "year = 2020",
            "year = 2020\non_chip_bytes = 0",
            r"'on_chip_bytes': expected an integer from 1 up; found 0",
        ),
        ("year = 2020", 'year = 2020\nnumbers = "real"', r"'numbers': expected integer, float; found 'real'"),
        (', unit = "pJ"', "", r"'mac': expected .* unit one of fJ, pJ.*; found \{'value': 2.0, 'sigma': 0.5\}"),
        ('{ value = 2.0, unit = "pJ", sigma = 0.5 }', "2.0", r"'mac': expected .*; found 2.0"),
        ('"pJ"', '"parsec"', r"'mac': expected unit fJ, pJ.*; found 'parsec'"),
        ("nJ/64bit", "nJ/32bit", r"memory is priced per 64-bit access"),
        ("nJ/64bit", "nJ", r"'sram_8KB': expected unit .*; found 'nJ'; memory is priced per 64-bit access"),
        ("mac =", "mack =", r"expected a term: mac, ac, mul.*; found 'mack' \(did you mean 'mac' or 'ac'\?\)"),
        ("mac =", "synop =", r"scope 'arithmetic': expected a term: .*; found 'synop'"),
        ('node = "28 nm"', 'nodes = "28 nm"', r"expected a key: .*; found 'nodes'"),
        ('node = "28 nm"', "", r"key 'node' is missing"),
        ('"28 nm"', "28", r"'node': expected a text; found 28"),
        ("2020", '"2020"', r"'year': expected an integer; found '2020'"),
        ('"measured"', '"believed"', r"'evidence': expected measured, calibrated.*; found 'believed'"),
        ('"arithmetic"', '["arithmetic"]', r"'scope': expected .*; found \['arithmetic'\]"),
    ],
)
def test_a_wrong_key_value_or_unit_is_one_sentence(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=sentence):
        load_prices(written(tmp_path, GOOD.replace(old, new, 1)))


def test_terms_cannot_be_added_to_an_all_in_price(tmp_path: Path) -> None:
    text = GOOD.replace("arithmetic", "all-in").replace("mac =", "neuron_active =")
    with pytest.raises(ConfigError, match=r"scope 'all-in': expected a term: synop, mac.*; found 'neuron_active'"):
        load_prices(written(tmp_path, text))


EVENTS = GOOD.partition("mac =")[0].replace("arithmetic", "marginal").replace("measured", "secondary")


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        (("neuron_active",), r"expected the price of a synaptic event, synop or synop_dense.*; found none"),
        (("synop", "hop_ew"), r"'hop_ew': expected 'hop_ns' beside it; found none"),
        (("synop", "hop_ns"), r"'hop_ns': expected 'hop_ew' beside it; found none"),
        (("synop", "neuron_inactive"), r"'neuron_inactive': expected 'neuron_active' beside it"),
        (("synop", "neuron_update"), r"'neuron_update': expected 'neuron_access' beside it"),
    ],
)
def test_a_price_that_nothing_would_read_is_refused(tmp_path: Path, terms: tuple[str, ...], sentence: str) -> None:
    """Energy of such a list ended in a KeyError, or left the price out."""
    text = EVENTS + "".join(f'{term} = {{ value = 4.6, unit = "pJ" }}\n' for term in terms)
    with pytest.raises(ConfigError, match=sentence):
        load_prices(written(tmp_path, text))


def test_what_is_no_price_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.toml file; found 'horowitz' \(did you mean .*'horowitz45_fp32'.*\?\)"):
        load_prices("horowitz")
    with pytest.raises(InputError, match="no such file"):
        load_prices(tmp_path / "none.toml")
    with pytest.raises(InputError, match="not TOML"):
        load_prices(written(tmp_path, "= ="))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a price list's TOML file"):
        load_prices(tmp_path / "bytes.toml")


def test_every_shipped_list_loads_and_names_its_source() -> None:
    lists = list_prices()
    assert {"horowitz45_fp32", "horowitz45_int8", "horowitz45_int8_acc32", "jouppi7_fp32"} <= {p.name for p in lists}
    assert {"loihi1_davies2018", "loihi1_sanafe"} <= {p.name for p in lists}
    for prices in lists:
        assert prices.source, prices.name
        assert prices.caveat, prices.name
        assert set(prices.terms) <= set(TERMS[prices.scope])


@pytest.mark.parametrize("prices", [p for p in list_prices() if p.scope == "arithmetic"], ids=lambda p: p.name)
def test_a_mac_is_a_multiply_and_an_accumulate(prices: object) -> None:
    terms = prices.terms  # type: ignore[attr-defined]
    assert terms["mac"].low == approx(terms["mul"].low + terms["ac"].low, rel=1e-9)
    assert terms["add"].low == terms["ac"].low


def test_memory_is_priced_for_64_bits() -> None:
    terms = load_prices("horowitz45_fp32").terms
    assert terms["sram_1MB"].text == "100 pJ/64bit"
    assert terms["dram"].text == "1300 to 2600 pJ/64bit"


def test_32_bit_accumulators_make_the_mac_three_adds() -> None:
    terms = load_prices("horowitz45_int8_acc32").terms
    assert terms["mac"].low / terms["ac"].low == approx(3)


def test_a_wrong_name_is_answered_by_the_closest_and_not_by_all() -> None:
    with pytest.raises(InputError) as caught:
        load_prices("loihi1_sanaf")
    assert "(did you mean 'loihi1_sanafe'?)" in str(caught.value)
    assert "odin" not in str(caught.value)
    with pytest.raises(InputError, match=r"expected one of \d+ price lists .*; found 'zzzz'$"):
        load_prices("zzzz")
