"""Damage is the file's, a mistake of ours is not."""

import json

import pytest

from stl_deploy._util.untrusted import blamed
from stl_deploy.errors import InputError
from stl_deploy.graph.io import guard


def _as_ours(source):
    """Run code as if a module of this package held it."""
    exec(compile(source, "ours.py", "exec"), {"__name__": "stl_deploy.graph.ours", "json": json})


def test_what_a_parser_raises_is_the_file_s():
    for source in ("json.loads('{')", "b'\\xff'.decode()", "raise ValueError('x')", "raise OSError('x')"):
        with pytest.raises(InputError, match="a: damaged, truncated or not b"), blamed("a", "b"):
            _as_ours(source)
    with pytest.raises(InputError, match="damaged"), blamed("a.json", "a JSON file"):
        json.loads("{}")["not there"]  # in a line that is none of ours


def test_a_file_that_memory_does_not_hold_is_not_called_damaged():
    with pytest.raises(InputError, match=r"^a: not enough memory to read it$"), blamed("a", "b"):
        raise MemoryError


@pytest.mark.parametrize("source", ["{}['a']", "[][0]", "None.shape", "len(3)", "absent", "assert False"])
def test_a_mistake_of_ours_is_not(source):
    with pytest.raises((LookupError, AttributeError, TypeError, NameError, AssertionError)), blamed("a", "b"):
        _as_ours(source)
    with pytest.raises(InputError, match="damaged"), blamed("a", "b", ours=True):
        _as_ours(source)


def test_a_mistake_of_ours_in_the_other_process_is_no_crash_of_hdf5(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import stl_deploy.graph.io.scan as scan\n"
        "def look_through(*arguments):\n"
        "    raise KeyError('of ours')\n"
        "scan.look_through = look_through\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    guard._stop()
    try:
        with pytest.raises(RuntimeError, match="KeyError: 'of ours'"):
            guard.probe(tmp_path / "a.nir", "a NIR file")
    finally:
        guard._stop()
