"""Bad surroundings: what a shell, a disk or another program does to the command line never ends in exit code 70."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stl_deploy._util.untrusted import printable
from stl_deploy.exporters.nir.file import write_nir
from tests.hostile.nets import small_graph

STL = f"{sys.executable} -m stl_deploy"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a graph and an input for it."""
    write_nir(small_graph(), tmp_path / "net.nir")
    np.savez(tmp_path / "x.npz", x=np.ones((2, 3, 4), np.float32))
    return tmp_path


def _shell(command: str, folder: Path, **environment: str) -> tuple[int, str]:
    """Exit code of a shell's command (of the first in a pipe), and what it said on standard error."""
    surroundings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    call = ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(call, cwd=folder, env=surroundings, capture_output=True, timeout=280, check=False)
    return done.returncode, done.stderr.decode("utf-8", "surrogateescape")


@pytest.mark.push(3)
@pytest.mark.parametrize(
    ("redirections", "code", "said"),
    [
        (">&-", 2, "standard output is closed; --json writes to it"),
        ("2>&- > out.json", 0, ""),
        ("<&- > out.json 2>&-", 0, ""),
        ("> /dev/full", 2, "cannot write to standard output: No space left on device"),
        ("> out.json 2> /dev/full", 0, ""),
    ],
)
def test_closed_and_full_streams(place: Path, redirections: str, code: int, said: str) -> None:
    found, errors = _shell(f"{STL} show net.nir --json {redirections}", place)
    assert (found, "Traceback" in errors) == (code, False), errors
    assert said in errors


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_is_gone_ends_a_call_in_silence(place: Path, stream: str) -> None:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "stl_deploy", "show", "net.nir", "--json"]
    process = subprocess.Popen(command, cwd=place, env=os.environ | {"PYTHONPATH": str(ROOT)}, **streams)
    gone = getattr(process, stream)
    gone.close()
    setattr(process, stream, None)
    said = process.communicate(timeout=280)[stream == "stdout"]
    assert process.returncode == 1
    assert b"Error" not in said


