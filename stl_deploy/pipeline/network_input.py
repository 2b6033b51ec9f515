"""Prepare a network's input: on the declared grid, random by default, limited in size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.caller import warn_caller
from stl_deploy._util.console import Console
from stl_deploy._util.files import first_samples, leading, part_of
from stl_deploy._util.remedies import named, option, remedy
from stl_deploy._util.units import counted
from stl_deploy.errors import InputError
from stl_deploy.graph.axis_order import axes_in_doubt
from stl_deploy.graph.exact import (
    MANTISSA_BITS,
    held_to_grid,
    input_grid,
    is_image,
    random_input,
    require_no_image,
    round_to_grid,
)
from stl_deploy.graph.program import CAPTURED, Program
from stl_deploy.graph.run import NetworkInput
from stl_deploy.pipeline.conversion import Conversion

X = TypeVar("X", bound=NetworkInput)
_RANDOM_STEPS, _RANDOM_SAMPLES = 16, 8
MOST_COMPARED = 250_000_000
"""Spikes and silences of all layers that runs keep to be compared: about 4 GB with three runs."""


class ProgramInput(NamedTuple):
    """A network's input, its labels if there are any, its description in words, and whether it was drawn at random."""

    x: NetworkInput
    labels: NDArray[np.int64] | None
    what: str
    is_random: bool = False


def drawn(program: Program) -> ProgramInput:
    """Draw random values from a fixed seed on the Program's declared grid (0 or 1 by default)."""
    rng = np.random.default_rng(0)
    made = {
        node.name: random_input(rng, program.metadata, (_RANDOM_STEPS, _RANDOM_SAMPLES, *node.shape))
        for node in program.inputs
    }
    what = (
        f"{_RANDOM_SAMPLES} random samples of {_RANDOM_STEPS} steps (give real ones with "
        f"{remedy(cli='--input X.npz', python='x=')})"
    )
    return ProgramInput(next(iter(made.values())) if len(made) == 1 else made, None, what, is_random=True)


def compared(program: Program, x: NetworkInput, labels: NDArray[np.int64] | None, name: str) -> ProgramInput:
    """Return as many of the first samples of ``name`` as `MOST_COMPARED` allows, one at least."""
    steps, samples = leading(x)
    count = program.samples_within(MOST_COMPARED, steps)
    if count >= samples:
        return ProgramInput(x, labels, f"{counted(samples, 'sample')} of {name}")
    these = f"the first {count:,} of {counted(samples, 'sample')} of {name}"
    what = f"{these} (no more spikes are compared at once)"
    return ProgramInput(first_samples(x, count), None if labels is None else labels[:count], what)


def first_steps(x: NetworkInput, what: str, count: int | None) -> tuple[NetworkInput, str]:
    """Return the first ``count`` steps of x, and its description in words; None: all."""
    steps, _ = leading(x)
    if count is None or count >= steps:
        return x, what
    return part_of(x, slice(count)), f"{what}, the first {count:,} of {counted(steps, 'step')}"


def on_declared_grid(program: Program, x: NetworkInput, bits: int | None, say: Console) -> tuple[Program, NetworkInput]:
    """Declare the Program's input as multiples of 2^-bits up to the largest in ``x``, and round ``x`` to them.

    bits None: rounds to the grid that the Program declares, if any, as `held_to_grid` does.
    Raises InputError for bits outside 0…24, for several inputs, or if nothing but zeros is left.
    """
    if bits is None:
        held = held_to_grid(program, x, _another_grid())
        if held is not x:
            say.say(f"input rounded to {_multiples(program)}, as the graph declares")
        return program, held
    if isinstance(x, Mapping):
        raise InputError(f"{named('input_grid')} applies to networks with one input; the graph has {', '.join(x)}")
    bits = checked_bits(bits)
    declared = input_grid(program.metadata)
    if declared is not None:
        require_no_image(np.asarray(x), declared)
    rounded = round_to_grid(x, bits)
    bound = float(np.abs(rounded).max(initial=0))
    if not bound:
        raise InputError(f"{option('input_grid', bits)}: every value of the input rounds to 0; use more bits")
    moved = float(np.abs(rounded - np.asarray(x, np.float32)).max(initial=0))
    how_far = f"by up to {moved:.3g}, to" if moved else "by nothing: every value is already one of the"
    say.say(f"input rounded {how_far} multiples of 2^-{bits}")
    stated = {"fraction_bits": bits, "max": max(bound, 1.0)}
    return replace(program, metadata={**program.metadata, "input": stated}), rounded


