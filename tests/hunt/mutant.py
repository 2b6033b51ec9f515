"""What a format is to the hunt: whole files, ways to damage them, and what is done with a mutant.

A mutant is answered well if it is read or refused by an error of ours; anything else is a failure.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.hunt.damage import damage_bytes, damage_hdf5

Damage = Callable[[bytes, np.random.Generator], bytes]


@dataclass(frozen=True)
class Format:
    """suffix and file_name: of a mutant. originals: whole files. attempt: reads a mutant; ``read`` or ``refused``.

    damages: of the content, tried in turn; ``hdf5``: also through h5py. needs: a package without which all is refused.
    """

    suffix: str
    originals: Callable[[], list[bytes]]
    attempt: Callable[[Path], str]
    damages: tuple[Damage, ...] = (damage_bytes,)
    hdf5: bool = False
    file_name: str = "mutant"
    needs: str = "numpy"


def write_mutant(of: Format, number: int, seed: int, folder: Path) -> Path:
    """The same number and seed give the same file."""
    rng = np.random.default_rng((seed, number))
    contents = of.originals()
    content = contents[int(rng.integers(len(contents)))]
    path = folder / (of.file_name + of.suffix)
    kinds = len(of.damages) + of.hdf5
    kind = number % kinds
    path.write_bytes(content if kind == len(of.damages) else of.damages[kind](content, rng))
    if kind == len(of.damages):
        damage_hdf5(path, rng)
    return path


def npy(array: np.ndarray[Any, Any]) -> bytes:
    """An array as a .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()
