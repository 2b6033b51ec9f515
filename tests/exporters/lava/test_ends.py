"""Real Lava, ended in every way a run can end: noticed at once, one sentence, no process and no shared memory left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

import pytest

from stl_deploy.exporters.netx.file import write_netx
from tests.exporters.lava.groups import PATIENCE, alive, wait_until_gone
from tests.exporters.netx.nets import special_cases

pytestmark = pytest.mark.lava
DRIVER = """
import sys
import time
import types
from pathlib import Path
import numpy as np
from stl_deploy.cli.streams_and_signals import ended_like_interrupted
from stl_deploy.errors import StlDeployError
from stl_deploy.exporters.lava import process
from stl_deploy.exporters.lava.target import run_lava
from tests.exporters.netx.nets import special_cases

start = process.start_worker
def show(*arguments):
    worker = start(*arguments)
    print(worker.pid, flush=True)
    return worker
process.start_worker = show
start_of_work, speed = [], float(sys.argv[2])
def clock():
    # After the first progress, time passes so many times as fast for what waits.
    now = time.monotonic()
    return start_of_work[0] + speed * (now - start_of_work[0]) if start_of_work else now
def at_work(done, total):
    start_of_work.append(time.monotonic())
    print("at work", flush=True)
process.time = types.SimpleNamespace(sleep=time.sleep, monotonic=clock)
x = np.tile(special_cases()["round_v"][1], (60, 20, 1))
with ended_like_interrupted():
    try:
        run_lava(Path(sys.argv[1]), x, deadline=600, progress=at_work)
    except StlDeployError as error:
        sys.exit(str(error))
"""


def _shared(group: int) -> list[str]:
    return [name for name in os.listdir("/dev/shm") if name.startswith(f"stl-{group}-")]


def _wait_until_unshared(group: int) -> list[str]:
    until = time.monotonic() + PATIENCE
    while _shared(group) and time.monotonic() < until:
        time.sleep(0.1)
    return _shared(group)


class Run:
    """Lava at work in a process of its own."""

    def __init__(self, folder: Path, speed: int = 1) -> None:
        write_netx(special_cases()["round_v"][0], folder / "net.net")
        self.temporary = Path(tempfile.mkdtemp(prefix="t"))  # short, as names of sockets must be
        weakref.finalize(self, shutil.rmtree, self.temporary, ignore_errors=True)
        self.driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(folder / "net.net"), str(speed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
            env=os.environ | {"TMPDIR": str(self.temporary)},
        )
        assert self.driver.stdout is not None
        self.group = int(self.driver.stdout.readline())

    def at_work(self) -> Run:
        assert self.driver.stdout is not None
        assert self.driver.stdout.readline() == "at work\n"
        assert _shared(self.group)
        return self

    def ended(self) -> tuple[int, str]:
        _, errors = self.driver.communicate()
        return self.driver.returncode, errors


@pytest.mark.usefixtures("lava_python")
def test_an_inner_process_that_is_killed_is_noticed_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path).at_work()
    inner = [int(process) for process in alive(run.group) if int(process) != run.group]
    forked = [p for p in inner if b"worker.py" in Path(f"/proc/{p}/cmdline").read_bytes()]
    os.kill(max(forked), signal.SIGKILL)
    code, errors = run.ended()
    assert code == 1
    assert "one of its processes was killed by signal 9" in errors
    assert wait_until_gone(run.group) == []
    assert _wait_until_unshared(run.group) == []
    assert not list(run.temporary.iterdir())


@pytest.mark.push(1)
@pytest.mark.usefixtures("lava_python")
@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_driver_leaves_nothing(tmp_path: Path, signal_: signal.Signals) -> None:
    run = Run(tmp_path).at_work()
    run.driver.send_signal(signal_)
    _, errors = run.ended()
    assert "KeyboardInterrupt" in errors
    assert wait_until_gone(run.group) == []
    assert _wait_until_unshared(run.group) == []
    assert not list(run.temporary.iterdir())


@pytest.mark.usefixtures("lava_python")
def test_a_worker_that_is_stopped_is_ended_at_the_deadline(tmp_path: Path) -> None:
    run = Run(tmp_path, speed=60).at_work()
    os.kill(run.group, signal.SIGSTOP)
    code, errors = run.ended()
    assert (code, "after 600 s without progress" in errors) == (1, True)
    assert wait_until_gone(run.group) == []
    assert _wait_until_unshared(run.group) == []


@pytest.mark.push(1)
@pytest.mark.usefixtures("lava_python")
@pytest.mark.parametrize("stopped", [False, True])
def test_a_driver_that_is_killed_takes_everything_with_it(tmp_path: Path, stopped: bool) -> None:
    run = Run(tmp_path).at_work()
    if stopped:
        os.kill(run.group, signal.SIGSTOP)
    run.driver.kill()
    run.ended()
    assert wait_until_gone(run.group) == []
    assert _wait_until_unshared(run.group) == []
