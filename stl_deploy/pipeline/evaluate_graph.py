"""Run a whole labelled data set through a graph, its captured module, and backends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import as_array, label_remedy
from stl_deploy._util.console import QUIET
from stl_deploy._util.files import as_paths
from stl_deploy._util.keywords import require_kind
from stl_deploy.config.options import SimulateOptions
from stl_deploy.errors import InputError, UnsupportedError
from stl_deploy.exporters.targets import (
    INTEGER_MODELS,
    OfModel,
    Runner,
    describe_path,
    find_runner,
    format_of,
    registry,
)
from stl_deploy.graph.by_layer import moves_by_rounding
from stl_deploy.graph.compare import FiringRates, Tally
from stl_deploy.graph.exact import input_grid as declared_grid
from stl_deploy.graph.exact import round_to_grid
from stl_deploy.graph.program import Floats, Program
from stl_deploy.graph.readout import require_classes
from stl_deploy.graph.run import NetworkInput, Result
from stl_deploy.pipeline.artifacts import labels_of, open_runner, ready
from stl_deploy.pipeline.conversion import Conversion
from stl_deploy.pipeline.graph_data import GraphData
from stl_deploy.pipeline.network_input import check_numbers, checked_bits, on_declared_grid, presented
from stl_deploy.pipeline.results import BackendEvaluation, GraphEvaluation, Metric, Simulation, name_of, score_of
from stl_deploy.pipeline.simulate import simulate


def evaluate_graph(
    net: GraphData,
    data: Iterable[Any],
    *,
    steps: int | None = None,
    batch_size: int = 64,
    time: str | None = None,
    input_grid: int | None = None,
    backend: str | Path | Sequence[str | Path] = (),
    metric: Metric | None = None,
) -> GraphEvaluation:
    """Run all of ``data`` and return accuracy, or the user's metric, and differing spikes.

    Args:
        data: A torch DataLoader or other iterable of batches ``(x, labels)``, or a torch Dataset of samples
            ``(x, label)``. Batches are ``[T, B, *shape]`` or ``[B, T, *shape]``, whichever agrees with the number of
            labels. If both do, ``time`` decides, else the batches before, else a capture with ``time="second"``. Or
            static samples ``[B, *shape]``, presented ``steps`` times. A captured module receives its own layout,
            ``[B, *shape]`` if it loops over time itself.
        input_grid: Round the input of graph and module to multiples of 2^-input_grid; default: to the grid that
            the graph declares, if any.
        backend: Further runs of the same data: names as in `SpikingGraph.simulate`, or paths of artifacts. A backend's
            integers are chosen on the graph's sample; on the first batch if there is none, or the batch goes beyond it.
        metric: Instead of accuracy, for tasks beside classification: called once for graph, module and each backend
            with the readout of all samples ``[B, ...]`` and their targets, which may then be any numbers ``[B, ...]``.

    Raises:
        InputError: For data without labels, an empty set, an unknown backend, and batches that do not fit the network
            or are beyond the graph's declared grid.
        UnsupportedError: If none of the backends' targets supports the network; one of several is a row that says so.
        ToolError: If a tool is missing.
    """
    if len(net.program.inputs) != 1:
        raise InputError(
            f"expected a network of one input; found {len(net.program.inputs)}; simulate it with one array for each"
        )
    if time not in (None, "first", "second"):
        raise InputError(f"time: expected 'first' or 'second'; found {time!r}")
    for name, count in (("steps", steps), ("batch_size", batch_size)):
        require_kind(name, count, int | None)
        if count is not None and count < 1:
            raise InputError(f"{name}: expected an integer of at least 1; found {count}")
    if (conversion := Conversion.of(net.program.metadata)) is not None:
        if steps not in (None, conversion.steps):
            raise InputError(f"steps: expected {conversion.steps}, which the network was converted for; found {steps}")
        steps = conversion.steps
    input_grid = None if input_grid is None else checked_bits(input_grid)
    backends = _Backends(net, as_paths(backend), input_grid, metric)
    own, of_module, samples, reason = _Side(metric), _Side(metric), 0, ""
    tally, rates = Tally(), FiringRates()
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, list | tuple):
        from torch.utils.data import DataLoader

        data, time = DataLoader(cast(Any, data), batch_size=batch_size), "second"  # as a loader stacks samples
    options, declares = SimulateOptions(record=True, input_grid=input_grid), declared_grid(net.program.metadata)
    is_asked, by_assumption = time is not None, False
    if time is None and net.original is not None and net.original.time == "second":
        time = "second"
    for given, labels in labelled_batches(data, any_target=metric is not None):
        if input_grid is not None:
            rounded = round_to_grid(as_array(given), input_grid)
        else:
            rounded = as_array(net.on_grid(as_array(given))) if declares else given
        by_labels = _axis_of_time(np.shape(given), len(labels))
        if by_assumption and by_labels not in (None, time):
            raise InputError(
                f"batches of as many samples as steps were read with time='{time}', but one of {list(np.shape(given))} "
                f"with {len(labels)} labels has time='{by_labels}'; say it for all: evaluate(data, time='{by_labels}')"
            )
        by_assumption |= by_labels is None and time is not None and not is_asked
        batch, taken = _arranged(net, rounded, len(labels), steps, time)
        time = by_labels or time
        if not samples:
            check_numbers(net.program, taken)
        x = taken if net.original is None else net.original.given(taken, asks=False)  # the labels tell the axes apart
        result = replace(simulate(net.program, x, "reference", options), rule=net.readout)
        own.add(result.rule.scores(result.y), labels)
        samples += len(labels)
        rates.add(result.spikes)
        backends.add(x, result, labels)
        if net.original is not None:
            scores, recorded = net.original.run(batch)
            of_module.add(np.asarray(scores), labels)
            spikes = {name: each for name, each in result.spikes.items() if name in recorded.recorded}
            tally.add(recorded.recorded, spikes)
            if tally.differing and not reason:
                reason = _folded_weights(net.program) or _rounding(net.program, recorded.recorded, x)
    if not samples:
        raise InputError("expected a labelled data set; found no batch in it")
    layers = {name: (node.compared, node.differing) for name, node in tally.nodes.items()}
    return GraphEvaluation(
        samples,
        own.value,
        of_module.value if net.original else None,
        layers,
        backends.results(samples),
        rates.warnings,
        name_of(metric),
        reason,
        {name: str(error) for name, error in backends.refused.items()},
    )


def _folded_weights(program: Program) -> str:
    """Return that the weights of a graph on exact grids are not the module's; nothing for another graph."""
    grids = program.metadata.get("grid")
    if not grids:
        return ""
    name = min(grids, key=grids.__getitem__)
    return f"fold rounded the graph's weights, those of '{name}' to multiples of 2^-{grids[name]}, and not the module's"


