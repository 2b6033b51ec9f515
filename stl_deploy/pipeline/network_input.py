"""Prepare a network's input: on the declared grid, random by default, limited in size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.console import Console
from stl_deploy._util.files import first_samples, leading
from stl_deploy._util.remedies import named, option, remedy
from stl_deploy._util.units import counted
from stl_deploy.errors import InputError
from stl_deploy.graph.exact import MANTISSA_BITS, random_input, require_on_grid, round_to_grid
from stl_deploy.graph.program import Program
from stl_deploy.graph.run import NetworkInput

_RANDOM_STEPS, _RANDOM_SAMPLES = 16, 8
MOST_COMPARED = 250_000_000
"""Spikes and silences of all layers that runs keep to be compared: about 4 GB with three runs."""


def drawn(program: Program) -> tuple[NetworkInput, str]:
    """Draw random values from a fixed seed on the Program's declared grid (0 or 1 by default), with a description."""
    rng = np.random.default_rng(0)
    made = {
        node.name: random_input(rng, program.metadata, (_RANDOM_STEPS, _RANDOM_SAMPLES, *node.shape))
        for node in program.inputs
    }
    what = (
        f"{_RANDOM_SAMPLES} random samples of {_RANDOM_STEPS} steps (give real ones with "
        f"{remedy(cli='--input X.npz', python='x=')})"
    )
    return (next(iter(made.values())) if len(made) == 1 else made), what


def compared(
    program: Program, x: NetworkInput, labels: NDArray[np.int64] | None, name: str
) -> tuple[NetworkInput, NDArray[np.int64] | None, str]:
    """Return as many of the first samples as `MOST_COMPARED` allows, one at least; in words, as of ``name``."""
    steps, samples = leading(x)
    count = program.samples_within(MOST_COMPARED, steps)
    if count >= samples:
        return x, labels, f"{counted(samples, 'sample')} of {name}"
    these = f"the first {count:,} of {counted(samples, 'sample')} of {name}"
    what = f"{these} (no more spikes are compared at once)"
    return first_samples(x, count), None if labels is None else labels[:count], what


def on_declared_grid(program: Program, x: NetworkInput, bits: int | None, say: Console) -> tuple[Program, NetworkInput]:
    """Declare the Program's input as multiples of 2^-bits up to the largest in ``x``, and round ``x`` to them.

    bits None: both as they are; raises InputError where ``x`` is off the grid that the Program declares.
    Raises InputError for bits outside 0…24, for several inputs, or if nothing but zeros is left.
    """
    if bits is None:
        require_on_grid(program, x)
        return program, x
    if isinstance(x, Mapping):
        raise InputError(f"{named('input_grid')} is of networks with one input; the graph has {', '.join(x)}")
    check_bits(bits)
    rounded = round_to_grid(x, bits)
    bound = float(np.abs(rounded).max(initial=0))
    if not bound:
        raise InputError(f"{option('input_grid', bits)}: every value of the input rounds to 0; use more bits")
    moved = float(np.abs(rounded - np.asarray(x, np.float32)).max(initial=0))
    say.say(f"input rounded to multiples of 2^-{bits}; no value moved by more than {moved:.3g}")
    declared = {"fraction_bits": bits, "max": max(bound, 1.0)}
    return replace(program, metadata={**program.metadata, "input": declared}), rounded


def check_bits(bits: int) -> None:
    """Raise InputError for bits outside 0…24."""
    if not 0 <= bits <= MANTISSA_BITS:
        raise InputError(f"{option('input_grid', bits)}: expected 0 to {MANTISSA_BITS} fraction bits")
