"""Lava's side environment: a Python 3.10 with lava-dl 0.6.0, found or built once.

It lives in ``$STL_DEPLOY_LAVA``, else under the user's cache folder. A marker written first says that the folder is
ours, to be built anew or removed. A stamp written last, after a network of three neurons has run, says that it is
ready.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stl_deploy._util import system
from stl_deploy._util.files import cache_dir, read_json, write_json
from stl_deploy._util.remedies import named, remedy
from stl_deploy._util.temporary import temporary_folder
from stl_deploy._util.units import folder_bytes
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.lava.process import run_worker
from stl_deploy.exporters.netx.file import write_netx
from stl_deploy.exporters.netx.layers import DenseLayer, InputLayer, NetxFile
from stl_deploy.integers.net import IntegerNeuron

REQUIREMENTS = Path(__file__).parent / "requirements.txt"
STAMP = "stl-deploy-lava.json"
MARKER = "stl-deploy-environment"
"""A file in every environment that we make, written before anything else. Without it a folder is never touched."""
UNFINISHED = "stl-deploy-unfinished"
"""Left behind by an install that was cut off between pip's start and end; such a folder is built anew."""
_OLDER_MARKERS = (STAMP, UNFINISHED, "stl-deploy-witness.json")
"""Files that releases before the marker left in environments of theirs, beside ``pyvenv.cfg``."""
_HASH = re.compile(r" \\\n +--hash=\S+")

Report = Callable[[str], None]
"""Called with one line about what is going on."""


@dataclass(frozen=True)
class LavaStatus:
    """State of the environment. ``reason``: one sentence if it is not ready."""

    ready: bool
    location: Path
    python: Path
    version: str | None
    reason: str | None


def _install() -> str:
    """Return the call that builds it."""
    return remedy(cli="stl-deploy lava install", python="stl_deploy.verbs.lava_install()")


def location() -> Path:
    """Return the side environment's folder, built or not."""
    return folder_from("STL_DEPLOY_LAVA") or (cache_dir() / "lava-0.6.0").absolute()


def folder_from(variable: str) -> Path | None:
    """Return the folder that an environment variable names, or None; ``~nobody`` is kept as it is, as in a shell."""
    chosen = os.environ.get(variable)
    return Path(os.path.expanduser(chosen)).absolute() if chosen else None


def status() -> LavaStatus:
    """Return whether Lava can be used now; starts nothing."""
    place = location()
    python = place / "bin" / "python"
    if not python.exists():
        return LavaStatus(False, place, python, None, f"no Lava environment at {place}; run: {_install()}")
    try:
        stamp = read_json(place / STAMP)
        good = stamp["requirements"] == pins_hash(REQUIREMENTS)
        version = str(stamp["lava-dl"])
    except (InputError, KeyError, TypeError):
        reason = f"the Lava environment at {place} was not finished or checked; run: {_install()}"
        return LavaStatus(False, place, python, None, reason)
    if not good:
        reason = f"the Lava environment at {place} has other packages than ours; run: {_install()}"
        return LavaStatus(False, place, python, version, reason)
    return LavaStatus(True, place, python, version, None)


def require() -> Path:
    """Return the side environment's Python; raise ToolError with the remedy if it is not ready."""
    now = status()
    if not now.ready:
        raise ToolError(now.reason or "Lava is not ready")
    return now.python


def install(python: Path | None = None, progress: Report | None = None) -> LavaStatus:
    """Build the side environment (about 5.8 GB, some minutes) unless it is ready.

    python: a Python 3.10 to use; None: see `find_python`. An environment of ours that is not ready is completed, or
    built anew. Raises ToolError if there is no Python 3.10, if something else lies in the folder, or if a step fails.
    """
    say = progress or (lambda line: None)
    if status().ready:
        return status()
    place = location()
    with lock(place, "Lava"):
        if status().ready:
            return status()
        _build(place, python, say)
    say(f"Lava is ready at {place}")
    return status()


