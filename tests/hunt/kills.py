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
from tests.hunt.run_formats import TINY, finished_run

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


def _again(call: Callable[[Path], list[str]], *made: str) -> Kill:
    """A verb that is simply called again, and the files that it makes."""
    return Kill(call, call, lambda f: {name: sha256(f / name) for name in made if (f / name).is_file()})


KILLS: Mapping[str, Kill] = {
    "train": Kill(_train, lambda f: _train(f, *_resume(f)), lambda f: _hashes(f / "run", _SETTLED)),
    "run": Kill(_run, lambda f: _run(f, *_resume(f)), lambda f: _hashes(f / "run", _SETTLED)),
    "fold": _again(lambda f: _stl("fold", f / "made", "-o", f / "out.nir"), "out.nir"),
    "join": _again(lambda f: _stl("join", f / "made", f / "made", "-o", f / "joint"), "joint/net.nir"),
    "verify": _again(
        lambda f: _stl("verify", f / "made", "--against", f / "made/net.onnx", f / "made/net.net", "--no-lava")
    ),
    "export netx": _again(lambda f: _stl("export", f / "made", "--to", "netx", "-o", f / "out.net"), "out.net"),
    "export": _again(lambda f: _stl("export", f / "net.nir", "--to", "onnx", "-o", f / "out.onnx"), "out.onnx"),
    "export c": _again(
        lambda f: _stl("export", f / "made", "--to", "c", "-o", f / "c"), "c/net.c", "c/net.h", "c/main.c"
    ),
    "capture": _again(
        lambda f: _stl("capture", f"{f / 'own.py'}:net", "-i", f / "x.npz", "-o", f / "out.nir"), "out.nir"
    ),
    "simulate": Kill(
        lambda f: _stl("simulate", f / "net.nir", "-i", f / "x.npz", "--backend", "reference", "-o", f / "y.npz"),
        lambda f: _stl("simulate", f / "net.nir", "-i", f / "x.npz", "--backend", "reference", "-o", f / "y.npz"),
        lambda f: {"y": str(np.load(f / "y.npz")["y"].tobytes().hex())} if (f / "y.npz").is_file() else {},
    ),
    "energy": _again(
        lambda f: _stl("energy", f / "net.nir", "-i", f / "x.npz", "-o", f / "energy"),
        "energy/energy.json", "energy/layers.csv", "energy/energy.html",
    ),
    "tradeoff": _again(
        lambda f: _stl("energy", f / "made", "--over-steps", "-o", f / "energy"),
        "energy/tradeoff.json", "energy/tradeoff.html",
    ),
    "report": _again(lambda f: _stl("report", f / "made"), "made/report.json", "made/report.html", "made/layers.csv"),
    "quantise": Kill(
        lambda f: _stl("quantise", f / "made", "-o", f / "run", "--epochs", 2),
        lambda f: _stl("quantise", f / "made", "-o", f / "run", "--epochs", 2),
        lambda f: _hashes(f / "run", _SETTLED),
    ),
}  # fmt: skip


_OWN = """
import torch
import stl_deploy

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 5), stl_deploy.LIF((5,), threshold=0.1), torch.nn.Linear(5, 2))
"""


def _place(folder: Path) -> Path:
    from stl_deploy.exporters.nir.file import write_nir
    from tests.hostile.nets import small_graph

    folder.mkdir(parents=True)
    (folder / "temporary").mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(TINY))
    (folder / "own.py").write_text(_OWN)
    (folder / "made").mkdir()
    for name, content in finished_run().items():
        (folder / "made" / name).write_bytes(content)
    write_nir(small_graph(), folder / "net.nir")
    np.savez(folder / "x.npz", x=np.ones((3, 40, 4), np.float32))
    return folder


_ENDS = {signal.SIGKILL: {-signal.SIGKILL}, signal.SIGTERM: {130}, signal.SIGINT: {130}}
"""How a verb may end by each signal; also by the signal itself, for nobody sees whether Python has begun."""


_LOADING = 3.0
"""Seconds in which a verb loads its modules on a quiet machine; half of the signals come then: it is not our code."""


def _do(command: list[str], folder: Path, by: signal.Signals = signal.SIGKILL, after: float = 1200) -> tuple[int, str]:
    """Exit code and what was said; ``by`` is sent ``after`` so many seconds, kills to all processes of the verb."""
    surroundings = os.environ | {"TMPDIR": str(folder / "temporary"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=surroundings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        if by is signal.SIGKILL:
            os.killpg(process.pid, by)
        else:
            process.send_signal(by)
        try:
            _, said = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return -signal.SIGKILL, "goes on for two minutes"
    return process.returncode, said.decode(errors="replace")


def hunt_kills(verb: str, count: int, seed: int) -> tuple[int, str, list[str]]:
    """End a verb ``count`` times at random moments by SIGKILL, SIGTERM or SIGINT, then let it end by itself.

    Returns how many were tried, how many of them were at work, and what is wrong.
    """
    kill, rng = KILLS[verb], np.random.default_rng((seed, sum(verb.encode())))
    wrong, killed = [], 0
    with tempfile.TemporaryDirectory() as name:
        for trial in ("first", "whole"):  # the first may compile and fill caches, which no later one does
            whole = _place(Path(name) / trial)
            started = time.monotonic()
            code, said = _do(kill.call(whole), whole)
            if code:
                return 1, "", [f"{verb}: fails undisturbed: {said[-300:]}"]
            seconds = time.monotonic() - started
        expected = dict(kill.made(whole))
        for number in range(count):
            folder = _place(Path(name) / f"{number}")
            moment = float(rng.uniform(0.1, 0.95)) * (seconds if number % 2 else min(seconds, _LOADING))
            by = list(_ENDS)[int(rng.integers(len(_ENDS)))]
            ended, said = _do(kill.call(folder), folder, by, moment)
            killed += ended != 0
            if ended not in {0, -by} | _ENDS[by] or "/stl_deploy/" in said.partition("Traceback")[2]:
                wrong.append(f"{verb}: {by.name} {number} (seed {seed}): exit code {ended}: {said.strip()[-300:]}")
            code, said = _do(kill.again(folder), folder)
            found = dict(kill.made(folder))
            different = [key for key in expected if found.get(key) != expected[key]]
            places = (folder, *(folder / name for name in ("run", "energy", "temporary", "made", "c")))
            left = [p.name for place in places if place.is_dir() for p in place.iterdir() if p.name[0] == "."]
            left = [one for one in left if one.startswith(temporary.PREFIX) or one == ".lock"]
            if code or different or left:
                what = f"exit code {code} ({said.strip()[-200:]}), different: {different}, left: {left}"
                wrong.append(f"{verb}: {by.name} {number} after {moment:.2f} of {seconds:.2f} s (seed {seed}): {what}")
            shutil.rmtree(folder)
    return count, f"{killed} while at work", wrong
