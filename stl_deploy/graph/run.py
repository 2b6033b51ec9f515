"""The reference run: a Program in numpy, float32, node by node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from stl_deploy.graph.program import Floats, Node, Program

Observer = Callable[[Node, Floats, Floats], None]
"""Called once per node and batch chunk with (node, summed input, output), each ``[T, B, *shape]``.

For an Input node the input is the output. Observers that add things up may be called several times
per node when the run is chunked over samples.
"""


@dataclass(frozen=True)
class Result:
    """What a run put out. ``outputs``: one ``[T, B, *shape]`` array per Output node; ``recorded``: per node asked for."""

    outputs: Mapping[str, Floats]
    recorded: Mapping[str, Floats]

    @property
    def y(self) -> Floats:
        """The only output's array."""
        (only,) = self.outputs.values()
        return only


def run(
    program: Program,
    x: NDArray[Any] | Mapping[str, NDArray[Any]],
    *,
    record: Collection[str] = (),
    observe: Observer | None = None,
    chunk: int | None = None,
) -> Result:
    """Run ``program`` on ``x`` ``[T, B, *input shape]`` (one array, or one per Input node).

    record: names of nodes whose outputs are kept. observe: see `Observer`.
    chunk: samples run at a time (None: all), to bound memory.
    Raises InputError if x does not fit the inputs.
    """
    raise NotImplementedError
