"""Passes rewrite a Program: one per file, each with its algebra, its refusals and its exactness.

    folded = apply(program, OWN, FoldOptions(thresholds="weights"))

They work in float64 and round once: to a grid on which float32 sums are exact, else to float32. `apply` checks each
pass by running the Program before and after it (see `equivalence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stl_deploy.config.options import FoldOptions
from stl_deploy.errors import StlDeployError
from stl_deploy.graph.program import Program
from stl_deploy.passes import (
    absorb_permutations,
    exact_grids,
    flatten_late,
    fold_affine,
    fold_norms,
    fold_scales,
    fold_thresholds,
    fuse_linears,
    fuse_synapses,
    lower_max_pools,
    materialise_delays,
    merge_delays,
    merge_pools,
    narrow,
    norms_before_orders,
    representable_decays,
    round_delays,
    split_concats,
    start_at_leak,
    strict_comparison,
    widen,
)
from stl_deploy.passes.base import LayerGrid, Pass, Rewritten
from stl_deploy.passes.equivalence import Arrived, require_equivalent
from stl_deploy.passes.permutations import Permutations, composed

OWN: tuple[Pass, ...] = (
    fold_norms.PASS,
    lower_max_pools.PASS,
    fold_thresholds.PASS,
    representable_decays.PASS,
    exact_grids.PASS,
    narrow.PASS,
    strict_comparison.PASS,
)
"""Passes that bring the Program of a trained network to NIR's nodes, on exact grids."""
FOREIGN: tuple[Pass, ...] = (
    widen.PASS,
    round_delays.PASS,
    replace(merge_delays.PASS, wanted=round_delays.PASS.wanted),
    fold_affine.PASS,
    merge_pools.PASS,
    fold_scales.OF_SUMS,
    fold_scales.PASS,
    fold_thresholds.PASS,
    exact_grids.PASS,
    narrow.PASS,
)
"""Passes that `fold` applies to a network that came as a file."""
CAPTURED: tuple[Pass, ...] = (
    norms_before_orders.PASS,
    fold_norms.PASS,
    split_concats.PASS,
    lower_max_pools.PASS,
    flatten_late.PASS,
    absorb_permutations.PASS,
    fuse_linears.PASS,
    start_at_leak.PASS,
    merge_delays.PASS,
    materialise_delays.PASS,
    fuse_synapses.PASS,
    narrow.PASS,
)
"""Passes that bring the Program of a captured module to NIR's nodes."""


def apply(
    program: Program, recipe: Sequence[Pass], options: FoldOptions | None = None, *, check: bool = True
) -> Rewritten:
    """Run the passes of a recipe that the options request, in order.

    check: run the Program before and after each pass, on drawn spikes. Returns the Program in running order.
    Raises the first refusal of a pass (UnsupportedError, InputError or CaptureError, naming the node), or ParityError
    where a pass changed more than its exactness explains.
    """
    wanted = [rewriting for rewriting in recipe if rewriting.wanted(options or FoldOptions())]
    places: Permutations = {}
    grids: tuple[LayerGrid, ...] = ()
    removed: tuple[str, ...] = ()
    kept: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    known: Arrived | None = None
    for rewriting in wanted:
        for error in rewriting.refusals(program):
            raise error
        made = rewriting.run(program)
        kept |= made.kept
        notes += made.notes
        if made.program is program:
            continue
        if rewriting.exactness == "asked":
            known = None
        elif check:
            how: dict[str, Any] = {"exactness": rewriting.exactness, "places": made.places, "grids": made.grids}
            known = require_equivalent(program, made.program, by=rewriting.name, known=known, **how)
        program, places, removed = made.program, composed(places, made.places), (*removed, *made.removed)
        grids += () if rewriting is narrow.PASS else made.grids
    return Rewritten(program, places, grids, removed, kept, notes)


def thresholds_go_into_weights(program: Program, neuron: str) -> bool:
    """Return whether a fold brings the thresholds of a population into its weights, so that each is 1."""
    try:
        options = FoldOptions(thresholds="weights", exact_grid=False)
        return neuron not in apply(program, FOREIGN, options, check=False).kept
    except StlDeployError:
        return False
