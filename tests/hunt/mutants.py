"""Mutants by the thousand, in child processes under a memory limit and a deadline."""

from __future__ import annotations

import argparse
import faulthandler
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from stl_deploy.cli.error_sentences import machines_refusal
from stl_deploy.errors import StlDeployError
from tests.hunt import run_formats
from tests.hunt.formats import FORMATS
from tests.hunt.mutant import write_mutant

MEMORY_BYTES = 4 * 2**30
SECONDS = 40
"""Of the processor, for one mutant."""
HANG_SECONDS = 300
_CHUNK = 1000


@dataclass
class Found:
    """Of one format: how many mutants were read and refused, and what was wrong with the others."""

    read: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)


def try_mutants(name: str, first: int, last: int, seed: int, failures: Path | None = None) -> None:
    """Try mutants in this process; one line for each: its number, then ``read``, ``refused`` or what is wrong.

    Each lies in ``failures`` while it is tried, and stays there if it fails (default: nowhere).
    """
    warnings.simplefilter("ignore")
    of = FORMATS[name]
    if failures is not None:
        failures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, last):
            path = write_mutant(of, number, seed, Path(folder))
            kept = None if failures is None else failures / f"{name}-{seed}-{number}{path.suffix}"
            if kept is not None:
                shutil.copy(path, kept)
            print(number, end=" ", flush=True)
            started = time.process_time()
            signal.alarm(HANG_SECONDS)  # ends the process; no thread, which a process short of memory cannot start
            try:
                answer = of.attempt(path)
            except StlDeployError as error:
                answer = "refused" if str(error).strip() else "wrong: says nothing"
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                answer = "refused" if machines_refusal(error) else f"wrong: {what} ({where.filename}:{where.lineno})"
            signal.alarm(0)
            if time.process_time() - started > SECONDS:
                answer = f"wrong: took {time.process_time() - started:.0f} s"
            print(answer, flush=True)
            for left in Path(folder).iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            if kept is not None and not answer.startswith("wrong"):
                kept.unlink()


def hunt(name: str, count: int, seed: int, failures: Path) -> Found:
    """Try ``count`` mutants of a format; those that fail are kept in ``failures``."""
    if name in run_formats.FORMATS:
        run_formats.keep_run()
    found, first = Found(), 0
    while first < count:
        last = min(first + _CHUNK, count)
        command = [sys.executable, "-m", "tests.hunt.mutants", name, str(first), str(last), str(seed), str(failures)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        how = "hangs" if done.returncode == -signal.SIGALRM else f"ends the process ({done.returncode})"
        answers = [line.split(" ", 1) for line in done.stdout.splitlines() if line.strip()]
        counts = Counter(answer[1] if len(answer) > 1 else "" for answer in answers)
        found.read += counts["read"]
        found.refused += counts["refused"]
        wrong = [(int(n), a[0]) for n, *a in answers if a and a[0].startswith("wrong")]
        following = last
        if not answers or int(answers[-1][0]) != last - 1 or len(answers[-1]) < 2 or not answers[-1][1].strip():
            number = int(answers[-1][0]) if answers else first
            wrong.append((number, f"wrong: {how}: {done.stderr[-1500:].strip()}"))
            following = number + 1
        for number, what in wrong:
            found.failures.append(f"mutant {number} of {name}, seed {seed}: {what}")
        first = following
    return found


def main() -> None:
    """Run by `hunt`; alone, it tries one mutant: ``python -m tests.hunt.mutants npz 17 18 0``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=FORMATS)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("failures", type=Path, nargs="?")
    options = parser.parse_args()
    FORMATS[options.format].originals()
    faulthandler.register(signal.SIGALRM, chain=True)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try_mutants(options.format, options.first, options.last, options.seed, options.failures)


if __name__ == "__main__":
    main()
