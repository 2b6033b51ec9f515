"""Damaged NIR files by the thousand: ``python -m tests.fuzz_nir [--mutants 10000] [--seed 0]``.

Real files (the golden ones, as six frameworks wrote them) are damaged byte by byte (flips, blocks copied, cut,
inserted) or through h5py (fields retyped, reshaped, renamed, deleted; edges and links rewired). Each must give a
report: no exception but through a finding, no ``unexpected`` finding, no crash, no hang. Mutants run in child processes
under a memory limit and a deadline; one that ends its process is named by its number: run it alone with ``--only``.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

from stl_deploy.graph.check import check_file
from tests.conformance.golden import GOLDEN

MEMORY_BYTES = 3 * 2**30
SECONDS = 10
_CHUNK = 250


def originals() -> list[bytes]:
    """The bytes of the golden files, the smallest of each framework and direction."""
    found: dict[str, bytes] = {}
    for path in sorted(GOLDEN.glob("*.npz"), key=lambda path: path.stat().st_size):
        with np.load(path) as kept:
            found.setdefault("-".join(path.stem.split("-")[:3]), kept["nir"].tobytes())
    return list(found.values())


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
                source = int(rng.integers(len(data)))
                size = int(rng.integers(1, 65))
                data[at : at + size] = data[source : source + size]
            case 4:
                data = data[: max(1, at)] if rng.random() < 0.3 else data
            case _:
                data[at:at] = rng.bytes(int(rng.integers(1, 17)))
    return bytes(data)


def damage_objects(path: Path, rng: np.random.Generator) -> None:
    """Change what the file holds, through h5py."""
    with h5py.File(path, "a") as file:
        for _ in range(int(rng.integers(1, 4))):
            names: list[str] = []
            file.visit(names.append)
            if not names:
                return
            name = str(rng.choice(names))
            match int(rng.integers(5)):
                case 0:
                    del file[name]
                case 1:
                    file.move(name, str(rng.choice(["zz", "node/extra", f"{name}x", f"{name}é\n"])))
                case 2:
                    del file[name]
                    file[name] = _anything(rng, names)
                case 3 if isinstance(file[name], h5py.Dataset) and file[name].dtype.kind == "f" and file[name].shape:
                    value = file[name][()]
                    value.flat[int(rng.integers(value.size or 1)) : None] = rng.choice([np.nan, np.inf, -1, 0, 1e38])
                    file[name][...] = value
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


def mutant(number: int, seed: int, contents: list[bytes], path: Path) -> None:
    """Write mutant ``number`` to ``path``; the same number and seed give the same file."""
    rng = np.random.default_rng((seed, number))
    content = contents[int(rng.integers(len(contents)))]
    if number % 2:
        path.write_bytes(damage_bytes(content, rng))
        return
    path.write_bytes(content)
    # h5py itself refuses some damage; the file as far as it got is a mutant too.
    with contextlib.suppress(ValueError, TypeError, OSError, RuntimeError, KeyError, UnicodeError):
        damage_objects(path, rng)


def try_mutants(first: int, last: int, seed: int, announce: bool = False) -> Counter[str]:
    """Check mutants ``first`` to ``last``; raises AssertionError for one that is not answered as it should be."""
    contents, outcomes = originals(), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.nir"
        for number in range(first, last):
            path.unlink(missing_ok=True)
            mutant(number, seed, contents, path)
            if announce:
                print(number, flush=True)
            started = time.monotonic()
            report = check_file(path)
            taken = time.monotonic() - started
            wrong = [finding.reason for finding in report.findings if finding.slug == "unexpected"]
            assert not wrong, f"mutant {number} (seed {seed}): {wrong[0]}"
            assert taken < SECONDS, f"mutant {number} (seed {seed}): took {taken:.1f} s"
            outcomes["sound" if report.ok else next(f.slug for f in report.findings if f.severity == "error")] += 1
    return outcomes


def _child(first: int, last: int, seed: int) -> tuple[Counter[str], str]:
    """Run mutants in a process of their own; what came of them, and what went wrong ('' if nothing)."""
    command = [sys.executable, "-m", "tests.fuzz_nir", "--child", str(first), str(last), "--seed", str(seed)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired as expired:
        return Counter(), f"hangs at mutant {_last(expired.stdout)}"
    lines = done.stdout.splitlines()
    if done.returncode:
        return Counter(), f"mutant {_last(done.stdout)} ends the process ({done.returncode}): {done.stderr[-400:]}"
    return Counter({slug: int(count) for slug, count in (line.split() for line in lines if " " in line)}), ""


def _last(output: str | bytes | None) -> str:
    text = output.decode() if isinstance(output, bytes) else output or ""
    return (text.split() or ["?"])[-1]


def main() -> int:
    """Try mutants; exit status 1 if one is not answered as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run one mutant, in this process")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child or options.only is not None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        first, last = options.child or (options.only, options.only + 1)
        for slug, count in try_mutants(first, last, options.seed, announce=True).items():
            print(slug, count)
        return 0
    outcomes, wrong = Counter[str](), []
    for first in range(0, options.mutants, _CHUNK):
        found, problem = _child(first, min(first + _CHUNK, options.mutants), options.seed)
        outcomes += found
        wrong += [problem] if problem else []
    for slug, count in outcomes.most_common():
        print(f"{count:7} {slug}")
    print(f"{sum(outcomes.values())} mutants answered, {len(wrong)} batches with trouble")
    print(*wrong, sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
