"""Run the conformance matrix: ``python -m tests.conformance [--frameworks NAME ...] [--nets NAME ...] [--record]``.

Each framework gets a virtual environment of its own (pinned in requirements/), writes and runs networks, and reads and
runs ours; spikes are compared one by one. Writes conformance.json and .md into docs/measurements, and with ``--record``
the golden files of the daily tests. Exit status 1 if a row without a known reason does not match.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.conformance.cases import ROWS
from tests.conformance.environments import environment
from tests.conformance.golden import record
from tests.conformance.nets import NETS
from tests.conformance.report import merged, write
from tests.conformance.runs import run_rows

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run the rows asked for; the others keep their committed results."""
    frameworks = list(dict.fromkeys(row.framework for row in ROWS))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", nargs="+", choices=frameworks, default=frameworks)
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "stl-deploy" / "conformance")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "measurements")
    parser.add_argument("--record", action="store_true", help="write the golden files of the daily tests")
    options = parser.parse_args()
    results = []
    for framework in options.frameworks:
        python = environment(framework, options.cache)
        with tempfile.TemporaryDirectory() as folder:
            rows = [row for row in ROWS if row.framework == framework and row.net in options.nets]
            found = run_rows(rows, python, Path(folder))
            results += found
            if options.record:
                record(found, Path(folder))
        for result in found:
            print(result.line(), file=sys.stderr)
    write(merged(options.docs, [result.as_dict() for result in results]), options.docs)
    return int(any(result.unexplained for result in results))


if __name__ == "__main__":
    sys.exit(main())
