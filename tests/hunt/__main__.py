"""The hunt as a whole: ``python -m tests.hunt [--mutants 10000] [--seed S] [--formats nir npz ...]``.

``--kills 60`` of each verb, ``--jobs 2`` at a time.

Mutants of every format, processes killed at random moments, bad surroundings. At the end a table of what was tried and
what failed; what failed is kept in ``build/hunt``. Exit status 1 if anything did.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stl_deploy._util.console import Console
from stl_deploy._util.install import is_there
from tests.hunt import run_formats
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
    parser.add_argument("--no-surroundings", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at a time; the same is tried whatever it is")
    options = parser.parse_args()
    say, failures = Console(), list[str]()
    rows: dict[str, list[str]] = {}

    def tell(what: str, tried: int, note: str, wrong: list[str], seconds: float) -> None:
        rows[what] = [what, f"{tried:,}", note, str(len(wrong)), f"{seconds:.0f} s"]
        say.say(f"{what}: {tried:,} tried ({note}), {len(wrong)} failed, {seconds:.0f} s")
        for one in wrong:
            say.warn(one)
        failures.extend(wrong)

    def kills(verb: str) -> None:
        started = time.monotonic()
        tried, note, wrong = hunt_kills(verb, options.kills, options.seed)
        tell(f"kills of {verb}", tried, note, wrong, time.monotonic() - started)

    def mutants(name: str) -> None:
        if not is_there(FORMATS[name].needs):
            tell(f"mutants of {name}", 0, f"{FORMATS[name].needs} is not installed", [], 0)
            return
        started = time.monotonic()
        found = hunt(name, options.mutants, options.seed, FAILURES)
        note = f"{found.read:,} read, {found.refused:,} refused"
        tell(f"mutants of {name}", options.mutants, note, found.failures, time.monotonic() - started)

    say.say(f"seed {options.seed}")
    run_formats.keep_run()  # once, and not by two at a time
    with ThreadPoolExecutor(options.jobs) as pool:  # of processes' answers
        tasks = [pool.submit(kills, verb) for verb in KILLS if options.kills]
        tasks += [pool.submit(mutants, name) for name in options.formats]
        for task in tasks:
            task.result()
    if not options.no_surroundings:
        started = time.monotonic()
        tried, wrong = hunt_surroundings()
        tell("bad surroundings", tried, "exit codes 0, 1 and 2", wrong, time.monotonic() - started)
    say.say()
    say.table(["what", "tried", "of them", "failed", "took"], list(rows.values()))
    say.say(f"seed {options.seed}; {len(failures)} failures" + (f", kept in {FAILURES}" if failures else ""))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