def _rounding(program: Program, spikes: Mapping[str, Floats], x: NetworkInput) -> str:
    """Return that sums round otherwise if, on these very spikes, each layer parts at its thresholds; else nothing."""
    if spikes.keys() >= {node.name for node in program.compared} and moves_by_rounding(program, spikes, x):
        return "float32 sums round otherwise: on the same spikes, each layer parts at its thresholds alone"
    return ""


def _other_numbers(runner: Runner, program: Program) -> str:
    """Return how a runner's numbers differ from the graph's by construction; nothing where they are the graph's."""
    if (runner.agrees_with or runner.name) in INTEGER_MODELS:
        return "its weights and thresholds are rounded to integers"
    own = runner.model(program) if isinstance(runner, OfModel) else None
    return "" if own is None else f"it computes with {own.name}"


class _Side:
    """Decisions of one side on all samples, or scores and targets for the metric of the user."""

    def __init__(self, metric: Metric | None) -> None:
        self._metric = metric
        self._right: list[NDArray[np.bool_]] = []
        self._scored: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def add(self, scores: NDArray[Any], targets: NDArray[Any]) -> None:
        """Take a batch: scores ``[B, ...]``."""
        if self._metric is None:
            self._right.append(_right(scores, targets))
        else:
            self._scored.append((scores, targets))

    @property
    def value(self) -> float:
        """The share of samples decided right, or the metric of all of them."""
        if self._metric is None:
            return float(np.concatenate(self._right).mean())
        scores, targets = zip(*self._scored, strict=True)
        return score_of(self._metric, np.concatenate(scores), np.concatenate(targets))


