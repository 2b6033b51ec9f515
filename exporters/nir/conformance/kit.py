"""Write the kit's files, run a reader on them, and compare its output with every dialect's."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import write_npz
from stl_deploy._util.json_twin import JsonTwin
from stl_deploy._util.npz import read_npz
from stl_deploy._util.remedies import remedy
from stl_deploy.errors import GraphError, InputError
from stl_deploy.exporters.nir.conformance.builder import Case
from stl_deploy.exporters.nir.conformance.layer_cases import neurons, nodes, shapes
from stl_deploy.exporters.nir.conformance.network_cases import files, time, wiring
from stl_deploy.exporters.nir.dialect import PRESETS
from stl_deploy.exporters.nir.file import read_nir, write_nir
from stl_deploy.exporters.nir.lower import lower
from stl_deploy.graph.run import run

UNSUPPORTED = 77
"""Exit status by which a reader says that it has no such node; the last line of stderr is the reason."""
Status = Literal["equal", "differs", "unsupported", "failed"]
STATUSES: tuple[Status, ...] = ("equal", "differs", "unsupported", "failed")
Expected = dict[str, NDArray[np.float32]]
"""Dialect -> output `[T, B, *shape]`, of those dialects under which the graph can be read."""


@dataclass(frozen=True)
class Outcome(JsonTwin):
    """One graph through one reader.

    status: against the dialect asked for. compared, differing: output values. first: `[step, sample, *neuron]` of the
    earliest difference. spikes: in the expected output. dialects: whose output the reader's equals. reason: why there
    is no output.
    """

    case: str
    level: str
    about: str
    status: Status
    compared: int = 0
    differing: int = 0
    spikes: int = 0
    first: tuple[int, ...] | None = None
    dialects: tuple[str, ...] = ()
    reason: str = ""


def write_case(case: Case, folder: Path, dt: float) -> tuple[Path, Path, Expected]:
    """Write `NAME.nir` and `NAME.npz` (`x`, and `y__DIALECT` for each dialect); returns both paths and the outputs."""
    graph, arrays = folder / f"{case.name}.nir", folder / f"{case.name}.npz"
    write_nir(case.graph, graph)
    if case.damage is not None:
        case.damage(graph)
    expected = expected_outputs(graph, case.x, dt)
    write_npz(arrays, {"x": case.x, **{f"y__{name}": y for name, y in expected.items()}})
    return graph, arrays, expected


def expected_outputs(graph: Path, x: NDArray[Any], dt: float) -> Expected:
    """Run a NIR file under every dialect, with time steps of `dt`."""
    network = read_nir(graph)
    outputs: Expected = {}
    for name, dialect in PRESETS.items():
        try:
            outputs[name] = run(lower(network, replace(dialect, dt=dt)), x).y
        except GraphError:
            continue
    return outputs


def run_case(case: Case, command: Sequence[str], folder: Path, *, dialect: str, dt: float, deadline: float) -> Outcome:
    """Give one graph to a reader and compare its output.

    command: is called with the paths of the graph, the input npz and the output npz to write; see `UNSUPPORTED`.
    Raises InputError if the command cannot be started.
    """
    graph, _, expected = write_case(case, folder, dt)
    given, output = folder / f"{case.name}.in.npz", folder / f"{case.name}.out.npz"
    write_npz(given, {"x": case.x})
    base = Outcome(case.name, case.level, case.about, "failed")
    try:
        done = subprocess.run(
            [*command, str(graph), str(given), str(output)],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=deadline,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return replace(base, reason=f"no answer within {deadline:g} s")
    except OSError as error:
        raise InputError(
            f"{remedy(cli='--reader', python='reader')} {command[0]}: cannot be started: {error.strerror or error}"
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:200]
        return replace(base, status="unsupported" if done.returncode == UNSUPPORTED else "failed", reason=last)
    try:
        y = read_npz(output, lambda name: name == "y").get("y")
    except InputError as error:
        return replace(base, reason=str(error))
    if y is None:
        return replace(base, reason=f"expected an array 'y' in {output.name}; found none")
    return judge(case, y, expected, dialect)


def judge(case: Case, y: NDArray[Any], expected: Expected, dialect: str) -> Outcome:
    """Compare an output `[T, B, *shape]` of a graph with every dialect's; the status is against `dialect`."""
    base = Outcome(case.name, case.level, case.about, "failed")
    wanted = expected.get(dialect)
    if wanted is None:
        return replace(base, status="unsupported", reason=f"dialect {dialect} does not allow this graph")
    if y.shape != wanted.shape:
        return replace(base, reason=f"expected y of shape {list(wanted.shape)}; found {list(y.shape)}")
    unequal = np.argwhere(y != wanted)
    return replace(
        base,
        status="differs" if len(unequal) else "equal",
        compared=wanted.size,
        differing=len(unequal),
        spikes=int(np.count_nonzero(wanted)),
        first=tuple(int(i) for i in unequal[0]) if len(unequal) else None,
        dialects=tuple(name for name, other in expected.items() if np.array_equal(y, other)),
    )


def agreement(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return, by dialect, how many graphs the reader runs as that dialect says, most first."""
    counts = Counter(name for outcome in outcomes for name in outcome.dialects)
    return dict(counts.most_common())


def markdown(outcomes: Sequence[Outcome], title: str, dialect: str) -> str:
    """Return a table of every graph, for a reader's documentation."""
    return "\n".join(_markdown(outcomes, title, dialect)) + "\n"


def _markdown(outcomes: Sequence[Outcome], title: str, dialect: str) -> Iterator[str]:
    counts = Counter(outcome.status for outcome in outcomes)
    yield f"# NIR conformance: {title}\n"
    yield f"Compared with dialect `{dialect}`: " + ", ".join(f"{counts[s]} {s}" for s in STATUSES) + ".\n"
    yield "| level | graph | what it is | result | outputs compared | differ | spikes | reads as |"
    yield "|---|---|---|---|---|---|---|---|"
    for outcome in outcomes:
        numbers = [f"{n:,}" if outcome.compared else "-" for n in (outcome.compared, outcome.differing, outcome.spikes)]
        result = outcome.status + (f": {outcome.reason}" if outcome.reason else "")
        cells = [outcome.level, outcome.case, outcome.about, result, *numbers, ", ".join(outcome.dialects) or "-"]
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


LEVELS: Mapping[str, str] = {
    "nodes": "one kind of node, then spiking neurons",
    "neurons": "thresholds, leaks, resets and time constants of neurons",
    "shapes": "strides, padding, dilation, groups, pooling windows, flatten",
    "wiring": "skips, sums, loops, nested graphs",
    "time": "delays, several spikes' worth of input, long and short sequences",
    "files": "odd but legal ways to store the same graph",
}
"""Level -> what its graphs exercise."""


def cases(dt: float) -> list[Case]:
    """Every graph of the kit, for time steps of `dt` (in the unit of the graphs' time constants).

    Example:
        >>> [case.name for case in cases(1e-4)][:2]
        ['affine-lif', 'linear-lif']
    """
    levels = (nodes, neurons, shapes, wiring, time, files)
    return [case for level in levels for case in level(dt)]
