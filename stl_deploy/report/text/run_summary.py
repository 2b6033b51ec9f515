"""Print the run summary: at most 12 lines of 80 columns; details with -v and in the run folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

from stl_deploy._util.tables import wrap
from stl_deploy._util.units import counted
from stl_deploy.graph.compare import RunParity
from stl_deploy.pipeline.parity import FILE as VERIFIED
from stl_deploy.pipeline.parity import ParityTable
from stl_deploy.runs.source import TEST_INPUT

LINES, COLUMNS = 12, 80
TRAINED = "torch, as trained"
_LABEL = 10


def verdict(run_dir: Path, table: ParityTable, energy: str, seconds: float) -> list[str]:
    """Return accuracy, spikes, energy, backends, and the next commands.

    energy: the report's verdict, shortened where there is no room for all of it.
    """
    before = [
        *_entry("done", f"in {seconds:.0f} s; look at {run_dir / 'report.html'} (more: -v)"),
        *_accuracy(table),
    ]
    after = [
        *_entry("ran on", _ran_on(table)),
        f"{'next':<{_LABEL}}stl-deploy export {shlex.quote(str(run_dir))} --to c -o {shlex.quote(f'{run_dir}-c')}",
    ]
    room = LINES - len(before) - len(after)
    parity = _within(_parity(table), room - len(_energy(energy, 0)))
    return [*before, *_energy(energy, room - len(parity)), *parity, *after]


def _entry(label: str, text: str) -> list[str]:
    lines = wrap(text, COLUMNS - _LABEL)
    return [f"{head:<{_LABEL}}{line}" for head, line in zip_longest([label], lines, fillvalue="")]


def _within(texts: list[str], room: int) -> list[str]:
    """Return the lines of as many texts as fit, and the number left out."""
    lines: list[str] = []
    for left_out in range(len(texts)):
        shown = texts[: len(texts) - left_out]
        if left_out:
            shown.append(f"and {left_out} more, in {VERIFIED}")
        lines = _entry("parity", shown[0])
        for text in shown[1:]:
            lines += _entry("", text)
        if len(lines) <= room:
            break
    return lines


def _accuracy(table: ParityTable) -> list[str]:
    measured = [(run.accuracy, "trained") for run in table.report.runs if run.run == TRAINED]
    measured.append((table.report.accuracy, "deployed"))
    measured += [(run.accuracy, "in integers") for run in _simulated(table)[:1]]
    parts = [f"{100 * accuracy:.2f} % {name}" for accuracy, name in measured if accuracy is not None]
    return _entry("accuracy", f"{', '.join(parts)} ({counted(table.samples, 'sample')})") if parts else []


def _parity(table: ParityTable) -> list[str]:
    equal: dict[int, list[str]] = {}
    other, held = [], []
    for run in table.report.runs:
        if run.backend == "torch" and run.exact:
            continue  # of equal runs in torch the folded network's, of all samples, is enough
        if run.against != table.report.reference:
            held.append(run)
        elif run.required and run.exact:
            equal.setdefault(run.compared, []).append(run.run)
        elif run.run != TRAINED:
            other.append(run)
    how = ", by proof" if all(proof.exact for proof in table.proofs) else ""
    lines = [f"{', '.join(names)}: all {compared:,} as in the graph{how}" for compared, names in equal.items()]
    lines += [f"{run.run}: {_differing(run)}" for run in other if run.run not in map(_name, held)]
    lines += [f"{_simulator(run)}: {_differing(run)} from {run.against}" for run in held if not run.exact]
    if as_predicted := [run for run in held if run.exact]:
        models = dict.fromkeys(run.against for run in as_predicted)
        how = f"{next(iter(models))} predicts" if len(models) == 1 else "our models of them predict"
        lines.append(f"{', '.join(_simulator(run) for run in as_predicted)}: all as {how}")
    return lines


def _name(run: RunParity) -> str:
    return run.run.partition(" (against")[0]


def _simulator(run: RunParity) -> str:
    """Return the simulator's name of a run of an artifact."""
    name = _name(run)
    return str(run.backend) if name.endswith(f" on {run.backend}") else name


def _short(run: RunParity) -> str:
    return run.run.partition(" (")[0]


def _differing(run: RunParity) -> str:
    share = 100 * run.differing / run.compared if run.compared else 0.0
    return f"{run.differing:,} of {run.compared:,} differ ({share:.2g} %)"


def _energy(text: str, room: int) -> list[str]:
    """Fit the sentences into lines; drop parentheses first, then the last sentences."""
    lines: list[str] = []
    for shorter in _shorter(text):
        lines = _entry("energy", shorter)
        if len(lines) <= room:
            break
    return lines


def _shorter(text: str) -> Iterator[str]:
    """Return the sentences, shortened step by step; the first, with both quoted numbers, stays."""
    sentences = re.split(r"(?<=[.]) (?=[A-Z])", text)
    for count in range(len(sentences), 0, -1):
        kept = " ".join(sentences[:count])
        more = "" if count == len(sentences) else " More in the report."
        yield f"{kept}{more}"
        yield f"{re.sub(r' [(][^)]*[)]', '', kept)}{more}"
    yield f"{re.sub(r' [(][^)]*[)]', '', sentences[0].partition('; modelled')[0]).rstrip('.')}; more in the report."


def _simulated(table: ParityTable) -> list[RunParity]:
    return [run for run in table.report.runs if run.label == "simulated" and run.against == table.report.reference]


def _ran_on(table: ParityTable) -> str:
    ours, others = _simulated(table)[:1], _simulated(table)[1:]
    named = {None, *(run.backend for run in others)}
    names = list(map(_short, others))
    for run in table.report.runs:
        # Runs against a model of their own (Lava, against our integers) are named by backend, once.
        if run.label == "simulated" and run.against != table.report.reference and run.backend not in named:
            names.append(str(run.backend))
    simulated = ", ".join(dict.fromkeys(names or map(_short, ours)))
    simulators = f"simulated: {simulated}; " if simulated else ""
    further = {run.backend for run in table.report.runs if run.label == "measured"} - {None, "onnx", "torch"}
    measured = [f"torch {version('torch')}", f"ONNX Runtime {version('onnxruntime')}", *sorted(map(str, further))]
    return f"{', '.join(measured)}; {simulators}no chip"


def commands(run_dir: Path) -> list[str]:
    """Return the next commands for a run folder, to paste."""
    run, onnx, x = (shlex.quote(str(path)) for path in (run_dir, run_dir / "net.onnx", run_dir / TEST_INPUT))
    return [
        f"stl-deploy check {run}",
        f"stl-deploy verify {run} --against {onnx} --input {x}",
        f"stl-deploy simulate {run} --input {x} --backend loihi --record -o spikes.npz",
        f"stl-deploy energy {run} --input {x} --prices horowitz45_fp32",
        f"stl-deploy energy {run} --over-steps -o {run}",
        f"stl-deploy report {run}",
    ]
