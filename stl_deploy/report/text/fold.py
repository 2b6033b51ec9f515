"""What folding did, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stl_deploy._util.console import Console
from stl_deploy._util.units import counted

if TYPE_CHECKING:
    from stl_deploy.runs.folded_run import FoldedRun


def show(done: FoldedRun, say: Console) -> None:
    """The grids, and whether every sum is proved exact."""
    for grid in done.folded.grids:
        say.say(
            f"{grid.node}: weights on multiples of 2^-{grid.fraction_bits}, sums need {grid.bits:.1f} of 24 bits, "
            f"largest change {grid.largest_change:.1e}"
        )
    unproved = [proof for proof in done.proofs if not proof.exact]
    if unproved:
        say.warn(f"not proved exact: {counted(len(unproved), 'sum')} (first: {unproved[0].node}: {unproved[0].reason})")
    else:
        say.say("every float32 sum is proved exact: all backends must agree bit for bit")
