"""`GraphData`: a network with what is known of it, as the verbs take it, and its input in the graph's form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import nir
import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.arrays import as_array
from stl_deploy.errors import CaptureError, InputError
from stl_deploy.exporters.nir.dialect import Dialect
from stl_deploy.exporters.nir.lower import lower, metadata_dialect, own_metadata
from stl_deploy.exporters.nir.patch import to_graph
from stl_deploy.exporters.nir.target import unheld
from stl_deploy.exporters.nir.write import Written
from stl_deploy.graph.program import Program
from stl_deploy.graph.readout import KEY, Readout, readout_of
from stl_deploy.graph.run import NetworkInput, Result
from stl_deploy.pipeline.network_input import OnGrid, check_numbers, checked_sequence


class Original(Protocol):
    """The module that a graph was captured from, for `SpikingGraph.evaluate`."""

    @property
    def time(self) -> str:
        """Position of time in the module: first, second, step, inside or none (see `stl_deploy.capture`)."""

    @property
    def makes(self) -> tuple[int, ...] | None:
        """Shape of one step's output of one sample in the module's form, if it is known."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of several inputs, in the module's order."""

    @property
    def takes(self) -> tuple[int, ...]:
        """Shape of one step of one sample in the module's form."""

    def given(self, x: NDArray[Any], *, asks: bool = True) -> NDArray[Any]:
        """Return input in the module's form, or its steps in the graph's order of axes; asks: warn of swapped axes."""

    def given_each(self, x: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return several inputs in the module's form as the graph's own."""

    def given_step(self, x: NetworkInput) -> NetworkInput:
        """Return one step of input in the module's form as the graph's own."""

    def as_graph_input(self, batch: Any) -> Any:
        """Return a batch in the forward's form as the graph's input ``[T, B, *shape]``."""

    def as_trained(self, program: Program) -> Program | None:
        """Return the graph with drawn statistics in batch norms that have none; None if all have some."""

    def run(self, batch: Any) -> tuple[NDArray[Any], Result]:
        """Return the module's scores ``[B, classes]`` of a batch, and outputs and spikes under the graph's names."""


class GraphData:
    """A Program with its readout, its proof, the module it was captured from, a sample and a name.

    Arguments: see `stl_deploy.pipeline.spiking_graph.SpikingGraph`, which adds the verbs as methods.
    """

    def __init__(
        self,
        graph: nir.NIRGraph | Program,
        dialect: Dialect | None = None,
        *,
        proof: Any = None,
        readout: Readout | None = None,
        original: Original | None = None,
        sample: NetworkInput | None = None,
        name: str = "net",
    ) -> None:
        own = dict(graph.metadata) if isinstance(graph, Program) else own_metadata(graph)
        self.readout = readout_of(own) if readout is None else readout
        own |= {} if readout is None else {KEY: readout.as_dict()}
        program = graph if isinstance(graph, Program) else lower(graph, dialect or metadata_dialect(own))
        if program.origin is not None:
            own |= {"dialect": program.origin.dialect.written()}
        self.program = replace(program, metadata=own)
        self.on_grid = OnGrid(program)
        """Rounds input to the declared grid."""
        self._written: Written | None = None
        self.proof, self.original, self.sample, self.name = proof, original, sample, name
        self.in_integers = False  # whether its weights are integers that were trained

    @property
    def graph(self) -> nir.NIRGraph:
        """The network as a `nir` graph; raises UnsupportedError, naming the node, if NIR cannot hold it."""
        return self._as_nir().graph

    @property
    def dialect(self) -> Dialect:
        """The dialect of `graph`; raises as `graph`."""
        return self._as_nir().dialect

    def _as_nir(self) -> Written:
        if self._written is None:
            try:
                self._written = to_graph(self.program)
            except CaptureError as error:
                raise unheld(self.program, error) from None
        return self._written

    def _as_module(self, outputs: Mapping[str, NDArray[np.float32]]) -> Mapping[str, NDArray[np.float32]]:
        """Return outputs in the shape in which the captured module makes them: a matrix makes flat ones."""
        shape = None if self.original is None else self.original.makes
        if shape is None or len(outputs) != 1:
            return outputs
        (name, y), *_ = outputs.items()
        fits = y.shape[2:] != shape and int(np.prod(y.shape[2:])) == int(np.prod(shape))
        return {name: y.reshape(*y.shape[:2], *shape)} if fits else outputs

    def _given(self, x: Any, *, rounds: bool = True) -> NetworkInput:
        """Return input as numpy, in the graph's order of axes; ``rounds``: on the grid that the graph declares."""
        if self.original is not None and self.original.time == "none":
            arrays: NetworkInput = self.original.given(as_array(x))
        else:
            arrays = checked_sequence(self.program, self._named(x), known=self.original is not None)
            if self.original is not None and isinstance(arrays, Mapping):
                arrays = self.original.given_each(arrays)
            elif self.original is not None:
                arrays = self.original.given(as_array(arrays))
        return self.on_grid(arrays) if rounds else arrays

    def _given_step(self, x: Any) -> NetworkInput:
        """Return one step's input ``[B, *shape]`` as `_given` does a sequence."""
        arrays = self._named(x)
        check_numbers(self.program, arrays)
        return self.on_grid(arrays if self.original is None else self.original.given_step(arrays), step=True)

    def _named(self, x: Any) -> NetworkInput:
        """Return input as numpy: one array, or several by name; a tuple of them in the module's order."""
        names = [node.name for node in self.program.inputs]
        if isinstance(x, tuple | list) and len(x) == len(names) > 1:
            order = () if self.original is None else self.original.names
            if not order:
                raise InputError(
                    "expected a dict of inputs by name, for the graph knows no order of them; found a "
                    f"{type(x).__name__}; give {{{', '.join(f'{name!r}: ...' for name in names)}}}"
                )
            x = dict(zip(order, x, strict=True))
        return {str(name): as_array(array) for name, array in x.items()} if isinstance(x, Mapping) else as_array(x)

    def _input(self, x: Any, verb: str, *, rounds: bool = True) -> NetworkInput:
        if x is not None:
            return self._given(x, rounds=rounds)
        if self.sample is None:
            raise InputError(f"{verb} needs input: expected x of shape [T, B, *shape]; found none; give x")
        return self.sample
