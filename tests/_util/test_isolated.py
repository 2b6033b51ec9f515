"""Readers in the worker process: their answers, their ends, and a process that stands still or is another's."""

import os
import signal
import sys

import numpy as np
import pytest

from stl_deploy._util import isolated as module
from stl_deploy._util import system
from stl_deploy._util.isolated import isolated
from stl_deploy.errors import InputError, ToolError
from tests._util.readers import read

LIMITS = {"what": "a test file", "memory": 2**28, "seconds": 0.3}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A file, and no process for it yet."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    module._stop()
    yield tmp_path / "a"
    module._stop()


def _found(path):
    about, arrays = isolated(read, path, **LIMITS)
    return about, [(array.dtype.str, array.tolist()) for array in arrays]


ANSWER = (["found", {"a": 1}], [("<i2", [[0, 3], [1, 4], [2, 5]]), ("<f8", []), ("<f4", 3.0)])


def test_an_answer_is_what_the_reader_returns_with_and_without_processes(path, monkeypatch):
    assert _found(path) == ANSWER
    assert isolated(read, path, "print", **LIMITS)[0] == ANSWER[0]
    assert _found(path) == ANSWER
    monkeypatch.setattr(system, "starts_processes", lambda: False)
    monkeypatch.setattr(module, "Worker", None)
    about, arrays = isolated(read, path, **LIMITS)
    assert about == ANSWER[0]
    assert [np.asarray(array).tolist() for array in arrays] == [values for _, values in ANSWER[1]]


needs_signals = pytest.mark.skipif(os.name != "posix", reason="processes are stopped, and scripts run, as POSIX has it")


@pytest.mark.parametrize(
    ("how", "kind", "sentence"),
    [
        ("refuse", InputError, r"a: no$"),
        ("tool", ToolError, "no tool"),
        ("mistake", RuntimeError, "KeyError: 'of ours'"),
        pytest.param("crash", InputError, r"a: damaged, truncated or not a test file \(its reader crashes on it\)$",
                     marks=needs_signals),
        pytest.param("loop", InputError, r"a: .* \(it takes over 0\.3 s to read\)$", marks=needs_signals),
        pytest.param("allocate", InputError, r"a: takes more memory than a file of its size may$",
                     marks=pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_a_sentence_and_the_next_file_is_read(path, how, kind, sentence):
    with pytest.raises(kind, match=sentence):
        isolated(read, path, how, **LIMITS)
    assert _found(path) == ANSWER


def test_a_reader_that_goes_on_has_time(path):
    assert isolated(read, path, "go on", **LIMITS)[0] == ANSWER[0]


def test_limits_are_of_each_call(path):
    with pytest.raises(InputError, match="memory"):
        isolated(read, path, "allocate", **LIMITS)
    _, (large,) = isolated(read, path, "allocate", what="a file", memory=2**32, seconds=10)
    assert large.nbytes == 2**30
    with pytest.raises(InputError, match="memory"):
        isolated(read, path, "allocate", **LIMITS)


def test_an_interrupted_answer_does_not_pass_for_the_next_one(path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            isolated(read, path, "print", **LIMITS)
    assert _found(path) == ANSWER


def test_a_child_that_was_forked_leaves_the_process_to_its_parent(path):
    assert _found(path) == ANSWER
    parents = module._worker
    module._forget()
    try:
        assert _found(path) == ANSWER
        assert module._worker is not parents
        assert parents.popen.poll() is None
    finally:
        parents.stop()


@needs_signals
def test_a_process_that_stands_still_is_given_up(path, monkeypatch):
    assert _found(path)
    stopped = module._worker
    os.kill(stopped.popen.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_STALL_SECONDS", 0.2)
        with pytest.raises(InputError, match=r"a: damaged, truncated or not a test file \(nothing comes for a while"):
            isolated(read, path, what="a test file", memory=2**28, seconds=0.01)
    assert stopped.popen.poll() is not None
    assert _found(path) == ANSWER


@needs_signals
@pytest.mark.parametrize(
    ("script", "kind", "sentence"),
    [
        ("exit 1", ToolError, r"^the process that reads untrusted files does not start$"),
        ("printf . && read line && exec sleep 60 >&-", InputError, r"a: .* \(its reader crashes on it\)$"),
    ],
)
def test_another_program_in_its_place_is_given_up(path, tmp_path, monkeypatch, script, kind, sentence):
    """The second one closes its output, but does not end."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(module, "_STALL_SECONDS", 0.2)
    with pytest.raises(kind, match=sentence):
        isolated(read, path, **LIMITS)
    assert module._worker is None
