"""Accuracy against energy, over time steps, checkpoints and run folders: a table and a Pareto plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.console import Console
from stl_deploy.energy.knobs import DEFAULT_PRICE
from stl_deploy.energy.ledger import total
from stl_deploy.energy.measure import EnergyReport, measure_energy
from stl_deploy.energy.pricelist import Range
from stl_deploy.energy.report.pareto import Point, pareto_front, render_pareto
from stl_deploy.errors import InputError
from stl_deploy.exporters.verify import accuracy
from stl_deploy.files import read_input, write_json, write_text
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import run
from stl_deploy.pipeline.costing import input_of, joules
from stl_deploy.pipeline.source import open_program, open_source

HTML, JSON = "tradeoff.html", "tradeoff.json"
_MODEL = "ANN with ideal reuse"


@dataclass(frozen=True)
class Tradeoff:
    """Every point, each with whether no other is at least as good in both accuracy and energy."""

    points: tuple[Point, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        front = pareto_front(self.points)
        rows = [asdict(p) | {"range_J": list(p.range_J), "pareto": p in front} for p in self.points]
        return {"price": DEFAULT_PRICE, "label": "modelled", "points": rows}


def tradeoff(
    sources: Sequence[Path],
    input_file: Path | None = None,
    *,
    over_steps: bool = False,
    dialect: str | None = None,
    ann: Path | None = None,
    output: Path | None = None,
    say: Console | None = None,
) -> Tradeoff:
    """Measure accuracy and model the energy of each run folder or .nir file, with ``over_steps`` at 1, 2, … T steps.

    Accuracy needs labels ``y`` in the input (default: each run's own test images). ann: the run of an ANN
    twin, one more point. With ``output`` tradeoff.html and tradeoff.json go there.
    Raises InputError without labels.
    """
    say = say or Console(quiet=True)
    points: list[Point] = []
    names = _names(sources)
    for source, name in zip(sources, names, strict=True):
        opened = open_source(source)
        program = open_program(opened, dialect)
        file = input_of(opened, input_file)
        x, labels = read_input(file)
        if labels is None:
            raise InputError(f"{file}: no labels 'y'; accuracy against energy needs them")
        points += list(_points(name, program, x, labels, over_steps))
        if ann is not None and source == sources[0]:
            points.append(_twin(program, ann, x, labels))
    result = Tradeoff(tuple(points))
    _show(result, say)
    if output is not None:
        write_json(output / JSON, result.as_dict())
        write_text(output / HTML, render_pareto(result.points))
        say.say(f"written: {output / HTML} and {output / JSON}")
    return result


def _names(sources: Sequence[Path]) -> list[str]:
    """Last parts of the paths; whole paths where two would be the same."""
    short = [source.resolve().name for source in sources]
    return [name if short.count(name) == 1 else str(source) for name, source in zip(short, sources, strict=True)]


def _points(
    name: str, program: Program, x: NDArray[Any], labels: NDArray[np.int64], over_steps: bool
) -> Iterator[Point]:
    for steps in range(1 if over_steps else len(x), len(x) + 1):
        part = x[:steps]
        report = measure_energy(program, part, prices=())
        yield Point(name, "SNN", steps, _accuracy(program, part, labels), _snn_joules(report), _snn_range(report))


def _accuracy(program: Program, x: NDArray[Any], labels: NDArray[np.int64]) -> float:
    found = accuracy(program, run(program, x, chunk=64), labels)
    if found is None:
        raise InputError("accuracy needs a network with one output, of shape [classes]")
    return found


def _snn_joules(report: EnergyReport) -> float:
    chosen = next(m for m in report.models if _MODEL in m.name and m.prices.name == DEFAULT_PRICE)
    return total(chosen.snn)[0]


def _snn_range(report: EnergyReport) -> Range:
    ends = [total(model.snn) for model in report.models]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _twin(program: Program, ann: Path, x: NDArray[Any], labels: NDArray[np.int64]) -> Point:
    from stl_deploy.pipeline.ann import measure_twin  # torch

    twin = measure_twin(program, ann, x, labels)
    report = measure_energy(program, x, prices=(), twin=twin)
    ends = [total(model.ann) for model in report.models]
    wanted = f"{_MODEL}, zeros skipped"
    chosen = next(m for m in report.models if wanted in m.name and m.prices.name == DEFAULT_PRICE)
    assert twin.accuracy is not None
    limits = min(low for low, _ in ends), max(high for _, high in ends)
    return Point(ann.resolve().name, "ANN", 1, twin.accuracy, total(chosen.ann)[0], limits)


def _show(result: Tradeoff, say: Console) -> None:
    front = pareto_front(result.points)
    rows = []
    for p in result.points:
        energy = [joules((p.joules, p.joules)), joules(p.range_J)]
        rows.append([p.name, p.kind, str(p.steps), f"{p.accuracy:.2%}", *energy, "yes" if p in front else ""])
    headers = ["run", "kind", "T", "accuracy (measured)", f"energy ({DEFAULT_PRICE})", "over all models", "Pareto"]
    say.table(headers, rows)