def remove() -> tuple[Path, int]:
    """Remove the side environment; return its folder and the freed bytes.

    Raises ToolError if there is none, if `install` did not make it, or if another install is under way.
    """
    place = location()
    return place, discard(place, "Lava", "lava install")


def _build(place: Path, python: Path | None, say: Report) -> None:
    inside, unfinished = place / "bin" / "python", place / UNFINISHED
    require_ours(place, "STL_DEPLOY_LAVA")
    if unfinished.exists() or python_version(inside) != (3, 10):
        create(place, find_python((3, 10), "Lava", python), "STL_DEPLOY_LAVA", say)
    (place / STAMP).unlink(missing_ok=True)
    unfinished.touch()
    say("installing lava-dl 0.6.0 and what it needs (about 5.8 GB)")
    fill(inside, REQUIREMENTS, "Lava")
    unfinished.unlink()
    say("checking it with a network of three neurons")
    check_three_neurons(inside)
    write_json(place / STAMP, {"lava-dl": "0.6.0", "requirements": pins_hash(REQUIREMENTS)})


def is_ours(place: Path) -> bool:
    """Return whether `create` made this folder: by its marker, or by older releases' files in a virtual environment."""
    older = place.is_relative_to(cache_dir().absolute()) or any((place / name).is_file() for name in _OLDER_MARKERS)
    return (place / MARKER).is_file() or (older and (place / "pyvenv.cfg").is_file())


def require_ours(place: Path, variable: str) -> None:
    """Raise ToolError if anything lies at ``place`` that `create` did not make; an empty folder is free.

    variable: names another place.
    """
    try:
        free = not place.exists() or (place.is_dir() and not any(place.iterdir()))
        if free or is_ours(place):
            return
    except OSError as error:
        raise ToolError(f"{place}: {error.strerror or error}") from None
    raise ToolError(f"{place} holds something that stl-deploy did not make; name another folder with {variable}")


def create(place: Path, base: Path, variable: str, say: Report) -> None:
    """Make a virtual environment of the Python ``base``, in place of an older one of ours or of an empty folder.

    Raises ToolError as `require_ours` does, and if it cannot be made.
    """
    require_ours(place, variable)
    say(f"creating {place} with {base}")
    _delete(place)
    try:
        place.mkdir(parents=True, exist_ok=True)
        (place / MARKER).write_text("Made by stl-deploy, which may delete this folder and make it anew.\n")
    except OSError as error:
        raise ToolError(f"cannot write {place}: {error.strerror or error}") from None
    step([base, "-I", "-m", "venv", place], "creating the environment")


def fill(python: Path, requirements: Path, tool: str) -> None:
    """Install the packages of a tool, each checked against its hash; raise ToolError if pip fails."""
    pip: list[Path | str] = [python, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    step([*pip, "--require-hashes", "-r", requirements], f"installing {tool}")


def pins(requirements: Path) -> str:
    """Return the text of a requirements file without its hashes."""
    return _HASH.sub("", requirements.read_text(encoding="utf-8"))


def pins_hash(requirements: Path) -> str:
    """Return SHA-256 of `pins`: an environment of these versions stays ready when hashes of further files are added."""
    return hashlib.sha256(pins(requirements).encode()).hexdigest()


def discard(place: Path, tool: str, verb: str) -> int:
    """Remove an environment that ``verb`` made, whole or half-made; return how many bytes that freed.

    Raises ToolError if there is none, if it is not ours, or if an install is under way.
    """
    size = folder_bytes(place)
    if size is None:
        raise ToolError(f"no environment of {tool} at {place}; nothing to remove")
    if not is_ours(place):
        raise ToolError(f"{place} is not an environment that 'stl-deploy {verb}' made; remove it by hand")
    with lock(place, tool):
        _delete(place)
    return size


def _delete(place: Path) -> None:
    """Delete a folder of ours; the marker goes last, so that a half-deleted one can be deleted again."""
    if not place.is_dir():
        return
    try:
        for entry in sorted(place.iterdir(), key=lambda entry: entry.name == MARKER):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if not place.is_symlink():
            place.rmdir()
    except OSError as error:
        raise ToolError(f"cannot remove all of {place}: {error.strerror or error}") from None


@contextmanager
def lock(place: Path, tool: str) -> Iterator[None]:
    """Allow one install of a tool at a time; the lock ends with its process."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        stream = (place.parent / f".{place.name}.lock").open("w")
    except OSError as error:
        raise ToolError(f"cannot write {place.parent}: {error.strerror or error}") from None
    with stream:
        try:
            system.lock(stream.fileno())
        except OSError:
            raise ToolError(f"another install of {tool} is under way at {place}; wait for it to end") from None
        yield


def step(command: list[Path | str], doing: str) -> None:
    """Run one command of the install; its last error line becomes the message."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    except OSError as error:
        raise ToolError(f"{doing} failed: {error.strerror or error}") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise ToolError(f"{doing} failed: {last[:300]}")


EXPECTED = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 0]], np.uint8)
"""Spikes of the check network by step. Input 1 in each step; weights 12, 8, 6, threshold above 10, β = 0.5: potentials
12→spike; 8, 12→spike; 6, 9, 10.5→spike."""


