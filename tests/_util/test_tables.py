"""Tables as wide as they need, or fitted to a terminal between words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stl_deploy._util.tables import columns, wrap

ROWS = [
    ["node", "what is wrong with it", "n"],
    ["conv1", "a threshold that differs between pixels", "12"],
    ["a_long_name_of_a_layer", "nothing", "3"],
]


def test_as_wide_as_needed() -> None:
    assert columns([["name", "n"], ["a", "10"], ["long name", "2"]]) == [
        "name       n",
        "a          10",
        "long name  2",
    ]
    assert columns(ROWS) == columns(ROWS, 200)


def test_cells_wrap_between_words() -> None:
    assert columns(ROWS, 50) == [
        "node                    what is wrong with it   n",
        "conv1                   a threshold that        12",
        "                        differs between pixels",
        "a_long_name_of_a_layer  nothing                 3",
    ]


def test_a_narrow_terminal_gets_a_block_for_each_row() -> None:
    assert columns(ROWS, 30)[:6] == [
        "node:",
        "conv1",
        "  what is wrong with it: a",
        "  threshold that differs",
        "  between pixels",
        "  n: 12",
    ]


CELLS = st.text(alphabet="ab c-", max_size=30).map(lambda text: " ".join(text.split()))


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=2, max_size=5), st.integers(10, 60))
def test_no_word_is_broken_and_nothing_stands_out_unless_it_must(rows: list[list[str]], width: int) -> None:
    lines = columns(rows, width)
    words = {word for row in rows for cell in row for word in cell.split()}
    longest = max(map(len, words), default=0)
    assert {word.rstrip(":") for line in lines for word in line.split()} - {""} <= words | {w + ":" for w in words}
    assert max(map(len, lines)) <= max(width, longest + 3)


def test_hyphens_are_no_place_to_break() -> None:
    assert wrap("a threshold-nonuniform b", 12) == ["a", "threshold-nonuniform", "b"]
