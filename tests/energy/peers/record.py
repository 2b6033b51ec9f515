"""Record what NeuroBench, SpikingJelly and Sinabs count, and what SANA-FE simulates, each in its own environment.

    python -m tests.energy.peers.record neurobench=ENV/bin/python spikingjelly=ENV/bin/python \\
        sinabs=ENV/bin/python sanafe=ENV/bin/python

Environments: ``pip install neurobench==2.3 snntorch==1.0.0``, ``spikingjelly==2.0.0``, ``sinabs==3.1.3``,
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

from tests.energy.peers.nets import CASES, LOIHI, arrays, loihi_arrays

GOLDEN = Path(__file__).parents[1] / "golden" / "peers.json"


def ask(python: str, framework: str, case: str) -> dict[str, Any]:
    worker = Path(__file__).with_name("sanafe_worker.py" if framework == "sanafe" else "worker.py")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.npz"
        np.savez(path, **(loihi_arrays() if case == LOIHI else arrays(case)))
        command = [python, str(worker), *([] if framework == "sanafe" else [framework]), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        sys.exit(f"{framework}: {done.stderr.strip().splitlines()[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def main(arguments: list[str]) -> None:
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    for argument in arguments:
        framework, _, python = argument.partition("=")
        golden[framework] = {
            case: ask(python, framework, case) for case in ((LOIHI,) if framework == "sanafe" else CASES)
        }
    GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
