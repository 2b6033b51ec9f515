"""Prove that every backend computes the same bits: the exact grid.

Float32 holds every multiple of 2^-f up to a magnitude of 2^(24-f), for f up to 149 and magnitudes below 2^128. If a
layer's weights, biases and inputs are multiples of a power of two and the sum of all magnitudes fits, every partial sum
is exact in any order, with or without fused multiply-add. So any two libraries that add these terms agree bit for bit.
The neuron's step is a fixed list of elementwise float32 operations and agrees by IEEE 754.

Algorithms that form other sums are not covered: Winograd and FFT convolutions (including NNPACK's, which torch uses
without oneDNN), reduced precision (TF32, bfloat16), and libraries that flush numbers below 2^-126 to zero.

The proof reads the Program itself, so it holds for the file's weights, whoever rounded them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.json_twin import JsonTwin
from stl_deploy._util.remedies import option
from stl_deploy.errors import InputError
from stl_deploy.graph import program as ir
from stl_deploy.graph.program import Floats

MANTISSA_BITS = 24
"""Integers up to 2^24 are exact in float32."""
_MANTISSAS: dict[np.dtype[Any], tuple[type[Any], int]] = {
    np.dtype(np.float32): (np.uint32, 2**23 - 1),
    np.dtype(np.float64): (np.uint64, 2**52 - 1),
}
"""The words that floats are, and the part that is the mantissa, by type."""
MOST_COUNTS = 31
"""Spikes that one input counts in a step at most; larger integers in x are levels, of images for example."""
_AT_ONCE = 2**16
"""Values that a processor's cache holds."""


@dataclass(frozen=True)
class Grid:
    """Values are multiples of 2^-fraction_bits with a magnitude of at most ``bound``."""

    fraction_bits: int
    bound: float

    @property
    def bits(self) -> float:
        """Bits that the largest value needs; exact in float32 up to `MANTISSA_BITS`."""
        return float(np.log2(max(self.bound, 2.0**-149))) + self.fraction_bits


@dataclass(frozen=True)
class NodeProof(JsonTwin):
    """Whether one node's sums are exact, with the bits needed, or the reason why that is not known."""

    node: str
    exact: bool
    bits: float | None
    reason: str


SPIKES = Grid(0, 1.0)


def input_grid(metadata: Mapping[str, Any]) -> Grid | None:
    """Return the grid that the graph's metadata declares for its input; None if it declares none.

    Raises InputError for a declaration that is not a number of bits and a bound.
    """
    declared = metadata.get("input", {})
    if not isinstance(declared, Mapping) or "fraction_bits" not in declared:
        return None
    bits, bound = declared["fraction_bits"], declared.get("max", 1.0)
    numbers = isinstance(bits, int) and isinstance(bound, int | float) and bool not in (type(bits), type(bound))
    if not numbers or not 0 <= bits <= MANTISSA_BITS or not 0 < bound < math.inf:
        raise InputError(f"graph metadata 'input': expected fraction_bits 0…24 and max > 0; found {dict(declared)}")
    return Grid(bits, float(bound))


