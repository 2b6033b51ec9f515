"""Name the fold that takes a refusal away, where one does: it is tried, and what is left is asked for again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from stl_deploy._util.remedies import remedy
from stl_deploy.config.options import FoldOptions
from stl_deploy.errors import StlDeployError, UnsupportedError
from stl_deploy.graph.check import on_a_grid
from stl_deploy.graph.program import Program
from stl_deploy.passes import FOREIGN, apply

Refusals = Callable[[Program], Iterable[UnsupportedError]]
_INTEGERS = {"coding": "analog", "fraction_bits": 0, "max": 1.0}


def with_fold(
    program: Program, errors: Sequence[UnsupportedError], asked: Refusals, slugs: Collection[str]
) -> list[UnsupportedError]:
    """Return refusals with the call of fold as the remedy of those of ``slugs`` that it takes away, and of no other.

    asked: the refusals of a Program, without this.
    """
    if not any(error.slug in slugs for error in errors):
        return [*errors]
    calls = dict[str, str]()
    for call, options, unfolded in _folds(program):
        try:
            after = apply(unfolded, FOREIGN, options, check=False).program
            left = {error.node for error in asked(after) if error.slug in slugs}
        except StlDeployError:
            continue
        for error in errors:
            if error.node not in left:
                calls.setdefault(error.node, call)
    taken_away = []
    for error in errors:
        call = calls.get(error.node, "") if error.slug in slugs else ""
        taken_away.append(error.with_remedy(f"fold the network: {call}") if call else error)
    return taken_away


def _folds(program: Program) -> Iterator[tuple[str, FoldOptions, Program]]:
    """Yield each fold: its call, its options, and the Program that it starts from, with a grid of the input or without.

    A grid bounds the input, so that offsets are merged, too; that of an export is none of the file.
    """
    without = {key: value for key, value in program.metadata.items() if key != "input"}
    plain = replace(program, metadata=without)
    how = remedy(cli="stl-deploy fold SOURCE -o FOLDED.nir", python="net.fold()")
    yield how, FoldOptions(exact_grid=False), plain
    weights = remedy(
        cli="stl-deploy fold SOURCE --thresholds weights -o FOLDED.nir", python='net.fold(thresholds="weights")'
    )
    yield weights, FoldOptions(thresholds="weights", exact_grid=False), plain
    yield on_a_grid(), FoldOptions(exact_grid=False), replace(program, metadata={**without, "input": _INTEGERS})