def check_three_neurons(python: Path, deadline: float = 120.0) -> None:
    """Raise ToolError unless Lava under ``python`` gives the spikes of three neurons that are `EXPECTED`."""
    neuron = IntegerNeuron(v_decay=2048, threshold=np.array(10, np.int32))
    layer = DenseLayer(weight=np.array([[12], [8], [6]], np.int32), neuron=neuron)
    net = NetxFile((InputLayer(shape=(1,)), layer))
    with temporary_folder() as folder:
        path = folder / "three.net"
        write_netx(net, path)
        spikes = run_worker(python, path, np.ones((4, 1, 1), np.int32), deadline=deadline)
    if not np.array_equal(spikes.get("layer1", np.zeros(0)).reshape(-1, 3), EXPECTED):
        raise ToolError("Lava ran the check network and gave other spikes than expected; reinstall it")


Version = tuple[int, int]


def find_python(version: Version, tool: str, chosen: Path | None = None) -> Path:
    """Return the first fitting Python: ``chosen``, $STL_DEPLOY_PYTHON<version>, PATH, pyenv's versions, uv's.

    Raises ToolError if ``chosen`` (or the variable's) is not one, or none is found. tool: name in messages.
    """
    dotted = f"{version[0]}.{version[1]}"
    variable = f"STL_DEPLOY_PYTHON{version[0]}{version[1]}"
    named_there = os.environ.get(variable)
    there = Path(os.path.expanduser(named_there)) if named_there else None
    for path, where in ((chosen, named("python")), (there, variable)):
        if path is not None:
            seen = python_version(path)
            if seen != version:
                described = f"Python {seen[0]}.{seen[1]}" if seen else "no Python"
                raise ToolError(f"{path} ({where}): expected Python {dotted} for {tool}; found {described}")
            return path
    for candidate in _candidates(dotted):
        if python_version(candidate) == version:
            return candidate
    raise ToolError(
        f"no Python {dotted} found on PATH, under pyenv or uv; install one (pyenv install {dotted}, or uv python "
        f"install {dotted}) or name it with {named('python')} or {variable}"
    )


def python_version(python: Path) -> Version | None:
    """Return (major, minor) of an interpreter, or None if it is none."""
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def _candidates(dotted: str) -> Iterator[Path]:
    for name in (f"python{dotted}", "python3", "python"):
        path = shutil.which(name)
        if path:
            yield Path(path)
    pyenv = Path(os.path.expanduser(os.environ.get("PYENV_ROOT") or "~/.pyenv"))
    yield from sorted(pyenv.glob(f"versions/{dotted}.*/bin/python"), reverse=True)
    uv = shutil.which("uv")
    if uv:
        try:
            done = subprocess.run([uv, "python", "find", dotted], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return
        if done.returncode == 0 and done.stdout.strip():
            yield Path(done.stdout.strip())
