"""Does real Lava spike as our integer model predicts, on the very file?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stl_deploy.exporters.lava.target import run_lava
from stl_deploy.exporters.netx.convert import run_file
from stl_deploy.exporters.netx.file import read_netx
from stl_deploy.exporters.netx.model import NetxModel, by_node
from stl_deploy.graph.compare import Tally
from stl_deploy.graph.readout import share_right
from stl_deploy.graph.run import Result
from stl_deploy.integers.real_weights import to_integers


@dataclass(frozen=True)
class Agreement:
    """Spikes of every layer on Lava's CPU simulation against ours. accuracy: Lava's; seconds: that Lava took."""

    samples: int
    steps: int
    compared: int
    differing: int
    accuracy: float | None
    seconds: float


def against_lava(
    model: NetxModel,
    path: Path,
    x: NDArray[Any],
    labels: NDArray[Any] | None = None,
    *,
    deadline: float,
    progress: Callable[[int, int], None] | None = None,
) -> Agreement:
    """Run the netx file of ``model`` on real Lava and on our integer model for real input ``x`` ``[T, B, *shape]``.

    Raises as `run_lava` does.
    """
    whole = to_integers(x, model.input_scale)
    start = time.perf_counter()
    lava = run_lava(path, whole, deadline=deadline, progress=progress)
    seconds = time.perf_counter() - start
    ours = run_file(read_netx(path), whole, record=True).spikes
    tally = Tally()
    tally.add(ours, lava.spikes)
    return Agreement(
        samples=x.shape[1],
        steps=x.shape[0],
        compared=tally.compared,
        differing=tally.differing,
        accuracy=share_right(Result({"output": by_node(model, lava).y}, {}), labels),
        seconds=seconds,
    )
