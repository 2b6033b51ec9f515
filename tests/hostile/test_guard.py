"""The process that HDF5 files are read in: one that stands still, does not start, or is another's."""

import os
import signal
import sys

import h5py
import pytest

from stl_deploy.errors import InputError, ToolError
from stl_deploy.graph.io import guard


@pytest.fixture
def path(tmp_path):
    """A file with a number in it, and no process for it yet."""
    guard._stop()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = 1.0
    yield tmp_path / "a.h5"
    guard._stop()


def _found(path):
    return guard.probe(path, "HDF5")[0]


def test_a_child_that_was_forked_leaves_the_process_to_its_parent(path):
    assert _found(path) == {"a": ["<f8", [], 0]}
    parents = guard._process
    guard._forget()
    try:
        assert _found(path) == {"a": ["<f8", [], 0]}
        assert guard._process is not parents
        assert parents.popen.poll() is None
    finally:
        parents.stop()


needs_signals = pytest.mark.skipif(os.name != "posix", reason="processes are stopped, and scripts run, as POSIX has it")


@needs_signals
def test_a_process_that_stands_still_is_given_up(path, monkeypatch):
    assert _found(path)
    stopped = guard._process
    os.kill(stopped.popen.pid, signal.SIGSTOP)
    monkeypatch.setattr(guard, "_STALL_SECONDS", 0.2)
    with pytest.raises(InputError, match=r"a\.h5: damaged, truncated or not HDF5 \(nothing comes for a while\)$"):
        guard.probe(path, "HDF5")
    assert stopped.popen.poll() is not None
    monkeypatch.undo()
    assert _found(path) == {"a": ["<f8", [], 0]}


@needs_signals
@pytest.mark.parametrize(
    ("script", "kind", "sentence"),
    [
        ("exit 1", ToolError, r"^the process that looks at HDF5 files does not start$"),
        ("printf . && read line && exec sleep 60 >&-", InputError, r"a\.h5: .* \(HDF5 crashes on it\)$"),
    ],
)
def test_another_program_in_its_place_is_given_up(path, tmp_path, monkeypatch, script, kind, sentence):
    """The second one closes its output, but does not end."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(guard, "_STALL_SECONDS", 0.2)
    with pytest.raises(kind, match=sentence):
        guard.probe(path, "HDF5")
    assert guard._process is None
