"""Export, read back, run and compare artifacts, for run, export and verify alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from stl_deploy._util.console import Console
from stl_deploy._util.files import first_samples, leading, make_folder, make_place, require_folder
from stl_deploy._util.temporary import temporary_folder
from stl_deploy._util.units import counted
from stl_deploy.energy.counts.taps import Tapped, dense_macs
from stl_deploy.errors import InputError, ToolError, UnavailableError, UnsupportedError
from stl_deploy.exporters.targets import (
    Format,
    HasDeadline,
    Network,
    OfModel,
    OfProgram,
    Runner,
    complete_runner,
    find_runner,
    findings,
    make_options,
    registry,
    why_unavailable,
)
from stl_deploy.graph.by_layer import moves_by_rounding
from stl_deploy.graph.check import require_taken
from stl_deploy.graph.compare import MODEL_NAMES, FiringRates, RunParity, compare
from stl_deploy.graph.exact import prove_exact
from stl_deploy.graph.margins import UlpMargins
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import accuracy
from stl_deploy.graph.run import CHUNK, NetworkInput, Result, run
from stl_deploy.pipeline.parity import LAYER_HEADER, ParityReport, layer_rows

REFERENCE = "reference"
SAMPLES = 100
FEW, MORE = 1_000_000, 6_000_000
"""Values compared with simulators of other projects, and with Lava in a run: about ten seconds each."""


def write(program: Program, to: Format, path: Path, given: Mapping[str, Any] | None = None, **common: Any) -> Any:
    """Write an artifact; return the manifest's facts on it. given: the user's options; common: see `Options`.

    Raises UnsupportedError for a node of a kind that the target does not take, or if x is drawn where it is real.
    """
    require_taken(program, to.takes, to.name)
    options = make_options(to, given or {}, **common)
    if options.is_random and options.calibration is None:
        for each in findings(to, program):
            if each.slug == "analog-input":  # drawn spikes are no input to choose its integers by
                raise UnsupportedError(each.reason, node=str(each.node), slug=each.slug, remedy=each.remedy)
    return dict(to.write(program, path, options) or {})


@contextmanager
def whole_artifact(output: Path, to: Format) -> Iterator[Path]:
    """Yield a path to write an artifact at; it and its companions move to ``output`` if the block ends well.

    The user's own files in a folder that is written again stay.

    Raises InputError if another kind of file is in that place.
    """
    if to.folder is None:
        make_place(output)
    else:
        require_folder(output)
        if output.exists() and not (output / to.folder).is_file():
            raise InputError(f"{output}: expected no folder, or one of {to.name}; found another; name a new one")
        make_folder(output.parent)
    with temporary_folder(output.parent) as folder:
        yield folder / output.name
        for made in sorted(path for path in folder.rglob("*") if path.is_file()):
            place = output.parent / made.relative_to(folder)
            make_folder(place.parent)
            made.replace(place)


def open_runner(kind: type[Runner], network: Network, program: Program, **common: Any) -> Runner:
    """Return a backend's run of a Program, or of an artifact that was made from it; raise ToolError as `ready`."""
    complete_runner(kind)
    if isinstance(network, Program):
        require_taken(network, kind.takes, kind.name)
    return ready(kind(network, make_options(kind, {}, **common)), program)


def ready(runner: Runner, program: Program, deadline: float | None = None) -> Runner:
    """Return a runner as a run of ``program``; raise ToolError if it cannot run on this machine.

    deadline: seconds that an outside tool may take; None: the runner's own.
    """
    complete_runner(type(runner))
    reason = why_unavailable(runner)
    if reason is not None:
        raise UnavailableError(f"{runner.name} cannot run here: {reason}")
    if deadline is not None and isinstance(runner, HasDeadline):
        runner = runner.within(deadline)
    return runner.of(program) if isinstance(runner, OfProgram) else runner


def labels_of(paths: Iterable[Path]) -> dict[Path, str]:
    """Return tables' labels of files and folders: their names, or for duplicates their paths as given."""
    names = {path: path.name or path.resolve().name for path in paths}
    given = list(names.values())
    return {path: name if given.count(name) == 1 else str(path) for path, name in names.items()}


