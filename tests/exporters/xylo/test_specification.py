"""Anyone's specification.npz: what is read, and one sentence for what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stl_deploy.errors import InputError
from stl_deploy.exporters.targets import Options, format_of
from stl_deploy.exporters.xylo.runner import Xylo
from stl_deploy.exporters.xylo.simulate import simulate
from stl_deploy.exporters.xylo.specification import checked, read_specification, write_specification
from tests.exporters.xylo.drawn import draw


def test_read_back_is_what_was_written(tmp_path: Path) -> None:
    spec = checked(draw("two_synapses")[0], "spec")
    write_specification(spec, tmp_path / "specification.npz")
    read = read_specification(tmp_path / "specification.npz")
    assert read.arrays().keys() == spec.arrays().keys()
    assert all(np.array_equal(read.arrays()[name], array) for name, array in spec.arrays().items())


def test_what_may_be_left_out() -> None:
    spec, x = draw("plain")
    whole = {name: array for name, array in spec.items() if not name.startswith(("bias", "aliases"))}
    whole["weights_in"], whole["weights_rec"] = spec["weights_in"][..., 0], spec["weights_rec"][..., 0]
    assert np.array_equal(simulate(checked(whole, "x"), x).spikes, simulate(checked(spec, "x"), x).spikes)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"weights_in": np.full((5, 20, 1), 128)}, "weights_in: expected -128 to 127; found 128"),
        ({"weights_in": np.zeros((5, 21, 1), int)}, "1 to N, S"),
        ({"weights_in": np.zeros((5, 20, 3), int), "weights_rec": np.zeros((20, 20, 3), int)}, "S of 1 or 2"),
        ({"weights_in": np.zeros((0, 20, 1), int)}, "1 to 1,024 channels; found 0"),
        ({"weights_rec": np.zeros((20, 19, 1), int)}, "expected [N, N, S]; found [20, 19, 1]"),
        ({"weights_rec": np.zeros((20, 20, 1))}, "integers"),
        ({"weights_out": np.zeros((21, 3), int)}, "1 to N, outputs"),
        ({"weights_out": np.zeros((0, 3), int)}, "1 to N, outputs"),
        ({"dash_mem": np.full(20, 16)}, "dash_mem: expected 0 to 15; found 16"),
        ({"dash_syn": np.full(19, 1)}, "dash_syn: expected 20 numbers; found 19"),
        ({"threshold": np.full(20, -1)}, "threshold: expected 0 to 32,767; found -1"),
        ({"threshold_out": np.full(3, 2**15)}, "found 32,768"),
        ({"bias_hidden": np.full(20, 2**40)}, "bias_hidden: expected -32,768 to 32,767"),
        ({"weight_shift_in": np.array(8)}, "weight_shift_in: expected 0 to 7; found 8"),
        ({"weight_shift_in": np.array([1, 2])}, "of 0 dimensions"),
        ({"aliases": np.full(20, 20)}, "aliases: expected -1 to 19; found 20"),
        ({"aliases": np.arange(20)}, "own alias"),
        ({"dash_mem": None}, "expected an array 'dash_mem'; found none"),
    ],
)
def test_damage(changed: dict[str, Any], words: str) -> None:
    spec = {name: array for name, array in (draw("plain")[0] | changed).items() if array is not None}
    with pytest.raises(InputError, match="spec") as caught:
        checked(spec, "spec")
    assert words in str(caught.value)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    write_specification(checked(draw("plain")[0], "spec"), tmp_path / "specification.npz")
    return tmp_path / "specification.npz"


def test_a_bare_file_has_the_chips_names(bare: Path) -> None:
    of = format_of(bare)
    assert of is not None
    assert of.name == "xylo"
    assert format_of(bare.parent) is of
    _, x = draw("plain")
    result = of.load(bare).run(x, record=True)
    assert {*result.recorded} == {"hidden", "output"}
    assert {name: array.shape for name, array in result.states.items()} == {
        "v__hidden": (40, 2, 20),
        "i__hidden": (40, 2, 20),
        "v__output": (40, 2, 3),
        "i__output": (40, 2, 3),
    }
    expected = simulate(read_specification(bare), x, record=True)
    assert np.array_equal(result.y, expected.outputs)
    assert np.array_equal(result.states["v__hidden"], expected.states.v)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.full((3, 1, 5), 0.5), "found fractions"),
        (np.full((3, 1, 5), -1), "found -1"),
        (np.full((3, 1, 5), np.nan), "found fractions"),
        (np.zeros((3, 1, 4)), r"found [3, 1, 4]"),
        (np.zeros((0, 1, 5)), r"found [0, 1, 5]"),
        (np.full((3, 1, 5), "a"), "integer input"),
        ({"a": np.zeros((3, 1, 5))}, "expected one input"),
    ],
)
def test_bad_input(bare: Path, x: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        Xylo(bare, Options()).run(x)
    assert words in str(caught.value)


def test_counts_above_15_enter_as_15(bare: Path) -> None:
    many, most = (Xylo(bare, Options()).run(np.full((9, 1, 5), count)).y for count in (10**12, 15))
    assert np.array_equal(many, most)
    assert most.any()
