"""The watching of a worker, with stand-ins for Lava: whatever goes wrong, one sentence and no process left."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stl_deploy.errors import ToolError
from stl_deploy.exporters.lava import process
from tests.exporters.lava.groups import alive, wait_until_gone

X = np.zeros((2, 1, 1), np.int32)

PREAMBLE = """
import json, os, sys, time, subprocess
print("noise on stdout {not json")
job = json.load(open(sys.argv[1])); folder = job["folder"]
def child(): subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def put(name, data):
    open(os.path.join(folder, name + ".part"), "w").write(json.dumps(data))
    os.replace(os.path.join(folder, name + ".part"), os.path.join(folder, name))
"""


class Runner:
    """Runs a stand-in worker and remembers its process group."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch, self.group = folder, monkeypatch, 0

    def __call__(self, body: str, deadline: float = 60.0, **kwargs: Any) -> dict[str, Any]:
        script = self.folder / "worker.py"
        script.write_text(PREAMBLE + body)
        self.patch.setattr(process, "WORKER", script)
        start = process.start_worker

        def remember(*args: Any) -> subprocess.Popen[bytes]:
            worker = start(*args)
            self.group = worker.pid
            return worker

        self.patch.setattr(process, "start_worker", remember)
        return process.run_worker(Path(sys.executable), self.folder / "a.net", X, deadline=deadline, **kwargs)


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(tmp_path, monkeypatch)


GOOD = """
import numpy as np
put("progress.json", {"done": 2, "total": 2})
np.savez(os.path.join(folder, "spikes.npz"), layer1=np.ones((2, 1, 1), np.uint8))
put("done.json", {})
"""


def test_a_good_run_returns_its_spikes_and_tells_progress(runner: Runner) -> None:
    seen: list[tuple[int, int]] = []
    spikes = runner(GOOD, progress=lambda done, total: seen.append((done, total)))
    assert spikes["layer1"].tolist() == [[[1]], [[1]]]
    assert seen == [(2, 2)]


def test_children_left_by_a_good_run_are_ended(runner: Runner) -> None:
    runner("child()\n" + GOOD)
    assert wait_until_gone(runner.group) == []


FAILURES = {
    "hang": ("child()\ntime.sleep(600)", 1.0, r"after 1 s without progress$"),
    "torch's words": (
        "print('No CUDA runtime is found, using CUDA_HOME', file=sys.stderr); time.sleep(600)",
        2.0,
        r"after 2 s without progress$",
    ),
    "killed": ("child()\nos.kill(os.getpid(), 9)", 60.0, r"worker was killed by signal 9 before it finished$"),
    "last words": ("sys.stderr.write('no space left\\n'); sys.exit(3)", 60.0, "ended with code 3 .*no space left"),
    "told": ("put('failure.json', {'reason': 'ValueError: bad net'}); sys.exit(1)", 60.0, "could not run.*bad net"),
    "full disk": ("sys.exit(28)", 60.0, "no space left for Lava's files in .*; free some, or name a larger folder"),
    "no result": ("put('done.json', {})", 60.0, "result cannot be read"),
    "garbage": ("put('spikes.npz', 1); put('done.json', {})", 60.0, "result cannot be read"),
    "deaf": ("import signal; signal.signal(15, signal.SIG_IGN); time.sleep(600)", 1.0, "after 1 s without progress"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_leave_no_process(name: str, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    body, deadline, message = FAILURES[name]
    with pytest.raises(ToolError, match=message) as error:
        runner(body, deadline)
    assert "\n" not in str(error.value)
    assert wait_until_gone(runner.group) == []


def test_a_slow_run_that_goes_on_is_not_ended_at_the_deadline(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seconds pass with each step, of which the worker waits for the driver to notice; the deadline is three."""
    now = [0.0]
    monkeypatch.setattr(process, "time", SimpleNamespace(sleep=time.sleep, monotonic=lambda: now[0]))

    def noticed(done: int, total: int) -> None:
        now[0] += 2
        (tmp_path / f"noticed{done}").touch()

    slow = (
        "import time\nfor k in range(6):\n    put('progress.json', {'done': k, 'total': 6})\n"
        f"    while not os.path.exists(f'{tmp_path}/noticed{{k}}'): time.sleep(0.01)\n"
    )
    assert runner(slow + GOOD, 3.0, progress=noticed)["layer1"].tolist() == [[[1]], [[1]]]
    assert now[0] >= 12


def test_an_interrupted_driver_ends_the_worker(runner: Runner) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner("child()\nput('progress.json', {'done': 1, 'total': 2})\ntime.sleep(600)", progress=interrupt)
    assert wait_until_gone(runner.group) == []


def test_a_model_that_fails_on_a_full_disk_ends_the_worker_though_the_reason_cannot_be_written(tmp_path: Path) -> None:
    code = (
        "import sys, threading, types\n"
        f"sys.path.insert(0, {str(process.WORKER.parent)!r})\n"
        "import worker\n"
        "actor = types.SimpleNamespace(exception=(OSError(int(sys.argv[1]), 'model'), None))\n"
        "there = types.SimpleNamespace(actors=[actor])\n"
        "net = types.SimpleNamespace(runtime=types.SimpleNamespace(_messaging_infrastructure=there))\n"
        "def full(path, data): raise OSError(28, 'full')\n"
        "if sys.argv[2] == 'full': worker.write_json = full\n"
        f"worker.watch_models(net, {str(tmp_path)!r}, threading.Event())\n"
    )

    def exit_code(error: int, disk: str) -> int:
        return subprocess.run([sys.executable, "-c", code, str(error), disk], timeout=60).returncode

    assert exit_code(28, "free") == 28
    assert exit_code(5, "full") == 28
    assert exit_code(5, "free") == 1
    assert "in a model, OSError: [Errno 5] model" in (tmp_path / "failure.json").read_text()


def test_a_python_without_lava(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"could not run the network: \w+Error"):
        process.run_worker(Path(sys.executable), tmp_path / "missing.net", X, deadline=60)


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cannot be started: No such file"):
        process.run_worker(tmp_path / "python", tmp_path / "a.net", X, deadline=60)


def test_a_worker_whose_driver_was_killed_ends_itself(tmp_path: Path) -> None:
    """The real worker's watch over its parent, kept busy by a stand-in for the run."""
    busy = (
        "import sys, runpy, json, os\n"
        f"sys.path.insert(0, {str(process.WORKER.parent)!r})\n"
        "import worker, time\n"
        "worker.run_job = lambda job, folder: time.sleep(600)\n"
        "worker.main(sys.argv[1])\n"
    )
    (tmp_path / "busy.py").write_text(busy)
    driver = (
        "import sys, os\nfrom pathlib import Path\nimport numpy as np\n"
        "from stl_deploy.exporters.lava import process\n"
        f"process.WORKER = Path({str(tmp_path / 'busy.py')!r})\n"
        "start = process.start_worker\n"
        "def show(*a):\n    w = start(*a); print(w.pid, flush=True); return w\n"
        "process.start_worker = show\n"
        "process.run_worker(Path(sys.executable), Path('a.net'), np.zeros((1, 1, 1), np.int32), deadline=100)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", driver], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert parent.stdout is not None
    with parent.stdout:
        group = int(parent.stdout.readline())
        assert alive(group)
        parent.kill()
        parent.wait()
    assert wait_until_gone(group) == []
