"""The hunt as a whole: ``python -m tests.hunt [--mutants 10000] [--kills 60] [--formats nir npz ...] [--seed S]``.

Mutants of every format, processes ended at random moments, random models through capture, bad surroundings. At the end
a table of what was tried and what failed; what failed is kept in ``build/hunt``. Exit status 1 if anything did.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from stl_deploy._util.console import Console
from stl_deploy._util.install import is_there
from tests.hunt import run_formats
from tests.hunt.captures import hunt_captures
from tests.hunt.formats import FORMATS
from tests.hunt.kills import KILLS, hunt_kills
from tests.hunt.mutants import hunt
from tests.hunt.surroundings import hunt_surroundings

FAILURES = Path("build/hunt")


def main() -> int:
    """Hunt; exit status 1 if anything fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=10_000, help="of each format")
    parser.add_argument("--kills", type=int, default=60, help="of each verb; 0: none")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    parser.add_argument("--formats", nargs="*", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--models", type=int, default=300, help="random torch models through capture; 0: none")
    parser.add_argument("--no-surroundings", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many formats and verbs at once")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error("--jobs: expected 1 or more")
    say, failures = Console(), list[str]()

    def kills(verb: str) -> tuple[int, str, list[str]]:
        return hunt_kills(verb, options.kills, options.seed)

    def mutants(name: str) -> tuple[int, str, list[str]]:
        if not is_there(FORMATS[name].needs):
            return 0, f"{FORMATS[name].needs} is not installed", []
        found = hunt(name, options.mutants, options.seed, FAILURES)
        return options.mutants, f"{found.read:,} read, {found.refused:,} refused", found.failures

    def models() -> tuple[int, str, list[str]]:
        ended, wrong, _ = hunt_captures(options.models, options.seed)
        return options.models, f"{ended['captured']:,} captured, {ended['refused']:,} refused", wrong

    def surroundings() -> tuple[int, str, list[str]]:
        tried, wrong = hunt_surroundings()
        return tried, "exit codes 0, 1 and 2", wrong

    def row(what: str, trial: Callable[[], tuple[int, str, list[str]]]) -> list[str]:
        started = time.monotonic()
        try:
            tried, note, wrong = trial()
        except Exception as error:
            tried, note, wrong = 0, "the hunt itself failed", [f"{what}: {type(error).__name__}: {error}"]
        seconds = time.monotonic() - started
        say.say(f"{what}: {tried:,} tried ({note}), {len(wrong)} failed, {seconds:.0f} s")
        for one in wrong:
            say.warn(one)
        failures.extend(wrong)
        return [what, f"{tried:,}", note, str(len(wrong)), f"{seconds:.0f} s"]

    say.say(f"seed {options.seed}")
    trials = {f"ends of {verb}": partial(kills, verb) for verb in KILLS if options.kills}
    trials |= {f"mutants of {name}": partial(mutants, name) for name in options.formats}
    if any(name in run_formats.FORMATS for name in options.formats) or options.kills:
        run_formats.keep_run()  # once, and not by two at a time
    pool = ThreadPoolExecutor(options.jobs)  # its threads wait for processes
    try:
        rows = [task.result() for task in [pool.submit(row, *trial) for trial in trials.items()]]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if options.models:
        rows.append(row("captured models", models))
    if not options.no_surroundings:
        rows.append(row("bad surroundings", surroundings))
    say.say()
    say.table(["what", "tried", "of them", "failed", "took"], rows)
    say.say(f"seed {options.seed}; {len(failures)} failures" + (f", kept in {FAILURES}" if failures else ""))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
