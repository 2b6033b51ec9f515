"""Bad surroundings for every verb: full disks, read-only places, no HOME, closed streams, low limits."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

from tests.hunt.kills import ROOT, _place

STL = f"{sys.executable} -m stl_deploy"
VERBS = {
    "targets": "targets --json",
    "doctor": "doctor --json",
    "datasets": "datasets --json",
    "prices": "prices --json",
    "models": "models --json",
    "lava": "lava status --json",
    "witness": "witness status brian2 --json",
    "show": "show net.nir --json -o OUT/graph.svg",
    "check": "check net.nir --json",
    "export onnx": "export net.nir --to onnx -o OUT/net.onnx",
    "export netx": "export net.nir --to netx -o OUT/net.net",
    "simulate": "simulate net.nir -i x.npz --backend onnx -o OUT/y.npz --record",
    "verify": "verify net.nir --against net.nir --json",
    "energy": "energy net.nir -i x.npz -o OUT/energy --json",
    "tradeoff": "energy made --over-steps -o OUT/energy --json",
    "published": "energy validate --json",
    "export c": "export made --to c -o OUT/c",
    "fold": "fold made -o OUT/net.nir",
    "join": "join made made -o OUT/joint",
    "eval": "eval made --json",
    "verify run": "verify made --against onnx --json",
    "capture": "capture own.py:net -i x.npz -o OUT/net.nir --json",
    "report": "report made",
    "quantise": "quantise made -o OUT/run --epochs 1",
    "train": "train config.yaml -o OUT/run",
    "run": "run config.yaml -o OUT/run --no-lava",
}
SURROUNDINGS = {
    "stdout closed": "{call} >&-",
    "stderr closed": "{call} 2>&-",
    "all closed": "{call} <&- >&- 2>&-",
    "stdout full": "{call} > /dev/full",
    "stderr full": "{call} 2> /dev/full",
    "disk full after 4 KiB": "ulimit -f 4; {call}",
    "disk full after 64 KiB": "ulimit -f 64; {call}",
    "disk full at once": "ulimit -f 0; {call}",
    "no HOME": "HOME=/nonexistent XDG_CACHE_HOME=/proc/nothing {call}",
    "HOME unset": "unset HOME XDG_CACHE_HOME; {call}",
    "TMPDIR that is not there": "TMPDIR=/nonexistent {call}",
    "no place for files": "TMPDIR=/proc {call}",
    "read-only output": "OUT=/proc/sys; {call}",
    "output that is a file": "OUT=x.npz; {call}",
    "32 open files": "ulimit -n 32; {call}",
    "8 open files": "ulimit -n 8; {call}",
    "1 GiB of memory": "ulimit -v 1000000; {call}",
    "400 MiB of memory": "ulimit -v 400000; {call}",
    "a reader that leaves": "set -o pipefail; {call} | head -c 1 > /dev/null",
    "odd locale": "LC_ALL=C PYTHONIOENCODING=ascii {call}",
    "a folder that is gone": "mkdir gone; cd gone; rmdir ../gone; {call}",
}
_ENDS = {0, 1, 2, 130}


def hunt_surroundings(verbs: tuple[str, ...] = tuple(VERBS)) -> tuple[int, list[str]]:
    """Every verb in each; how many were tried, and what ended otherwise than with a sentence."""
    wrong, tried = [], 0
    with tempfile.TemporaryDirectory() as name:
        for verb, (what, form) in product(verbs, SURROUNDINGS.items()):
            tried += 1
            folder = _place(Path(name) / f"{tried}")
            call = f"{STL} {VERBS[verb]}"
            for file in ("net.nir", "x.npz", "config.yaml", "own.py", "made"):
                call = call.replace(f" {file}", f" {folder / file}")
            call = call.replace("OUT/", "$OUT/")
            command = f"OUT={folder}/out; " + form.replace("{call}", call)
            surroundings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=surroundings, capture_output=True, timeout=600, check=False
            )
            said = done.stderr.decode(errors="replace")
            if done.returncode not in _ENDS or "Traceback" in said or "internal error" in said:
                wrong.append(f"{verb}, {what}: exit code {done.returncode}: {said.strip()[-300:]}")
    return tried, wrong
