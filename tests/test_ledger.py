"""A room of the product grows only with a reason in the ledger."""

from tests.ledger import ledger, rooms, tokens

SLACK = 0.02
"""Share that a room may lie below its record before the record must fall, too."""


def test_no_room_is_larger_than_its_record() -> None:
    recorded = ledger()
    risen = {room: count for room, count in rooms().items() if count > recorded.get(room, {"tokens": 0})["tokens"]}
    assert not risen, 'record each rise: python -m tests.ledger ROOM "reason"'


def test_the_record_follows_what_was_cut() -> None:
    counted = rooms()
    stale = [room for room, entry in ledger().items() if counted.get(room, 0) < (1 - SLACK) * entry["tokens"] - 50]
    assert not stale, "record what fell: python -m tests.ledger"


def test_docstrings_and_comments_do_not_count() -> None:
    assert tokens('"""Docstring."""\n# comment\nx = f"{1 + 1} and {2}"\n') == 3
