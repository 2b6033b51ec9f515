"""Real Lava: the integer model agrees on networks that were never recorded, and failures leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from stl_deploy.errors import ToolError
from stl_deploy.exporters.lava import process
from stl_deploy.exporters.lava.target import run_lava
from stl_deploy.exporters.netx.convert import run_file
from stl_deploy.exporters.netx.file import write_netx
from tests.exporters.lava.groups import wait_until_gone
from tests.exporters.netx.nets import chain, dense, neuron, random_case, special_cases

pytestmark = [pytest.mark.lava, pytest.mark.usefixtures("lava_python")]


def assert_lava_agrees(net: Any, x: Any, path: Path) -> None:
    write_netx(net, path)
    run, ours = run_lava(path, x, deadline=200), run_file(net, x, record=True)
    assert run.spikes.keys() == ours.spikes.keys()
    for key in run.spikes:
        np.testing.assert_array_equal(run.spikes[key], ours.spikes[key], err_msg=key)
    np.testing.assert_array_equal(run.y, ours.y)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [1001, 1002, 1003])
def test_unrecorded_networks(seed: int, tmp_path: Path) -> None:
    assert_lava_agrees(*random_case(seed), tmp_path / "a.net")


@pytest.mark.push(1)
@pytest.mark.parametrize("name", ["weight_rule", "max_pool", "latency"])
def test_special_networks(name: str, tmp_path: Path) -> None:
    assert_lava_agrees(*special_cases()[name], tmp_path / "a.net")


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Process groups of the workers started."""
    groups: list[int] = []
    start = process.start_worker

    def remember(*args: Any) -> subprocess.Popen[bytes]:
        worker = start(*args)
        groups.append(worker.pid)
        return worker

    monkeypatch.setattr(process, "start_worker", remember)
    return groups


def long_case(path: Path) -> Any:
    write_netx(chain((4,), dense(np.ones((3, 4)), neuron=neuron(2048, 2))), path)
    return np.ones((400, 100, 4), np.int32)


def test_a_killed_worker(tmp_path: Path, group: list[int]) -> None:
    x = long_case(tmp_path / "a.net")

    def kill(done: int, total: int) -> None:
        os.kill(group[0], signal.SIGKILL)

    with pytest.raises(ToolError, match="worker was killed by signal 9"):
        run_lava(tmp_path / "a.net", x, deadline=200, progress=kill)
    assert wait_until_gone(group[0]) == []


def test_a_deadline_in_the_middle_of_a_run(tmp_path: Path, group: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    x = long_case(tmp_path / "a.net")
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    def late(done: int, total: int) -> None:
        clock[0] = 1000.0

    with pytest.raises(ToolError, match="after 200 s without progress"):
        run_lava(tmp_path / "a.net", x, deadline=200, progress=late)
    monkeypatch.undo()
    assert wait_until_gone(group[0]) == []


def test_an_exception_in_a_model(tmp_path: Path, group: list[int], lava_python: Path) -> None:
    """A threshold array of the wrong length, which our reader refuses, hangs Lava."""
    path = tmp_path / "a.net"
    x = long_case(path)[:4, :2]
    with h5py.File(path, "r+") as file:
        del file["layer/1/neuron/vThMant"]
        file["layer/1/neuron/vThMant"] = np.array([1, 2, 3, 4, 5])
    with pytest.raises(ToolError, match=r"could not run the network: in a model, ValueError: .*broadcast"):
        process.run_worker(lava_python, path, x, deadline=100)
    assert wait_until_gone(group[0]) == []


def test_a_full_disk(tmp_path: Path, group: list[int], lava_python: Path) -> None:
    write_netx(chain((4,), dense(np.ones((400, 4)), neuron=neuron(2048, 2))), tmp_path / "a.net")
    x = np.ones((400, 10, 4), np.int32)
    limited = tmp_path / "python"
    limited.write_text(f'#!/bin/bash\nulimit -f 64\nexec {lava_python} "$@"\n')
    limited.chmod(0o755)
    with pytest.raises(ToolError, match=r"could not run the network: .*File too large"):
        process.run_worker(limited, tmp_path / "a.net", x, deadline=200)
    assert wait_until_gone(group[0]) == []


def test_two_runs_at_once(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def one(name: str, seed: int) -> None:
        try:
            assert_lava_agrees(*random_case(seed), tmp_path / name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(f"{seed}.net", seed)) for seed in (1004, 1005)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
