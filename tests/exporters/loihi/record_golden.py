"""Record what real Lava does with the networks of `nets.py` into golden/*.npz.

python -m tests.exporters.loihi.record_golden      (Lava's side environment must be there)
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stl_deploy.exporters.lava.driver import run_lava
from stl_deploy.exporters.loihi.netx import write_netx
from tests.exporters.loihi.golden import FOLDER, pack
from tests.exporters.loihi.nets import Case, random_case, special_cases

RANDOM_CASES = 40


def record(group: str, cases: dict[str, Case]) -> None:
    arrays: dict[str, NDArray[Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, (net, x) in cases.items():
            path = Path(scratch) / f"{name}.net"
            write_netx(net, path)
            run = run_lava(path, x, deadline=300)
            rates = ", ".join(f"{key} {spikes.mean():.3f}" for key, spikes in run.spikes.items())
            print(f"{group}/{name}: {rates}", flush=True)
            arrays |= {f"{name}/{key}": value for key, value in pack(path.read_bytes(), x, dict(run.spikes)).items()}
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / f"{group}.npz", allow_pickle=False, **arrays)


if __name__ == "__main__":
    record("special", special_cases())
    record("random", {f"random{seed:02d}": random_case(seed) for seed in range(RANDOM_CASES)})
