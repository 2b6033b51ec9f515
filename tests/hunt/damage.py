"""Damage: bytes flipped, copied, cut and inserted; HDF5 objects, JSON, and the text of YAML and TOML changed."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def damage_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Flip, copy, cut or insert bytes, a few times."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(data) or 1))
        match int(rng.integers(6)):
            case 0 | 1:
                for position in rng.integers(max(1, len(data)), size=int(rng.integers(1, 9))):
                    data[position % max(1, len(data))] = int(rng.integers(256))
            case 2:
                data[at : at + 8] = rng.choice([0, 0xFF, 0x7F], 8).astype(np.uint8).tobytes()
            case 3:
                source = int(rng.integers(len(data) or 1))
                size = int(rng.integers(1, 65))
                data[at : at + size] = data[source : source + size]
            case 4:
                data = data[: max(1, at)] if rng.random() < 0.3 else data
            case _:
                data[at:at] = rng.bytes(int(rng.integers(1, 17)))
    return bytes(data)


def damage_hdf5(path: Path, rng: np.random.Generator) -> None:
    """Change what an HDF5 file holds, through h5py, as far as that lets us."""
    # h5py itself refuses some damage; the file as far as it got is a mutant too.
    with (
        contextlib.suppress(ValueError, TypeError, OSError, RuntimeError, KeyError, UnicodeError),
        h5py.File(path, "a") as file,
    ):
        for _ in range(int(rng.integers(1, 4))):
            names: list[str] = []
            file.visit(names.append)
            if names:
                _damage_object(file, str(rng.choice(names)), names, rng)


def _damage_object(file: h5py.File, name: str, names: list[str], rng: np.random.Generator) -> None:
    match int(rng.integers(6)):
        case 0:
            del file[name]
        case 1:
            file.move(name, str(rng.choice(["zz", "node/extra", f"{name}x", f"{name}é\n"])))
        case 2:
            del file[name]
            file[name] = _anything(rng, names)
        case 3 if isinstance(file[name], h5py.Dataset) and file[name].dtype.kind in "fiu" and file[name].shape:
            value = file[name][()]
            choices = [np.nan, np.inf, -1, 0, 1e38] if value.dtype.kind == "f" else [0, 1, 255, 2**15 - 1]
            value.flat[int(rng.integers(value.size or 1)) : None] = rng.choice(choices)
            file[name][...] = value
        case 4:
            file[name].attrs[str(rng.choice(["node", "x"]))] = rng.choice(["../a", "a\x1b", "lif", "n" * 300])
        case _ if "node/edges" in file and isinstance(file["node/edges"], h5py.Dataset):
            edges = file["node/edges"].asstr()[()]
            if isinstance(edges, np.ndarray) and edges.ndim == 2 and edges.size:
                edges[int(rng.integers(len(edges)))] = rng.choice(edges.reshape(-1), 2)
                file["node/edges"][...] = edges
        case _:
            pass


def _anything(rng: np.random.Generator, names: list[str]) -> object:
    choices = [
        rng.normal(size=rng.integers(0, 5, int(rng.integers(0, 4)))),
        np.arange(int(rng.integers(0, 4))),
        np.array([20_000, 20_000]),
        "text",
        b"\xff\xfe",
        np.array([b"a", b"bc"]),
        np.zeros(2, "f4,i4"),
        np.ones(2, complex),
        2**40,
        -1.5,
        h5py.SoftLink("/" + str(rng.choice(names))),
        h5py.ExternalLink("elsewhere.h5", "/node"),
        h5py.Empty("f4"),
    ]
    return choices[int(rng.integers(len(choices)))]


def damage_json(content: bytes, rng: np.random.Generator) -> bytes:
    """Change values, keys and kinds somewhere in a JSON text."""
    data = json.loads(content)
    for _ in range(int(rng.integers(1, 4))):
        data = _changed(data, rng)
    return json.dumps(data).encode()


def _changed(value: Any, rng: np.random.Generator) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = list(value)[int(rng.integers(len(value)))]
        match int(rng.integers(8)):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {(k + "x" if k == key else k): v for k, v in value.items()}
            case _:
                return {k: (_changed(v, rng) if k == key else v) for k, v in value.items()}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = int(rng.integers(len(value)))
        return [_changed(one, rng) if i == at else one for i, one in enumerate(value)]
    other = [None, True, -1, 0, 2**70, 1e308, 0.5, "", "text", "\x1b[2J", [], {}, [[]], {"a": 1}, float("nan"), value]
    return other[int(rng.integers(len(other)))]


def damage_text(content: bytes, rng: np.random.Generator) -> bytes:
    """Change a number, drop, double or swap lines, put in what YAML and TOML care about."""
    lines = content.decode().splitlines()
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(lines) or 1))
        match int(rng.integers(6)):
            case 0 if lines:
                del lines[at]
            case 1 if lines:
                lines.insert(at, lines[int(rng.integers(len(lines)))])
            case 2 | 3 if lines:
                words = [
                    "-1",
                    "0",
                    "1e999",
                    "999999999",
                    "null",
                    "true",
                    "[]",
                    "{}",
                    "''",
                    "1_0",
                    "!!python/name:os",
                    "&a",
                ]
                digits = [i for i, c in enumerate(lines[at]) if c.isdigit()]
                if digits:
                    place = int(rng.choice(digits))
                    lines[at] = lines[at][:place] + str(rng.choice(words)) + lines[at][place + 1 :]
            case 4 if lines:
                lines[at] = "  " + lines[at]
            case _:
                lines.insert(at, str(rng.choice(["a: *a", "- - -", "\t", "x = ", "[[", "é: ü", "network: 3", "..."])))
    return "\n".join(lines).encode()
