"""Processes killed at random moments: nothing half-written is left, and what resumes ends with the same bits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from stl_deploy._util import temporary
from stl_deploy._util.files import sha256
from tests.hunt.run_formats import TINY

ROOT = Path(__file__).parents[2]
_SETTLED = {
    "config.yaml",
    "metrics.jsonl",
    "checkpoint.safetensors",
    "model.safetensors",
    "net.nir",
    "net.onnx",
    "net.net",
}
"""Files whose bits follow from the configuration; metrics.jsonl but for the seconds."""


@dataclass(frozen=True)
class Kill:
    """A verb that is killed. call: its words, for a folder. again: what is called after a kill.

    made: the files whose bits must be those of an undisturbed call.
    """

    call: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    made: Callable[[Path], Mapping[str, str]]


def _stl(*words: object) -> list[str]:
    return [sys.executable, "-m", "stl_deploy", "-q", *map(str, words)]


def _train(folder: Path, *more: str) -> list[str]:
    return _stl("train", folder / "config.yaml", "-o", folder / "run", "--set", "train.epochs=4", *more)


def _run(folder: Path, *more: str) -> list[str]:
    return _stl("run", folder / "config.yaml", "-o", folder / "run", "--no-lava", *more)


def _hashes(folder: Path, names: set[str]) -> dict[str, str]:
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name in names and path.name not in ("metrics.jsonl", "checkpoint.safetensors", "model.safetensors"):
            found[path.name] = sha256(path)
        elif path.name == "metrics.jsonl":
            records = [json.loads(line) for line in path.read_text().splitlines()]
            found[path.name] = json.dumps([{k: v for k, v in r.items() if k != "seconds"} for r in records])
        elif path.suffix == ".safetensors":
            found[path.name] = _tensors(path)
    return found


def _tensors(path: Path) -> str:
    from safetensors.numpy import load_file

    tensors = load_file(path)
    return json.dumps({name: tensors[name].tobytes().hex()[:64] + str(tensors[name].sum()) for name in sorted(tensors)})


def _fresh(folder: Path) -> list[str]:
    return [] if (folder / "run" / "config.yaml").is_file() else ["--overwrite"]


def _resume(folder: Path) -> list[str]:
    return ["--resume"] if (folder / "run" / "config.yaml").is_file() else ["--overwrite"]


KILLS: Mapping[str, Kill] = {
    "train": Kill(_train, lambda f: _train(f, *_resume(f)), lambda f: _hashes(f / "run", _SETTLED)),
    "run": Kill(_run, lambda f: _run(f, *_resume(f)), lambda f: _hashes(f / "run", _SETTLED)),
    "export": Kill(
        lambda f: _stl("export", f / "net.nir", "--to", "onnx", "-o", f / "out.onnx"),
        lambda f: _stl("export", f / "net.nir", "--to", "onnx", "-o", f / "out.onnx"),
        lambda f: _hashes(f, {"out.onnx"}),
    ),
    "simulate": Kill(
        lambda f: _stl("simulate", f / "net.nir", "-i", f / "x.npz", "--backend", "reference", "-o", f / "y.npz"),
        lambda f: _stl("simulate", f / "net.nir", "-i", f / "x.npz", "--backend", "reference", "-o", f / "y.npz"),
        lambda f: {"y": str(np.load(f / "y.npz")["y"].tobytes().hex())} if (f / "y.npz").is_file() else {},
    ),
    "energy": Kill(
        lambda f: _stl("energy", f / "net.nir", "-i", f / "x.npz", "-o", f / "energy"),
        lambda f: _stl("energy", f / "net.nir", "-i", f / "x.npz", "-o", f / "energy"),
        lambda f: _hashes(f / "energy", {"energy.json", "layers.csv", "energy.html"}),
    ),
}


def _place(folder: Path) -> Path:
    from stl_deploy.graph.io.nir_file import write_nir
    from tests.hostile.nets import small_graph

    folder.mkdir(parents=True)
    (folder / "temporary").mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(TINY))
    write_nir(small_graph(), folder / "net.nir")
    np.savez(folder / "x.npz", x=np.ones((3, 40, 4), np.float32))
    return folder


def _do(command: list[str], folder: Path, kill_after: float | None = None) -> int:
    surroundings = os.environ | {"TMPDIR": str(folder / "temporary"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=surroundings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(kill_after if kill_after is not None else 600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def hunt_kills(verb: str, count: int, seed: int) -> tuple[int, str, list[str]]:
    """Kill a verb ``count`` times at random moments, then let it end; what was tried, and what is wrong."""
    kill, rng = KILLS[verb], np.random.default_rng((seed, sum(verb.encode())))
    wrong, killed = [], 0
    with tempfile.TemporaryDirectory() as name:
        for trial in ("first", "whole"):  # the first may compile and fill caches, which no later one does
            whole = _place(Path(name) / trial)
            started = time.monotonic()
            if _do(kill.call(whole), whole):
                return 1, "", [f"{verb}: fails undisturbed"]
            seconds = time.monotonic() - started
        expected = dict(kill.made(whole))
        for number in range(count):
            folder = _place(Path(name) / f"{number}")
            moment = float(rng.uniform(0.1, 0.95)) * seconds
            killed += _do(kill.call(folder), folder, moment) == -signal.SIGKILL
            code = _do(kill.again(folder), folder)
            found = dict(kill.made(folder))
            different = [key for key in expected if found.get(key) != expected[key]]
            places = (folder, folder / "run", folder / "energy", folder / "temporary")
            left = [p.name for place in places if place.is_dir() for p in place.iterdir() if p.name[0] == "."]
            left = [one for one in left if one.startswith(temporary.PREFIX) or one == ".lock"]
            if code or different or left:
                said = f"exit code {code}, different: {different}, left: {left}"
                wrong.append(f"{verb}: kill {number} after {moment:.2f} of {seconds:.2f} s (seed {seed}): {said}")
            shutil.rmtree(folder)
    return count, f"{killed} while at work", wrong
