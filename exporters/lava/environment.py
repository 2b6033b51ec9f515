"""Lava's side environment: a Python 3.10 with lava-dl 0.6.0, found or built once.

It lives in ``$STL_DEPLOY_LAVA``, else under the user's cache folder. A stamp written last, after a
3-neuron network has run, is what makes it count: an interrupted install is not taken for a good one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stl_deploy._util import system
from stl_deploy._util.files import cache_dir, read_json, sha256, write_json
from stl_deploy._util.sizes import folder_bytes
from stl_deploy.errors import InputError, ToolError
from stl_deploy.exporters.lava.pythons import find_python, python_version
from stl_deploy.exporters.lava.smoke import check_three_neurons

REQUIREMENTS = Path(__file__).parent / "requirements.txt"
STAMP = "stl-deploy-lava.json"
UNFINISHED = "stl-deploy-unfinished"
"""Left behind by an install that was cut off between pip's start and end; such a folder is built anew."""

Report = Callable[[str], None]
"""Called with one line about what is going on."""


@dataclass(frozen=True)
class LavaStatus:
    """What is there. ``reason`` says in one sentence why it is not ready."""

    ready: bool
    location: Path
    python: Path
    version: str | None
    reason: str | None


def location() -> Path:
    """Where the side environment is, or would be built."""
    chosen = os.environ.get("STL_DEPLOY_LAVA")
    return (Path(chosen) if chosen else cache_dir() / "lava-0.6.0").expanduser().absolute()


def status() -> LavaStatus:
    """Whether Lava can be used now; starts nothing."""
    place = location()
    python = place / "bin" / "python"
    if not python.exists():
        return LavaStatus(False, place, python, None, f"no Lava environment at {place}; run: stl-deploy lava install")
    try:
        stamp = read_json(place / STAMP)
        good = stamp["requirements"] == sha256(REQUIREMENTS)
        version = str(stamp["lava-dl"])
    except (InputError, KeyError, TypeError):
        reason = f"the Lava environment at {place} was not finished or checked; run: stl-deploy lava install"
        return LavaStatus(False, place, python, None, reason)
    if not good:
        reason = f"the Lava environment at {place} has other packages than ours; run: stl-deploy lava install"
        return LavaStatus(False, place, python, version, reason)
    return LavaStatus(True, place, python, version, None)


def require() -> Path:
    """The side environment's Python; raises ToolError with the remedy if it is not ready."""
    now = status()
    if not now.ready:
        raise ToolError(now.reason or "Lava is not ready")
    return now.python


def install(python: Path | None = None, progress: Report | None = None) -> LavaStatus:
    """Build the side environment (about 5.8 GB, some minutes) unless it is ready.

    python: a Python 3.10 to use; None: see `find_python`. An environment that is there without
    a stamp is completed. Raises ToolError if there is no Python 3.10 or a step fails.
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
    """Remove the side environment; where it was, and how many bytes that gave back.

    Raises ToolError if there is none, if the folder holds anything that `install` did not put there, or if another
    install is under way.
    """
    place = location()
    marked = (place / STAMP).is_file() or (place / UNFINISHED).is_file()
    return place, discard(place, "Lava", "lava install", ours=marked or not os.environ.get("STL_DEPLOY_LAVA"))


def _build(place: Path, python: Path | None, say: Report) -> None:
    inside, unfinished = place / "bin" / "python", place / UNFINISHED
    if unfinished.exists() or python_version(inside) != (3, 10):
        create(place, find_python((3, 10), "Lava", python), "STL_DEPLOY_LAVA", say)
    (place / STAMP).unlink(missing_ok=True)
    unfinished.touch()
    say("installing lava-dl 0.6.0 and what it needs (about 5.8 GB)")
    fill(inside, REQUIREMENTS, "Lava")
    unfinished.unlink()
    say("checking it with a network of three neurons")
    check_three_neurons(inside)
    write_json(place / STAMP, {"lava-dl": "0.6.0", "requirements": sha256(REQUIREMENTS)})


def create(place: Path, base: Path, variable: str, say: Report) -> None:
    """A fresh virtual environment of the Python ``base``, in the place of an older one or of an empty folder.

    variable: which names another place. Raises ToolError where something else is there.
    """
    if place.exists() and not (place / "pyvenv.cfg").is_file() and any(place.iterdir()):
        raise ToolError(f"{place} is there and is not a virtual environment; choose another {variable}")
    say(f"creating {place} with {base}")
    shutil.rmtree(place, ignore_errors=True)
    step([base, "-m", "venv", place], "creating the environment")


def fill(python: Path, requirements: Path, tool: str) -> None:
    """Install the packages of a tool; raises ToolError where pip fails."""
    pip: list[Path | str] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    step([*pip, "-r", requirements], f"installing {tool}")


def discard(place: Path, tool: str, verb: str, *, ours: bool = True) -> int:
    """Remove an environment that ``verb`` made; how many bytes that gave back.

    Raises ToolError if there is none, if it is not ours, or if an install is under way.
    """
    size = folder_bytes(place)
    if size is None:
        raise ToolError(f"no environment of {tool} at {place}; nothing to remove")
    if not ours or not (place / "pyvenv.cfg").is_file():
        raise ToolError(f"{place} is not an environment that 'stl-deploy {verb}' made; remove it by hand")
    with lock(place, tool):
        try:
            shutil.rmtree(place)
        except OSError as error:
            raise ToolError(f"cannot remove all of {place}: {error.strerror or error}") from None
    return size


@contextmanager
def lock(place: Path, tool: str) -> Iterator[None]:
    """One install of a tool at a time; the lock dies with the process that holds it."""
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
    """Run one command of the install; its last line of complaint becomes the error."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    except OSError as error:
        raise ToolError(f"{doing} failed: {error.strerror or error}") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise ToolError(f"{doing} failed: {last[:300]}")
