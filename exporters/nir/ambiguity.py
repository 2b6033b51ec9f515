"""Measure which dialect options matter for a graph: run it under each other choice and count changed outputs.

A file without a dialect leaves the options open. Most make no difference to a given graph and input (an IF net has no
leak; potentials off the threshold do not depend on ``>=``). The user has to decide those that do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.json_twin import JsonTwin
from stl_deploy.errors import StlDeployError
from stl_deploy.exporters.nir.dialect import CHOICES, Dialect
from stl_deploy.exporters.nir.lower import lower, metadata_dialect, own_metadata
from stl_deploy.graph.compare import Tally
from stl_deploy.graph.program import Floats, Program
from stl_deploy.graph.run import run


@dataclass(frozen=True)
class Effect(JsonTwin):
    """Effect of another choice for one option.

    differ: of ``compared`` outputs of spiking neurons (of Output nodes, if nothing spikes), how many change; None if
    the graph cannot be run that way, and ``reason`` says why.
    """

    option: str
    assumed: Any
    instead: Any
    differ: int | None
    compared: int
    reason: str = ""


def effects(
    graph: nir.NIRGraph, x: NDArray[Any] | Mapping[str, NDArray[Any]], dialect: Dialect | None = None
) -> tuple[Effect, ...]:
    """Return the effect of each other choice, largest first; choices without an effect are kept, with 0.

    x: input as for `run`. dialect: the assumption; default: the graph's own, else spec.
    Raises GraphError or InputError if the graph cannot be run as assumed.
    """
    assumed = dialect or metadata_dialect(own_metadata(graph))
    program = lower(graph, assumed)
    expected = _outputs(program, x)
    results = [_effect(graph, x, assumed, option, value, expected) for option, value in _alternatives(assumed)]
    return tuple(sorted(results, key=lambda effect: -(effect.differ or 0)))


def _alternatives(assumed: Dialect) -> list[tuple[str, Any]]:
    choices: dict[str, tuple[Any, ...]] = {
        **CHOICES,
        "spikes_per_step": ("one", "many"),
        "v_min": (None, "-threshold"),
        "dt": (assumed.dt / 10, assumed.dt * 10),
    }
    return [(key, value) for key, values in choices.items() for value in values if value != getattr(assumed, key)]


def _effect(
    graph: nir.NIRGraph, x: Any, assumed: Dialect, option: str, value: Any, expected: Mapping[str, Floats]
) -> Effect:
    compared = sum(array.size for array in expected.values())
    try:
        outputs = _outputs(lower(graph, replace(assumed, **{option: value})), x)
    except StlDeployError as error:
        return Effect(option, getattr(assumed, option), value, None, compared, str(error))
    tally = Tally()
    tally.add(expected, outputs)
    return Effect(option, getattr(assumed, option), value, tally.differing, compared)


def _outputs(program: Program, x: Any) -> dict[str, Floats]:
    names = [node.name for node in program.spiking] or [node.name for node in program.outputs]
    return {name: np.asarray(array) for name, array in run(program, x, record=names).recorded.items()}
