"""Record what NeuroBench, SpikingJelly and Sinabs count, and what SANA-FE simulates, each in its own environment.

    python -m tests.energy.peers.record neurobench=ENV/bin/python spikingjelly=ENV/bin/python \\
        sinabs=ENV/bin/python sanafe=ENV/bin/python

One more argument, ``digits=RUN``, first replaces the trained digits network, on which SANA-FE is asked, by that of a
run folder. Environments: ``pip install neurobench==2.3 snntorch==1.0.0``, ``spikingjelly==2.0.0``, ``sinabs==3.1.3``,
``sanafe==2.2.9 numpy``. One that is not named keeps what was recorded. Writes tests/energy/golden/peers.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.energy.peers import placed
from tests.energy.peers.nets import CASES, LOIHI, arrays, loihi_arrays

GOLDEN = Path(__file__).parents[1] / "golden" / "peers.json"


def ask(python: str, worker: str, given: dict[str, Any], *arguments: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.npz"
        np.savez(path, **given)
        command = [python, str(Path(__file__).with_name(worker)), *arguments, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        sys.exit(f"{worker}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ask_sanafe(python: str) -> dict[str, Any]:
    net, x = placed.digits()
    found = {LOIHI: ask(python, "sanafe_worker.py", loihi_arrays())}
    for name, placement in placed.placements(net).items():
        found[f"digits, {name}"] = ask(python, "sanafe_placed.py", placed.arrays(net, x, placement))
    return found


def main(arguments: list[str]) -> None:
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    for argument in arguments:
        framework, _, python = argument.partition("=")
        if framework == "digits":
            placed.keep(Path(python))
        elif framework == "sanafe":
            golden[framework] = ask_sanafe(python)
        else:
            golden[framework] = {case: ask(python, "worker.py", arrays(case), framework) for case in CASES}
    GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
