"""Results of a `SpikingGraph`'s methods."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import as_path, write_text
from stl_deploy._util.tables import columns, html_table
from stl_deploy._util.units import in_words
from stl_deploy.energy.measure import EnergyReport
from stl_deploy.energy.paired import accuracy_interval
from stl_deploy.errors import InputError
from stl_deploy.graph.compare import MODEL_NAMES, RunParity
from stl_deploy.graph.readout import Readout
from stl_deploy.pipeline.parity import LAYER_HEADER, ParityReport, layer_rows


@dataclass(frozen=True, eq=False)
class Simulation:
    """A run on one backend.

    outputs: ``[T, B, *shape]`` for each output, whatever the layout of x. spikes: the same for each spiking layer.
    backend: its name, described in ``what``. accuracy: with labels, where the readout decides. states: see
    `stl_deploy.graph.run.Result`.
    warnings: of layers that were silent or saturated, which their spikes or an accuracy prove nothing about.
    silent: whether spikes were counted, and there was none.
    """

    backend: str
    outputs: Mapping[str, NDArray[np.float32]]
    spikes: Mapping[str, NDArray[np.float32]]
    rule: Readout
    states: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    accuracy: float | None = None
    what: str = ""
    warnings: tuple[str, ...] = ()
    silent: bool = False

    def __repr__(self) -> str:
        """Return the backend, the arrays by name and shape, their order of axes, the accuracy and the warnings."""
        one = len(self.outputs) == 1
        arrays = {"y" if one else f"outputs['{name}']": array for name, array in self.outputs.items()}
        arrays |= {f"spikes['{name}']": array for name, array in self.spikes.items()}
        rows = [[name, f"[{', '.join(map(str, array.shape))}]"] for name, array in arrays.items()]
        right = [] if self.accuracy is None else [f"accuracy {self.accuracy:.2%}"]
        table = columns([["array", "[T, B, ...]"], *rows])
        return "\n".join([self.what or self.backend, *table, *right, *self.warnings])

    @property
    def y(self) -> NDArray[np.float32]:
        """The output ``[T, B, *shape]``; raises InputError if there are several (see ``outputs``)."""
        if len(self.outputs) != 1:
            raise InputError(f"the network has {len(self.outputs)} outputs: {', '.join(self.outputs)}; use .outputs")
        return next(iter(self.outputs.values()))

    @property
    def readout(self) -> NDArray[np.float32]:
        """The readout of ``y``: scores ``[B, ...]``, or ``y`` itself without a readout."""
        return self.rule(self.y)


_NAMED_TRAINED = {"loihi": "the integers that were trained", "reference": "the same weights in float32"}
"""Like `MODEL_NAMES`, of integers that were trained; the first is named first."""


class Exported(dict[str, Any]):
    """An artifact's manifest as a mapping, and its path; its repr has three lines."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        super().__init__(manifest)
        self.path = path

    def __repr__(self) -> str:
        """Return the artifact, its verification, and where to read on."""
        size = sum(int(file["bytes"]) for file in self["files"].values())
        return "\n".join(
            [
                f"{self.path}: {self['target']}, {in_words(size)}",
                self._verified(),
                f"{self.path.name}.manifest.json beside it: source, versions, dialect, scales, hashes",
            ]
        )

    def _verified(self) -> str:
        verified = self.get("verified")
        if verified is None:
            return "not verified"
        names = _NAMED_TRAINED if self.get("integers") == "trained" else MODEL_NAMES
        rank = {model: place for place, model in enumerate(names)}
        runs = sorted(verified["runs"], key=lambda run: rank.get(run["against"], len(rank)))
        results = [
            f"{run['differing']:,} of {run['compared']:,} spikes differ from {names.get(model, model)}"
            + (" by rounding" if run["exact"] and run["differing"] else "")
            if run["compared"]
            else f"no spikes to compare, so only outputs were compared with {names.get(model, model)}"
            for run, model in ((run, run["against"]) for run in runs)
        ]
        return f"run on {verified['input']}: {'; '.join([*results, *verified['warnings']])}"


@dataclass(frozen=True, eq=False)
class Verification:
    """Artifacts compared with the graph spike by spike."""

    report: ParityReport

    def __repr__(self) -> str:
        """Return the table of ``stl-deploy verify``."""
        return "\n".join([*self.report.warnings, *columns([LAYER_HEADER, *layer_rows(self.report)])])

    def _repr_html_(self) -> str:
        """Return the same table, for notebooks."""
        return html_table([LAYER_HEADER, *layer_rows(self.report)])

    @property
    def runs(self) -> tuple[RunParity, ...]:
        """One for each artifact's run: ``run``, ``compared``, ``differing``, ``agreement``, ``first``."""
        return self.report.runs

    def require(self) -> Verification:
        """Return itself; raise ParityError if an artifact that must spike like the graph does not."""
        self.report.require()
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin, as ``stl-deploy verify --json``."""
        return self.report.as_dict()


@dataclass(frozen=True, eq=False)
class Bill:
    """Counts and modelled joules of a network on one input."""

    report: EnergyReport

    def __repr__(self) -> str:
        """Return the verdict."""
        return self.report.verdict

    def _repr_html_(self) -> str:
        """Return the verdict and the exact counts behind it, for notebooks."""
        rows = [(name.replace("_", " "), f"{value:,}") for name, value in self.totals.items()]
        return f"<p>{html.escape(self.report.verdict)}</p>{html_table([('counted exactly', 'in all'), *rows])}"

    @property
    def totals(self) -> dict[str, Any]:
        """Exact counts summed over layers, steps and samples: ``synops``, ``spikes``, ``neuron_updates``, ..."""
        return self.report.counts.totals.as_dict()

    def as_dict(self) -> dict[str, Any]:
        """Return the energy JSON, as ``stl-deploy energy --json``."""
        return self.report.as_dict()

    def to_html(self, path: str | Path) -> Path:
        """Write one page that opens offline; return its path."""
        from stl_deploy.report.energy_page import page  # matplotlib

        place = as_path(path)
        write_text(place, page(self.report))
        return place

    def to_figures(self, folder: str | Path) -> Path:
        """Write the page's figures as SVG, PDF and CSV into a folder; return its path."""
        from stl_deploy.report.energy_page import figures  # matplotlib

        place = as_path(folder)
        figures(self.report, place)
        return place


