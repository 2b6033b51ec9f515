"""A Xylo network as data: the arguments of the maker's ``config_from_specification``, by name, in one npz file.

Sources: Rockpool 3.1.0, ``rockpool.devices.xylo`` (argument names and shapes), and the chip's widths from its
"xylo-overview" page. Files are untrusted: shapes, ranges and sizes are checked.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import read_npz, write_npz
from stl_deploy.errors import InputError

NAME = "specification.npz"
Ints = NDArray[np.int32]
WEIGHT_LOW, WEIGHT_TOP = -128, 127
STATE_LOW, STATE_TOP = -(2**15), 2**15 - 1
"""Currents, potentials, thresholds and biases have 16 bits."""
DASH_TOP = 15
SHIFT_TOP = 7
"""The largest weight shift at which one weight fits in 16 bits."""
INPUT_CAP, HIDDEN_CAP, OUTPUT_CAP = 15, 31, 1
"""Spikes of an input channel, a hidden neuron and an output neuron in one step."""
MAX_CHANNELS, MAX_HIDDEN, MAX_OUTPUTS, MAX_SYNAPSES = 1024, 4096, 1024, 2
"""Sizes of files that are read; each chip's own limits are in `stl_deploy.exporters.xylo.devices`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Specification:
    """The integers of one chip.

    ``N`` hidden neurons: the first ``hear`` read the input, and outputs read the last ``heard``. Each hidden neuron has
    ``S`` synaptic currents (1 or 2), each output neuron 1.

    Attributes:
        weights_in: ``[channels, hear, S]``.
        weights_rec: ``[N, N, S]``, from row to column, one step late.
        weights_out: ``[heard, outputs]``, one step late.
        dash_mem, dash_syn, dash_syn_2: ``[N]``, decays of ``1 - 2^-dash``; dash_syn_2 is None if S is 1.
        threshold, bias_hidden: ``[N]``.
        weight_shift_in, weight_shift_rec, weight_shift_out: Bits to the left.
        aliases: ``[N]``, the neuron that also receives this one's spikes, or -1.

    Fields ending in ``_out`` are ``[outputs]``.
    """

    weights_in: Ints
    weights_rec: Ints
    weights_out: Ints
    dash_mem: Ints
    dash_mem_out: Ints
    dash_syn: Ints
    dash_syn_out: Ints
    threshold: Ints
    threshold_out: Ints
    bias_hidden: Ints
    bias_out: Ints
    aliases: Ints
    weight_shift_in: int = 0
    weight_shift_rec: int = 0
    weight_shift_out: int = 0
    dash_syn_2: Ints | None = None

    @property
    def channels(self) -> int:
        """Input channels."""
        return len(self.weights_in)

    @property
    def hidden(self) -> int:
        """Hidden neurons."""
        return len(self.weights_rec)

    @property
    def outputs(self) -> int:
        """Output neurons."""
        return int(self.weights_out.shape[1])

    @property
    def synapses(self) -> int:
        """Synaptic currents of a hidden neuron."""
        return int(self.weights_in.shape[2])

    @property
    def hear(self) -> int:
        """Number of hidden neurons, from the first, that may read the input."""
        return int(self.weights_in.shape[1])

    @property
    def heard(self) -> int:
        """Number of hidden neurons, up to the last, that the outputs may read."""
        return len(self.weights_out)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every argument by name, numbers as 0-dimensional arrays; those that are None are left out."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: np.asarray(value, np.int32) for name, value in given.items() if value is not None}


_SHIFTS = ("weight_shift_in", "weight_shift_rec", "weight_shift_out")


def write_specification(spec: Specification, path: Path) -> None:
    """Write the file, whole or not at all."""
    write_npz(path, spec.arrays())


def read_specification(path: Path) -> Specification:
    """Read an untrusted specification.

    A two-dimensional ``weights_in`` or ``weights_rec`` has one synapse, as the maker's function reads it. Missing
    weight shifts and biases are 0, missing aliases none. Raises InputError naming the array that does not fit.
    """
    known = {field.name for field in fields(Specification)}
    arrays = read_npz(path, known.__contains__)
    return checked(arrays, str(path))


