"""Calls of forward that a capture makes, and the table of its seconds."""

import pytest

from benchmarks.capture_speed import Times, alone, page


@pytest.mark.parametrize(("name", "calls"), [("first", 9), ("layers32", 10)])
def test_calls_of_forward(name: str, calls: int) -> None:
    assert alone(name).calls <= calls


def test_medians_stand_beside_the_goal() -> None:
    rows = {"first": {"before": [Times(1, 0.9, 10)], "this": [Times(0.5, 0.4, 9), Times(9, 8, 9), Times(0.6, 0.5, 9)]}}
    lines = page(rows, load=1).splitlines()
    assert lines[-1] == "| one layer of 8 neurons, T = 8 | this | 0.60 | 0.50 | 0.6 | 9 |"
    assert lines[-2].endswith("| before | 1.00 | 0.90 | 0.6 | 10 |")