def on_grid_of(sample: NetworkInput | None, bits: int | None) -> tuple[NetworkInput | None, float]:
    """A network's own sample as multiples of 2^-bits, and the largest magnitude in it, 1 at least.

    Raises InputError for 8-bit images that are rounded to fractions: their levels are integers.
    """
    if bits is None or sample is None or isinstance(sample, Mapping):
        return sample, 1.0
    bits = checked_bits(bits)
    if bits and is_image(sample):
        raise InputError(
            f"{option('input_grid', bits)}: the network was captured on integers up to {sample.max():g}, as 8-bit "
            f"images hold; give {option('input_grid', 0)}, or capture it on x / 255 if it was trained on that"
        )
    rounded = round_to_grid(sample, bits)
    return rounded, max(float(np.abs(rounded).max(initial=0)), 1.0)


_MADE = ("bool", "uint8", "int8", "int16", "int32", "int64")


def check_numbers(program: Program, x: NetworkInput) -> None:
    """Warn of 8-bit images, 0 to 255, where the graph was captured on values up to 1, or says nothing of its input.

    Raises InputError for numbers that the captured module would change, as it makes integers of its input, and for
    images where the graph declares a grid of values up to 1.
    """
    captured = program.metadata.get(CAPTURED)
    made = captured.get("made") if isinstance(captured, Mapping) else None
    for array in (x.values() if isinstance(x, Mapping) else [np.asarray(x)]) if made in _MADE else ():
        with np.errstate(invalid="ignore"):
            # 300 becomes 44 in uint8, and nan any integer: whatever does not come back was changed
            kept = array.astype(made).astype(array.dtype) == array
        if not kept.all():
            raise InputError(
                f"expected x that stays the same as {made}, which the captured module makes of its input; found other "
                "numbers; give x as what it is made"
            )
    largest = captured.get("largest") if isinstance(captured, Mapping) else None
    declared = input_grid(program.metadata)
    for array in x.values() if isinstance(x, Mapping) else [np.asarray(x)]:
        known = isinstance(largest, int | float) and largest <= 1
        unknown = largest is None and array.dtype == np.uint8 and declared is None
        if declared is not None:
            require_no_image(array, declared)
        if (known or unknown) and is_image(array):
            learnt = f"the graph was captured on values up to {largest:g}" if known else "the graph declares no grid"
            warn_caller(
                f"x holds integers up to {array.max():g}, as 8-bit images do, and {learnt}: if the network was trained "
                "on values up to 1, give x / 255"
            )


def presented(program: Program, x: X) -> X:
    """Return the input of a converted network at its steps: samples ``[B, *shape]`` are shown at each of them.

    8-bit images become x / 255, as in the conversion. Other networks' input is returned as it is.
    Raises InputError for another number of steps.
    """
    conversion = Conversion.of(program.metadata)
    if conversion is None or isinstance(x, Mapping):
        return x
    steps, shape = conversion.steps, program.inputs[0].shape
    if x.shape[1:] == shape:
        shown: Any = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x
        shown = np.broadcast_to(shown, (steps, *shown.shape))
        return shown  # type: ignore[no-any-return]
    if x.ndim == len(shape) + 2 and len(x) != steps:
        sizes = ", ".join(map(str, shape))
        raise InputError(
            f"expected samples [B, {sizes}], or {counted(steps, 'step')} of them, [{steps}, B, {sizes}], as the "
            f"network was converted for; found {list(x.shape)}"
        )
    return x


def checked_sequence(program: Program, x: NetworkInput, *, known: bool) -> NetworkInput:
    """Return the input of a graph; warn, unless its axes are known, of x that may be in its module's order."""
    x = presented(program, x)
    check_numbers(program, x)
    if not known and (doubt := axes_in_doubt(program.metadata, x)) is not None:
        warn_caller(doubt)
    return x


class OnGrid:
    """Round the input of a graph to the grid that it declares, and warn the first time that values move."""

    def __init__(self, program: Program) -> None:
        self._program, self._warned = program, False

    def __call__(self, x: NetworkInput, *, step: bool = False) -> NetworkInput:
        """Return input, of one step or a sequence, on the grid; raise InputError as `held_to_grid` does."""
        held = held_to_grid(self._program, x, "" if step else _another_grid())
        if held is not x and not self._warned:
            self._warned = True
            warn_caller(f"x is rounded to {_multiples(self._program)}, as the graph declares; shown once")
        return held


def _another_grid() -> str:
    return f"; {option('input_grid', 'BITS')} declares another"


def _multiples(program: Program) -> str:
    grid = input_grid(program.metadata)
    assert grid is not None
    return f"multiples of 2^-{grid.fraction_bits}"


def checked_bits(bits: int) -> int:
    """Return the fraction bits, also numpy's, as Python's int; raise InputError for bits outside 0…24."""
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer) or not 0 <= bits <= MANTISSA_BITS:
        raise InputError(f"{option('input_grid', bits)}: expected 0 to {MANTISSA_BITS} fraction bits")
    return int(bits)
