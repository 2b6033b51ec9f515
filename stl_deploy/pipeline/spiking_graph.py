"""`SpikingGraph`: the central object of the Python API, with the verbs as methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

import numpy as np

from stl_deploy._util.arrays import as_array
from stl_deploy._util.caller import warn_caller
from stl_deploy._util.files import as_path, as_paths, checked_labels, leading, require_suffix, write_text
from stl_deploy._util.keywords import named_options, right_keywords
from stl_deploy._util.tables import columns, html_table
from stl_deploy._util.working import working
from stl_deploy.config.options import (
    CheckKeywords,
    CheckOptions,
    EnergyKeywords,
    EnergyOptions,
    ExportKeywords,
    ExportOptions,
    FoldKeywords,
    FoldOptions,
    SimulateKeywords,
    SimulateOptions,
    VerifyKeywords,
    VerifyOptions,
)
from stl_deploy.errors import InputError
from stl_deploy.graph.axis_order import warn_of_order
from stl_deploy.graph.findings import CheckReport
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import Stream
from stl_deploy.graph.show import Row, svg, table
from stl_deploy.pipeline.conversion import Conversion
from stl_deploy.pipeline.graph_data import GraphData
from stl_deploy.pipeline.network_input import (
    checked_bits,
    compared,
    on_grid_of,
)
from stl_deploy.pipeline.results import Bill, Exported, GraphEvaluation, Metric, Simulation, Verification

if TYPE_CHECKING:
    from stl_deploy.nn.program_module import ProgramModule
    from stl_deploy.pipeline.quantised_module import QuantisedModule


_CALLED_HERE = {
    "save": "net.export('net.nir')",
    "plot": "net.show('net.svg')",
    "summary": "print(net)",
    "forward": "net.simulate(x)",
    "parameters": "net.module().parameters()",
    "state_dict": "net.module().state_dict()",
}
"""Names of other frameworks, and what to type here."""


class SpikingGraph(GraphData):
    """A spiking network: the Program that every target reads, or a NIR graph with its dialect.

    Methods take ``x`` as ``[T, B, *shape]``, a numpy array or torch tensor, or a mapping by input name if there are
    several. For a captured module, ``x`` has the module's axis order: ``[B, T, *shape]`` under ``time="second"``.
    Graphs are immutable: `fold` returns a new one.

    Args:
        graph: A `nir` graph, or a Program for networks that NIR cannot hold.
        dialect: Dialect of a NIR graph; default: the graph's metadata, else ``spec``.
        proof: Proof of the capture; after a fold that changed numbers, of the graph before it.
        readout: Decision over time; default: the graph's metadata.
        original: Module that the graph was captured from.
        sample: Default input ``[T, B, *shape]`` for verification and calibration.
        name: Name of the network in reports.

    Raises:
        GraphError: If the graph cannot be read as a network.

    Examples:
        >>> net = stl_deploy.read("their.nir", dialect="snntorch")
        >>> net.check("onnx").raise_if_unsupported()
        >>> net.export("net.onnx")
    """

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        """Raise InputError: a graph is run by `simulate`."""
        raise InputError("a SpikingGraph is not called: use net.simulate(x), or net.module()(x) for torch tensors")

    def __getattr__(self, name: str) -> NoReturn:
        """Raise AttributeError with the method that does what another framework calls so."""
        instead = f"; use {_CALLED_HERE[name]}" if name in _CALLED_HERE else ""
        raise AttributeError(f"'SpikingGraph' has no attribute '{name}'{instead}")

    @property
    def conversion(self) -> Conversion | None:
        """The conversion that made it of an ANN: candidates, choice and verdict; None if none did."""
        return Conversion.of(self.program.metadata)

    def __str__(self) -> str:
        """Return the layers as a table."""
        return "\n".join(columns(self._table()))

    def _repr_html_(self) -> str:
        """Return the layers as a table, for notebooks."""
        return html_table(self._table(), repr(self).strip("<>"))

    def _table(self) -> list[list[str]]:
        rows = [[r.node, r.kind, "x".join(map(str, r.shape)), ", ".join(r.sources), r.constants] for r in self.rows]
        return [["node", "kind", "shape", "reads", "constants"], *rows]

    def __repr__(self) -> str:
        spiking = sum(int(np.prod(node.shape)) for node in self.program.spiking)
        reading = "" if self.proof is None else f"; {self.proof.reading}"
        return f"<SpikingGraph '{self.name}': {len(self.program.nodes)} nodes, {spiking:,} spiking neurons{reading}>"

    @property
    def rows(self) -> tuple[Row, ...]:
        """Return one row for each node: kind, shape, sources, parameters, synapses, constants."""
        return table(self.program)

    def show(self, path: str | Path | None = None) -> tuple[Row, ...]:
        """Return the rows of the layer table; with ``path`` (``.svg``) also write a drawing of the graph."""
        if path is not None:
            require_suffix(Path(path), ".svg")
            write_text(Path(path), svg(self.program))
        return self.rows

    @named_options(CheckOptions)
    def check(self, *targets: str, **options: Unpack[CheckKeywords]) -> CheckReport:
        """Check each node for each target (default: every format's): faithful, approximate or unsupported, and why.

        Args:
            targets: Names of targets, as ``check("netx")``.
            options: Fields of `CheckOptions`, as in ``check("xylo", device="imu")`` and ``check("c", ram="64K")``.

        Returns:
            ``.raise_if_unsupported()`` raises UnsupportedError where a target cannot hold the network.

        Raises:
            InputError: For an unknown target or option.
            CaptureError: If a module has no form with statistics in its batch norms, drawn where they have none yet.
        """
        from stl_deploy.pipeline.check import check

        return check(self, list(targets) or None, CheckOptions(**options), self.sample)

    @named_options(FoldOptions)
    def fold(self, **options: Unpack[FoldKeywords]) -> SpikingGraph:
        """Fold into a new graph with weights on power-of-two grids, where every backend computes the same bits.

        Layers without a suitable grid change only where a scale moves into their weights. Neurons that also receive
        the spikes of a skip connection keep their thresholds, with a warning for each.

        Args:
            options: Fields of `FoldOptions`. ``thresholds="weights"`` divides each neuron's weights by its threshold,
                so that every threshold is 1, and warns of spikes on ``sample`` that this moves. ``input_grid``:
                declares input in multiples of 2^-input_grid with magnitudes up to 1, or up to the largest in
                ``sample``, and rounds ``sample`` and later input; default: the graph's metadata.
                ``delays="steps"`` rounds learned fractional delays to whole steps and warns of the change.

        Raises:
            UnsupportedError: If a pool, or every threshold, cannot be folded into weights; names node and remedy.
        """
        from stl_deploy.pipeline.fold import fold, fold_warnings

        chosen = FoldOptions(**options)
        if chosen.input_grid is not None:
            chosen = replace(chosen, input_grid=checked_bits(chosen.input_grid))
        sample, bound = on_grid_of(self.sample, chosen.input_grid)
        folded = fold(self.program, chosen, bound)
        for sentence in fold_warnings(self.program, folded, chosen, sample):
            warn_caller(sentence)
        proof = self.proof
        same = chosen.input_grid is None and folded.program.digest() == self.program.digest()
        if proof is not None and not same:
            proof = replace(proof, before_fold=True)
        return SpikingGraph(folded.program, proof=proof, original=self.original, sample=sample, name=self.name)

    @named_options(ExportOptions, target="to", backend="to", format="to", verify="verified")
    def export(
        self,
        path: str | Path,
        to: str | None = None,
        *,
        x: Any = None,
        progress: bool | None = None,
        **options: Unpack[ExportKeywords],
    ) -> Exported:
        """Write one artifact and its manifest, read it back and run it; remove it if verification fails.

        Args:
            path: File or folder to write.
            to: Target; default: from the suffix of ``path``.
            x: Input ``[T, B, *shape]`` to calibrate and verify on; default: ``sample``, else random input on the
                graph's grid.
            progress: False disables the progress line, which otherwise appears after a few seconds (outside a terminal:
                every ten seconds).
            options: Fields of `ExportOptions`, as in ``export("net.onnx", form="step")``.

        Returns:
            The manifest, a mapping.

        Raises:
            UnsupportedError: If the target does not support the network.
            ParityError: If a float artifact does not spike like the graph.
        """
        from stl_deploy.pipeline import export as exporting

        output = as_path(path)
        chosen = ExportOptions(**options)
        to = to or exporting.target_of(output)
        with working(f"exporting {output.name}", progress):
            x = self.sample if x is None else self._given(x, rounds=chosen.input_grid is None)
            given = None if x is None else compared(self.program, x, None, "x")
            return exporting.export(self, to, output, given, chosen)

    @named_options(SimulateOptions, target="backend")
    def simulate(self, x: Any, *, backend: str = "reference", **options: Unpack[SimulateKeywords]) -> Simulation:
        """Run the network: ``.y`` ``[T, B, *shape]``, ``.spikes`` of every spiking layer, ``.readout`` applied.

        Args:
            x: Input ``[T, B, *shape]``; of a captured module as its forward takes it, ``[B, T, *shape]`` under
                ``time="second"``. ``.y`` and ``.spikes`` are ``[T, B, *shape]`` all the same.
            backend: As ``stl-deploy simulate --backend``.
            options: Fields of `SimulateOptions`; spikes are recorded unless ``record=False``.

        Raises:
            InputError: For input of the wrong shape or beyond the graph's declared grid, or an unknown backend.
            UnsupportedError: If the backend's target does not support the network.
            ToolError: If a tool is missing.
        """
        from stl_deploy.pipeline.simulate import simulate

        options.setdefault("record", True)
        chosen = SimulateOptions(**options)
        simulation = simulate(self.program, self._given(x, rounds=chosen.input_grid is None), backend, chosen)
        return replace(simulation, rule=self.readout, outputs=self._as_module(simulation.outputs))

    @named_options(VerifyOptions)
    def verify(
        self, artifact: str | Path | Iterable[str | Path], x: Any = None, **options: Unpack[VerifyKeywords]
    ) -> Verification:
        """Run artifacts and the graph on ``x`` (default: ``sample``) and compare every spike of every layer.

        ``verify("net.onnx", x).require()`` raises ParityError if a float artifact differs.

        Args:
            artifact: One or several files or folders.
            x: Input ``[T, B, *shape]``.
            options: Fields of `VerifyOptions`. ``input_grid`` defaults to the artifact's grid, ``lava`` to False.

        Raises:
            InputError: For unreadable files, files of another graph, and input beyond the graph's declared grid.
        """
        from stl_deploy.pipeline.verify import verify

        options.setdefault("lava", False)
        chosen = VerifyOptions(**options)
        paths = [Path(path) for path in as_paths(artifact)]
        return Verification(
            verify(self.program, paths, self._input(x, "verify", rounds=chosen.input_grid is None), chosen)
        )

    @named_options(EnergyOptions)
    def energy(
        self, x: Any = None, labels: Any = None, metric: Metric | None = None, **options: Unpack[EnergyKeywords]
    ) -> Bill:
        """Count the network's operations on ``x`` (default: ``sample``) exactly, and model its energy.

        Args:
            x: Input ``[T, B, *shape]``.
            labels: Labels ``[B]``, for accuracy and the spread by class.
            metric: Instead of accuracy, as for `evaluate`; ``labels`` are then its targets ``[B, ...]``.
            options: Fields of `EnergyOptions`, as in ``energy(x, prices=["loihi1_sanafe"])``.

        Raises:
            InputError: For input or labels of the wrong shape, and input beyond the graph's declared grid.
        """
        from stl_deploy.pipeline.energy import energy

        chosen = EnergyOptions(**options)
        given = self._input(x, "energy", rounds=chosen.input_grid is None)
        targets = None if labels is None else as_array(labels)
        if targets is not None and metric is None:
            targets = checked_labels(targets, *leading(given), "labels")
        return Bill(energy(self.program, given, chosen, labels=targets, metric=metric, source=self.name))

    def module(self, *, surrogate: str = "arctan") -> ProgramModule:
        """Return this graph as a torch module, ``[T, B, *shape]`` to ``[T, B, *shape]``, for further training.

        surrogate: surrogate gradient, as for `LIF`. Raises InputError for several inputs or outputs.

            module = net.module()
            ...  # train it
            trained = stl.SpikingGraph(module.program(), readout=net.readout)
        """
        from stl_deploy.nn.program_module import ProgramModule

        warn_of_order(None if self.original is None else self.original.time)
        return ProgramModule(self.program, surrogate=surrogate)

    @right_keywords({})
    def quantised(self, x: Any = None) -> QuantisedModule[SpikingGraph]:
        """Return a torch module of this graph in Loihi's integers, for further training; see `QuantisedModule`.

        Args:
            x: Calibration input for the initial integers (default: ``sample``).

        Raises:
            UnsupportedError: If integers cannot represent the graph, or it has loops.

        Examples:
            >>> module = net.fold(thresholds="weights").quantised()
            >>> spikes = module(x)  # x [T, B, *shape]; train it
            >>> module.graph().export("net.net")  # every spike equals the module's in eval mode
        """
        from stl_deploy.pipeline.quantised_module import QuantisedModule

        given = self._input(x, "quantised", rounds=False)
        if isinstance(given, Mapping):
            raise InputError("expected a network of one input; found several; integers have one")
        warn_of_order(None if self.original is None else self.original.time)
        return QuantisedModule(self.program, given, self.sample, self._in_integers)

    def _in_integers(self, program: Program) -> SpikingGraph:
        """Return the graph of a Program of trained integers."""
        made = type(self)(program, readout=self.readout, sample=self.sample, name=self.name)
        made.in_integers = True
        return made

    def stream(self, backend: str = "reference") -> Stream:
        """Return a step-by-step session: ``step(x_t)`` takes ``[B, *shape]``; ``reset()`` returns to rest.

        Of several inputs a tuple or dict, as `simulate` takes them.

        Args:
            backend: ``reference``, or ``onnx``: the same spikes from ONNX Runtime, faster.

        Raises:
            InputError: For a backend that takes whole sequences alone.
            UnsupportedError: If the backend does not support the network.
        """
        from stl_deploy.pipeline.simulate import open_stream

        return open_stream(self.program, backend, self._given_step)

    @right_keywords({"x": "data", "loader": "data", "backends": "backend"})
    def evaluate(
        self,
        data: Iterable[Any],
        *,
        steps: int | None = None,
        batch_size: int = 64,
        time: str | None = None,
        input_grid: int | None = None,
        backend: str | Path | Sequence[str | Path] = (),
        metric: Metric | None = None,
    ) -> GraphEvaluation:
        """Run a labelled torch Dataset or DataLoader (or batches ``(x, labels)``) through graph, module and backends.

        steps: repetitions of static samples. time: ``first`` or ``second``, if a loader's batches could be either
        ``[T, B, ...]`` or ``[B, T, ...]``. input_grid: rounds input to multiples of 2^-input_grid.
        backend: backends as for `simulate`, or paths of artifacts. metric: instead of accuracy, a function of the
        readout ``[B, ...]`` and the targets of all samples, as of a regression or a detection; targets may then be any
        numbers ``[B, ...]``. See `stl_deploy.pipeline.evaluate_graph`.

            print(net.evaluate(test_set, backend=["onnx", "c", "loihi"]))  # accuracy, its interval, differing spikes
        """
        from stl_deploy.pipeline.evaluate_graph import evaluate_graph

        return evaluate_graph(
            self,
            data,
            steps=steps,
            batch_size=batch_size,
            time=time,
            input_grid=input_grid,
            backend=backend,
            metric=metric,
        )
