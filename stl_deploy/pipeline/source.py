"""What a verb works on: a run folder, or a .nir, .onnx or .net file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stl_deploy._util.files import leading, read_inputs
from stl_deploy.errors import InputError
from stl_deploy.graph.dialect import Dialect, load_dialect
from stl_deploy.graph.exact import input_grid, round_to_grid
from stl_deploy.graph.io.nir_file import read_nir
from stl_deploy.graph.lower import lower
from stl_deploy.graph.program import Floats, Program, Shape

Kind = Literal["run", "nir", "onnx", "net"]
NetworkInput = NDArray[Any] | Mapping[str, NDArray[Any]]
TEST_INPUT = "test.npz"
"""The file of a run folder that keeps the test images, encoded."""
_RANDOM_STEPS, _RANDOM_SAMPLES, _RANDOM_RATE = 16, 8, 0.3
_SUFFIXES: dict[str, Kind] = {".nir": "nir", ".onnx": "onnx", ".net": "net"}


@dataclass(frozen=True)
class Source:
    """A SOURCE as given: its kind, the path given, and the file that holds the network."""

    kind: Kind
    path: Path
    file: Path


def open_source(path: Path, accept: tuple[Kind, ...] = ("run", "nir")) -> Source:
    """Tell what ``path`` is by being a folder or by its suffix.

    Raises InputError if it does not exist, is of no known kind, or of a kind the verb does not take.
    """
    names = {"run": "a run folder", "nir": "a .nir file", "onnx": "an .onnx file", "net": "a .net file"}
    accepted = ", ".join(names[kind] for kind in accept)
    if path.is_dir():
        file = path / "net.nir"
        if not file.is_file():
            raise InputError(f"{path}: a folder without net.nir; is it a finished run? accepted: {accepted}")
        kind: Kind | None = "run"
    else:
        file, kind = path, _SUFFIXES.get(path.suffix)
        if not path.is_file():
            raise InputError(f"{path}: no such file or folder; accepted: {accepted}")
    if kind is None or kind not in accept:
        raise InputError(f"{path}: found {names[kind] if kind else repr(path.suffix)}; accepted: {accepted}")
    return Source(kind, path, file)


def open_program(source: Source, dialect: str | None = None) -> Program:
    """The Program of a run folder or .nir file; ``dialect``: a preset's name or a .json file.

    Raises InputError or GraphError where the file or the dialect cannot be read.
    """
    chosen: Dialect | None = load_dialect(dialect) if dialect is not None else None
    return lower(read_nir(source.file), chosen)


def dialect_note(program: Program, dialect: str | None) -> str:
    """How the file was read, as a sentence: as asked, as its metadata say, or as the spec because neither says."""
    if dialect is not None:
        return f"Dialect: {dialect} (as asked)."
    if "dialect" in program.metadata:
        return "Dialect: as the graph's metadata declare."
    return (
        "Dialect: spec, as neither --dialect nor the file's metadata say who wrote it; "
        "another one makes other spikes, so other counts."
    )


def program_input(source: Source, program: Program, file: Path | None) -> tuple[NetworkInput, str]:
    """What to run a network on, and what that is in words.

    The npz file given; else a run folder's test images; else random values from a fixed seed on the grid that the
    graph's metadata declares (0 or 1 if it declares none).
    """
    if file is None and source.kind == "run" and (source.path / TEST_INPUT).is_file():
        file = source.path / TEST_INPUT
    if file is not None:
        x, _ = read_inputs(file)
        return x, f"{leading(x)[1]} samples of {file}"
    rng = np.random.default_rng(0)
    drawn = {node.name: _random(rng, program, node.shape) for node in program.inputs}
    what = f"{_RANDOM_SAMPLES} random samples of {_RANDOM_STEPS} steps (give real ones with --input)"
    return (next(iter(drawn.values())) if len(drawn) == 1 else drawn), what


def _random(rng: np.random.Generator, program: Program, shape: Shape) -> Floats:
    size = (_RANDOM_STEPS, _RANDOM_SAMPLES, *shape)
    grid = input_grid(program.metadata)
    if grid is None or (grid.fraction_bits == 0 and grid.bound == 1):
        return (rng.random(size) < _RANDOM_RATE).astype(np.float32)
    return round_to_grid(rng.random(size) * grid.bound, grid.fraction_bits)
