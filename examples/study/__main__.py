"""Run a study.

    python -m examples.study full|small|SETTINGS.yaml [--part modes ...] [--jobs N] [--time-budget SECONDS]

What is done is kept in the output folder, one JSON record for each network, and not done again: an interrupted study
goes on where it was. Then results (one JSON for each part), figures and tables.md are written from all records there;
``--publish`` puts them into examples/study/results and between the markers of REPORT.md; parts without a record
in the output folder stay as they were published.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from examples.study.figures import write_figures
from examples.study.plan import PARTS, Part, Settings, Task, read_settings, tasks
from examples.study.publish import publish, published, rounded, write_results
from examples.study.tables import tables
from examples.study.work import do, recorded
from stl_deploy._util.files import make_folder, write_text
from stl_deploy.errors import StlDeployError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is missing, then write what was found; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", help="full, small, or a YAML file like examples/study/full.yaml")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--time-budget", type=float, default=float("inf"), help="seconds; nothing is begun after them")
    parser.add_argument(
        "--data-dir", type=Path, default=_from_environment(), help="holds mnist/, fashion_mnist/, cifar10/"
    )
    parser.add_argument("-o", "--output", type=Path, help="default: runs/study-NAME")
    parser.add_argument("--publish", action="store_true", help="into examples/study/results and REPORT.md")
    options = parser.parse_args(arguments)
    path = Path(options.settings)
    path = path if path.suffix == ".yaml" else HERE / f"{options.settings}.yaml"
    settings = read_settings(path)
    out = options.output or ROOT / "runs" / f"study-{path.stem}"
    planned = [task for part in options.part for task in tasks(settings, part)]
    try:
        _work(planned, out, options.data_dir, options.jobs, time.monotonic() + options.time_budget)
    except StlDeployError as error:
        print(f"study: {error}", file=sys.stderr)
        return error.exit_code
    records = {part: _records(settings, part, out) for part in PARTS}
    make_folder(out)
    write_results(records, out)
    write_figures(records, out)
    text = tables(records)
    write_text(out / "tables.md", text)
    if options.publish:
        records = {part: new or published(part, HERE / "results") for part, new in records.items()}
        publish(records, tables(records), HERE / "results", HERE / "REPORT.md")
    print(text)
    return 0


def _from_environment() -> Path | None:
    value = os.environ.get("STL_DEPLOY_DATA")
    return Path(value) if value else None


def _records(settings: Settings, part: Part, out: Path) -> list[dict[str, Any]]:
    return [rounded(record) for task in tasks(settings, part) if (record := recorded(task, out)) is not None]


def _work(planned: Sequence[Task], out: Path, data_dir: Path | None, jobs: int, deadline: float) -> None:
    missing = [task for task in planned if recorded(task, out) is None]
    done, start = len(planned) - len(missing), time.monotonic()
    several = jobs > 1
    records = (
        _at_once(missing, out, data_dir, jobs, deadline) if several else _in_turn(missing, out, data_dir, deadline)
    )
    for record in records:
        done += 1
        accuracy = record["test"]["accuracy"] if "test" in record else record["clean"]
        took = time.monotonic() - start
        print(f"{done}/{len(planned)} {record['name']} {accuracy:.2%} ({took:.0f} s)", file=sys.stderr)


def _in_turn(missing: Sequence[Task], out: Path, data_dir: Path | None, deadline: float) -> Iterator[dict[str, Any]]:
    for task in missing:
        if time.monotonic() > deadline:
            return
        yield do(task, out, data_dir)


def _at_once(
    missing: Sequence[Task], out: Path, data_dir: Path | None, jobs: int, deadline: float
) -> Iterator[dict[str, Any]]:
    left = iter(missing)
    running: set[Future[dict[str, Any]]] = set()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        while True:
            while len(running) < jobs and time.monotonic() <= deadline and (task := next(left, None)) is not None:
                running.add(pool.submit(do, task, out, data_dir))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)


if __name__ == "__main__":
    sys.exit(main())