def checked(arrays: dict[str, NDArray[Any]], where: str) -> Specification:
    """Return a Specification of these arrays; raise InputError naming ``where`` and the array that does not fit."""
    read = _Reader(arrays, where)
    weights_in = read.weights("weights_in")
    weights_rec = read.weights("weights_rec")
    if weights_rec.shape[0] != weights_rec.shape[1]:
        raise InputError(f"{where}: weights_rec: expected [N, N, S]; found {list(weights_rec.shape)}")
    weights_out = read("weights_out", WEIGHT_LOW, WEIGHT_TOP, dimensions=2)
    channels, hear, synapses = weights_in.shape
    hidden, (heard, outputs) = len(weights_rec), weights_out.shape
    sizes = {"channels": (channels, MAX_CHANNELS), "hidden neurons": (hidden, MAX_HIDDEN)}
    for what, (size, most) in (sizes | {"outputs": (outputs, MAX_OUTPUTS)}).items():
        if not 1 <= size <= most:
            raise InputError(f"{where}: expected 1 to {most:,} {what}; found {size:,}")
    windows_fit = 1 <= hear <= hidden and 1 <= heard <= hidden
    if not windows_fit or weights_rec.shape[2] != synapses or not 1 <= synapses <= MAX_SYNAPSES:
        raise InputError(
            f"{where}: expected weights_in [channels, 1 to N, S], weights_rec [N, N, S] and weights_out [1 to N, "
            f"outputs] with S of 1 or 2; found {list(weights_in.shape)}, {list(weights_rec.shape)} and "
            f"{list(weights_out.shape)}"
        )
    of_hidden = {"dash_mem": DASH_TOP, "dash_syn": DASH_TOP, "threshold": STATE_TOP}
    rows: dict[str, Any] = {name: read.row(name, hidden, 0, top) for name, top in of_hidden.items()}
    rows |= {f"{name}_out": read.row(f"{name}_out", outputs, 0, top) for name, top in of_hidden.items()}
    if synapses == MAX_SYNAPSES:
        rows["dash_syn_2"] = read.row("dash_syn_2", hidden, 0, DASH_TOP)
    rows |= {name: int(read(name, 0, SHIFT_TOP, dimensions=0, default=0)) for name in _SHIFTS}
    return Specification(
        weights_in=weights_in,
        weights_rec=weights_rec,
        weights_out=weights_out,
        bias_hidden=read.row("bias_hidden", hidden, STATE_LOW, STATE_TOP, default=0),
        bias_out=read.row("bias_out", outputs, STATE_LOW, STATE_TOP, default=0),
        aliases=read.aliases(hidden),
        **rows,
    )


class _Reader:
    """Read one array after the other, each as integers within its range."""

    def __init__(self, arrays: dict[str, NDArray[Any]], where: str) -> None:
        self._arrays, self._where = arrays, where

    def __call__(self, name: str, low: int, top: int, *, dimensions: int, default: int | None = None) -> Ints:
        if name not in self._arrays and default is not None:
            return np.asarray(default, np.int32)
        if name not in self._arrays:
            raise InputError(f"{self._where}: expected an array '{name}'; found none; export it again")
        array = self._arrays[name]
        if array.dtype.kind not in "iu" or array.ndim != dimensions:
            raise InputError(
                f"{self._where}: {name}: expected integers of {dimensions} dimensions; found {array.dtype} "
                f"{list(array.shape)}"
            )
        if array.size and (array.min() < low or array.max() > top):
            worst = array.min() if array.min() < low else array.max()
            raise InputError(f"{self._where}: {name}: expected {low:,} to {top:,}; found {int(worst):,}")
        return array.astype(np.int32)

    def weights(self, name: str) -> Ints:
        two = name in self._arrays and self._arrays[name].ndim == 2
        array = self(name, WEIGHT_LOW, WEIGHT_TOP, dimensions=2 if two else 3)
        return array[..., None] if two else array

    def row(self, name: str, size: int, low: int, top: int, default: int | None = None) -> Ints:
        if name not in self._arrays and default is not None:
            return np.full(size, default, np.int32)
        array = self(name, low, top, dimensions=1)
        if len(array) != size:
            raise InputError(f"{self._where}: {name}: expected {size} numbers; found {len(array)}")
        return array

    def aliases(self, hidden: int) -> Ints:
        aliases = self.row("aliases", hidden, -1, hidden - 1, default=-1)
        if (aliases == np.arange(hidden)).any():
            raise InputError(f"{self._where}: aliases: expected other neurons; found a neuron that is its own alias")
        return aliases