def test_an_interrupt_while_the_command_line_loads_is_said() -> None:
    code = (
        "import sys\nclass Early:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'stl_deploy.cli.app':\n            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Early())\nfrom stl_deploy.cli import main\nmain(['doctor'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "stl-deploy: interrupted; nothing half-written is left\n")


@pytest.mark.push(2)
@pytest.mark.parametrize("redirections", [">&-", "> /dev/full", "2>&-", "2> /dev/full", "<&- >&- 2>&-"])
def test_a_file_of_ours_never_takes_the_number_of_a_closed_stream(place: Path, redirections: str) -> None:
    command = f"{STL} simulate net.nir --input x.npz --backend onnx -o y.npz {redirections}"
    assert _shell(command, place)[0] == 0
    with np.load(place / "y.npz") as found:
        assert found["y"].shape == (2, 3, 2)


def test_a_reader_that_has_read_enough(place: Path) -> None:
    code, errors = _shell(f"{STL} targets --json | head -c 0", place)
    assert (code, errors.count("Error")) == (1, 0)


LONG = "n" * 300


@pytest.mark.push(7)
@pytest.mark.parametrize(
    "call",
    [
        f"show {LONG}.nir",
        f"show {LONG}/net.nir",
        f"simulate net.nir --input {LONG}.npz --backend reference -o y.npz",
        f"simulate net.nir --input x.npz --backend reference -o {LONG}.npz",
        f"export net.nir --to onnx -o {LONG}.onnx",
        f"run digits -o {LONG}",
        f"run {LONG}.yaml",
        "show pipe.nir",
        "show pipe.onnx",
        "check pipe.nir",
        "run pipe.yaml",
        "simulate net.nir --input pipe.npz --backend reference -o y.npz",
        "simulate net.nir --input x.npz --backend reference -o pipe.npz",
        "simulate pipe.net --input x.npz --backend loihi -o y.npz",
        "simulate pipe.onnx --input x.npz --backend onnx -o y.npz",
        "simulate net.nir --dialect pipe.json --input x.npz --backend reference -o y.npz",
        "energy net.nir --input x.npz --prices pipe.toml",
        "simulate net.nir --input /dev/zero --backend reference -o y.npz",
        "simulate net.nir --input /dev/stdin --backend reference -o y.npz",
        "simulate net.nir --input x.npz --backend reference -o /dev/full",
        "show /dev/null",
        "report /dev",
        "energy net.nir --input x.npz -o net.nir",
        "run digits -o net.nir",
        "simulate net.nir --input . --backend reference -o y.npz",
        "show $'b\\xff.nir'",
        "simulate net.nir --input $'b\\xff.npz' --backend reference -o y.npz",
    ],
)
def test_names_pipes_and_devices(place: Path, call: str) -> None:
    for suffix in ("nir", "onnx", "net", "npz", "yaml", "json", "toml"):
        os.mkfifo(place / f"pipe.{suffix}")
    code, errors = _shell(f"timeout 240 {STL} {call}", place)
    assert code == (1 if call.startswith("check ") else 2), errors  # check says what it found in a file
    assert errors.strip().splitlines()[-1].startswith("stl-deploy: error: "), errors


@pytest.mark.nightly
def test_names_that_are_no_utf8_work(place: Path) -> None:
    for name in (b"b\xff.nir", b"x\xfe.npz"):
        source = place / ("net.nir" if name.endswith(b"nir") else "x.npz")
        os.rename(source, os.path.join(os.fsencode(place), name))
    for backend in ("reference", "onnx", "loihi"):
        call = f"simulate $'b\\xff.nir' --input $'x\\xfe.npz' --backend {backend} -o $'y\\xfd.npz' --json"
        code, errors = _shell(f"{STL} {call}", place)
        assert code == 0, errors
    code, errors = _shell(f"{STL} energy $'b\\xff.nir' --input $'x\\xfe.npz' -o $'o\\xfc'", place)
    assert code == 0, errors
    for target, suffix in (("onnx", "onnx"), ("netx", "net"), ("nir", "nir")):
        code, errors = _shell(f"{STL} export $'b\\xff.nir' --to {target} -o $'e\\xfb.{suffix}'", place)
        assert code == 0, errors


def test_folders_without_permission(place: Path) -> None:
    if os.geteuid() == 0:  # root may read and write everything
        if shutil.which("setpriv") is None:
            pytest.skip("this is root, and no setpriv (util-linux) to leave root's rights behind")
        rights = "setpriv --bounding-set=-dac_override,-dac_read_search "
    else:
        rights = ""
    (place / "shut").mkdir(mode=0o000)
    (place / "reading").mkdir(mode=0o500)
    for call in (
        "show shut/net.nir",
        "run digits -o shut/run",
        "run digits -o reading/run",
        "simulate net.nir --input x.npz --backend reference -o reading/y.npz",
        "simulate net.nir --input shut/x.npz --backend reference -o y.npz",
    ):
        code, errors = _shell(f"{rights}{STL} {call}", place)
        assert (code, "Permission denied" in errors) == (2, True), errors


@pytest.mark.push(1)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_when_the_work_is_done_changes_nothing(name: str) -> None:
    code = (
        "import atexit, os, signal, sys; from stl_deploy.cli.main import main; sys.argv = ['stl-deploy', 'models']; "
        f"atexit.register(os.kill, os.getpid(), signal.{name}); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "cifar10_small" in done.stderr


@pytest.mark.push(1)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_signal_while_the_first_is_told_ends_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "twice.py").write_text(
        "import os, signal, sys\nimport stl_deploy.cli.app as app\nfrom stl_deploy.cli import main, output\n"
        f"def again(*_, **__):\n    os.kill(os.getpid(), signal.{name})\n    return 'never said'\n"
        "def verb(**_):\n    output.settings.kept = again\n    again()\n"
        "app.app = verb\nsys.argv = ['stl-deploy', 'doctor']\nmain()\n"
    )
    assert _shell(f"{sys.executable} twice.py", tmp_path) == (130, "")


@pytest.mark.push(1)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_where_python_ignores_errors_is_an_interrupt_too(tmp_path: Path, name: str) -> None:
    (tmp_path / "ignored.py").write_text(
        "import os, signal, sys, time, weakref\nimport stl_deploy.cli.app as app\nfrom stl_deploy.cli import main\n"
        "class Thing:\n    pass\n"
        "def verb(**_):\n    thing = Thing()\n"
        f"    weak = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.{name}))\n"
        "    del thing\n    time.sleep(300)\n"
        "app.app = verb\nsys.argv = ['stl-deploy', 'doctor']\nmain()\n"
    )
    found = _shell(f"{sys.executable} ignored.py", tmp_path)
    assert found == (130, "stl-deploy: interrupted; nothing half-written is left\n")


@pytest.mark.push(1)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_waits_until_an_extension_module_is_loaded(tmp_path: Path, name: str) -> None:
    """Those in C++ abort, or make an ImportError of it."""
    (tmp_path / "loading.py").write_text(
        "import _imp, importlib._bootstrap, os, signal, sys, time\n"
        "import stl_deploy.cli.app as app\nfrom stl_deploy.cli import main\n"
        "class Spec:\n    name = 'own'\n    @property\n    def origin(self):\n"
        f"        os.kill(os.getpid(), signal.{name})\n        time.sleep(0.2)\n"
        "        os.write(2, b'loaded\\n')\n        return '/nowhere.so'\n"
        "def verb(**_):\n"
        "    try:\n        importlib._bootstrap._call_with_frames_removed(_imp.create_dynamic, Spec())\n"
        "    except ImportError:\n        os.write(2, b'went on\\n')\n"
        "    time.sleep(300)\n"
        "app.app = verb\nsys.argv = ['stl-deploy', 'doctor']\nmain()\n"
    )
    found = _shell(f"{sys.executable} loading.py", tmp_path)
    assert found[0] == 130
    assert found[1].splitlines()[0] == "loaded"
    assert found[1].splitlines()[-1] == "stl-deploy: interrupted; nothing half-written is left"


@pytest.mark.push(1)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_waits_while_torch_runs_the_top_level_of_its_modules(tmp_path: Path, name: str) -> None:
    """That of torch.distributed calls C++, which aborts at an exception."""
    (tmp_path / "initialising.py").write_text(
        "import os, signal, sys, time\nimport stl_deploy.cli.app as app\nfrom stl_deploy.cli import main\n"
        f"top = 'os.kill(os.getpid(), signal.{name}); time.sleep(0.2); os.write(2, bytes([105, 10]))'\n"
        "def verb(**_):\n    exec(top, {**globals(), '__name__': 'torch.own'})\n    time.sleep(300)\n"
        "app.app = verb\nsys.argv = ['stl-deploy', 'doctor']\nmain()\n"
    )
    found = _shell(f"{sys.executable} initialising.py", tmp_path)
    assert found == (130, "i\nstl-deploy: interrupted; nothing half-written is left\n")


def test_a_users_thread_that_does_not_end_does_not_keep_the_command_from_ending(place: Path) -> None:
    (place / "own.py").write_text(
        "import threading, time, stl_deploy, torch\nthreading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "net = torch.nn.Sequential(torch.nn.Linear(4, 2), stl_deploy.LIF((2,)))\n"
    )
    np.savez(place / "steps.npz", x=np.ones((5, 2, 4), np.float32))
    code, errors = _shell(f"{STL} capture own.py:net -i steps.npz --allow-silent -o own.nir", place)
    assert code == 0, errors
    assert (place / "own.nir").is_file()


@pytest.mark.push(1)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_an_import_makes_another_error_of_is_an_interrupt(tmp_path: Path, name: str) -> None:
    """As extension modules do in whose first lines it comes."""
    (tmp_path / "torch.py").write_text(
        "import os, signal, time\n"
        f"try:\n    os.kill(os.getpid(), signal.{name})\n    time.sleep(10)\n"
        "except KeyboardInterrupt as error:\n    raise ImportError('initialization failed') from error\n"
    )
    code, errors = _shell(f"{STL} train digits -o run", tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (code, errors) == (130, "stl-deploy: interrupted; nothing half-written is left\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.push(1)
@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_ended_from_outside_is_one_sentence_and_nothing_temporary(tmp_path: Path, signal_: signal.Signals) -> None:
    run, temporary = tmp_path / "run", tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "stl_deploy", "train", "digits", "-o", str(run), "--set", "train.epochs=1000"]
    surroundings = os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=surroundings, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 200
    while not (run / "metrics.jsonl").exists() and time.monotonic() < until:  # written last, when an epoch ends
        time.sleep(0.05)
    process.send_signal(signal_)
    _, errors = process.communicate()
    assert process.returncode == 130
    last = errors.splitlines()[-1]
    assert re.match(
        r"stl-deploy: interrupted; \d+ epochs? (is|are) kept in .*; continue with: stl-deploy train", last
    ), last
    assert "Traceback" not in errors
    assert {path.name for path in run.iterdir()} <= {"config.yaml", "metrics.jsonl", "checkpoint.safetensors"}
    assert not [path for path in temporary.rglob("*") if "stl-deploy" in path.name]


def test_low_memory_is_a_sentence(place: Path) -> None:
    code, errors = _shell(f"ulimit -v 400000; {STL} simulate net.nir --input x.npz --backend onnx -o y.npz", place)
    assert code in (0, 2), errors
    assert "Traceback" not in errors


@pytest.mark.push(2)
@pytest.mark.parametrize("verb", ["train digits -o run", "run digits -o run", "eval run"])
@pytest.mark.parametrize("limit", [1_000_000, 2_000_000])
def test_a_training_without_address_space_is_refused_before_it_begins(tmp_path: Path, verb: str, limit: int) -> None:
    """OpenBLAS tries without end to get memory where there is none; other native code ends the process."""
    code, errors = _shell(f"ulimit -v {limit}; {STL} {verb}", tmp_path)
    assert (code, (tmp_path / "run").exists()) == (2, False), errors
    found = f"found a limit of {limit / 2**20:.2g} GiB; raise it (ulimit -v 2097152)"
    assert f"expected an address space of at least 2 GiB for torch and its threads; {found}" in errors


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert printable("a\x1b[2Jb\r\x07\x9b1m\u202ec\ud800\nd") == "a\\x1b[2Jb\\r\\x07\\x9b1m\\u202ec\\ud800\nd"
    assert printable("θ ü 漢字 é") == "θ ü 漢字 é"


def test_escapes_in_names_do_not_reach_the_screen(place: Path) -> None:
    name = "$'net\\x1b[2J.nir'"
    _, errors = _shell(f"cp net.nir {name}; {STL} show {name}; {STL} show {name}x", place)
    assert "\x1b" not in errors
    assert "\\x1b[2J" in errors


@pytest.mark.parametrize("debug", ["", "--debug"])
def test_a_name_in_a_file_cannot_pass_for_a_line_of_ours(place: Path, debug: str) -> None:
    np.savez(place / "named.npz", **{"x\nstl-deploy: all is well\x1b[2J": np.ones(3)})
    _, errors = _shell(f"{STL} {debug} simulate net.nir --input named.npz --backend reference -o y.npz", place)
    assert "all is well\\x1b[2J" in errors
    assert "\x1b" not in errors
    if not debug:
        assert [line for line in errors.splitlines() if line.startswith("stl-deploy: ")] == errors.splitlines()[:1]


START = """
from stl_deploy.cli.streams_and_signals import prepare_libraries
prepare_libraries()
import matplotlib, numba, torch
from stl_deploy.report.page.svg import inline, panels, style
with style():
    figure, axes = panels(1, 2, 2)
    axes[0].set_title("a")
    print(len(inline(figure, "n", "l")), matplotlib.get_backend())
"""


def _started(folder: Path, settings: dict[str, str]) -> str:
    (folder / "start.py").write_text(START)
    command = [sys.executable, "start.py"]
    done = subprocess.run(command, cwd=folder, env=_environment(settings), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What starts nowhere in particular."""
    return _started(tmp_path_factory.mktemp("empty"), {})


@pytest.mark.push(1)
@pytest.mark.parametrize(
    ("rc", "numba", "settings"),
    [
        (b"text.usetex: True\nfont.size: 40\nbackend: TkAgg\n", b"{ : : not yaml", {}),
        (b"\xff\xfe no text", b"- 1", {"MATPLOTLIBRC": "/nonexistent", "TORCH_LOGS": "nonsense"}),
        (b"", b"", {"MPLBACKEND": "module://of.nobody", "SOURCE_DATE_EPOCH": "yesterday"}),
    ],
)
def test_libraries_do_not_read_their_settings_from_the_folder_or_the_shell(
    tmp_path: Path, usual: str, rc: bytes, numba: bytes, settings: dict[str, str]
) -> None:
    """Imports and a figure, as train and report make them, after the command line's start."""
    if rc:
        (tmp_path / "matplotlibrc").write_bytes(rc)
        (tmp_path / ".numba_config.yaml").write_bytes(numba)
    assert _started(tmp_path, settings) == usual


def _environment(settings: dict[str, str]) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | settings


@pytest.mark.push(2)
@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, 0, ""),
        ({"WORLD_SIZE": "two", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, 0, ""),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, 2, "unset WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, 2, ""),
    ],
)
def test_what_torchrun_left_in_the_shell(place: Path, settings: dict[str, str], code: int, said: str) -> None:
    found, errors = _shell(f"timeout 240 {STL} show net.nir --json > out.json", place, **settings)
    assert found == code, errors
    assert "Traceback" not in errors
    assert said in errors
    assert len(errors.splitlines()) <= 1 or code == 0


def test_an_ignored_interrupt_stays_ignored_and_the_others_end_at_once(tmp_path: Path) -> None:
    """As in a background job of a script, under nohup, and on some machines for CI."""
    (tmp_path / "ignored.py").write_text(
        "import os, signal, sys, time\nimport stl_deploy.cli.app as app\nfrom stl_deploy.cli import main\n"
        "def verb(**_):\n    os.kill(os.getpid(), signal.SIGINT)\n    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    os.write(2, b'goes on\\n')\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(300)\n"
        "app.app = verb\nsys.argv = ['stl-deploy', 'doctor']\nmain()\n"
    )
    found = _shell(f"trap '' INT HUP; {sys.executable} ignored.py", tmp_path)
    assert found == (130, "goes on\nstl-deploy: interrupted; nothing half-written is left\n")


def test_tests_under_a_parent_that_ignores_signals_answer_them_all_the_same() -> None:
    code = "import signal; from tests import conftest; print(signal.getsignal(2) == signal.SIG_IGN)"
    done = subprocess.run(
        ["bash", "-c", f"trap '' INT HUP; {sys.executable} -c '{code}'"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "False\n", done.stderr
