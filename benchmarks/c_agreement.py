"""Every spike of the compiled C against the integer model: python -m benchmarks.c_agreement RUN... [-o OUT]

Each RUN is a run folder: its network is folded, exported to C and compiled three times: for any machine with registers
of 64 bits, for this machine's vectors, and as machines with 32-bit registers compile it. All test samples of its data
go through each. Then the networks captured from other frameworks (tests/tracing/golden) with their recorded input,
rounded to sixteenths.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.console import Console
from stl_deploy._util.files import write_text
from stl_deploy.errors import UnsupportedError
from stl_deploy.exporters.c.options import COptions
from stl_deploy.exporters.c.target import CFormat, read_folder
from stl_deploy.exporters.nir.file import read_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import share_right
from stl_deploy.graph.run import Result
from stl_deploy.integers.real_weights import to_integers
from stl_deploy.integers.simulate import simulate
from stl_deploy.pipeline.network_input import on_declared_grid
from stl_deploy.runs.folded_run import fold_run
from stl_deploy.runs.inputs import encode_split

CAPTURED = Path(__file__).parents[1] / "tests" / "tracing" / "golden"
BUILDS = {"wide": ("-O3",), "vectors": ("-O3", "-march=native"), "32-bit": ("-O3", "-DNET_NARROW")}
GRID = 4
"""Bits of the captured networks' input."""
AT_ONCE = 500
"""Samples that all run before the next are taken."""


@dataclass
class Row:
    """One network. compared: spikes and output numbers of each build; differing: by build. accuracy: in integers, None
    without labels. refused: why there is no C."""

    network: str
    samples: int = 0
    compared: int = 0
    differing: dict[str, int] | None = None
    accuracy: float | None = None
    refused: str | None = None


def compare(name: str, program: Program, x: NDArray[Any], labels: NDArray[Any] | None) -> Row:
    """Export, compile and run ``x`` ``[T, B, *shape]``, every layer recorded."""
    row = Row(name, x.shape[1], differing=dict.fromkeys(BUILDS, 0))
    assert row.differing is not None
    with TemporaryDirectory() as folder:
        try:
            CFormat().write(program, Path(folder) / "c", COptions(x=x))
        except UnsupportedError as error:
            return Row(name, x.shape[1], refused=str(error))
        graph, made = read_folder(Path(folder) / "c")
        votes = []
        for start in range(0, x.shape[1], AT_ONCE):
            part = x[:, start : start + AT_ONCE]
            whole = to_integers(part, graph.input.scale)
            model = simulate(graph, whole, record=True)
            expected = {**model.spikes, "output": model.y}
            row.compared += sum(array.size for array in expected.values())
            for build, options in BUILDS.items():
                outcome = made.run(whole, record=True, options=options)
                pairs = {**outcome.spikes, "output": outcome.y}
                row.differing[build] += sum(int((expected[key] != pairs[key]).sum()) for key in expected)
            votes.append(model.y)
            counts = f"{row.compared:,} compared, differing {row.differing}"
            print(f"{name}: {start + part.shape[1]} of {x.shape[1]}: {counts}", file=sys.stderr, flush=True)
    if labels is not None:
        row.accuracy = share_right(Result({"output": np.concatenate(votes, axis=1)}, {}), labels)
    return row


def trained(folder: Path, samples: int | None) -> Row:
    """A run's network with its test samples, or the first of them."""
    with TemporaryDirectory() as scratch:
        folded = fold_run(folder, Path(scratch) / "net.nir")
    test = encode_split(folded.config, folded.data.test, samples)
    return compare(folder.name, folded.program, test.x, test.labels)


def captured() -> Iterator[Row]:
    """The other frameworks' networks."""
    for path in sorted(CAPTURED.glob("*.nir")):
        with np.load(path.with_suffix(".npz")) as recorded:
            program, x = on_declared_grid(lower(read_nir(path)), recorded["x"], GRID, Console(quiet=True))
            yield compare(path.stem, program, np.asarray(x), None)


def beside(recorded: list[dict[str, Any]], rows: list[Row]) -> list[Row]:
    """These rows in the place of recorded ones of the same networks; trained networks first."""
    merged = {row["network"]: Row(**row) for row in recorded} | {row.network: row for row in rows}
    return sorted(merged.values(), key=lambda row: row.accuracy is None)


def table(rows: list[Row]) -> str:
    """Markdown."""
    made_by = "Made by `python -m benchmarks.c_agreement RUN...` ([what it is](../c.md))."
    lines = ["# The C target's spikes", "", made_by]
    lines += [
        "",
        f"| network | samples | compared | {' | '.join(f'differ, {build}' for build in BUILDS)} | accuracy |",
    ]
    lines.append("|---" * (4 + len(BUILDS)) + "|")
    for row in rows:
        if row.differing is None:
            lines.append(f"| {row.network} | {row.samples:,} | refused: {row.refused} |{' |' * (1 + len(BUILDS))}")
            continue
        counts = " | ".join(f"{row.differing[build]:,}" if build in row.differing else "-" for build in BUILDS)
        share = "" if row.accuracy is None else f"{100 * row.accuracy:.2f} %"
        lines.append(f"| {row.network} | {row.samples:,} | {row.compared:,} | {counts} | {share} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders")
    parser.add_argument("--samples", type=int, help="of each run, the first; default: all test samples")
    parser.add_argument(
        "-o", "--output", type=Path, help="folder of c-agreement.json and c-agreement.md; other rows stay"
    )
    arguments = parser.parse_args()
    rows = [*(trained(run, arguments.samples) for run in arguments.runs), *captured()]
    if arguments.output is not None:
        place = arguments.output / "c-agreement.json"
        rows = beside(json.loads(place.read_text()) if place.exists() else [], rows)
        write_text(arguments.output / "c-agreement.md", table(rows))
        write_text(place, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(table(rows))
    return int(any(sum((row.differing or {}).values()) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