Metric = Callable[[NDArray[Any], NDArray[Any]], float]
"""Of the readout ``[B, ...]`` and the targets ``[B, ...]`` of all samples."""


def name_of(metric: Metric | None) -> str:
    """Return the name of the user's metric; "" for accuracy."""
    return "" if metric is None else str(getattr(metric, "__name__", "metric"))


def score_of(metric: Metric, scores: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the metric's value; raise InputError where it fails, or is no finite number."""
    try:
        value = float(metric(scores, targets))
    except Exception as error:
        seen = f"of a readout {list(scores.shape)} and targets {list(targets.shape)}"
        raise InputError(f"metric '{name_of(metric)}' {seen}: {type(error).__name__}: {error}") from error
    if not isfinite(value):
        raise InputError(f"metric '{name_of(metric)}': expected a finite number; found {value}")
    return value


class _Scored:
    """A score over samples: accuracy, or the user's metric of that name."""

    score: float
    samples: int
    metric: str

    @property
    def accuracy(self) -> float:
        """The share of samples decided right; raises InputError if the score is of a metric."""
        if self.metric:
            raise InputError(f"this is scored by '{self.metric}', so it has no accuracy; read .score")
        return self.score

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the accuracy."""
        return accuracy_interval(round(self.accuracy * self.samples), self.samples)

    def _scores(self) -> dict[str, Any]:
        if self.metric:
            return {"metric": self.metric, "score": self.score}
        return {"accuracy": self.accuracy, "interval": list(self.interval)}

    def _shown(self, score: float) -> list[str]:
        if self.metric:
            return [f"{score:.4g}", "-"]
        low, high = accuracy_interval(round(score * self.samples), self.samples)
        return [f"{score:.2%}", f"{low:.1%} to {high:.1%}"]


@dataclass(frozen=True)
class BackendEvaluation(_Scored):
    """One backend on a whole labelled data set.

    label: measured or simulated. score: accuracy, or the metric of that name. compared, differing: its spikes (and
    silences) and the graph's. reason: why they differ, where that is known.
    """

    backend: str
    label: str
    score: float
    compared: int
    differing: int
    samples: int
    metric: str = ""
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        counts = {key: getattr(self, key) for key in ("backend", "label", "compared", "differing", "samples", "reason")}
        return counts | self._scores()


@dataclass(frozen=True)
class GraphEvaluation(_Scored):
    """A whole labelled data set through the graph, the captured module, and named backends.

    score: the graph's accuracy, or the metric of that name; module_score: the module's, None without one. layers:
    spikes (and silences) of both that were compared and that differ, by layer. backends: by name. warnings: of layers
    of the graph that were silent or saturated on all samples. reason: why the module's spikes differ, where that is
    known. refused: why backends do not hold the network, by name. Its text is a table of all of them, the reasons and
    the warnings.
    """

    samples: int
    score: float
    module_score: float | None
    layers: Mapping[str, tuple[int, int]]
    backends: Mapping[str, BackendEvaluation] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    metric: str = ""
    reason: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return a table: accuracy with its 95 % interval, and spikes that differ from the graph's."""
        rows = [["", "label", self.metric or "accuracy", "95 % interval", "spikes compared", "differing"]]
        rows.append(["graph", "measured", *self._shown(self.score), "", ""])
        if self.module_score is not None:
            counts = f"{self.compared:,}", f"{self.differing:,}"
            rows.append(["module", "measured", *self._shown(self.module_score), *counts])
        for name, run in self.backends.items():
            rows.append([name, run.label, *self._shown(run.score), f"{run.compared:,}", f"{run.differing:,}"])
        rows += [[name, "refused", *[""] * 4] for name in self.refused]
        reasons = {"module": self.reason} | {name: run.reason for name, run in self.backends.items()}
        why = [f"{name}: spikes differ, as {reason}" for name, reason in reasons.items() if reason]
        why += [f"{name}: {reason}" for name, reason in self.refused.items()]
        return "\n".join([*columns(rows), f"{self.samples:,} samples", *why, *self.warnings])

    @property
    def module_accuracy(self) -> float | None:
        """The module's accuracy; raises InputError if the score is of a metric."""
        return None if self.module_score is None else replace(self, score=self.module_score).accuracy

    @property
    def compared(self) -> int:
        """Spikes and silences compared; 0 without a module."""
        return sum(compared for compared, _ in self.layers.values())

    @property
    def differing(self) -> int:
        """Differing spikes and silences."""
        return sum(differing for _, differing in self.layers.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON twin."""
        module = "module_score" if self.metric else "module_accuracy"
        return {
            "samples": self.samples,
            **self._scores(),
            module: self.module_score,
            "compared": self.compared,
            "differing": self.differing,
            "reason": self.reason,
            "layers": {name: {"compared": c, "differing": d} for name, (c, d) in self.layers.items()},
            "backends": {name: run.as_dict() for name, run in self.backends.items()},
            "refused": dict(self.refused),
            "warnings": list(self.warnings),
        }