class _Backends:
    """Further runs of the same batches."""

    def __init__(
        self, net: GraphData, backends: Sequence[str | Path], input_grid: int | None, metric: Metric | None
    ) -> None:
        self.net, self.input_grid, self.metric = net, input_grid, metric
        self.held: dict[str, tuple[float, float] | None] = {}
        paths = labels_of(Path(each) for each in backends if _is_artifact(each))
        self.runners = {name: ready(_loaded(path), net.program) for path, name in paths.items()}
        self.kinds: dict[str, Runner | type[Runner]] = {**self.runners}
        self.kinds |= {str(each): find_runner(str(each)) for each in backends if not _is_artifact(each)}
        self.sides = {name: _Side(metric) for name in self.kinds}
        self.tallies = {name: Tally() for name in self.kinds}
        self.reasons = dict.fromkeys(self.kinds, "")
        self.refused: dict[str, UnsupportedError] = {}

    def add(self, x: NetworkInput, expected: Simulation, labels: NDArray[Any]) -> None:
        """Run a batch, in the graph's order of axes, on every backend."""
        if not self.kinds:
            return
        _, given = on_declared_grid(self.net.program, x, self.input_grid, QUIET)
        for name, kind in self.kinds.items():
            if name in self.refused:
                continue
            try:
                result = self._result(name, kind, x, given)
            except UnsupportedError as error:
                reason = f"{error.reason} (backend '{name}')"
                self.refused[name] = UnsupportedError(reason, node=error.node, slug=error.slug, remedy=error.remedy)
                if len(self.refused) == len(self.kinds):
                    raise self.refused[name] from None
                continue
            simulation = Simulation(name, result.outputs, result.recorded, self.net.readout)
            self.sides[name].add(simulation.rule.scores(simulation.y), labels)
            self.tallies[name].add(
                {n: s for n, s in expected.spikes.items() if n in simulation.spikes}, simulation.spikes
            )
            if self.tallies[name].differing and not self.reasons[name]:
                program = self.net.program
                other = _other_numbers(self.runners[name], program)
                self.reasons[name] = other or _rounding(program, simulation.spikes, x)

    def _result(self, name: str, kind: Runner | type[Runner], x: NetworkInput, given: NetworkInput) -> Result:
        """Run a batch; integers are chosen on the graph's sample, or on the first batch where they refuse that."""
        first = name not in self.runners
        try:
            if isinstance(kind, type) and first:
                self.runners[name] = self._opened(name, kind, x if self.net.sample is None else self.net.sample)
            return self.runners[name].run(given, record=True)
        except InputError:
            # an artifact has its integers already; only those chosen here can be chosen anew
            if not isinstance(kind, type) or not _beyond(x, self.held.get(name)):
                raise
            if not first:
                self._refuse_beyond(x, name)
        self.runners[name] = self._opened(name, kind, x)
        return self.runners[name].run(given, record=True)

    def _opened(self, name: str, kind: type[Runner], chosen_on: NetworkInput) -> Runner:
        """Open a backend; its integers are chosen on ``chosen_on``."""
        self.held[name] = _ends(chosen_on)
        declared, _ = on_declared_grid(self.net.program, chosen_on, self.input_grid, QUIET)
        given = {} if isinstance(chosen_on, Mapping) else {"calibration": lambda: chosen_on}
        return open_runner(kind, declared, declared, **given)

    def _refuse_beyond(self, x: NetworkInput, name: str) -> NoReturn:
        """Raise InputError in the user's own numbers for input beyond that on which integers were chosen."""
        (low, high), (least, most) = self.held[name] or (0, 0), _ends(x) or (0, 0)
        raise InputError(
            f"backend '{name}': expected input from {low:g} to {high:g}, for which its integers were chosen (of the "
            f"graph's sample, or of the first batch); found {least:g} to {most:g}; give the batch with the largest "
            "values first"
        )

    def results(self, samples: int) -> dict[str, BackendEvaluation]:
        """Return the results by name."""
        return {
            name: BackendEvaluation(
                name,
                kind.label,
                self.sides[name].value,
                self.tallies[name].compared,
                self.tallies[name].differing,
                samples,
                name_of(self.metric),
                self.reasons[name],
            )
            for name, kind in self.kinds.items()
            if name not in self.refused
        }


