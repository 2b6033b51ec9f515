"""Compile and run a C folder; it returns the same arrays as the integer model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.temporary import temporary_folder
from stl_deploy.errors import ToolError
from stl_deploy.exporters.c.compiler import DEADLINE, compile_program, run_program
from stl_deploy.exporters.c.names import PREFIX
from stl_deploy.exporters.c.plan import Plan, Recorded
from stl_deploy.integers.simulate import IntegerRun, check_input

AT_ONCE = 2**26
"""About how many bytes the program is given at a time."""


@dataclass(frozen=True)
class Program:
    """The text of a folder's files, and the plan with the places of recorded spikes."""

    files: Mapping[str, str]
    plan: Plan
    prefix: str = PREFIX

    def run(
        self,
        x: NDArray[Any],
        *,
        record: bool = False,
        options: Sequence[str] = (),
        deadline: float = DEADLINE,
    ) -> IntegerRun:
        """Compile and run integers ``x`` ``[T, B, *shape]``.

        options: for the compiler. Raises InputError as the integer model does, ToolError where the compiler or the
        program is missing, fails or takes too long.
        """
        graph = self.plan.graph
        x = check_input(graph.input, x)
        spikes = sum(math.prod(population.shape) for population in self.plan.recorded) if record else 0
        outputs = math.prod(graph.output.shape)
        steps, samples = x.shape[:2]
        # Whole samples, since each starts from rest.
        at_once = max(1, AT_ONCE // (4 * steps * math.prod(graph.input.shape)))
        with self._compiled([*options, *([f"-D{self.prefix.upper()}_RECORD"] if record else [])], deadline) as program:
            parts = [
                self._batch(program, x[:, start : start + at_once], outputs, spikes, deadline)
                for start in range(0, samples, at_once)
            ]
        return self.unpack(np.concatenate(parts), record=record)

    def decide(
        self, x: NDArray[Any], margin: int, *, deadline: float = DEADLINE
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return the class of each sample, and the steps until it was sure by ``margin``, both ``[B]``.

        margin: in the C's own integers (see the header). Raises as `run` does, ToolError where the folder decides
        nothing.
        """
        x = check_input(self.plan.graph.input, x)
        if f"{self.prefix}_decide.c" not in self.files:
            raise ToolError("expected outputs that are scores of classes; this network has none to decide on")
        with self._compiled((), deadline) as program:
            command = [str(program), "--decide", str(margin)]
            decisions = run_program(command, _given(x), what="the compiled network", deadline=deadline)
        classes, steps = np.frombuffer(decisions, "<i4").reshape(x.shape[1], 2).T.astype(np.int32)
        return classes, steps

    @contextmanager
    def _compiled(self, flags: Sequence[str], deadline: float) -> Iterator[Path]:
        with temporary_folder() as folder:
            compile_program(self.files, folder / "net", options=flags, deadline=deadline)
            yield folder / "net"

    def unpack(self, written: NDArray[np.uint8], *, record: bool = False) -> IntegerRun:
        """Unpack the program's output: bytes ``[B, T, 4·outputs + spikes]``, spikes only in a recording build."""
        graph, rows = self.plan.graph, written.swapaxes(0, 1)
        outputs, (steps, samples) = math.prod(graph.output.shape), rows.shape[:2]
        recorded = self.plan.recorded if record else []
        y = np.ascontiguousarray(rows[..., : 4 * outputs]).view("<i4").astype(np.int32)
        spikes = {population.node: _spikes(rows[..., 4 * outputs :], population) for population in recorded}
        return IntegerRun(y.reshape(steps, samples, *graph.output.shape), spikes)

    def _batch(
        self, program: Path, x: NDArray[np.int32], outputs: int, spikes: int, deadline: float
    ) -> NDArray[np.uint8]:
        """Run one batch; return bytes ``[B, T, 4·outputs + spikes]``."""
        steps, samples = x.shape[:2]
        output = run_program([str(program)], _given(x), what="the compiled network", deadline=deadline)
        wanted = samples * steps * (4 * outputs + spikes)
        if len(output) != wanted:
            raise ToolError(f"the compiled network: expected {wanted:,} bytes of output; found {len(output):,}")
        return np.frombuffer(output, np.uint8).reshape(samples, steps, -1)


def _given(x: NDArray[np.int32]) -> bytes:
    steps, samples = x.shape[:2]
    return np.array([samples, steps], "<i4").tobytes() + x.swapaxes(0, 1).astype("<i4").tobytes()


def _spikes(rows: NDArray[np.uint8], population: Recorded) -> NDArray[np.uint8]:
    """Return ``[T, B, *shape]`` in torch's order."""
    spikes = np.empty((*rows.shape[:2], len(population.order)), np.uint8)
    spikes[..., np.array(population.order)] = rows[..., population.offset : population.offset + len(population.order)]
    return spikes.reshape(*rows.shape[:2], *population.shape)