def _runs_here(kind: type[Runner], what: str, say: Console) -> bool:
    reason = why_unavailable(kind)
    if reason is not None:
        say.say(f"{what} did not run on {kind.name} ({reason})")
    return reason is None


@runtime_checkable
class HasBudget(Protocol):
    """A Runner that is so slow that an export runs it on the first samples alone."""

    def affordable(self, x: NetworkInput) -> int:
        """Return how many samples of ``x`` to run."""
        ...


class ParityBench:
    """A network on one input, and every run compared with its reference or with the model that it must equal.

    x: ``[T, B, *shape]``; labels: ``[B]``, for accuracies. name: of the reference in tables.
    """

    def __init__(
        self, program: Program, x: NetworkInput, labels: NDArray[Any] | None = None, *, name: str = REFERENCE
    ) -> None:
        self.program, self.x, self.labels, self.name = program, x, labels, name
        self.runs: list[RunParity] = []
        self._near = UlpMargins()
        names = [node.name for node in program.compared]
        self.expected = run(program, x, record=names, observe=self._near, chunk=CHUNK)
        self._rates = FiringRates()
        self._rates.add(self.expected.recorded)

    @property
    def report(self) -> ParityReport:
        """Return every run so far."""
        right = accuracy(self.program, self.expected, self.labels)
        return ParityReport(self.name, right, tuple(self.runs), self._rates.warnings, self._rates.dead)

    @property
    def silent(self) -> bool:
        """Whether no layer of the reference spiked."""
        return self._rates.silent

    @property
    def connections(self) -> int:
        """Number of the network's connections, counted one by one."""
        return sum(dense_macs(node) for node in self.program.nodes if isinstance(node, Tapped))

    def within(self, values: int, most: int | None = None) -> int:
        """Return how many samples keep all layers' spikes and silences within ``values``: one to ``most``, or all."""
        steps, samples = leading(self.x)
        return min(samples, most or samples, self.program.samples_within(values, steps))

    def add(self, name: str, result: Result, *, samples: int | None = None, **about: Any) -> None:
        """Compare a run on ``x``, or on its first ``samples``, with the reference; about: fields of `RunParity`.

        Fewer samples give no accuracy: it would not be comparable with the others'.
        """
        x, expected, labels = self.x, self.expected, self.labels
        near: dict[str, int] | None = self._near.counts
        if samples is not None and samples < leading(x)[1]:
            x, expected, labels, near = first_samples(x, samples), expected.first(samples), None, None
        right = accuracy(self.program, result, labels)
        parity = compare(
            self.program, expected, result, name, x=x, near=near, against=self.name, accuracy=right, **about
        )
        # outputs alone are held where a backend records no layer
        asked = parity.required or not parity.nodes
        if asked and not parity.exact and not all(proof.exact for proof in prove_exact(self.program)):
            # Sums depend on their order, as `check` warns.
            recorded = all(node.compared for node in parity.nodes)
            by_layer = bool(parity.nodes) and recorded and moves_by_rounding(self.program, result.recorded, x)
            parity = parity.up_to_rounding(expected.outputs, by_layer=by_layer)
        self.runs.append(parity)

    def artifact(
        self, path: Path, of: Format, name: str | None = None, *, deadline: float | None = None, **about: Any
    ) -> Runner:
        """Read an artifact back and compare its run; return the Runner. deadline: see `ready`."""
        return self.loaded(of.load(path), path, name, deadline=deadline, **about)

    def loaded(
        self, runner: Runner, path: Path, name: str | None = None, *, deadline: float | None = None, **about: Any
    ) -> Runner:
        """Compare the run of an artifact that was read back; return the Runner. deadline: see `ready`."""
        runner = ready(runner, self.program, deadline)
        self.compare(name or path.name, runner, path, **{"artifact": str(path), **about})
        return runner

    def compare(
        self,
        name: str,
        runner: Runner,
        network: Network,
        *,
        required: bool = True,
        model: str = "",
        samples: int | None = None,
        **about: Any,
    ) -> None:
        """Run and compare with the reference, and with the runner's model if that is another.

        required: false if the sums are not proved exact, so that differences are reported only. model: of a model in
        tables. samples: number of first samples to take.
        """
        x = self.x if samples is None else first_samples(self.x, samples)
        result = runner.run(x, record=True)
        own = self._model(runner, network)
        same = runner.agrees_with == REFERENCE and own is None
        about = {"backend": runner.name, "label": runner.label, **about}
        self.add(name, result, samples=samples, required=required and same, **about)
        if own is not None:
            self._against(name, result, own, x, model, about)

    def cross_check(
        self,
        path: Path,
        of: Format,
        name: str,
        besides: Collection[str],
        say: Console,
        **common: Any,
    ) -> None:
        """Run an artifact on every other Runner that reads it and has a model to equal.

        besides: names of Runners to leave out. A Runner that cannot run here, or cannot hold it, is reported.
        common: see `Options`.
        """
        for kind in registry().runners.values():
            if of.name not in kind.reads or kind.name in besides or kind.agrees_with in (None, REFERENCE):
                continue
            if not _runs_here(kind, name, say):
                continue
            runner = open_runner(kind, path, self.program, say=say, **common)
            own = self._model(runner, path)
            assert own is not None
            samples = self.within(MORE, SAMPLES)
            x = first_samples(self.x, samples)
            say.say(f"running {samples} of {leading(self.x)[1]:,} samples through {name} on {kind.name}")
            try:
                result = runner.run(x, record=True)
            except InputError as error:
                say.warn(f"{kind.name} cannot hold {name} and is left out of the table: {error}")
                continue
            about = {"backend": kind.name, "label": kind.label, "artifact": str(path)}
            self._against(f"{name} on {kind.name}", result, own, x, "", about)

    def witnesses(self, say: Console, *, required: bool, **common: Any) -> None:
        """Run the network on every simulator that takes no artifact and must equal the reference, on `FEW` spikes.

        required: as for `hold`. A simulator that cannot run the network is reported. common: see `Options`.
        """
        samples = self.within(FEW, SAMPLES)
        for kind in registry().runners.values():
            if kind.reads or kind.agrees_with != REFERENCE or not _runs_here(kind, "the network", say):
                continue
            say.say(f"running {samples} of {counted(leading(self.x)[1], 'sample')} on {kind.name}")
            try:
                runner = open_runner(kind, self.program, self.program, **common)
                self.compare(kind.name, runner, self.program, required=required, samples=samples)
            except (UnsupportedError, ToolError) as error:
                say.warn(f"{kind.name} did not run and is left out of the table: {error}")

    def _model(self, runner: Runner, network: Network) -> Runner | None:
        """Return the model that the runner must equal, if that is not the plain reference."""
        own = runner.model(self.program) if isinstance(runner, OfModel) else None
        if own is not None or runner.agrees_with in (None, REFERENCE):
            return own
        return open_runner(find_runner(runner.agrees_with), network, self.program)

    def _against(
        self, name: str, result: Result, model: Runner, x: NetworkInput, title: str, about: Mapping[str, Any]
    ) -> None:
        title = title or model.name
        known_as = MODEL_NAMES.get(title, title)
        expected = model.run(x, record=True)
        parity = compare(self.program, expected, result, f"{name} (against {known_as})", against=title, **about)
        self.runs.append(parity)


def show_parity(report: ParityReport, say: Console, *, is_random: bool = False) -> None:
    """Print agreement by layer; is_random: the percentages say that they are of random input."""
    for warning in report.warnings:
        say.warn(warning)
    headers = [f"{name} (random input)" if is_random and name == "agreement" else name for name in LAYER_HEADER]
    say.table(headers, [list(row) for row in layer_rows(report)])
    for parity in report.runs:
        if parity.is_rounding:
            say.say(f"{parity.run}: {parity.note}")