def _ends(x: NetworkInput) -> tuple[float, float] | None:
    """Return the least and the largest value; None for several inputs."""
    return None if isinstance(x, Mapping) else (min(0.0, float(np.min(x))), float(np.max(x)))


def _beyond(x: NetworkInput, held: tuple[float, float] | None) -> bool:
    ends = _ends(x)
    return ends is not None and held is not None and (ends[0] < held[0] or ends[1] > held[1])


def _is_artifact(backend: str | Path) -> bool:
    """Return whether this is an artifact's path rather than a backend's name."""
    return isinstance(backend, Path) or (backend not in registry().runners and format_of(Path(backend)) is not None)


def _loaded(path: Path) -> Runner:
    """Return the run of an artifact; raise InputError if there is none."""
    to = format_of(path)
    if to is None or not path.exists():
        what = describe_path(path) if path.exists() else "no such file"
        raise InputError(f"{path}: expected an artifact that 'export' wrote; found {what}")
    return to.load(path)


def _right(scores: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return whether each sample is decided as labelled."""
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise InputError(
            f"expected one score for each of two classes or more, [B, classes]; found outputs of {list(scores.shape)}; "
            "give a metric of your own: evaluate(data, metric=...)"
        )
    require_classes(labels, scores.shape[-1])
    return np.asarray(scores.argmax(-1) == labels)


def _arranged(net: GraphData, batch: Any, count: int, steps: int | None, time: str | None) -> tuple[Any, NDArray[Any]]:
    """Return a batch as the module takes it, and as `SpikingGraph.simulate` takes it."""
    if net.original is not None and net.original.time in ("inside", "none"):
        if len(batch) != count:
            raise InputError(f"expected batches [B, ...] with B labels; found {list(np.shape(batch))} with {count}")
        return batch, net.original.as_graph_input(batch)
    x = _sequence(net, as_array(batch), count, steps, time)
    given = x.swapaxes(0, 1) if net.original is not None and net.original.time == "second" else x
    return given, presented(net.program, given)


def _axis_of_time(shape: tuple[int, ...], count: int) -> str | None:
    """Return which axis of a batch is time, if its number of labels tells."""
    if len(shape) < 2 or shape[0] == shape[1] or count not in shape[:2]:
        return None
    return "first" if shape[1] == count else "second"


def labelled_batches(data: Iterable[Any], *, any_target: bool = False) -> Iterator[tuple[Any, NDArray[Any]]]:
    """Yield batches with integer labels ``[B]``, or any targets ``[B, ...]``; raise InputError for others."""
    if not isinstance(data, Iterable):
        raise InputError(
            f"expected a labelled Dataset, a DataLoader or batches (x, labels); found {type(data).__name__}"
        )
    for batch in data:
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            raise InputError(f"expected batches (x, labels); found a {type(batch).__name__}; give a labelled loader")
        labels = as_array(batch[1])
        if any_target and labels.ndim:
            yield batch[0], labels
            continue
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            remedy = label_remedy(labels, labels.shape[0] if labels.ndim else 0)
            raise InputError(
                f"expected integer labels [B]; found {labels.dtype} {list(labels.shape)}; "
                f"{remedy or 'give the number of the class of each sample, from 0'}"
            )
        yield batch[0], labels.astype(np.int64)


def _sequence(net: GraphData, x: NDArray[Any], count: int, steps: int | None, time: str | None) -> NDArray[Any]:
    shape = net.program.inputs[0].shape if net.original is None else net.original.takes
    if x.shape == (count, *shape):
        if steps is None:
            raise InputError(
                f"batches are {list(x.shape)}, static samples without time; say how many steps each is shown: steps=..."
            )
        return np.broadcast_to(x, (steps, *x.shape))
    if x.ndim != len(shape) + 2 or x.shape[2:] != shape or count not in x.shape[:2]:
        raise InputError(
            f"expected batches [T, B, {', '.join(map(str, shape))}] or [B, T, ...] with B labels; found "
            f"{list(x.shape)} with {count}"
        )
    if x.shape[0] == x.shape[1]:
        if time not in ("first", "second"):
            raise InputError(
                f"batches are {list(x.shape)}, where either axis may be time; say which: time='first' or time='second'"
            )
        return x if time == "first" else x.swapaxes(0, 1)
    return x if x.shape[1] == count else x.swapaxes(0, 1)
