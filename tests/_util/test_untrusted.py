"""Damage is the file's, a mistake of ours is not."""

import json

import pytest

from stl_deploy._util.untrusted import parse_errors_as_input_errors
from stl_deploy.errors import InputError


def _as_ours(source):
    """Run code as if a module of this package held it."""
    exec(compile(source, "ours.py", "exec"), {"__name__": "stl_deploy.graph.ours", "json": json})


def test_what_a_parser_raises_is_the_file_s():
    for source in ("json.loads('{')", "b'\\xff'.decode()", "raise ValueError('x')", "raise OSError('x')"):
        with pytest.raises(InputError, match="a: damaged, truncated or not b"), parse_errors_as_input_errors("a", "b"):
            _as_ours(source)
    with pytest.raises(InputError, match="damaged"), parse_errors_as_input_errors("a.json", "a JSON file"):
        json.loads("{}")["not there"]  # in a line that is none of ours


def test_a_file_that_memory_does_not_hold_is_not_called_damaged():
    with pytest.raises(InputError, match=r"^a: not enough memory to read it$"), parse_errors_as_input_errors("a", "b"):
        raise MemoryError


@pytest.mark.parametrize("source", ["{}['a']", "[][0]", "None.shape", "len(3)", "absent", "assert False"])
def test_a_mistake_of_ours_is_not(source):
    with (
        pytest.raises((LookupError, AttributeError, TypeError, NameError, AssertionError)),
        parse_errors_as_input_errors("a", "b"),
    ):
        _as_ours(source)
    with pytest.raises(InputError, match="damaged"), parse_errors_as_input_errors("a", "b", ours=True):
        _as_ours(source)
