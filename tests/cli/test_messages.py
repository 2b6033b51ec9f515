"""Calls that users get wrong: each sentence names what to do, and doing it leads on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stl_deploy._util.files import read_input, write_npz
from stl_deploy.cli import error_sentences
from stl_deploy.data.own.arrays import ArrayData, check_arrays
from stl_deploy.energy.chips.time import parse_step_times
from stl_deploy.errors import InputError
from stl_deploy.exporters.targets import find_format, for_hardware, registry
from stl_deploy.verbs.arguments import number_or_text

X = np.zeros((8, 5, 3), np.float32)
LABELS = np.arange(8) % 4


def _refusal(x: NDArray[Any], y: NDArray[Any]) -> str:
    with pytest.raises(InputError) as refused:
        check_arrays(ArrayData({"x": x, "y": y}, "data.npz"))
    return str(refused.value)


def test_one_hot_labels() -> None:
    rows = np.eye(4)[LABELS]
    said = "expected integers [8], a label for each sample; found float64 [8, 4]; these rows are one-hot"
    assert _refusal(X, rows).endswith(f"{said}: give y.argmax(axis=1)")
    check_arrays(ArrayData({"x": X, "y": rows.argmax(axis=1)}, "data.npz"))


def test_labels_in_floats() -> None:
    assert _refusal(X, LABELS.astype(float)).endswith("; give y as int64")
    check_arrays(ArrayData({"x": X, "y": LABELS.astype(float).astype(np.int64)}, "data.npz"))


def test_labels_in_a_column() -> None:
    column = LABELS[:, None]
    assert _refusal(X, column).endswith(
        "expected integers [8], a label for each sample; found int64 [8, 1]; give y[:, 0]"
    )
    check_arrays(ArrayData({"x": X, "y": column[:, 0]}, "data.npz"))


def test_time_in_front() -> None:
    x = X.swapaxes(0, 1)
    assert _refusal(x, LABELS).endswith("if x is [T, N, ...], give x.swapaxes(0, 1), [8, 5, 3]")
    check_arrays(ArrayData({"x": x.swapaxes(0, 1), "y": LABELS}, "data.npz"))


def test_images_without_time_are_given_one(tmp_path: Path) -> None:
    images, labels = np.zeros((6, 1, 8, 8), np.float32), np.arange(6) % 3
    write_npz(tmp_path / "x.npz", {"x": images, "y": labels})
    with pytest.raises(InputError, match=r"6 steps of 1 sample\).*; if it has no axis of time, give np\.repeat\("):
        read_input(tmp_path / "x.npz")
    write_npz(tmp_path / "x.npz", {"x": np.repeat(images[None], 4, axis=0), "y": labels})
    x, found = read_input(tmp_path / "x.npz")
    assert x.shape == (4, 6, 1, 8, 8)
    assert found is not None


def test_labels_that_are_none_of_these_get_no_advice() -> None:
    assert _refusal(X, np.arange(7)).endswith("found int64 [7]")


@pytest.mark.parametrize("text", ["66e-6", "66us", "66 us", "66µs", "0.066ms", "66000ns", "0.000066s"])
def test_a_step_time_with_its_unit(text: str) -> None:
    assert parse_step_times([f"loihi1={text}"]) == {"loihi1": pytest.approx(66e-6)}


@pytest.mark.parametrize("text", ["66xs", "us", "", "6 6us", "-", "1e"])
def test_no_step_time(text: str) -> None:
    with pytest.raises(InputError, match=r"or a time with its unit \(66us\)"):
        parse_step_times([f"loihi1={text}"])


@pytest.mark.parametrize(
    ("hardware", "target"),
    [("cortex-m4", "c"), ("ESP32", "c"), ("riscv", "c"), ("ice40", "verilog"), ("audio3", "xylo"), ("loihi", "netx")],
)
def test_a_board_s_name_leads_to_its_format(hardware: str, target: str) -> None:
    assert for_hardware(hardware) == f" (for {hardware}: '{target}')"
    assert target in registry().formats
    assert find_format(target).name == target


def test_other_names_lead_nowhere() -> None:
    assert for_hardware("wibble") == ""


def test_a_missing_option_names_its_choices() -> None:
    ending = error_sentences.guess("missing option '--backend'", (), ())
    assert ending is not None
    assert ending.startswith("give one: reference, onnx, loihi")
    ending = error_sentences.guess("missing option '--against'", (), ())
    assert ending == f"give an exported file or folder, or a backend: {', '.join(registry().runners)}"
    assert error_sentences.guess("missing option '--input'", (), ()) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2), ("-1", -1), (3, 3), (0, 0), ("auto", "auto"), ("²", "²"), ("--1", "--1"), (None, None)],
)
def test_a_number_or_a_name(text: int | str | None, value: int | str | None) -> None:
    """A raised digit, which counts as a digit but is no integer, ended in a traceback."""
    assert number_or_text(text) == value