def with_input(
    metadata: Mapping[str, Any], declared: Mapping[str, Any] | None, seen: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return metadata with what is known of the input: as declared now, else their grid, else as x shows (seen).

    Integers in x do not make spikes that the metadata promise into counts.
    """
    if declared is not None:
        return {**metadata, "input": dict(declared)}
    if seen is None or input_grid(metadata) is not None:
        return dict(metadata)
    stated = metadata.get("input")
    stated = stated if isinstance(stated, Mapping) else {}  # a file's, which may hold anything
    promised = stated.get("coding") == "spikes" and seen["coding"] == "graded"
    return dict(metadata) if promised else {**metadata, "input": {**stated, **seen}}


def input_bits(metadata: Mapping[str, Any]) -> int | None:
    """Return the declared fraction bits of real input; None if the metadata declare none."""
    grid = input_grid(metadata)
    return None if grid is None else grid.fraction_bits or None


def input_scale(program: ir.Program) -> float:
    """Return the factor from real input to integers: the declared input grid, else 1."""
    grid = input_grid(program.metadata)
    return 2.0**grid.fraction_bits if grid is not None else 1.0


def prove_exact(program: ir.Program) -> tuple[NodeProof, ...]:
    """Return one proof for each node that adds or multiplies, in order; inputs as the metadata declare."""
    known = grids(program)
    kinds = ir.Linear | ir.Conv | ir.Pool | ir.Norm | ir.Product
    return tuple(
        _judge(node, _arriving(node, known) if isinstance(node, ir.Neuron) else known.get(node.name))
        for node in program.nodes
        if isinstance(node, kinds) or _adds(node)
    )


def grids(program: ir.Program) -> dict[str, Grid | None]:
    """Return the grid of each node's output; nodes in a loop without spikes have none, as their input is unbounded."""
    known: dict[str, Grid | None] = {n.name: SPIKES for n in program.compared if ir.is_binary(program, n.name)}
    known |= {node.name: Grid(0, node.cap) for node in program.spiking if node.multi_spike and node.cap is not None}
    waiting = [node for node in program.nodes if node.name not in known]
    while waiting:
        blocked = []
        for node in waiting:  # in running order, so that a pass goes all the way down a chain
            if all(source.node in known for source in node.operands):
                known[node.name] = output_grid(node, _arriving(node, known), program.metadata)
            else:
                blocked.append(node)
        if len(blocked) == len(waiting):
            break
        waiting = blocked
    return known


def _adds(node: ir.Node) -> bool:
    return len(node.operands) > 1 and node.combine == "add"


def _arriving(node: ir.Node, known: Mapping[str, Grid | None]) -> Grid | None:
    parts = [known.get(source.node) for source in node.operands]
    total = sum_grids(parts)
    if total is None or node.combine == "add":
        return total
    return Grid(total.fraction_bits, max(part.bound for part in parts if part is not None))


def on_grid(x: NDArray[Any], grid: Grid) -> bool:
    """Return whether every value of ``x`` lies on the grid and within its bound."""
    for part in _parts(np.asarray(x)):
        exact = part.astype(np.float64)
        scaled = exact * 2.0**grid.fraction_bits
        if not ((scaled == np.rint(scaled)).all() and (np.abs(exact) <= grid.bound).all()):
            return False
    return True


def held_to_grid(
    program: ir.Program, x: NDArray[Any] | Mapping[str, NDArray[Any]], remedy: str = ""
) -> NDArray[Any] | Mapping[str, NDArray[Any]]:
    """Return the input on the grid that the Program declares: real numbers as their nearest multiples.

    Returns ``x`` itself where no value moves, or no grid is declared. remedy: ends the sentence of an error.

    Raises:
        InputError: For values beyond the grid's bound, fractions where the grid is one of integers, and 8-bit images.
    """
    grid = input_grid(program.metadata)
    if grid is None:
        return x
    if isinstance(x, Mapping):
        held = {name: _held(array, grid, remedy) for name, array in x.items()}
        return held if any(held[name] is not array for name, array in x.items()) else x
    return _held(x, grid, remedy)


def _held(x: NDArray[Any], grid: Grid, remedy: str) -> NDArray[Any]:
    if x.dtype.kind not in "fiub" or on_grid(x, grid):
        return x
    require_no_image(x, grid)
    if grid.fraction_bits:
        with np.errstate(over="ignore"):
            rounded = round_to_grid(x, grid.fraction_bits)
        if on_grid(rounded, grid):
            return rounded
    values = f"multiples of 2^-{grid.fraction_bits}" if grid.fraction_bits else "integers"
    raise InputError(
        f"the input is not on the grid that the graph declares, {values} up to {grid.bound:g}, the only grid on which "
        f"its sums are proved exact; found other values up to {np.abs(x).max(initial=0):g}{remedy}"
    )


def is_image(x: NDArray[Any]) -> bool:
    """Return whether ``x`` looks like 8-bit images: integers from 0 to at most 255, more than counts of spikes hold."""
    largest = x.max(initial=0)
    return bool(MOST_COUNTS < largest <= 255 and x.min(initial=0) >= 0 and (x == np.trunc(x)).all())


def require_no_image(x: NDArray[Any], grid: Grid) -> None:
    """Raise InputError for 8-bit images where the grid is one of values up to 1, to which they must be scaled."""
    if grid.bound <= 1 and grid.fraction_bits and is_image(x):
        raise InputError(
            f"x holds integers up to {x.max():g}, as 8-bit images do, and the graph takes values up to {grid.bound:g}; "
            f"give x / 255 with {option('input_grid', grid.fraction_bits)}"
        )


def round_to_grid(x: NDArray[Any], fraction_bits: int) -> Floats:
    """Return the nearest multiples of 2^-fraction_bits, as float32 (halves to even)."""
    given = np.asarray(x)
    rounded = np.empty(given.shape, np.float32)
    for part, to in zip(_parts(given), _parts(rounded), strict=True):
        scaled = part.astype(np.float64, copy=False) * 2.0**fraction_bits
        to[:] = np.divide(np.rint(scaled, out=scaled), 2.0**fraction_bits, out=scaled)
    return rounded


def largest_difference(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return the largest magnitude of the differences, in float64, of two arrays of one shape."""
    pairs = zip(_parts(x), _parts(y), strict=True)
    parts = [np.abs(np.subtract(a, b, dtype=np.float64)).max() for a, b in pairs]
    return float(np.max(parts, initial=0.0))  # NaN in any part, which Python's max passes over


def random_input(rng: np.random.Generator, metadata: Mapping[str, Any], size: Sequence[int]) -> Floats:
    """Draw values on the declared grid; for a grid of 0 and 1 alone, or none, 1 with rate 0.3."""
    grid = input_grid(metadata)
    if grid is None or (grid.fraction_bits == 0 and grid.bound == 1):
        return (rng.random(size) < 0.3).astype(np.float32)
    return round_to_grid(rng.random(size) * grid.bound, grid.fraction_bits)


def fraction_bits(values: NDArray[Any], enough: float = math.inf) -> int:
    """Return the least f so that all values are multiples of 2^-f (negative for larger powers of two).

    enough: once some values need more bits, return theirs without looking at the rest.
    """
    given = np.asarray(values)
    if given.dtype not in _MANTISSAS:
        given = given.astype(np.float64)
    finest = math.inf
    for part in _parts(given):
        finest = min(finest, _finest(part))
        if finest < math.inf and 1 - math.frexp(finest)[1] > enough:
            break
    return 0 if finest == math.inf else 1 - math.frexp(finest)[1]


def _parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the array's values in cache-sized parts; views if it is contiguous."""
    flat = array.reshape(-1)
    return (flat[i : i + _AT_ONCE] for i in range(0, flat.size, _AT_ONCE))


def _finest(values: NDArray[Any]) -> float:
    """Return the smallest power of two of the values' lowest bits; infinity if all are 0."""
    whole, mantissa = _MANTISSAS[values.dtype]
    word = values.view(whole)
    rest = (word & (word - whole(1))).view(values.dtype)  # without the lowest bit
    power = (word & whole(mantissa)) == 0
    return float(np.where(power, np.where(values == 0, np.inf, np.abs(values)), np.abs(values - rest)).min())


def _judge(node: ir.Node, grid: Grid | None) -> NodeProof:
    if grid is None:
        norm = "a norm rounds; fold it into weights"
        reason = norm if isinstance(node, ir.Norm) else "what arrives has no declared grid"
        return NodeProof(node.name, False, None, reason)
    if grid.fraction_bits > 149:
        reason = f"terms are multiples of 2^-{grid.fraction_bits}, and float32 has none below 2^-149"
        return NodeProof(node.name, False, grid.bits, reason)
    if not grid.bound < 2.0**128:
        return NodeProof(node.name, False, grid.bits, f"sums may reach {grid.bound:.3g}, beyond float32")
    if grid.bits > MANTISSA_BITS:
        needed = math.ceil(10 * grid.bits) / 10
        return NodeProof(node.name, False, grid.bits, f"sums need {needed} bits, float32 holds {MANTISSA_BITS}")
    return NodeProof(node.name, True, grid.bits, f"every partial sum fits in {grid.bits:.1f} bits")


def output_grid(node: ir.Node, arriving: Grid | None, metadata: Mapping[str, Any]) -> Grid | None:
    """Return the grid of a node's output other than spikes, from the grid of its input; None if unknown."""
    match node:
        case ir.Input():
            return input_grid(metadata)
        case ir.Linear() | ir.Conv() if arriving is not None:
            return synaptic(node.weight, node.bias, arriving)
        case ir.Pool() if arriving is not None and (node.divisor & (node.divisor - 1)) == 0:
            window = node.kernel[0] * node.kernel[1]
            return Grid(arriving.fraction_bits + node.divisor.bit_length() - 1, arriving.bound * window / node.divisor)
        case ir.Product() if arriving is not None:
            terms = node.operand_shapes[0][-1] if node.matrices else 1
            return Grid(2 * arriving.fraction_bits, terms * arriving.bound**2)
        case ir.Reshape() | ir.Delay() | ir.Output() | ir.MaxPool() | ir.Concat() | ir.Gather():
            return arriving
    return None


def synaptic(weight: NDArray[Any], bias: NDArray[Any] | None, arriving: Grid) -> Grid:
    """Return the grid of a layer's partial sums; weight ``[outputs, ...]``, bias ``[outputs]``."""
    bits = fraction_bits(weight) + arriving.fraction_bits
    if bias is not None:
        bits = max(bits, fraction_bits(bias))
    return Grid(bits, largest_sum(weight, bias, arriving))


def largest_sum(weight: NDArray[Any], bias: NDArray[Any] | None, arriving: Grid) -> float:
    """Bound every partial sum of a layer: the largest, over its outputs, of Σ|w|·bound + |b|."""
    rows = weight.reshape(len(weight), -1)
    at_once = max(_AT_ONCE // max(rows.shape[1], 1), 1)
    parts = (rows[i : i + at_once].astype(np.float64, copy=False) for i in range(0, len(rows), at_once))
    sums = np.concatenate([np.abs(part).sum(axis=1) for part in parts]) * arriving.bound
    if bias is not None:
        sums += np.abs(bias.astype(np.float64, copy=False))
    return float(sums.max(initial=0))


def sum_grids(grids: Sequence[Grid | None]) -> Grid | None:
    """Return the grid of a sum of one value from each; None if one of them is unknown."""
    known = [grid for grid in grids if grid is not None]
    if len(known) < len(grids) or not known:
        return None
    return Grid(max(grid.fraction_bits for grid in known), sum(grid.bound for grid in known))
