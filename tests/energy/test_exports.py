"""The schema of the JSON, and the CSV of the layers."""

from __future__ import annotations

import copy
import csv
import io
import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stl_deploy.energy import AnnTwin, energy_schema, list_prices, measure_energy
from stl_deploy.energy.models.ratios import without_ratios
from stl_deploy.report.text.energy import layers_csv
from tests.drawn import examples
from tests.energy.nets import f32, inputs, lif, linear, program, programs, start


def check(data: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(energy_schema()).validate(data)


@given(st.data())
@examples(15)
def test_any_networks_json_fits_the_schema(data: st.DataObject) -> None:
    net = data.draw(programs())
    check(json.loads(json.dumps(measure_energy(net, data.draw(inputs(net))).as_dict(), allow_nan=False)))


def _values(data: Any, *keys: str) -> list[Any]:
    """The values of keys at any depth."""
    if isinstance(data, list):
        return [value for item in data for value in _values(item, *keys)]
    if not isinstance(data, dict):
        return []
    here = [value for key, value in data.items() if key in keys]
    return here + [value for item in data.values() for value in _values(item, *keys)]


RATIOS = ("snn_over_ann", "snn_over_ann_range", "model_range")


@pytest.mark.parametrize(("weight", "idle"), [(1.0, False), (-1.0, True), (0.0, True)])
def test_a_silent_networks_json_has_no_ratio_and_keeps_its_keys(weight: float, idle: bool) -> None:
    net = program(start((2,)), linear("l", "in", weight * np.ones((3, 2))), lif("n", "l", (3,), 1.5))
    measured = measure_energy(net, f32([[[1, 0], [1, 1]]]))
    data = json.loads(json.dumps(measured.as_dict(), allow_nan=False))
    check(data)
    assert data.keys() == small().keys()
    known = {key for key in RATIOS if any(value is not None for value in _values(data, key))}
    assert known == (set() if idle else {*RATIOS})
    verdicts = {row["verdict"] for row in (*data["break_even"]["models"], *data["break_even"]["published"])}
    assert (verdicts == {"not defined"}) == idle
    assert ("silent" in data["verdict"]) == idle
    assert data["totals"]["synops_AC"] == 9
    assert data["comparisons"][0]["snn_J"] > 0


def test_break_evens_of_a_silent_network_are_undefined() -> None:
    row = {"name": "a", "scale": [1, 2], "spikes_per_synapse": [1, 2], "spike_rate": [0, 1], "verdict": "below"}
    undefined = {"scale": None, "spikes_per_synapse": None, "spike_rate": None, "verdict": "not defined"}
    text = {"text": "the network decides nothing on this input"}
    own = {"spike_rate": 0.0, "spikes_per_synapse_per_inference": 2.5}
    assert without_ratios({**own, "models": [row]}) == {**own, "models": [{"name": "a", **undefined, **text}]}


def small(**options: Any) -> dict[str, Any]:
    net = program(start((2,)), linear("l", "in", np.ones((3, 2))), lif("n", "l", (3,)))
    return measure_energy(net, f32([[[1, 0], [1, 1]]]), **options).as_dict()


def test_every_price_list_a_twin_and_labels_fit_the_schema() -> None:
    twin = AnnTwin(3, 12, 2, "twin", 0.5)
    check(json.loads(json.dumps(small(prices=list_prices(), twin=twin, labels=np.array([0, 1])))))


@pytest.mark.parametrize(
    "path", [("layers", "l", "synops"), ("layers", "n", "state_bytes"), ("model_range",), ("totals",)]
)
def test_the_schema_is_strict(path: tuple[str, ...]) -> None:
    for value in ("text", 0.5):
        data = copy.deepcopy(small())
        inner = data
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        with pytest.raises(jsonschema.ValidationError):
            check(data)
    data = small()
    data["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        check(data)


def test_the_csv_holds_every_count_of_every_layer() -> None:
    data = small()
    rows = {row["layer"]: row for row in csv.DictReader(io.StringIO(layers_csv(data)))}
    assert list(rows) == ["l", "n"]
    for name, layer in data["layers"].items():
        for key, value in layer.items():
            assert rows[name][key] == str(value)
    assert rows["n"]["synops"] == ""


def test_a_name_that_looks_like_a_formula_is_defused() -> None:
    text = layers_csv({"layers": {'=cmd("x"),1': {"synops": 1}, "@a": {"synops": 2}}})
    assert [row[0] for row in csv.reader(io.StringIO(text))] == ["layer", '\'=cmd("x"),1', "'@a"]
