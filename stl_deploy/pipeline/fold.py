"""Fold in memory: the Program of a file, or of a captured module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stl_deploy._util.files import first_samples, leading
from stl_deploy.config.options import FoldOptions
from stl_deploy.errors import CaptureError, UnsupportedError
from stl_deploy.exporters.nir.lower import own_metadata
from stl_deploy.exporters.nir.patch import to_graph
from stl_deploy.exporters.nir.write import write_anew
from stl_deploy.graph.exact import input_grid as declared_grid
from stl_deploy.graph.findings import kept_thresholds
from stl_deploy.graph.program import Pool, Program
from stl_deploy.graph.run import NetworkInput, run
from stl_deploy.passes import CAPTURED, FOREIGN, apply
from stl_deploy.passes.base import Rewritten
from stl_deploy.passes.narrow import NotFiniteError

_COMPARED = 2**20
"""Spikes and silences that `fold_warnings` compares at most, beyond one sample."""


@dataclass(frozen=True, eq=False)
class Folded:
    """A folded Program; one that came as a NIR graph is read back from its folded graph.

    merged: the pools that went into weights. restated: whether its graph's nodes had to be written anew, because the
    nodes that it was read from cannot hold the change. kept: why neurons keep their thresholds (see `Rewritten`).
    """

    program: Program
    merged: tuple[str, ...]
    restated: bool
    kept: Mapping[str, str]


def fold(program: Program, options: FoldOptions, bound: float = 1.0) -> Folded:
    """Fold into a new Program, equal up to rounding: pools and thresholds into weights, weights onto exact grids.

    options: exact_grid (None: yes) rounds weights and biases where the grid of what arrives is known. input_grid: the
    input is multiples of 2^-input_grid up to ``bound``; default: as the graph's metadata declare.
    Raises UnsupportedError where a pool or threshold cannot go into weights, InputError for a wrong grid, ParityError
    where the new graph spikes otherwise than rounding explains.
    """
    before = replace(program, metadata=_declared(program.metadata, options.input_grid, bound))
    folded = apply(before, FOREIGN, options)
    merged = tuple(name for name in folded.removed if isinstance(before.by_name[name], Pool))
    made = replace(folded.program, metadata={**folded.program.metadata, **_done(folded, options)})
    if made.origin is None:
        return Folded(made, merged, False, folded.kept)
    try:
        written = to_graph(made)
    except CaptureError:  # edges that a fold moved into a loop have no place in NIR: it goes on as a Program
        return Folded(replace(made, origin=None), merged, True, folded.kept)
    read = replace(written.program, metadata=own_metadata(written.graph))
    return Folded(read, merged, written.how == "restated", folded.kept)


def fold_warnings(before: Program, folded: Folded, options: FoldOptions, x: NetworkInput | None) -> Iterator[str]:
    """Yield what a fold kept, what it rounded, and a neuron whose spikes on ``x`` thresholds in weights moved."""
    yield from kept_thresholds(folded.kept)
    if options.delays == "steps":
        yield from folded.program.metadata.get("delays", ())
    if options.thresholds == "weights" and x is not None:
        on_grid = {key: value for key, value in folded.program.metadata.items() if key == "input"}
        declared = replace(before, metadata={**before.metadata, **on_grid})
        kept = apply(declared, FOREIGN, replace(options, thresholds="keep"), check=False).program
        yield from _moved(kept, folded.program, x)


def _moved(kept: Program, after: Program, x: NetworkInput) -> Iterator[str]:
    """Yield a sentence on the first neuron whose spikes differ on a few samples of ``x``."""
    part = first_samples(x, min(leading(x)[1], kept.samples_within(_COMPARED, leading(x)[0])))
    names = [neuron.name for neuron in kept.spiking if neuron.name in after.by_name]
    theirs, ours = (run(program, part, record=names).recorded for program in (kept, after))
    for name in names:
        if differing := int(np.count_nonzero(theirs[name] != ours[name])):
            yield (
                f"thresholds in weights: {differing:,} of {ours[name].size:,} spikes and silences of '{name}' differ "
                "on the sample, where potentials meet a threshold: dividing weights by it rounds, unless it is a power "
                "of 2; train such thresholds, or keep them: fold()"
            )
            return


def _declared(metadata: Mapping[str, Any], input_grid: int | None, bound: float) -> dict[str, Any]:
    """Return metadata that declare the input's grid, if there is one; raise InputError for an invalid one."""
    kept = dict(metadata)
    if input_grid is not None:
        coding = "analog" if input_grid else "spikes" if bound <= 1 else "graded"
        kept["input"] = {"coding": coding} | kept.get("input", {}) | {"fraction_bits": input_grid, "max": bound}
        declared_grid(kept)
    return kept


def _done(folded: Rewritten, options: FoldOptions) -> dict[str, Any]:
    """Return the metadata of a fold."""
    done: dict[str, Any] = {"thresholds": "weights"} if options.thresholds == "weights" else {}
    if folded.kept:
        done["thresholds_kept"] = sorted(folded.kept)
    if folded.notes:
        done["delays"] = list(folded.notes)
    if folded.grids:
        done["grid"] = {grid.node: grid.fraction_bits for grid in folded.grids}
    return done


def fold_layers(layers: Program) -> Rewritten:
    """Fold the layers of a captured module, and read the result back from its NIR graph, if there is one.

    Raises CaptureError for a layer that a pass cannot take apart, or numbers that are not finite; ParityError where a
    pass changes what it must not.
    """
    try:
        folded = apply(layers, CAPTURED)
    except UnsupportedError as error:
        raise CaptureError(f"layer '{error.node}' {error.reason}; {error.remedy}", layer=error.node) from None
    except NotFiniteError as error:
        raise CaptureError(str(error), layer=error.node) from None
    with suppress(CaptureError, UnsupportedError):  # NIR cannot hold it
        return replace(folded, program=write_anew(folded.program).program)
    return folded
