"""Output of verbs: tables and lines on stderr, JSON on stdout."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

from stl_deploy._util import processes
from stl_deploy._util.console import Console
from stl_deploy._util.units import counted
from stl_deploy._util.untrusted import read_text
from stl_deploy.errors import InputError
from stl_deploy.training.run_files import CHECKPOINT, CONFIG, METRICS, MODEL, is_finished


@dataclass
class Settings:
    """Options that are accepted anywhere on the command line."""

    debug: bool = False
    quiet: bool = False
    verbose: bool = False
    kept: Callable[[], str] | None = None
    """Sentence that says, after Ctrl-C, what is kept; None: unknown."""
    arguments: Sequence[str] = ()
    """Of the call, without the options above."""
    data: TextIO | None = None
    """Where data go if prints go elsewhere; None: to standard output."""
    emitted: bool = False
    """Whether a result was written, after which nothing else goes to standard output."""

    def wants_json(self) -> bool:
        """Return whether JSON was asked for, and is still to be written."""
        return "--json" in self.arguments and not self.emitted


settings = Settings()


class _Console(Console):
    def keep(self, folder: Path) -> None:
        """From here on, Ctrl-C prints this folder's kept files and the command to go on."""
        settings.kept = partial(kept, folder, settings.arguments)


def console() -> Console:
    """Return this call's console: rich on a terminal, plain elsewhere; silent with -q and in further processes."""
    if processes.rank() > 0:
        return _Console(quiet=True, stream=StringIO())
    return _Console(quiet=settings.quiet, verbose=settings.verbose)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print Python's warnings as lines like our own inside: once, and without their place in the code."""
    before, said = warnings.showwarning, set[str]()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, UserWarning) or settings.debug:
            before(message, category, *where, **more)
        elif str(message) not in said:
            said.add(str(message))
            console().warn(str(message))

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


@contextmanager
def prints_beside_data() -> Iterator[None]:
    """Send prints of a user's own code to stderr inside, if --json asks for data on stdout."""
    if sys.stdout is None or "--json" not in settings.arguments or {"--help", "-h"} & set(settings.arguments):
        yield
        return
    settings.data = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        settings.data = None


def emit_json(data: Any, wanted: bool) -> None:
    """Write JSON for scripts to stdout, if it is wanted."""
    if not wanted or processes.rank() > 0:
        return
    stdout = settings.data or sys.stdout
    if stdout is None:
        raise InputError("standard output is closed; --json writes to it")
    text = json.dumps(data, indent=2, allow_nan=False)
    settings.emitted = True
    try:
        stdout.write(f"{text}\n")
        stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"cannot write to standard output: {error.strerror or error}") from None


def kept(run_dir: Path, arguments: Sequence[str]) -> str:
    """Return the kept files, and the command that goes on from them. arguments: of the interrupted call."""
    same = [each for each in arguments if each not in ("--overwrite", "--resume")]
    again = shlex.join(["stl-deploy", *same, "--overwrite" if "--pretrained" in same else "--resume"])
    if is_finished(run_dir):
        return f"{run_dir} holds a finished run, as before"
    if (run_dir / MODEL).is_file():
        return f"the trained model is kept in {run_dir}, the rest is incomplete; continue with: {again}"
    if (run_dir / CHECKPOINT).is_file():
        epochs = _epochs(run_dir)
        what = "the checkpoint is" if epochs is None else f"{counted(epochs, 'epoch')} {'is' if epochs == 1 else 'are'}"
        return f"{what} kept in {run_dir}; continue with: {again}"
    if (run_dir / CONFIG).is_file():
        return f"no epoch was finished; {run_dir} keeps its {CONFIG}; start again with: {again}"
    return "no epoch was finished, so nothing is kept"


def _epochs(run_dir: Path) -> int | None:
    try:
        return len(read_text(run_dir / METRICS, "metrics").splitlines())
    except InputError:
        return None
