"""Reading a .nir file, and what stands around it, where the operating system has none of Linux's safeguards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nir
import numpy as np
import pytest

from stl_deploy._util import system
from stl_deploy.exporters.nir.file import write_nir
from tests.hunt.net_formats import golden_nir

WITHOUT = """
import sys
for name in ("resource", "fcntl", "msvcrt", "pwd"):
    sys.modules[name] = None
import signal, os, select, subprocess
del select.select
for name in ("setitimer", "ITIMER_PROF", "SIGPROF", "SIGALRM"):
    delattr(signal, name)
for name in ("killpg", "fork", "getpgid", "setsid", "register_at_fork", "mkfifo"):
    delattr(os, name)
"""
"""What Windows has not, taken away (its select knows sockets alone)."""


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "net.nir"
    path.write_bytes(golden_nir()[0])
    return path


def test_a_nir_file_is_read_without_them(sound: Path) -> None:
    code = f"{WITHOUT}\nimport stl_deploy as stl\nprint(len(stl.read(sys.argv[1], dialect='spec').graph.nodes) > 2)"
    assert _python(code, str(sound)).stdout == "True\n"


def test_its_process_does_without_them_too(sound: Path) -> None:
    code = f"{WITHOUT}\nfrom stl_deploy._util.isolated import serve\nserve()"
    question = f'["stl_deploy._util.hdf5.scan", "look_through", "{sound}", ["a NIR file", false], 1000000000, 0.5]\n'
    done = subprocess.run([sys.executable, "-c", code], input=question.encode(), capture_output=True, check=True)
    assert b'{"about": {' in done.stdout


@pytest.mark.parametrize("size", [3, 2**15])
def test_where_there_are_no_processes_the_file_is_looked_through_here(tmp_path: Path, size: int) -> None:
    """Arrays over 64 KiB, too, which were said to change while they were read."""
    rows = np.arange(2 * size, dtype=np.float32).reshape(2, size)
    nodes = {
        "input": nir.Input({"input": np.array([size])}),
        "fc": nir.Linear(rows),
        "output": nir.Output({"output": np.array([2])}),
    }
    write_nir(nir.NIRGraph(nodes, [("input", "fc"), ("fc", "output")]), tmp_path / "net.nir")
    code = (
        "import sys\nimport stl_deploy as stl\nfrom stl_deploy._util import isolated, system\n"
        "system.starts_processes = lambda: False\nisolated.Worker = None\n"
        "print(float(stl.read(sys.argv[1], dialect='spec').graph.nodes['fc'].weight.sum()))"
    )
    assert _python(code, str(tmp_path / "net.nir")).stdout == f"{rows.sum()}\n"


def test_lavas_status_needs_no_file_locks() -> None:
    code = f"{WITHOUT}\nfrom stl_deploy.exporters.lava import environment\nprint(environment.status().ready in (0, 1))"
    assert _python(code).stdout == "True\n"


def test_folders_are_written_into_and_processes_ended_without_them(tmp_path: Path) -> None:
    code = (
        f"{WITHOUT}\nfrom pathlib import Path\nfrom stl_deploy._util.lock import alone_in\n"
        "from stl_deploy._util import system\n"
        "with alone_in(Path(sys.argv[1])) as _:\n    print((Path(sys.argv[1]) / '.lock').exists())\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "system.signal_group(child, 0)\nprint(child.poll())\nsystem.signal_group(child, signal.SIGTERM)\n"
        "print(child.wait())\n"
        "try:\n    system.signal_group(child, 0)\nexcept ProcessLookupError:\n    print('gone')"
    )
    assert _python(code, str(tmp_path / "run")).stdout.split() == ["True", "None", "-15", "gone"]


def test_a_lock_is_held_until_the_file_is_closed(tmp_path: Path) -> None:
    place = tmp_path / "lock"
    with place.open("w") as first:
        system.lock(first.fileno())
        with place.open("w") as second, pytest.raises(OSError, match="unavailable"):
            system.lock(second.fileno())
    with place.open("w") as third:
        system.lock(third.fileno())


def test_a_process_ends_itself_when_its_time_is_up() -> None:
    code = "from stl_deploy._util import system\nassert system.end_after(0.05)\nwhile True: pass"
    assert system.ran_out_of_time(_python(code).returncode)
    assert not system.ran_out_of_time(1)
    assert not system.ran_out_of_time(None)


def test_memory_is_limited() -> None:
    code = "from stl_deploy._util import system\nassert system.limit_memory(2**30)\nbytearray(2**31)"
    assert "MemoryError" in _python(code).stderr
