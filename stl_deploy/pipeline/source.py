"""What a verb works on: a run folder, or a .nir, .onnx or .net file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stl_deploy.errors import InputError
from stl_deploy.graph.dialect import Dialect, load_dialect
from stl_deploy.graph.lower import lower
from stl_deploy.graph.nirfile import read_nir
from stl_deploy.graph.program import Program

Kind = Literal["run", "nir", "onnx", "net"]
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
